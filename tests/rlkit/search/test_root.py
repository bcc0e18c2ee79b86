"""Exploration at the root, and what comes of a search: by hand, and on bandits whose answer is known."""

import numpy as np
import pytest

from envs.tictactoe import TicTacToe, values
from rlkit.search import root
from rlkit.search.trees import C_BASE, Trees

GAME = TicTacToe()
ONE = np.array([0])


def planted(priors, value=0.0, nodes=200, trees=1, **options):
    """Trees at the empty board of tic-tac-toe."""
    out = Trees(trees, nodes, 9, 10, **options)
    rows = np.tile(np.asarray(priors, np.float32), (trees, 1))
    out.plant(GAME.reset(trees), rows, np.full(trees, value, np.float32))
    return out


def play_bandit(trees, means, goal, rng=None):
    """Search where each of the root's actions is worth means[action] (and a noisy 1 or -1, if `rng`)."""
    while len(edges := trees.select(1, goal)):
        first, node = edges.action.copy(), edges.node.copy()
        while node.any():
            first = np.where(node > 0, trees.via[edges.tree, node], first)
            node = trees.parents[edges.tree, node]
        depth = (trees.states[edges.tree, edges.node, :9] != 0).sum(1) + 1
        worth = means[edges.tree, first] if means.ndim == 2 else means[first]
        if rng is not None:
            worth = np.where(rng.random(len(worth)) < (worth + 1) / 2, 1.0, -1.0)
        value = np.where(depth % 2 == 1, -worth, worth).astype(np.float32)
        states = GAME.states_after(GAME.reset(1), trees, edges.tree, edges.node, edges.action)
        legal = states[:, :9] == 0
        priors = np.where(legal, 1 / np.maximum(legal.sum(1, keepdims=True), 1), -1).astype(np.float32)
        trees.expand(edges, states, priors, value, ~legal.any(1))


def test_puct_by_hand():
    priors = np.array([0.5, 0.3, 0.2, *[0.0] * 6])
    trees = planted(priors, value=0.1, c=1.5, fpu=0.4)
    trees.N[0, 0, :2], trees.W[0, 0, :2], trees.total[0, 0] = [4, 2], [1.0, -0.5], 6
    c = 1.5 + np.log((1 + 6 + C_BASE) / C_BASE)
    bounds = [0.25 + c * 0.5 * 6**0.5 / 5, -0.25 + c * 0.3 * 6**0.5 / 3]
    unvisited = (0.1 + 0.5) / 7 + c * 0.2 * 6**0.5  # at the root no reduction: the mean of its own value and all visits
    assert np.argmax([*bounds, unvisited]) == 2
    assert trees.select(1, 100).action[0] == 2
    # At the opponent's node after action 0 the reduction holds: with it, action 2 is tried no more.
    below = planted(priors, value=0.1, c=1.5, fpu=0.4)
    edges = below.select(1, 1)
    state = GAME.states_after(GAME.reset(1), below, edges.tree, edges.node, edges.action)
    below.expand(edges, state, priors[None].astype(np.float32), np.array([0.1], np.float32), np.array([False]))
    below.N[0, 1, :2], below.W[0, 1, :2], below.total[0, 1] = [4, 3], [3.0, 2.25], 7
    seen = [0.75 + c * 0.5 * 7**0.5 / 5, 0.75 + c * 0.3 * 7**0.5 / 4]
    new = (0.1 + 5.25) / 8 + c * 0.2 * 7**0.5
    assert new > max(seen) > new - 0.4 * 0.8**0.5
    below.P[0, 0, 1:] = -1  # the only way leads there
    edges = below.select(1, 100)
    assert (edges.node[0], edges.action[0]) == (1, np.argmax(seen))


def test_noise_stays_on_the_legal_moves_and_scales_with_their_number():
    rng = np.random.default_rng(0)
    priors = np.full((4000, 9), 0.25, np.float32)
    priors[:, 4:] = -1
    trees = Trees(4000, 2, 9, 10)
    trees.plant(GAME.reset(4000), priors)
    root.perturb(trees, rng, np.arange(4000), noise=0.5, alpha=8.0)
    P = trees.P[:, 0]
    assert (P[:, 4:] == -1).all() and np.allclose(P[:, :4].sum(1), 1, atol=1e-5)
    draws = (P[:, :4] - 0.125) / 0.5  # a Dirichlet of four times 8 / 4: variance (1/4)(3/4)/(8 + 1)
    np.testing.assert_allclose(draws.var(0), 0.1875 / 9, rtol=0.1)
    np.testing.assert_allclose(draws.mean(0), 0.25, atol=0.01)


def test_root_temperature_by_hand():
    trees = planted([0.64, 0.36, *[-1.0] * 7])
    root.perturb(trees, np.random.default_rng(0), ONE, noise=0, temperature=2.0)
    np.testing.assert_allclose(trees.P[0, 0, :3], [0.8 / 1.4, 0.6 / 1.4, -1], rtol=1e-6)


def test_forced_visits_are_made_and_pruned():
    means = np.array([0.5, -0.5, -0.5, *[-0.5] * 6])
    priors = np.array([0.4, 0.3, 0.1, *[0.2 / 6] * 6])
    visits, policies = [], []
    for forced in (0.0, 2.0):
        trees = planted(priors, c=1.0)
        root.perturb(trees, np.random.default_rng(0), ONE, noise=0, forced=forced)
        play_bandit(trees, means, 150)
        visits.append(trees.N[0, 0].copy())
        policies.append(root.visit_policy(trees, ONE)[0])
        if forced:
            touched = visits[-1] > 0
            assert (visits[-1][touched] >= np.floor(np.sqrt(forced * trees.P[0, 0, touched] * 149))).all()
    np.testing.assert_allclose(policies[0], visits[0] / 150, rtol=1e-6)
    assert visits[1][1] > visits[0][1] + 2  # forced, and
    assert policies[1][1] < visits[1][1] / 150 / 2  # taken out again
    assert policies[1][0] > 0.9 and policies[1].sum() == pytest.approx(1)


def test_pruning_by_hand():
    trees = planted([0.5, 0.5, *[-1.0] * 7], c=1.0)
    trees.forced[0] = 2.0
    trees.N[0, 0, :2], trees.W[0, 0, :2], trees.total[0, 0] = [90, 10], [45.0, -5.0], 100
    c = 1.0 + np.log((1 + 100 + C_BASE) / C_BASE)
    bound = 0.5 + c * 0.5 * 10 / 91
    enough = np.ceil(c * 0.5 * 10 / (bound + 0.5) - 1)  # visits at which action 1 would not be chosen any more
    left = max(10 - np.floor(np.sqrt(2 * 0.5 * 100)), enough)
    np.testing.assert_allclose(root.visit_policy(trees, ONE)[0, :2], np.array([90, left]) / (90 + left), rtol=1e-6)


@pytest.mark.parametrize(("considered", "simulations"), [(1, 5), (2, 16), (4, 16), (16, 64), (16, 32), (5, 20), (9, 7)])
def test_the_schedule_halves(considered, simulations):
    """Played by itself it is possible: some action always has the visits that are asked for."""
    visits = [0] * considered
    for wanted in root.schedule(considered, simulations):
        visits[visits.index(wanted)] += 1
    assert sum(visits) == simulations == len(root.schedule(considered, simulations))
    if (considered, simulations) == (4, 16):  # two phases of eight: 2 each, then 4 each for the better half
        assert sorted(visits, reverse=True) == [6, 6, 2, 2]


def test_halving_finds_the_best_arm_and_its_policy_improves_on_the_prior():
    """1,000 random bandits: by the true values the new policy and the choice are better than the prior's."""
    count, goal = 1000, 16
    rng = np.random.default_rng(5)
    logits, means = rng.normal(size=(count, 9)), rng.uniform(-1, 1, (count, 9))
    priors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    trees = Trees(count, goal + 2, 9, 10)
    trees.plant(GAME.reset(count), priors.astype(np.float32), (priors * means).sum(1).astype(np.float32))
    which = np.arange(count)
    root.begin_halving(trees, rng, which, 8, goal)
    play_bandit(trees, means, goal)
    assert (trees.total[:, 0] == goal).all()
    before, improved = (priors * means).sum(1), (root.improved_policy(trees, which) * means).sum(1)
    assert (improved >= before - 1e-3).all(), "with exact values no policy may get worse"
    assert improved.mean() > before.mean() + 0.5
    chosen = means[which, root.halving_choice(trees, which)]
    assert chosen.mean() > before.mean() + 0.5
    # noisy values: better on average
    trees.plant(GAME.reset(count), priors.astype(np.float32), before.astype(np.float32))
    root.begin_halving(trees, rng, which, 8, goal)
    play_bandit(trees, means, goal, rng)
    noisy = (root.improved_policy(trees, which) * means).sum(1)
    assert noisy.mean() > before.mean() + 0.2
    sem = (noisy - before).std() / count**0.5
    assert (noisy - before).mean() > 5 * sem


def test_improved_policy_by_hand():
    trees = planted([0.2, 0.3, 0.5, *[-1.0] * 6], value=0.25)
    trees.N[0, 0, :2], trees.W[0, 0, :2], trees.total[0, 0] = [3, 1], [1.5, -0.5], 4
    q = np.array([0.5, -0.5])
    mixed = (0.25 + 4 * (0.2 * 0.5 + 0.3 * -0.5) / 0.5) / 5
    logits = np.log([0.2, 0.3, 0.5]) + (50 + 3) * (np.array([*q, mixed]) + 1) / 2
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(root.improved_policy(trees, ONE)[0, :3], expected, rtol=1e-5, atol=1e-9)
    assert not root.improved_policy(trees, ONE)[0, 3:].any()


def test_halving_never_leaves_the_legal_moves():
    rng = np.random.default_rng(1)
    legal = rng.random((500, 9)) < 0.4
    legal[:, 0] = True
    priors = np.where(legal, 1 / legal.sum(1, keepdims=True), -1).astype(np.float32)
    trees = Trees(500, 40, 9, 10)
    trees.plant(GAME.reset(500), priors)
    which = np.arange(500)
    root.begin_halving(trees, rng, which, 16, 32)
    play_bandit(trees, np.zeros(9), 32)
    assert (trees.N[:, 0][~legal] == 0).all() and (trees.total[:, 0] == 32).all()
    assert legal[which, root.halving_choice(trees, which)].all()


def test_goals_differ_by_tree_and_state_survives():
    trees = planted(np.full(9, 1 / 9), trees=3)
    play_bandit(trees, np.linspace(-1, 1, 9), np.array([5, 0, 60]))
    assert trees.total[:, 0].tolist() == [5, 0, 60]
    saved = {name: array.copy() for name, array in trees.state_dict().items()}
    other = Trees(3, 200, 9, 10)
    other.load_state_dict(saved)
    for search in (trees, other):
        play_bandit(search, np.linspace(-1, 1, 9), 80)
    for name, array in trees.state_dict().items():
        np.testing.assert_array_equal(array, other.state_dict()[name], err_msg=name)


def test_a_tree_describes_itself():
    trees = planted([0.75, 0.25, *[-1.0] * 7], value=0.5)
    play_bandit(trees, np.array([-0.5, 0.5, *[0.0] * 7]), 30)
    text = root.describe(trees, name="abcdefghi".__getitem__)
    assert text.splitlines()[0] == "30 simulations, value +0.500"
    best = text.splitlines()[2].split()
    assert best[0] == "b" and int(best[1]) == trees.N[0, 0, 1] and best[2] == "+0.500" and best[4] == "b"


def solve(states, simulations):
    """The most visited moves after a search that knows nothing but the rules, and the roots' mean values: [games]."""
    games = len(states)
    trees = Trees(games, simulations + 2, 9, 10, c=1.25)
    legal = GAME.legal(states)
    trees.plant(states, np.where(legal, 1 / legal.sum(1, keepdims=True), -1).astype(np.float32))
    while len(edges := trees.select(1, simulations)):
        after = GAME.states_after(states, trees, edges.tree, edges.node, edges.action)
        over, value = GAME.outcome(after)
        legal = GAME.legal(after)
        priors = np.where(legal, 1 / np.maximum(legal.sum(1, keepdims=True), 1), -1).astype(np.float32)
        trees.expand(edges, after, priors, value, over)
    rows, best = np.arange(games), trees.N[:, 0].argmax(1)
    return best, trees.W[rows, 0, best] / trees.N[rows, 0, best]


@pytest.mark.slow
def test_tictactoe_is_solved():
    """200 games at once against random moves, half as each side: none lost, none illegal."""
    rng = np.random.default_rng(4)
    states, result = GAME.reset(200), np.zeros(200, np.float32)
    first = np.arange(200) % 2 == 0  # who the search is
    going = np.arange(200)
    for move in range(9):
        mine = going[first[going] == (move % 2 == 0)]
        other = going[first[going] != (move % 2 == 0)]
        actions = np.zeros(200, np.int64)
        if len(mine):
            actions[mine] = solve(states[mine], 1200)[0]
        if len(other):
            actions[other] = (rng.random((len(other), 9)) * GAME.legal(states[other])).argmax(1)
        assert GAME.legal(states[going])[np.arange(len(going)), actions[going]].all()
        rows = states[going]
        GAME.play(rows, actions[going])
        states[going] = rows
        over, value = GAME.outcome(rows)
        result[going[over]] = np.where(first[going[over]] == (move % 2 == 0), -value[over], value[over])
        going = going[~over]
    assert not len(going) and (result >= 0).all() and result.mean() > 0.7


def test_values_are_right_at_known_positions():
    #  the empty board: a draw; X . . / . O . / . . X: a draw if O plays an edge; X X . / O O . / . . .: won
    games = [[], [0, 4, 8], [0, 3, 1, 4], [0, 1, 4]]
    states = GAME.reset(len(games))
    for row, moves in enumerate(games):
        for move in moves:
            GAME.play(states[row : row + 1], np.array([move]))
    best, value = solve(states, 3000)
    exact = values(states)
    assert exact.tolist() == [0, 0, 1, -1]
    np.testing.assert_allclose(value, exact, atol=0.25)
    assert best[1] in (1, 3, 5, 7) and best[2] == 2
