"""APV-MCTS, AlphaGo's search: a policy network's priors, and two statistics of values, of rollouts and of a network.

Source: Silver et al. 2016, Methods, "Searching with policy and value networks". An edge is chosen by

    argmax  Q + c_puct P sqrt(sum_b N_r(b)) / (1 + N_r),     Q = (1 - lambda) W_v / N_v + lambda W_r / N_r

While a network thinks, the search goes on: its answers come in one step later, in a fixed order, so that equal seeds
give equal trees.

    step k    select leaves | start the networks on the nodes that open | roll out, back up | take what k - 1 asked for
              this thread     ........ another thread, or several .......   this thread      this thread
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.alphago.trees import DoubleTrees
from agents.alphazero.inference import priors_of
from rlkit.errors import NonFiniteLoss
from rlkit.root import deepen
from rlkit.search import Edges

Floats = NDArray[np.float32]
States = NDArray[np.int16]


@dataclass(frozen=True)
class SearchConfig:
    """The search's constants; defaults are the paper's but for the threshold, which depends on the simulations."""

    lam: float = 0.5
    """lambda: weight of rollouts against the value network, 0 .. 1; without one of them all weight is on the other"""
    c_puct: float = 5.0
    """exploration"""
    n_thr: int | None = None
    """visits of an edge that open no node behind it; the next one does. None: one in 1,000 simulations, at most 40"""
    n_vl: int = 3
    """virtual loss: lost rollouts that stand for one under way"""
    beta: float = 0.67
    """priors are p ** beta of the network's policy, normalised"""
    leaves: int = 8
    """rollouts under way at once"""
    unvisited: Literal["zero", "node"] = "zero"
    """Q of an edge that nothing is known of: 0, or the mean of what is known of its node"""

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
        """n_thr of a search of so many."""
        return min(40, (simulations or 0) // 1000) if self.n_thr is None else self.n_thr


PAPER = SearchConfig(n_thr=40)


def moves_of(game: Any, states: States) -> NDArray[np.bool_]:
    """The moves that are worth a look, [B, num_actions]: `sensible` ones where a game can tell, else all legal ones."""
    return getattr(game, "sensible", game.legal)(states)


def first_priors(moves: NDArray[np.bool_], priors: Floats | None) -> Floats:
    """Priors over `moves` [B, A] from a tree policy's, in which a move that it has no opinion of (< 0: the pass) gets
    an even share; without one all are even.
    """
    even = 1 / np.maximum(moves.sum(1, keepdims=True), 1)
    weights = np.where(moves, even if priors is None else np.where(priors < 0, even, priors), 0)
    return np.where(moves, weights / np.maximum(weights.sum(1, keepdims=True), 1e-30), -1).astype(np.float32)


class _Asked(NamedTuple):
    """Nodes that the networks think about."""

    tree: NDArray[np.int64]
    node: NDArray[np.int64]
    moves: NDArray[np.bool_]
    answers: list[Future]


class Search:
    """The loop around the trees.

    Args:
        encode: states [B, game_size] -> planes [B, C, H, W]; policy: planes -> logits [B, A]; value: planes -> [B].
        rollouts: (states, seed) -> [B], +1 a win of the side to move, of one rollout each. Without it the value
            network's answer is the visit: it goes into the rollouts' statistic, and nothing is looked at before it is
            there.
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
        self.tree_policy, self.symmetries, self.threads = tree_policy, symmetries, threads
        self.lam = cfg.lam if value and rollouts else 1.0  # the rollouts' statistic is the only one
        self.rng = np.random.default_rng(0)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="networks")  # kept: they have graphs on a GPU

    def trees(self, trees: int, nodes: int, game: Any, simulations: int | None = None) -> DoubleTrees:
        """Empty trees for searches of so many simulations."""
        cfg, n_thr = self.cfg, self.cfg.threshold(simulations) if self.rollouts else 0
        return DoubleTrees(
            trees, nodes, game.num_actions, game.state_size, lam=self.lam, c=cfg.c_puct, n_thr=n_thr, n_vl=cfg.n_vl,
            unvisited=cfg.unvisited,
        )  # fmt: skip

    def plant(self, trees: DoubleTrees, game: Any, games: States) -> None:
        """Begin the trees anew from games [G, game_size]; waits for the networks."""
        moves = np.where(game.is_over(games)[:, None], False, moves_of(game, games))
        trees.plant(games, first_priors(moves, self.tree_policy and self.tree_policy(games)))
        going = np.flatnonzero(moves.any(1))
        if asked := self._ask(going, 0 * going, games[going], moves[going]):
            self._take(trees, asked)

    def grow(self, trees: DoubleTrees, game: Any, games: States, goal: int, end: float = np.inf) -> None:
        """Search on until each root has had `goal` simulations, nothing can grow, or `time.monotonic()` is `end`."""
        asked: _Asked | None = None

        def step(edges: Edges) -> None:
            nonlocal asked
            states = game.follow(games, trees, edges.tree, edges.node, edges.action)
            over, value = game.outcome(states)
            opening, live = np.flatnonzero((edges.new != 0) & ~over), np.flatnonzero(~over)
            priors = np.full((len(edges), game.num_actions), -1, np.float32)
            moves = moves_of(game, states[opening])
            waits = self.rollouts is None and self.policy is not None  # then nobody sees the tree policy's
            guess = None if waits or self.tree_policy is None or not len(opening) else self.tree_policy(states[opening])
            priors[opening] = first_priors(moves, guess)
            trees.open(edges, states, priors, value, over)
            new = self._ask(edges.tree[opening], edges.new[opening], states[opening], moves)
            if self.rollouts is None:
                if new:
                    value[opening] = self._take(trees, new)
                trees.back_up(edges, value, over)
                return
            if len(live):
                value[live] = self.rollouts(states[live], int(self.rng.integers(1 << 62)))
            trees.back_up(edges, value, over)
            if asked:
                self._take(trees, asked)
            asked = new

        deepen(trees, step, goal, end, self.cfg.leaves)
        if asked:
            self._take(trees, asked)

    def _ask(self, tree: NDArray, node: NDArray, states: States, moves: NDArray[np.bool_]) -> _Asked | None:
        """Start the networks on new nodes."""
        if not len(states) or (self.policy is None and self.value is None):
            return None
        which = None if self.symmetries is None else self.rng.integers(len(self.symmetries), size=len(states))
        shares = np.array_split(np.arange(len(states)), min(self.threads, len(states)))
        answers = [
            self._pool.submit(self._evaluate, states[share], None if which is None else which[share])
            for share in shares
        ]
        return _Asked(tree, node, moves, answers)

    def _evaluate(self, states: States, which: NDArray[np.int64] | None) -> tuple[Any, Any]:
        planes = self.encode(states)
        turned = None if which is None or self.symmetries is None else self.symmetries[which]
        if turned is not None:
            points = planes.shape[2] * planes.shape[3]
            rows = [p[:, t[:points]] for p, t in zip(planes.reshape(*planes.shape[:2], -1), turned, strict=True)]
            planes = np.stack(rows).reshape(planes.shape)
        logits = self.policy(planes) if self.policy else None
        if logits is not None and turned is not None:
            seen, logits = logits, np.empty_like(logits)
            np.put_along_axis(logits, turned, seen, 1)
        return logits, self.value(planes) if self.value else None

    def _take(self, trees: DoubleTrees, asked: _Asked) -> Floats | None:
        """Wait for the networks' answer, and give it to the trees; returns the values."""
        logits, values = zip(*(answer.result() for answer in asked.answers), strict=True)
        priors = value = None
        if self.policy:
            priors = priors_of(np.float32(self.cfg.beta) * np.concatenate(logits), asked.moves)
        if self.value:
            value = np.concatenate(values)
        if not all(x is None or np.isfinite(x).all() for x in (priors, value)):
            raise NonFiniteLoss("a network's answer is not finite: go back to a checkpoint before that")
        trees.answer(asked.tree, asked.node, priors, value)
        return value

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()
