"""What is special about the root of a search: added exploration, and the policy and move that result from it.

Two ways through a search, for any of the trees at any time:

    perturb(trees, rng, which, ...)             begin_halving(trees, rng, which, considered, goal)
    ... select and expand ...                   ... select and expand ...
    visit_policy(trees, which)                  improved_policy(trees, which)
    a draw from it                              halving_choice(trees, which)

AlphaGo Zero's on the left: noise, visits in proportion to which it plays and learns. Gumbel AlphaZero's on the right
(Danihelka et al. 2022): it considers a few actions drawn without replacement and halves their number as the visits
grow; its policy improves on the prior from a few simulations on. (Below the root both go by PUCT; the paper's "full"
form does not.) `which` are numbers of trees: [B]. `grow_trees` is the loop around one tree or some.
"""

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.search.trees import C_VISIT, OPEN, Edges, Trees, puct_scale

Which = NDArray[np.integer]
LEAVES = 8
"""new edges a tree opens at once: enough to share a call's overhead; with more the search gets less accurate"""


def perturb(
    trees: Trees,
    rng: np.random.Generator,
    which: Which,
    noise: float = 0.25,
    alpha: float = 10.0,
    temperature: float = 1.0,
    forced: float = 0.0,
) -> None:
    """Make the roots explore in their next search.

    Args:
        noise: share of Dirichlet noise in the priors, of a concentration that sums to `alpha` over the legal moves.
        temperature: the priors are first raised to the power 1 / temperature.
        forced: k; a root's edge that has been visited gets sqrt(k P N) visits at least (Wu 2019, section 3.2).
    """
    P = trees.P[which, 0]
    legal = P >= 0
    P = np.where(legal, P, 0)
    if temperature != 1:
        P = P ** (1 / temperature)
        P /= np.maximum(P.sum(1, keepdims=True), 1e-30)
    if noise:
        draws = rng.standard_gamma(np.where(legal, alpha / np.maximum(legal.sum(1, keepdims=True), 1), 1.0))
        draws = np.where(legal, draws, 0)
        draws /= np.maximum(draws.sum(1, keepdims=True), 1e-30)
        P = (1 - noise) * P + noise * draws
    trees.P[which, 0] = np.where(legal, P, -1)
    trees.forced[which] = forced


def visit_policy(trees: Trees, which: Which) -> NDArray[np.float32]:
    """The share of visits of each action: [B, num_actions], rows sum to 1.

    Visits that only `forced` asked for are taken out again: as many of an action's forced ones as leave its bound
    below that of the most visited, and a single visit that is left (Wu 2019, section 3.2, policy target pruning).
    """
    N, total = trees.N[which, 0].astype(np.float64), trees.total[which, 0].astype(np.float64)[:, None]
    forced = trees.forced[which][:, None]
    if forced.any():
        P, q = np.maximum(trees.P[which, 0], 0), trees.W[which, 0] / np.maximum(N, 1)
        scale = puct_scale.py_func(trees.rule.c, total)
        rows, best = np.arange(len(N)), N.argmax(1)
        bound = (q + scale * P / (1 + N))[rows, best][:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            enough = np.where(bound > q, np.ceil(scale * P / (bound - q) - 1), N)
        least = np.maximum(N - np.floor(np.sqrt(forced * P * total)), enough)
        left = np.clip(least, 0, N)
        left[(left <= 1) & (forced > 0)] = 0
        left[rows, best] = N[rows, best]
        N = left
    return (N / np.maximum(N.sum(1, keepdims=True), 1)).astype(np.float32)


@cache
def schedule(considered: int, simulations: int) -> tuple[int, ...]:
    """How many visits the edge for each simulation must have had, so that sequential halving comes out.

    `considered` actions share the first 1 / log2(considered) of the simulations equally, the better half of them the
    next, and so on down to two.
    """
    visits, alive = [0] * considered, considered
    out: list[int] = []
    phases = max(1, math.ceil(math.log2(max(considered, 2))))
    while len(out) < simulations:
        for _ in range(max(1, simulations // (phases * alive))):
            out += visits[:alive]
            visits[:alive] = [v + 1 for v in visits[:alive]]
        alive = max(2, alive // 2) if considered > 1 else 1
    return tuple(out[:simulations])


def begin_halving(trees: Trees, rng: np.random.Generator, which: Which, considered: int, goal: int) -> None:
    """Draw the Gumbel noise of these roots, which must have no visits yet, for searches of `goal` simulations over
    at most `considered` actions each.
    """
    assert not trees.total[which, 0].any(), "sequential halving begins with a root that has no visits"
    P = trees.P[which, 0]
    noise = rng.gumbel(size=P.shape)
    trees.gumbel[which] = np.where(P >= 0, noise + np.log(np.maximum(P, 1e-30)), -np.inf)
    for g, count in zip(which, np.minimum((P >= 0).sum(1), considered), strict=True):
        row = schedule(int(count), goal)[: trees.halving.shape[1]] if count else ()
        trees.halving[g, : len(row)] = row


def _completed(trees: Trees, which: Which) -> NDArray[np.float64]:
    """An estimate of each action's value, in units of logits: [B, num_actions] (Danihelka et al. 2022, eq. 8, 33).

    An action without a visit counts as the mean of the network's value and of the visited actions' by their priors.
    """
    N, W, P = trees.N[which, 0], trees.W[which, 0].astype(np.float64), np.maximum(trees.P[which, 0], 0)
    total, value = trees.total[which, 0][:, None], trees.value[which, 0][:, None]
    q = W / np.maximum(N, 1)
    seen = np.where(N > 0, P, 0)
    by_prior = (seen * q).sum(1, keepdims=True) / np.maximum(seen.sum(1, keepdims=True), 1e-30)
    mixed = (value + total * by_prior) / (1 + total)
    return (C_VISIT + N.max(1, keepdims=True)) * (np.where(N > 0, q, mixed) + 1) / 2


def improved_policy(trees: Trees, which: Which) -> NDArray[np.float32]:
    """softmax(logits + completed values): [B, num_actions], 0 at illegal actions (Danihelka et al. 2022, eq. 11)."""
    P = trees.P[which, 0]
    scores = np.where(P >= 0, np.log(np.maximum(P, 1e-30)) + _completed(trees, which), -np.inf)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def halving_choice(trees: Trees, which: Which) -> NDArray[np.int64]:
    """The actions that sequential halving ends with: the best of the most visited, [B]."""
    N = trees.N[which, 0]
    scores = trees.gumbel[which] + _completed(trees, which)
    return np.where(N.max(1, keepdims=True) == N, scores, -np.inf).argmax(1)


def grow_trees(
    trees: Trees, open_edges: Callable[[Edges], None], goal: int, end: float = np.inf, leaves: int = LEAVES
) -> None:
    """Search until each root has had `goal` simulations, until nothing can grow, or until `time.monotonic()` is `end`.

    Args:
        trees: planted; open_edges: plays the edges, evaluates, and expands. One batch at least is searched.
        leaves: new edges a tree opens at once, when it is no longer small.
    """
    while True:
        # few at a time while a tree is small, or all of them would go to the first edges
        growing, before = trees.total[trees.status[:, 0] == OPEN, 0], int(trees.total[:, 0].sum())
        edges = trees.select(min(leaves, 1 + int(growing.min(initial=goal)) // 8), goal)
        if len(edges):
            open_edges(edges)
        elif trees.total[:, 0].sum() == before:
            return
        if time.monotonic() > end:
            return


def table(trees: Trees, g: int = 0, priors: NDArray | None = None) -> list[dict[str, Any]]:
    """The visited moves of a tree by visits: move, visits, winrate (0 to 1), prior, and pv, the line that follows.

    priors: [num_actions], where those in the tree are not probabilities.
    """
    N, W, P = trees.N[g, 0], trees.W[g, 0], trees.P[g, 0] if priors is None else priors
    return [
        {
            "move": a,
            "visits": int(N[a]),
            "winrate": float(W[a] / N[a] + 1) / 2,
            "prior": float(P[a]),
            "pv": trees.line(g, a),
        }
        for a in map(int, trees.ranked(g))
        if N[a] > 0
    ]


def describe(trees: Trees, g: int = 0, name: Callable[[int], str] = str, most: int = 10) -> str:
    """A table of the root's moves for people: visits N, mean value Q, prior P, and the line that follows."""
    lines = [f"{trees.total[g, 0]} simulations, value {trees.value[g, 0]:+.3f}", "move      N       Q      P  line"]
    for row in table(trees, g)[:most]:
        line = " ".join(map(name, row["pv"]))
        q = 2 * row["winrate"] - 1
        lines.append(f"{name(row['move']):<5}{row['visits']:>6}{q:>+8.3f}{row['prior']:>7.3f}  {line}")
    return "\n".join(lines)
