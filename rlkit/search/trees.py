"""Monte Carlo tree search over any two-player, zero-sum game whose sides alternate: many trees at once, in arrays.

This file knows no game. A caller binds one to it at the level of whole batches (see `agents/uct/player.py`):

    trees.plant(states, priors)                 the positions to search from
    while edges := trees.select(leaves, goal):  which edge to open in each tree (virtual loss keeps them apart)
        play these edges with the game, evaluate all new states in one call
        trees.expand(edges, states, priors, value, over)      open them and back up
    trees.N[:, 0]                               the visits that the search is for

A node is an index into the arrays of its tree; 0 is the root. Of an edge (node, action) the arrays hold the visits N,
the sum of values W and the prior P, all in the view of the side to move at the node; P < 0 marks illegal actions. A
value is in -1 .. 1. Ended games keep their exact value and cost no evaluation when they are met again.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlkit.compiled import inline_kernel, kernel

PENDING, OPEN, OVER = 0, 1, 2  # status of a node: waiting for its value, with edges, the end of a game
UCB1, PUCT = 0, 1
ENDED = 10_000  # simulations of a tree in one call of select that may meet an ended game
C_BASE = 19_652  # c(s) = c + log((1 + N + C_BASE) / C_BASE): Silver et al. 2018, pseudocode
C_VISIT = 50  # weight of a value in -1 .. 1 against logits, (C_VISIT + max N) (Q + 1) / 2: Danihelka et al. 2022


class Tree(NamedTuple):
    """The arrays of G trees, each with room for `nodes` nodes of A actions."""

    N: NDArray[np.int32]  # [G, nodes, A] visits of an edge
    W: NDArray[np.float32]  # [G, nodes, A] sum of its values
    P: NDArray[np.float32]  # [G, nodes, A] its prior
    child: NDArray[np.int32]  # [G, nodes, A] the node behind it; 0: none yet
    states: NDArray[np.int16]  # [G, nodes, state_size]
    parents: NDArray[np.int32]  # [G, nodes] the node above
    via: NDArray[np.int32]  # [G, nodes] the action that leads from it
    total: NDArray[np.int32]  # [G, nodes] visits of all edges of a node
    value: NDArray[np.float32]  # [G, nodes] a node's own evaluation, for its side to move
    status: NDArray[np.uint8]  # [G, nodes] PENDING, OPEN, OVER
    used: NDArray[np.int32]  # [G] nodes in use


class Root(NamedTuple):
    """What is special about the roots of G trees: `rlkit/search/root.py`."""

    forced: NDArray[np.float32]  # [G] k: a visited edge gets sqrt(k P N) visits at least; 0: none
    gumbel: NDArray[np.float32]  # [G, A] the scores of edges in halving, without a value
    halving: NDArray[np.int32]  # [G, nodes] visits that the edge for each simulation must have had; -1: by PUCT


class Rule(NamedTuple):
    """How an edge is chosen: see `Trees`."""

    kind: int  # UCB1 or PUCT
    c: float
    fpu: float


class Edges(NamedTuple):
    """The edges that a call of `select` opens, at most `leaves` a tree. Their number is the length."""

    tree: NDArray[np.int64]  # [edges]
    node: NDArray[np.int64]  # [edges]
    action: NDArray[np.int64]  # [edges]
    new: NDArray[np.int64]  # [edges] the node that each leads to

    def __len__(self) -> int:
        return len(self.tree)


@kernel
def puct_scale(c, total):
    """c(s) sqrt(N), the factor of P / (1 + n) at a node of N = `total` visits; `py_func` takes arrays."""
    return (c + np.log((1 + total + C_BASE) / C_BASE)) * np.sqrt(np.maximum(total, 1))


@kernel
def _ucb1(N, W, P, total, c):
    """The edge of a node with the highest upper bound: Q + c sqrt(ln N / n), unvisited ones by their priors first."""
    best, best_score, log = -1, -np.inf, np.log(max(total, 1))
    for a in range(len(N)):
        if P[a] >= 0:
            n = N[a]
            score = W[a] / n + c * np.sqrt(log / n) if n > 0 else 1e9 * (1 + P[a])
            if score > best_score:
                best, best_score = a, score
    return best


@kernel
def _puct(N, W, P, total, value, c, fpu, forced):
    """The edge with the highest Q + c(s) P sqrt(N) / (1 + n), after those of a root that `forced` asks for."""
    visited, worth = 0.0, value
    for a in range(len(N)):
        if N[a] > 0:
            visited += P[a]
            worth += W[a]
            if forced > 0 and N[a] < np.sqrt(forced * P[a] * total):
                return a
    unvisited = worth / (1 + total) - fpu * np.sqrt(visited)
    scale = puct_scale(c, total)
    best, best_score = -1, -np.inf
    for a in range(len(N)):
        if P[a] >= 0:
            n = N[a]
            score = (W[a] / n if n > 0 else unvisited) + scale * P[a] / (1 + n)
            if score > best_score:
                best, best_score = a, score
    return best


@kernel
def _halving(N, W, P, gumbel, visits):
    """Of the edges with this number of visits the best one: sequential halving, when `visits` runs through the
    numbers of `rlkit.search.root.schedule`.
    """
    best, best_score, most = -1, -np.inf, 0
    for a in range(len(N)):
        most = max(most, N[a])
    for a in range(len(N)):
        if P[a] >= 0 and N[a] == visits:
            q = W[a] / N[a] if N[a] > 0 else 0.0
            score = gumbel[a] + (C_VISIT + most) * (q + 1) / 2
            if score > best_score:
                best, best_score = a, score
    return best


@inline_kernel
def _back_up(t, g, node, value, visits, loss):
    """Add `visits` and a value, which is in the view of the side to move at `node`, to every edge above it.

    `loss` is a virtual loss put on (positive) or taken off: of whichever side chose the edge, on every level.
    """
    while node != 0:
        action, node = t.via[g, node], t.parents[g, node]
        value = -value
        t.N[g, node, action] += visits
        t.W[g, node, action] += value - loss
        t.total[g, node] += visits


@kernel
def _select(t, root, rule, goal, leaves, out):
    """out [4, G * leaves]: tree, node, action and new node of each edge; returns how many there are."""
    count = 0
    for g in range(len(goal)):
        end = count + leaves
        most = t.total[g, 0] + ENDED  # where all lines end there is no new edge: the caller may want to see the clock
        while count < end and t.total[g, 0] < min(goal[g], most) and t.status[g, 0] == OPEN:
            node, action = 0, -1
            while t.status[g, node] == OPEN:
                n, w, p, total = t.N[g, node], t.W[g, node], t.P[g, node], t.total[g, node]
                if rule.kind == UCB1:
                    action = _ucb1(n, w, p, total, rule.c)
                elif node == 0 and total < len(root.halving[g]) and root.halving[g, total] >= 0:
                    action = _halving(n, w, p, root.gumbel[g], root.halving[g, total])
                else:
                    fpu, forced = 0.0 if node == 0 else rule.fpu, root.forced[g] if node == 0 else 0.0
                    action = _puct(n, w, p, total, t.value[g, node], rule.c, fpu, forced)
                if action < 0:
                    break
                after = t.child[g, node, action]
                if after == 0:
                    break
                node = after
            if t.status[g, node] == PENDING or action < 0:
                break  # this very evaluation is under way: let it come in first (or a caller left it no action)
            if t.status[g, node] == OVER:
                _back_up(t, g, node, t.value[g, node], 1, 0.0)
                continue
            new = t.used[g]
            if new == len(t.status[g]):
                break  # full
            t.used[g] += 1
            t.child[g, node, action] = new
            t.parents[g, new], t.via[g, new], t.status[g, new] = node, action, PENDING
            _back_up(t, g, new, 0.0, 1, 1.0)
            out[0, count], out[1, count], out[2, count], out[3, count] = g, node, action, new
            count += 1
    return count


@inline_kernel
def open_node(t, g, node, state, priors, value, over):
    """Begin a node anew, with no visits."""
    t.N[g, node] = 0
    t.W[g, node] = 0
    t.child[g, node] = 0
    for i in range(len(t.states[g, node])):
        t.states[g, node, i] = state[i]
    for a in range(len(priors)):
        t.P[g, node, a] = priors[a]
    t.total[g, node] = 0
    t.value[g, node] = value
    t.status[g, node] = OVER if over else OPEN


@kernel
def _plant(t, trees, states, priors, value, over):
    for b in range(len(trees)):
        open_node(t, trees[b], 0, states[b], priors[b], value[b], over[b])
        t.used[trees[b]] = 1


@kernel
def _expand(t, tree, new, states, priors, value, over):
    for b in range(len(tree)):
        g, node = tree[b], new[b]
        open_node(t, g, node, states[b], priors[b], value[b], over[b])
        _back_up(t, g, node, value[b], 0, -1.0)  # it in place of the virtual loss; the visit is counted already


@kernel
def _advance(t, trees, actions, kept, where):
    """Make the node behind each root's action the root, and move what hangs on it to the front.

    Nodes are numbered in the order of their opening, a parent before its children, so one pass does it in place.
    """
    for b in range(len(trees)):
        g = trees[b]
        root = t.child[g, 0, actions[b]] if t.used[g] > 0 and actions[b] >= 0 else 0
        kept[b] = root != 0 and t.status[g, root] == OPEN
        count = 0
        if kept[b]:
            for i in range(root):
                where[i] = -1
            for i in range(root, t.used[g]):
                above = where[t.parents[g, i]]
                where[i] = -1
                if i != root and above < 0:
                    continue
                for a in range(len(t.N[g, i])):
                    t.N[g, count, a], t.W[g, count, a], t.P[g, count, a] = t.N[g, i, a], t.W[g, i, a], t.P[g, i, a]
                    t.child[g, count, a] = 0
                for k in range(len(t.states[g, i])):
                    t.states[g, count, k] = t.states[g, i, k]
                t.total[g, count], t.value[g, count], t.status[g, count] = t.total[g, i], t.value[g, i], t.status[g, i]
                if i != root:
                    t.child[g, above, t.via[g, i]] = count
                    t.parents[g, count], t.via[g, count] = above, t.via[g, i]
                where[i] = count
                count += 1
        t.used[g] = count


class Trees:
    """G search trees of at most `nodes` nodes each.

    Args:
        state_size: numbers (int16) that a node keeps of a state; `bytes_per_node` is what a node takes in all.
        exploration: "ucb1", Q + c sqrt(ln N / n) with unvisited edges first, in the order of their priors (Kocsis and
            Szepesvari 2006); or "puct", Q + c(s) P sqrt(N) / (1 + n), where an unvisited edge counts as the mean of
            all its node's values, less fpu times the root of the priors already visited, except at the root (Silver
            et al. 2018; first-play urgency: Wu 2019, section 2).
        c: the weight of exploration.

    What makes a root special is set by `rlkit/search/root.py`, for each search anew: noise, forced visits, halving.
    """

    def __init__(
        self,
        trees: int,
        nodes: int,
        num_actions: int,
        state_size: int,
        *,
        exploration: Literal["ucb1", "puct"] = "puct",
        c: float = 1.25,
        fpu: float = 0.0,
    ):
        if nodes < 2:
            raise ValueError(f"a tree needs room for 2 nodes at least, not {nodes}")
        edges = trees, nodes, num_actions
        self.N, self.W, self.P = np.zeros(edges, np.int32), np.zeros(edges, np.float32), np.zeros(edges, np.float32)
        self.child, self.states = np.zeros(edges, np.int32), np.zeros((trees, nodes, state_size), np.int16)
        self.parents, self.via = np.zeros((trees, nodes), np.int32), np.zeros((trees, nodes), np.int32)
        self.total, self.value = np.zeros((trees, nodes), np.int32), np.zeros((trees, nodes), np.float32)
        self.status, self.used = np.zeros((trees, nodes), np.uint8), np.zeros(trees, np.int32)
        self.forced, self.gumbel = np.zeros(trees, np.float32), np.zeros((trees, num_actions), np.float32)
        self.halving = np.full((trees, nodes), -1, np.int32)
        self.arrays = Tree(*(getattr(self, name) for name in Tree._fields))
        self.root = Root(self.forced, self.gumbel, self.halving)
        self.rule = Rule({"ucb1": UCB1, "puct": PUCT}[exploration], float(c), float(fpu))

    @property
    def bytes_per_node(self) -> int:
        arrays = self.N, self.W, self.P, self.child, self.states, self.parents, self.via, self.total, self.value
        return sum(a[0, 0].nbytes for a in (*arrays, self.status, self.halving))

    def plant(
        self,
        states: NDArray[np.int16],
        priors: NDArray[np.float32],
        value: NDArray | float = 0.0,
        trees: NDArray[np.integer] | None = None,
    ) -> None:
        """Begin the given trees [B] (None: all) anew, from states [B, >= state_size] with priors [B, num_actions]
        (negative: illegal) and the values [B] of their sides to move.
        """
        trees = np.arange(len(self.N)) if trees is None else np.asarray(trees, np.int64)
        self._check(states, priors, len(trees))
        self._forget_root(trees)
        worth = np.full(len(trees), value, np.float32)
        _plant(self.arrays, trees, states, priors, worth, np.all(priors < 0, axis=1))

    def select(self, leaves: int, goal: int | NDArray[np.integer]) -> Edges:
        """Choose up to `leaves` new edges in each tree that has had fewer than `goal` simulations (one number or [G]).

        Fewer come where ended games were met (they count at once, at most ENDED a call), where a tree is full, and
        where the best edge still waits for its value. None at all, and no more visits than before, means that the
        search is done.
        """
        out, goals = np.empty((4, len(self.N) * leaves), np.int64), np.full(len(self.N), goal, np.int64)
        count = _select(self.arrays, self.root, self.rule, goals, leaves, out)
        return Edges(*out[:, :count])

    def expand(
        self,
        edges: Edges,
        states: NDArray[np.int16],
        priors: NDArray[np.float32],
        value: NDArray[np.float32],
        over: NDArray[np.bool_],
    ) -> None:
        """Open the nodes that `select` chose, and back their values up.

        Args:
            states [edges, >= state_size] after the edges; priors [edges, num_actions], negative where illegal.
            value [edges]: for the side to move there; exact where over [edges].
        """
        self._check(states, priors, len(edges))
        assert value.shape == over.shape == (len(edges),), (value.shape, over.shape)
        _expand(self.arrays, edges.tree, edges.new, states, priors, value, over)

    def _check(self, states: NDArray, priors: NDArray, count: int) -> None:
        assert states.dtype == np.int16 and len(states) == count and states.shape[1] >= self.states.shape[2], (
            states.shape
        )
        assert priors.shape == (count, self.N.shape[2]), priors.shape

    def advance(self, actions: NDArray[np.integer], trees: NDArray[np.integer] | None = None) -> NDArray[np.bool_]:
        """Go on in the given trees [B] (None: all) from the positions after actions [B], with all that was found out
        about them: kept [B].

        A tree that does not know its action (-1: no matter which), or finds the game's end there, is not kept: it is
        empty until it is planted again. Nothing may be pending.
        """
        trees = np.arange(len(self.N)) if trees is None else np.asarray(trees, np.int64)
        kept = np.zeros(len(trees), np.bool_)
        where = np.empty(self.N.shape[1], np.int32)
        _advance(self.arrays, trees, np.asarray(actions, np.int64), kept, where)
        self.status[trees[~kept], 0] = PENDING
        self._forget_root(trees)
        return kept

    def _forget_root(self, trees: NDArray[np.integer]) -> None:
        """What made the last root special does not hold for the next."""
        self.forced[trees], self.halving[trees] = 0, -1

    def ranked(self, g: int = 0, node: int = 0) -> NDArray[np.int64]:
        """The actions of a node by visits, those of equal visits by mean value, best first: [num_actions]."""
        N, W = self.N[g, node], self.W[g, node]
        return np.lexsort((W / np.maximum(N, 1), N))[::-1]

    def line(self, g: int = 0, action: int | None = None) -> list[int]:
        """The most visited line of play of a tree, beginning with `action` if given."""
        moves, node = [], 0
        while self.status[g, node] == OPEN:
            a = int(self.ranked(g, node)[0]) if action is None else action
            if self.N[g, node, a] == 0:
                break
            moves.append(a)
            action, node = None, int(self.child[g, node, a])
            if node == 0:
                break  # a search may visit an edge before it opens a node there
        return moves

    _OF_NODES, _OF_TREES = Tree._fields[:-1], ("used", *Root._fields)

    def state_dict(self) -> dict[str, NDArray]:
        """All trees as arrays, of the nodes only those in use: [sum of used, ...]. Nothing may be pending."""
        rows = np.arange(self.N.shape[1]) < self.used[:, None]
        nodes = {name: getattr(self, name)[rows] for name in self._OF_NODES}
        return nodes | {name: getattr(self, name).copy() for name in self._OF_TREES}

    def load_state_dict(self, saved: dict[str, NDArray]) -> None:
        """Restore `state_dict`, of as many trees with room for as many nodes."""
        for name in self._OF_TREES:
            getattr(self, name)[:] = saved[name]
        rows = np.arange(self.N.shape[1]) < self.used[:, None]
        for name in self._OF_NODES:
            getattr(self, name)[rows] = saved[name]
        self.status[self.used == 0, 0] = PENDING
