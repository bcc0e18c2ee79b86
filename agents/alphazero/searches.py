"""Many positions searched at once by a network, for a review of a whole game and for questions about many positions.

searches = Searches(Heads(network), positions, 200)
while searches.step():               one call of the network has a position of each tree
    ...
searches.analysis(0)                 what was found at positions[0]
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agents.alphazero.network import BoardNetwork
from rlkit import runtime
from rlkit.search.game import Game, Position
from rlkit.search.inference import NetworkFunction, open_edges, priors_of
from rlkit.search.root import table
from rlkit.search.trees import OPEN, OVER, Tree, Trees

ROWS = 64
"""positions in one call of the network, where trees are few: more of them hardly raise the positions a second"""
MEMORY = 10**9
"""bytes of the trees of one object at most; trees without room for all their simulations have fewer"""
NODES = 1_024
"""that a tree has room for when it begins, at most; then twice as many, and so on: whoever asks for a million
simulations may not want to wait for them"""
KNOWN = 100_000
"""states whose outputs are remembered at most: on 9x9 some 100 MB"""
UNIT = 127
"""of an ownership, which is kept in a byte for each point"""


class Heads(NetworkFunction):
    """A network of the heads "policy" and "value", and perhaps "score" and "ownership", with a memory: the trees of
    positions of one game meet the same states again and again, a third of all in a game of 50 moves.
    """

    def __init__(self, network: BoardNetwork):
        super().__init__(network)
        self.others = [name for name in ("score", "ownership") if name in network.of_points]
        self.known: dict[int, tuple[NDArray[np.float32], ...]] = {}
        """the outputs by the hash of what the network saw"""

    def read(self, out: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return tuple(out[name] for name in ("policy", "value", *self.others))

    def __call__(self, planes: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """(logits [B, A], value [B], and of the others those that it has)."""
        if len(self.known) > KNOWN:
            self.known.clear()
        keys = [hash(row.tobytes()) for row in planes]
        new = list({key: i for i, key in enumerate(keys) if key not in self.known}.values())
        if new:
            for i, *outputs in zip(new, *self.outputs(planes[new]), strict=True):
                self.known[keys[i]] = tuple(outputs)
        return tuple(map(np.stack, zip(*(self.known[key] for key in keys), strict=True)))


class Searches:
    """A search tree of each position, all grown together, without noise.

    Args:
        positions: of boards of one size, each with its own komi and rules; finished games are known exactly.
        simulations: of each tree, one number or [positions].
        c_puct: exploration; leaves: edges that a tree opens at once, at most.
        allowed: [positions, num_actions], the moves that a search may begin with; None: all legal ones.
        komi: what the network was trained with, if its head "score" is to be corrected for other komis.
    Raises ValueError for positions of several sizes.
    """

    def __init__(
        self,
        heads: Heads,
        positions: Sequence[Position],
        simulations: int | NDArray[np.integer],
        *,
        c_puct: float = 1.5,
        leaves: int = 8,
        allowed: NDArray[np.bool_] | None = None,
        komi: float | None = None,
    ):
        rows = [position.states() for position in positions]
        sizes = {(game.num_actions, game.state_size) for game, _ in rows}
        if len(sizes) != 1:
            raise ValueError("one search is for positions, at least one, on boards of one size")
        self.heads, self.leaves = heads, leaves
        # rules, komi and the cap of moves stand in the rows: the longest game has room for all
        self.game: Game = max((game for game, _ in rows), key=lambda game: game.moves_cap)
        self.games = np.zeros((len(rows), max(row.shape[1] for _, row in rows)), np.int16)
        for g, (_, row) in enumerate(rows):
            self.games[g, : row.shape[1]] = row[0]
        self.goal = np.full(len(rows), simulations, np.int64)
        """simulations of each tree, [positions]; set to 0, its search ends where it is"""
        actions, state_size = sizes.pop()
        planes = self.game.encode(self.games)
        self.shape: tuple[int, int] = planes.shape[2:]
        """(H, W)"""
        points = self.shape[0] * self.shape[1]
        room = MEMORY // (len(rows) * (16 * actions + 2 * state_size + points + 32))
        self.most_nodes = max(2, min(int(self.goal.max()) + 1, room))
        """that a tree may come to have"""
        nodes, self.c_puct = min(self.most_nodes, NODES), c_puct
        self.trees = Trees(len(rows), nodes, actions, state_size, exploration="puct", c=c_puct)
        komis = [komi if komi is None else getattr(position, "komi", komi) for position in positions]
        shift = [0.0 if komi is None or own is None else komi - own for own in komis]
        self.shift = np.array(shift, np.float32)
        """what the first player gains by the komi being another than that of training: [positions], points"""
        self.first = self.game.to_play(self.games) == 1
        """whose turn it is at the roots: [positions]"""
        self.score = np.zeros((len(rows), nodes), np.float32)  # of the first player, in points
        self.owner = np.zeros((len(rows), nodes, points if "ownership" in heads.others else 0), np.int8)
        self._last: tuple[NDArray[np.float32], ...] = ()
        self._plant(planes, allowed)

    def _plant(self, planes: NDArray[np.uint8], allowed: NDArray[np.bool_] | None) -> None:
        logits, value = self._evaluate(planes)
        legal = self.game.legal(self.games)
        self.policy = priors_of(logits, legal)
        """the network's at the roots, -1 where a move is illegal: [positions, num_actions]"""
        over, outcome = self.game.outcome(self.games)
        priors = self.policy if allowed is None else priors_of(logits, legal & allowed)
        self.trees.plant(self.games, priors, np.where(over, outcome, value))
        roots = np.arange(len(planes))
        self._note(roots, 0 * roots, self.first)
        if over.any():
            self._note_ends(np.flatnonzero(over), 0 * roots[over])

    def _evaluate(self, planes: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self._last = self.heads(planes)
        return self._last[0], self._last[1]

    def _note(self, tree: NDArray, node: NDArray, first: NDArray[np.bool_]) -> None:
        """Keep what the network said last, of these nodes; first: whose turn it is there."""
        sign = np.where(first, 1, -1).astype(np.float32)
        for name, values in zip(self.heads.others, self._last[2:], strict=True):
            if name == "score":
                self.score[tree, node] = sign * values * (self.shape[0] * self.shape[1]) + self.shift[tree]
            else:
                self.owner[tree, node] = np.rint(UNIT * sign[:, None] * values.reshape(len(values), -1))

    def _note_ends(self, tree: NDArray, node: NDArray) -> None:
        """The same of ended games, exactly, where the game can tell."""
        states, game = self.trees.states[tree, node], self.game
        if "score" in self.heads.others and hasattr(game, "score"):
            self.score[tree, node] = game.score(states)
        if "ownership" in self.heads.others and hasattr(game, "ownership"):
            self.owner[tree, node] = UNIT * game.ownership(states).reshape(len(states), -1)

    def step(self) -> bool:
        """Open some more edges, with one call of the network. False: all trees have had their simulations, or are
        full."""
        runtime.share_cores()
        nodes = self.trees.N.shape[1]
        if nodes < self.most_nodes and (self.trees.used == nodes)[self.trees.total[:, 0] < self.goal].any():
            self._enlarge(min(2 * nodes, self.most_nodes))
        trees, total = self.trees, self.trees.total[:, 0]
        growing = total[(trees.status[:, 0] == OPEN) & (total < self.goal)]
        if not len(growing):
            return False
        before = int(total.sum())
        # few at a time while a tree is small, or all of them would go to the first edges
        leaves = min(self.leaves, max(1, ROWS // len(growing)), 1 + int(growing.min()) // 8)
        edges = trees.select(leaves, self.goal)
        if not len(edges):
            return int(total.sum()) > before
        open_edges(trees, self.game, self.games, edges, self._evaluate)
        ended = trees.status[edges.tree, edges.new] == OVER
        live, over = np.flatnonzero(~ended), np.flatnonzero(ended)
        if len(live):
            tree, node = edges.tree[live], edges.new[live]
            self._note(tree, node, self.game.to_play(trees.states[tree, node]) == 1)
        if len(over):
            self._note_ends(edges.tree[over], edges.new[over])
        return True

    def _enlarge(self, nodes: int) -> None:
        """Give all trees room for so many nodes."""
        old, (count, before, actions) = self.trees, self.trees.N.shape
        self.trees = Trees(count, nodes, actions, old.states.shape[2], exploration="puct", c=self.c_puct)
        self.trees.used[:] = old.used
        for name in Tree._fields[:-1]:
            getattr(self.trees, name)[:, :before] = getattr(old, name)
        for name in ("score", "owner"):
            kept = getattr(self, name)
            setattr(self, name, np.zeros((count, nodes, *kept.shape[2:]), kept.dtype))
            getattr(self, name)[:, :before] = kept

    @property
    def done(self) -> int:
        """Simulations of all trees together, so far."""
        return int(self.trees.total[:, 0].sum())

    def analysis(self, g: int, owners_of_moves: bool = False) -> dict[str, Any]:
        """What was found so far at one position; all is in the view of its side to move, and plain Python but for
        arrays.

        "visits", "winrate" (0 to 1), "policy" [num_actions] (-1: illegal) and "moves": the visited ones by visits, as
        `rlkit.search.root.table` has them. Where the network has these heads, "score" and "score_stdev", the lead in
        points and how it varies in the tree, of the position and of each move, and "ownership" [H, W].
        """
        trees, sign = self.trees, 1 if self.first[g] else -1
        used, total = int(trees.used[g]), int(trees.total[g, 0])
        worth = float(trees.value[g, 0] + trees.W[g, 0].sum()) / (1 + total)
        found: dict[str, Any] = {
            "visits": 1 + total,
            "winrate": (worth + 1) / 2,
            "policy": self.policy[g],
            "moves": table(trees, g, self.policy[g]),
        }
        branch, weight = self._branches(g)
        order = {move["move"]: i for i, move in enumerate(found["moves"], 1)}
        row = np.array([0, *(order.get(int(move), 0) for move in branch[1:])])
        every = [found, *found["moves"]]

        def mean(values: NDArray) -> NDArray:  # [used, K] -> [1 + moves, K], the first of the whole tree
            sums = np.zeros((len(every), values.shape[1]))
            np.add.at(sums, row, weight[:, None] * values)
            sums[0] = sums.sum(0)
            counts = np.bincount(row, weight, len(every))
            counts[0] = counts.sum()
            means: NDArray = sums / np.maximum(counts, 1e-9)[:, None]
            return means

        if "score" in self.heads.others:
            scores = sign * self.score[g, :used, None].astype(np.float64)
            lead, square = mean(scores)[:, 0], mean(scores**2)[:, 0]
            for entry, x, x2 in zip(every, lead.tolist(), square.tolist(), strict=True):
                entry["score"], entry["score_stdev"] = x, max(x2 - x * x, 0.0) ** 0.5
        if "ownership" in self.heads.others:
            owners = mean(self.owner[g, :used]) * (sign / UNIT)
            for entry, owner in zip(every[: None if owners_of_moves else 1], owners, strict=False):
                entry["ownership"] = owner.reshape(self.shape)
        return found

    def _branches(self, g: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Of the nodes of a tree: the root's action above each, and how many simulations ended there: [used]."""
        trees, used = self.trees, int(self.trees.used[g])
        parents, via = trees.parents[g, :used].copy(), trees.via[g, :used].astype(np.int64)
        parents[0] = 0
        above = np.where(parents == 0, np.arange(used), parents)
        while (further := above[above]).tobytes() != above.tobytes():
            above = further
        visits = trees.N[g, parents, via]
        weight = np.where(trees.status[g, :used] == OVER, visits, 1).astype(np.float64)
        weight[0] = 1
        return via[above], weight
