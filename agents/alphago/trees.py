"""Search trees with two statistics of values: of rollouts, and of a value network (Silver et al. 2016, Methods).

They are the trees of `rlkit/search/trees.py` with other verbs:

    trees.plant(states, priors, value)
    while edges := trees.select(leaves, goal):  edges to roll out from, and which of them open a node
        trees.open(edges, states, priors, value, over)      with the priors that are at hand
        trees.back_up(edges, value, over)       the rollouts' results, in place of the virtual losses
        trees.add_evaluations(tree, node, priors, value)  the networks' outputs at open nodes, which may come later
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlkit.compiled import inline_kernel, kernel
from rlkit.search.trees import ENDED, OPEN, OVER, PENDING, Edges, Trees, open_node


class Values(NamedTuple):
    """The value network's statistic: see `DoubleTrees`."""

    N: NDArray[np.int32]  # [G, nodes] evaluations at the node and below it
    W: NDArray[np.float32]  # [G, nodes] sum of their values, for the side that moved to the node


class Mixture(NamedTuple):
    """How an edge is chosen: as in `SearchConfig`."""

    lam: float
    c: float
    n_thr: int
    n_vl: int
    from_node: bool  # an edge without an evaluation counts as the mean of its node


@kernel
def _mean(w, n, wv, nv, lam, otherwise):
    """Q. Where only one statistic has counts, it has all the weight, unless lambda gives it none."""
    rollouts = lam if n > 0 else 0.0
    values = 1.0 - lam if nv > 0 else 0.0
    if rollouts + values == 0.0:
        return otherwise
    out = rollouts * w / n if rollouts > 0.0 else 0.0
    if values > 0.0:
        out += values * wv / nv
    return out / (rollouts + values)


@inline_kernel
def _choose(t, v, g, node, mix):
    N, W, P, child, total = t.N[g, node], t.W[g, node], t.P[g, node], t.child[g, node], t.total[g, node]
    otherwise = _mean(W.sum(), total, -v.W[g, node], v.N[g, node], mix.lam, 0.0) if mix.from_node else 0.0
    scale = mix.c * np.sqrt(max(total, 1))  # with the paper's 0 a node's first visit would be of its first edge
    best, best_score = -1, -np.inf
    for a in range(len(N)):
        if P[a] >= 0:
            nv, wv = (v.N[g, child[a]], v.W[g, child[a]]) if child[a] != 0 else (0, np.float32(0))
            score = _mean(W[a], N[a], wv, nv, mix.lam, otherwise) + scale * P[a] / (1 + N[a])
            if score > best_score:
                best, best_score = a, score
    return best


@inline_kernel
def _visit(t, g, node, action, value, visits, loss):
    """Add `visits` and a value (for the side that chose the edge) to an edge and all above it; `loss` is subtracted for
    either side.
    """
    while True:
        t.N[g, node, action] += visits
        t.W[g, node, action] += value - loss
        t.total[g, node] += visits
        if node == 0:
            break
        action, node, value = t.via[g, node], t.parents[g, node], -value


@inline_kernel
def _credit(t, v, g, node, value):
    """Count a value of the side to move at `node` for it and all above it."""
    while True:
        value = -value
        v.N[g, node] += 1
        v.W[g, node] += value
        if node == 0:
            break
        node = t.parents[g, node]


@inline_kernel
def _link(t, g, node, action):
    new = t.used[g]
    t.used[g] += 1
    t.child[g, node, action] = new
    t.parents[g, new], t.via[g, new], t.status[g, new] = node, action, PENDING
    return new


@kernel
def _select(t, v, mix, goal, leaves, out):
    """out [4, G * leaves]: tree, node, action and new node of each edge; returns how many there are."""
    count = 0
    for g in range(len(goal)):
        first, end, done = count, count + leaves, t.total[g, 0]
        most = done + ENDED
        while count < end and done + count - first < goal[g] and done < most and t.status[g, 0] == OPEN:
            node, action = 0, -1
            while t.status[g, node] == OPEN:
                action = _choose(t, v, g, node, mix)
                if action < 0 or t.child[g, node, action] == 0:
                    break
                node = t.child[g, node, action]
            if t.status[g, node] == PENDING or action < 0:
                break  # opened by this very call
            if t.status[g, node] == OVER:
                worth = t.value[g, node]
                _visit(t, g, t.parents[g, node], t.via[g, node], -worth, 1, 0.0)
                _credit(t, v, g, node, worth)
                done += 1
                continue
            visits = t.N[g, node, action] + 1
            for i in range(first, count):  # those under way there are one each, whatever n_vl
                if out[1, i] == node and out[2, i] == action:
                    visits -= mix.n_vl - 1
            new = 0
            if visits > mix.n_thr:
                if t.used[g] == len(t.status[g]):
                    break  # full
                new = _link(t, g, node, action)
            _visit(t, g, node, action, 0.0, mix.n_vl, mix.n_vl)
            out[0, count], out[1, count], out[2, count], out[3, count] = g, node, action, new
            count += 1
    return count


@kernel
def _open(t, v, edges, states, priors, value, over):
    for b in range(len(edges.tree)):
        g = edges.tree[b]
        if over[b]:  # needs no evaluation, so it gets its node whatever the threshold
            edges.new[b] = t.child[g, edges.node[b], edges.action[b]]
            if edges.new[b] == 0 and t.used[g] < len(t.status[g]):
                edges.new[b] = _link(t, g, edges.node[b], edges.action[b])
        new = edges.new[b]
        if new != 0:
            open_node(t, g, new, states[b], priors[b], value[b] if over[b] else np.float32(np.nan), over[b])
            v.N[g, new], v.W[g, new] = 0, 0


@kernel
def _back_up(t, v, edges, value, over, n_vl):
    for b in range(len(edges.tree)):
        g = edges.tree[b]
        _visit(t, g, edges.node[b], edges.action[b], -value[b], 1 - n_vl, -n_vl)
        if over[b] and edges.new[b] != 0:
            _credit(t, v, g, edges.new[b], value[b])


@kernel
def _add_values(t, v, tree, new, value):
    for b in range(len(tree)):
        t.value[tree[b], new[b]] = value[b]
        _credit(t, v, tree[b], new[b], value[b])


@kernel
def _recount(t, v, trees):
    for g in trees:
        for i in range(t.used[g]):
            known = t.status[g, i] != PENDING and not np.isnan(t.value[g, i])
            ended = t.status[g, i] == OVER and i > 0
            v.N[g, i] = (t.N[g, t.parents[g, i], t.via[g, i]] if ended else 1) if known else 0
            v.W[g, i] = -v.N[g, i] * t.value[g, i] if known else 0.0
        for i in range(t.used[g] - 1, 0, -1):  # a parent comes before its children
            v.N[g, t.parents[g, i]] += v.N[g, i]
            v.W[g, t.parents[g, i]] -= v.W[g, i]


class DoubleTrees(Trees):
    """Search trees with two statistics: N and W are those of rollouts, with virtual loss on them while these run.

    The value network's lie with the node behind an edge, as an edge without a node has none: Nv counts the
    evaluations at the node and below it, Wv sums them for the side that chose the edge; `value` is nan where the
    network has not evaluated. An ended game counts in both.

    Args:
        lam, c, n_vl, unvisited: as in SearchConfig; n_thr: a number.
    """

    def __init__(
        self,
        trees: int,
        nodes: int,
        num_actions: int,
        state_size: int,
        *,
        lam: float = 0.5,
        c: float = 5.0,
        n_thr: int = 0,
        n_vl: int = 3,
        unvisited: str = "zero",
    ):
        super().__init__(trees, nodes, num_actions, state_size, c=c)
        self.mixture = Mixture(float(lam), float(c), n_thr, n_vl, unvisited == "node")
        self.Nv, self.Wv = np.zeros((trees, nodes), np.int32), np.zeros((trees, nodes), np.float32)
        self.values = Values(self.Nv, self.Wv)

    @property
    def bytes_per_node(self) -> int:
        return super().bytes_per_node + 8

    def plant(
        self,
        states: NDArray[np.int16],
        priors: NDArray[np.float32],
        value: NDArray | float = np.nan,
        trees: NDArray[np.integer] | None = None,
    ) -> None:
        """As `Trees.plant`; value: nan where the network has not evaluated."""
        super().plant(states, priors, value, trees)
        self.recount(trees)

    def select(self, leaves: int, goal: int | NDArray[np.integer]) -> Edges:
        """Choose up to `leaves` edges in each tree; the same one may come several times. `new` is the node that an edge
        opens, or 0 where it has been visited too little for one.

        All other rules are those of `Trees.select`. Every edge must be given to `open`, and then to `back_up`.
        """
        out, goals = np.empty((4, len(self.N) * leaves), np.int64), np.full(len(self.N), goal, np.int64)
        count = _select(self.arrays, self.values, self.mixture, goals, leaves, out)
        return Edges(*out[:, :count])

    def open(
        self,
        edges: Edges,
        states: NDArray[np.int16],
        priors: NDArray[np.float32],
        value: NDArray[np.float32],
        over: NDArray[np.bool_],
    ) -> None:
        """Open the nodes that `select` chose, and one for each ended game, with the priors that are at hand.

        Args:
            states [edges, >= state_size] after the edges; priors [edges, num_actions], negative where illegal (only
            those of new nodes matter); value [edges]: exact where over [edges], else not looked at.
        """
        self._check(states, priors, len(edges))
        _open(self.arrays, self.values, edges, states, priors, value, over)

    def back_up(self, edges: Edges, value: NDArray[np.float32], over: NDArray[np.bool_]) -> None:
        """Replace the virtual losses by the rollouts' results: value [edges] for the sides to move after the edges."""
        _back_up(self.arrays, self.values, edges, value, over, self.mixture.n_vl)

    def add_evaluations(
        self, tree: NDArray, new: NDArray, priors: NDArray[np.float32] | None, value: NDArray[np.float32] | None
    ) -> None:
        """Set the priors [B, num_actions] of open nodes [B], and back up the value network's values [B]."""
        if priors is not None:
            self.P[tree, new] = priors
        if value is not None:
            _add_values(self.arrays, self.values, tree, new, value)

    def advance(self, actions: NDArray[np.integer], trees: NDArray[np.integer] | None = None) -> NDArray[np.bool_]:
        """As `Trees.advance`."""
        kept = super().advance(actions, trees)
        self.recount(trees)
        return kept

    def recount(self, trees: NDArray[np.integer] | None = None) -> None:
        """Nv and Wv of whole trees [B] (None: all), from the values of their nodes."""
        trees = np.arange(len(self.N)) if trees is None else np.asarray(trees, np.int64)
        _recount(self.arrays, self.values, trees)

    def load_state_dict(self, saved: dict[str, NDArray]) -> None:
        """As `Trees.load_state_dict`."""
        super().load_state_dict(saved)
        self.recount()

    def Q(self, g: int = 0, node: int = 0) -> NDArray[np.float32]:
        """Q of a node's actions, 0 where nothing was evaluated: [num_actions]."""
        N, child = self.N[g, node], self.child[g, node]
        nv, wv = np.where(child != 0, self.Nv[g, child], 0), self.Wv[g, child]
        lam = self.mixture.lam
        rollouts, values = lam * (N > 0), (1 - lam) * (nv > 0)
        both = rollouts * self.W[g, node] / np.maximum(N, 1) + values * wv / np.maximum(nv, 1)
        return (both / np.where(rollouts + values > 0, rollouts + values, 1)).astype(np.float32)

    def ranked(self, g: int = 0, node: int = 0) -> NDArray[np.int64]:
        """The actions of a node by visits, those of equal visits by Q, best first: [num_actions]."""
        return np.lexsort((self.Q(g, node), self.N[g, node]))[::-1]
