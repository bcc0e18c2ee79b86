"""Search trees with two statistics of values: of rollouts, and of a value network (Silver et al. 2016, Methods).

They are the trees of `rlkit/search/trees.py` with other verbs:

    trees.plant(states, priors, value)
    while edges := trees.select(leaves, goal):  edges to roll out from, and which of them open a node
        trees.open(edges, states, priors, value, over)      with the priors that are at hand
        trees.back_up(edges, value, over)       what the rollouts brought, in place of the virtual losses
        trees.answer(tree, node, priors, value) what the networks say of open nodes, as late as they like
"""

import numpy as np
from numpy.typing import NDArray

from rlkit.compiled import kernel
from rlkit.search.trees import ENDED, OPEN, OVER, PENDING, Edges, Trees


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


@kernel
def _choose(N, W, P, child, Nv, Wv, total, node, lam, c, from_node):
    otherwise = _mean(W.sum(), total, -Wv[node], Nv[node], lam, 0.0) if from_node else 0.0
    scale = c * np.sqrt(max(total, 1))  # with the paper's 0 a node's first visit would be of its first edge
    best, best_score = -1, -np.inf
    for a in range(len(N)):
        if P[a] >= 0:
            nv, wv = (Nv[child[a]], Wv[child[a]]) if child[a] != 0 else (0, np.float32(0))
            score = _mean(W[a], N[a], wv, nv, lam, otherwise) + scale * P[a] / (1 + N[a])
            if score > best_score:
                best, best_score = a, score
    return best


@kernel
def _visit(N, W, total, parents, via, node, action, value, visits, loss):
    """Give an edge and all above it so many visits and a value, in the view of whoever chose the edge; `loss` is
    taken off of every side's.
    """
    while True:
        N[node, action] += visits
        W[node, action] += value - loss
        total[node] += visits
        if node == 0:
            break
        action, node, value = via[node], parents[node], -value


@kernel
def _credit(Nv, Wv, parents, node, value):
    """Count a value of the side to move at `node` for it and all above it."""
    while True:
        value = -value
        Nv[node] += 1
        Wv[node] += value
        if node == 0:
            break
        node = parents[node]


@kernel
def _link(child, parents, via, status, used, node, action):
    new = used[0]
    used[0] += 1
    child[node, action] = new
    parents[new], via[new], status[new] = node, action, PENDING
    return new


@kernel
def _select(
    N, W, P, child, total, value, status, parents, via, used, Nv, Wv, goal, lam, c, from_node, n_thr, n_vl, leaves,
    out, count,
):  # fmt: skip
    for g in range(len(N)):
        count[g] = 0
        before, ended = total[g, 0], 0
        while count[g] < leaves and before + ended + count[g] < goal[g] and ended < ENDED and status[g, 0] == OPEN:
            node, action = 0, -1
            while status[g, node] == OPEN:
                action = _choose(
                    N[g, node], W[g, node], P[g, node], child[g, node], Nv[g], Wv[g], total[g, node], node, lam, c,
                    from_node,
                )  # fmt: skip
                if action < 0 or child[g, node, action] == 0:
                    break
                node = child[g, node, action]
            if status[g, node] == PENDING or action < 0:
                break  # opened by this very call
            if status[g, node] == OVER:
                worth = value[g, node]
                _visit(N[g], W[g], total[g], parents[g], via[g], parents[g, node], via[g, node], -worth, 1, 0.0)
                _credit(Nv[g], Wv[g], parents[g], node, worth)
                ended += 1
                continue
            k = count[g]
            visits = N[g, node, action] + 1
            for i in range(k):  # those under way there are one each, whatever n_vl
                if out[g, i, 1] == node and out[g, i, 2] == action:
                    visits -= n_vl - 1
            new = 0
            if visits > n_thr:
                if used[g] == len(status[g]):
                    break  # full
                new = _link(child[g], parents[g], via[g], status[g], used[g:], node, action)
            _visit(N[g], W[g], total[g], parents[g], via[g], node, action, 0.0, n_vl, n_vl)
            out[g, k, 0], out[g, k, 1], out[g, k, 2], out[g, k, 3] = g, node, action, new
            count[g] += 1


@kernel
def _open(
    N, W, P, child, states, total, value, status, parents, via, used, Nv, Wv, tree, node, action, new, rows, priors,
    worth, over,
):  # fmt: skip
    for b in range(len(tree)):
        g = tree[b]
        if over[b]:  # needs no evaluation, so it gets its node whatever the threshold
            new[b] = child[g, node[b], action[b]]
            if new[b] == 0 and used[g] < len(status[g]):
                new[b] = _link(child[g], parents[g], via[g], status[g], used[g:], node[b], action[b])
        at = new[b]
        if at == 0:
            continue
        N[g, at], W[g, at], child[g, at] = 0, 0, 0
        for a in range(len(P[g, at])):
            P[g, at, a] = priors[b, a]
        for i in range(len(states[g, at])):
            states[g, at, i] = rows[b, i]
        total[g, at], Nv[g, at], Wv[g, at] = 0, 0, 0
        value[g, at] = worth[b] if over[b] else np.nan
        status[g, at] = OVER if over[b] else OPEN


@kernel
def _back_up(N, W, total, parents, via, Nv, Wv, tree, node, action, new, value, over, n_vl):
    for b in range(len(tree)):
        g = tree[b]
        _visit(N[g], W[g], total[g], parents[g], via[g], node[b], action[b], -value[b], 1 - n_vl, -n_vl)
        if over[b] and new[b] != 0:
            _credit(Nv[g], Wv[g], parents[g], new[b], value[b])


@kernel
def _answer(value, parents, Nv, Wv, tree, new, worth):
    for b in range(len(tree)):
        g = tree[b]
        value[g, new[b]] = worth[b]
        _credit(Nv[g], Wv[g], parents[g], new[b], worth[b])


@kernel
def _recount(N, value, status, parents, via, used, Nv, Wv, trees):
    for b in range(len(trees)):
        g = trees[b]
        for i in range(used[g]):
            known = status[g, i] != PENDING and not np.isnan(value[g, i])
            Nv[g, i] = (N[g, parents[g, i], via[g, i]] if status[g, i] == OVER and i > 0 else 1) if known else 0
            Wv[g, i] = -Nv[g, i] * value[g, i] if known else 0.0
        for i in range(used[g] - 1, 0, -1):  # a parent comes before its children
            Nv[g, parents[g, i]] += Nv[g, i]
            Wv[g, parents[g, i]] -= Wv[g, i]


class DoubleTrees(Trees):
    """Search trees with two statistics: N and W are those of rollouts, with virtual loss on them while these run.

    The value network's lie with the node behind an edge, as an edge without a node has none: Nv counts the
    evaluations at the node and below it, Wv sums them in the view of whoever chose the edge; `value` is nan where the
    network has said nothing. An ended game counts in both.

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
        self.lam, self.n_thr, self.n_vl, self.from_node = float(lam), n_thr, n_vl, unvisited == "node"
        self.Nv, self.Wv = np.zeros((trees, nodes), np.int32), np.zeros((trees, nodes), np.float32)

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
        """As `Trees.plant`; value: nan where the network has said nothing."""
        super().plant(states, priors, value, trees)
        self.recount(trees)

    def select(self, leaves: int, goal: int | NDArray[np.integer]) -> Edges:
        """Choose up to `leaves` edges in each tree; the same one may come several times. `new` is the node that an edge
        opens, or 0 where it has been visited too little for one.

        All other rules are those of `Trees.select`. Every edge must be given to `open`, and then to `back_up`.
        """
        out, count = np.empty((len(self.N), leaves, 4), np.int64), np.zeros(len(self.N), np.int64)
        _select(
            self.N, self.W, self.P, self.child, self.total, self.value, self.status, self.parents, self.via, self.used,
            self.Nv, self.Wv, np.full(len(self.N), goal, np.int64), self.lam, self.c, self.from_node, self.n_thr,
            self.n_vl, leaves, out, count,
        )  # fmt: skip
        return Edges(*np.ascontiguousarray(out[np.arange(leaves) < count[:, None]].T))

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
        _open(
            self.N, self.W, self.P, self.child, self.states, self.total, self.value, self.status, self.parents,
            self.via, self.used, self.Nv, self.Wv, edges.tree, edges.node, edges.action, edges.new, states, priors,
            value, over,
        )  # fmt: skip

    def back_up(self, edges: Edges, value: NDArray[np.float32], over: NDArray[np.bool_]) -> None:
        """What the rollouts brought the sides to move after the edges, [edges], in place of the virtual losses."""
        _back_up(
            self.N, self.W, self.total, self.parents, self.via, self.Nv, self.Wv, edges.tree, edges.node, edges.action,
            edges.new, value, over, self.n_vl,
        )  # fmt: skip

    def answer(
        self, tree: NDArray, new: NDArray, priors: NDArray[np.float32] | None, value: NDArray[np.float32] | None
    ) -> None:
        """What the networks say of open nodes [B]: new priors [B, num_actions], and values [B], which are backed up."""
        if priors is not None:
            self.P[tree, new] = priors
        if value is not None:
            _answer(self.value, self.parents, self.Nv, self.Wv, tree, new, value)

    def advance(self, actions: NDArray[np.integer], trees: NDArray[np.integer] | None = None) -> NDArray[np.bool_]:
        """As `Trees.advance`."""
        kept = super().advance(actions, trees)
        self.recount(trees)
        return kept

    def recount(self, trees: NDArray[np.integer] | None = None) -> None:
        """Nv and Wv of whole trees [B] (None: all), from the values of their nodes."""
        trees = np.arange(len(self.N)) if trees is None else np.asarray(trees, np.int64)
        _recount(self.N, self.value, self.status, self.parents, self.via, self.used, self.Nv, self.Wv, trees)

    def load_state_dict(self, saved: dict[str, NDArray]) -> None:
        """As `Trees.load_state_dict`."""
        super().load_state_dict(saved)
        self.recount()

    def Q(self, g: int = 0, node: int = 0) -> NDArray[np.float32]:
        """Of a node's actions, 0 where nothing is known: [num_actions]."""
        N, child = self.N[g, node], self.child[g, node]
        nv, wv = np.where(child != 0, self.Nv[g, child], 0), self.Wv[g, child]
        rollouts, values = self.lam * (N > 0), (1 - self.lam) * (nv > 0)
        both = rollouts * self.W[g, node] / np.maximum(N, 1) + values * wv / np.maximum(nv, 1)
        return (both / np.where(rollouts + values > 0, rollouts + values, 1)).astype(np.float32)

    def ranked(self, g: int = 0, node: int = 0) -> NDArray[np.int64]:
        """The actions of a node by visits, those of equal visits by Q, best first: [num_actions]."""
        return np.lexsort((self.Q(g, node), self.N[g, node]))[::-1]
