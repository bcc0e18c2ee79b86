"""APV-MCTS, AlphaGo's search: a policy network's priors, and two statistics of values, of rollouts and of a network.

Source: Silver et al. 2016, Methods, "Searching with policy and value networks". An edge is chosen by

    argmax  Q + c_puct P sqrt(sum_b N_r(b)) / (1 + N_r),     Q = (1 - lambda) W_v / N_v + lambda W_r / N_r

Each step is shared by threads. A half of them begins with the networks and a half with the rollouts, so that these run
on the CPU while a device evaluates. All wait for all: equal seeds give equal trees, on equal threads.

    this thread     select leaves | networks, rollouts | back up | select leaves | ...
    another                       | rollouts, networks |                         | ...

As in the paper, a `late` search does not wait for its networks: a new node has the tree policy's priors, until the
networks' evaluations come at the end of the next step.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agents.alphago.trees import DoubleTrees
from rlkit.augmentations import turn_boards
from rlkit.errors import NonFiniteLoss
from rlkit.search.game import Game, States, moves_of
from rlkit.search.inference import priors_of
from rlkit.search.root import grow_trees
from rlkit.search.trees import Edges

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SearchConfig:
    """The search's constants; defaults are the paper's but for the threshold, which depends on the simulations."""

    lam: float = 0.5
    """lambda: weight of rollouts against the value network, 0 .. 1; without one of them all weight is on the other"""
    c_puct: float = 5.0
    """weight of exploration in the choice of a move"""
    n_thr: int | None = None
    """visits of a move before the next opens its node in the tree; None: 1 for each 1,000 simulations, at most 40"""
    n_vl: int = 3
    """virtual loss: a rollout that is under way counts as this many lost ones"""
    beta: float = 0.67
    """exponent of the policy network's probabilities, which are then normalised; below 1 they become more even"""
    leaves: int = 8
    """rollouts of each thread that are under way at once"""
    late: bool = False
    """go on with the search while the networks evaluate; on a CPU, which is busy evaluating, it gains nothing"""
    unvisited: Literal["zero", "node"] = "zero"
    """Q of a move that was never evaluated: 0 (zero), or the mean over its position's evaluated moves (node)"""

    def __post_init__(self) -> None:
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam is a weight in 0 .. 1, not {self.lam}")
        least = {"c_puct": 0, "n_thr": 0, "n_vl": 0, "beta": 0, "leaves": 1}
        for name, bound in least.items():
            if (number := getattr(self, name)) is not None and number < bound:
                raise ValueError(f"{name} is at least {bound}, not {number}")
        if self.unvisited not in ("zero", "node"):
            raise ValueError(f'unvisited is "zero" or "node", not {self.unvisited!r}')

    def threshold(self, simulations: int | None) -> int:
        """n_thr in a search of this many simulations."""
        return min(40, (simulations or 0) // 1000) if self.n_thr is None else self.n_thr


PAPER = SearchConfig(n_thr=40, late=True)


def first_priors(moves: NDArray[np.bool_], priors: Floats | None) -> Floats:
    """Priors over `moves` [B, A] from a tree policy's, in which a move without one (< 0: the pass) gets
    an even share; without a tree policy all are even.
    """
    even = 1 / np.maximum(moves.sum(1, keepdims=True), 1)
    weights = np.where(moves, even if priors is None else np.where(priors < 0, even, priors), 0)
    return np.where(moves, weights / np.maximum(weights.sum(1, keepdims=True), 1e-30), -1).astype(np.float32)


class Search:
    """The loop around the trees.

    Args:
        encode: states [B, game_size] -> planes [B, C, H, W]; policy: planes -> logits [B, A]; value: planes -> [B].
        rollouts: (states, seed) -> [B], +1 a win of the side to move, of one rollout each. Without it the value
            network's evaluation counts as the rollout, and every step waits for it.
        tree_policy: states -> priors [B, A], for nodes that the policy network has not seen yet.
        symmetries [K, A]: each evaluation is of a random one; under symmetry k point p's number comes from
            symmetries[k, p]. threads: that evaluate. rng: of symmetries and rollouts; may be replaced.
    """

    def __init__(
        self,
        cfg: SearchConfig,
        encode: Callable[[States], NDArray[np.uint8]],
        policy: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None = None,
        value: Callable[[NDArray[np.uint8]], Floats] | None = None,
        rollouts: Callable[[States, int], Floats] | None = None,
        tree_policy: Callable[[States], Floats | None] | None = None,
        symmetries: NDArray[np.int64] | None = None,
        threads: int = 1,
    ):
        if value is None and rollouts is None:
            raise ValueError("a search needs rollouts or a value network, or both")
        self.cfg, self.encode, self.policy, self.value, self.rollouts = cfg, encode, policy, value, rollouts
        self.tree_policy, self.symmetries = tree_policy, symmetries
        self.lam = cfg.lam if value and rollouts else 1.0  # the rollouts' statistic is the only one
        self.rng = np.random.default_rng(0)
        self._begin(threads)

    def _begin(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="search")  # kept: they have graphs on a GPU

    def use_threads(self, threads: int) -> None:
        """Divide each step among this many threads from now on."""
        self.close()
        self._begin(threads)

    def trees(self, trees: int, nodes: int, game: Game, simulations: int | None = None) -> DoubleTrees:
        """Empty trees for searches of this many simulations."""
        cfg, n_thr = self.cfg, self.cfg.threshold(simulations) if self.rollouts else 0
        return DoubleTrees(
            trees, nodes, game.num_actions, game.state_size, lam=self.lam, c=cfg.c_puct, n_thr=n_thr, n_vl=cfg.n_vl,
            unvisited=cfg.unvisited,
        )  # fmt: skip

    def plant(self, trees: DoubleTrees, game: Game, games: States) -> None:
        """Begin the trees anew from games [G, game_size]; waits for the networks."""
        moves = np.where(game.is_over(games)[:, None], False, moves_of(game, games))
        trees.plant(games, first_priors(moves, self._early_priors(games)))
        going = np.flatnonzero(moves.any(1))
        if len(going) and (self.policy or self.value):
            logits, value = self._evaluate(games[going], self._turns(len(going)))
            self._add_evaluations(trees, going, 0 * going, moves[going], logits, value)

    def grow(self, trees: DoubleTrees, game: Game, games: States, goal: int, end: float = np.inf) -> None:
        """Search on until each root has had `goal` simulations, nothing can grow, or `time.monotonic()` is `end`."""
        has_networks, late = bool(self.policy or self.value), self.cfg.late and self.rollouts is not None
        unfinished: deque[Callable[[], None]] = deque()

        def step(edges: Edges) -> None:
            states = game.states_after(games, trees, edges.tree, edges.node, edges.action)
            over, value = game.outcome(states)
            opens = (edges.new != 0) & ~over
            new = np.flatnonzero(opens)
            priors = np.full((len(edges), game.num_actions), -1, np.float32)
            moves = moves_of(game, states[new])
            priors[new] = first_priors(moves, self._early_priors(states[new], late))
            trees.open(edges, states, priors, value, over)
            turns, seeds = self._turns(len(edges)), self.rng.integers(1 << 62, size=self.threads)
            logits, worth = np.empty_like(priors), np.empty_like(value)

            def networks(rows: NDArray[np.int64]) -> None:
                if len(rows := rows[opens[rows]]):
                    found = self._evaluate(states[rows], None if turns is None else turns[rows])
                    for out, part in zip((logits, worth), found, strict=True):
                        if part is not None:
                            out[rows] = part

            def rollouts(rows: NDArray[np.int64], seed: int) -> None:
                if self.rollouts and len(rows := rows[~over[rows]]):
                    value[rows] = self.rollouts(states[rows], seed)

            def work(share: int, rows: NDArray[np.int64]) -> None:
                here = has_networks and not late
                if here and share % 2 == 0:
                    networks(rows)
                rollouts(rows, int(seeds[share]))
                if here and share % 2 == 1:
                    networks(rows)

            def finish() -> None:
                if pending:
                    pending.result()
                if has_networks and len(new):
                    self._add_evaluations(trees, edges.tree[new], edges.new[new], moves, logits[new], worth[new])

            every = np.arange(len(edges))
            pending = self._pool.submit(networks, every) if has_networks and late else None
            first, *rest = np.array_split(every, min(self.threads, len(edges)))
            others = [self._pool.submit(work, share, rows) for share, rows in enumerate(rest, 1)]
            work(0, first)
            for other in others:
                other.result()
            if not self.rollouts:
                value[new] = worth[new]
            trees.back_up(edges, value, over)
            unfinished.append(finish)
            if len(unfinished) > late:
                unfinished.popleft()()

        grow_trees(trees, step, goal, end, self.cfg.leaves * self.threads)
        for finish in unfinished:
            finish()

    def _early_priors(self, states: States, late: bool = False) -> Floats | None:
        """The tree policy's priors, where they are used before the policy network's."""
        return self.tree_policy(states) if self.tree_policy and len(states) and (late or not self.policy) else None

    def _turns(self, count: int) -> NDArray[np.int64] | None:
        """A random symmetry for each evaluation."""
        return None if self.symmetries is None else self.rng.integers(len(self.symmetries), size=count)

    def _evaluate(self, states: States, turns: NDArray[np.int64] | None) -> tuple[Floats | None, Floats | None]:
        """The networks' (logits [B, A], values [B]); None without that network."""
        planes = self.encode(states)
        turned = None if turns is None or self.symmetries is None else self.symmetries[turns]
        if turned is not None:
            planes = turn_boards(planes, turned)
        logits = self.policy(planes) if self.policy else None
        if logits is not None and turned is not None:
            seen, logits = logits, np.empty_like(logits)
            np.put_along_axis(logits, turned, seen, 1)
        return logits, self.value(planes) if self.value else None

    def _add_evaluations(
        self,
        trees: DoubleTrees,
        tree: NDArray,
        node: NDArray,
        moves: NDArray,
        logits: Floats | None,
        value: Floats | None,
    ) -> None:
        """Add the networks' priors and values to the trees."""
        priors = priors_of(np.float32(self.cfg.beta) * logits, moves) if self.policy and logits is not None else None
        value = value if self.value else None
        if not all(x is None or np.isfinite(x).all() for x in (priors, value)):
            raise NonFiniteLoss("a network's output is not finite: go back to a checkpoint before that")
        trees.add_evaluations(tree, node, priors, value)

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()
