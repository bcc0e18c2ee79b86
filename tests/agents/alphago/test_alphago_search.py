"""AlphaGo's search: its limits, its threads, what its trees satisfy whatever the networks say."""

import threading
import time

import numpy as np
import pytest

from agents.alphago.search import Search, SearchConfig, first_priors
from agents.alphago.trees import DoubleTrees
from envs.tictactoe import SYMMETRIES, Board, TicTacToe
from rlkit.errors import NonFiniteLoss
from rlkit.search.trees import OPEN, OVER

GAME = TicTacToe()


def random_playouts(states, seed):
    """As the rollouts of a game, on many boards of tic-tac-toe."""
    rng, rows, value = np.random.default_rng(seed), states.copy(), np.zeros(len(states), np.float32)
    sign = np.ones(len(rows))
    while True:
        over, worth = GAME.outcome(rows)
        if over.all():
            return (sign * worth).astype(np.float32)
        live = np.flatnonzero(~over)
        going = rows[live]
        GAME.play(going, (rng.random((len(live), 9)) * GAME.legal(going)).argmax(1))
        rows[live], sign[live] = going, -sign[live]
    return value


def table_value(planes):
    """An opinion of every position, of no sense."""
    return np.sin(planes.reshape(len(planes), -1) @ np.arange(1, 19)).astype(np.float32)


def table_policy(planes):
    return np.cos(planes.reshape(len(planes), -1) @ np.arange(18 * 9).reshape(18, 9)).astype(np.float32)


def searched(cfg=None, seed=0, goal=150, nodes=400, **functions):
    """(search, trees) after `goal` simulations from the empty board."""
    search = Search(cfg or SearchConfig(c_puct=1.5), GAME.encode, **functions)
    search.rng = np.random.default_rng(seed)
    games = GAME.reset(1)
    trees = search.trees(1, nodes, GAME, goal)
    search.plant(trees, GAME, games)
    search.grow(trees, GAME, games, goal)
    return search, trees


def same(a, b, names=("N", "W", "P", "child", "Nv", "Wv", "total", "used", "value", "status")):
    for name in names:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def seen_from(planes, k):
    """Planes [..., 3, 3] under symmetry k."""
    return np.rot90(planes if k < 4 else planes[..., ::-1], k % 4, (-2, -1))


ALL = {"policy": table_policy, "value": table_value, "rollouts": random_playouts, "symmetries": SYMMETRIES}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.slow
def test_equal_seeds_give_equal_trees_however_slow_the_networks(threads, late):
    cfg = SearchConfig(c_puct=1.5, late=late)

    def slow(planes):
        time.sleep(0.001 * (int(planes.sum()) % 3))
        return table_value(planes)

    _, first = searched(cfg, **ALL, threads=threads)
    same(first, searched(cfg, **ALL | {"value": slow}, threads=threads)[1])
    assert not np.array_equal(first.N, searched(cfg, **ALL, seed=1, threads=threads)[1].N)
    assert first.total[0, 0] == 150 and not np.isnan(first.value[0, : first.used[0]]).any()
    for node in range(1, first.used[0]):  # each turned as it was asked, whichever thread did it
        if first.status[0, node] == OPEN:
            planes = GAME.encode(first.states[0, node][None])[0]
            turned = table_value(np.stack([seen_from(planes, k) for k in range(8)]))
            assert np.isclose(first.value[0, node], turned, atol=1e-6).any()


def test_at_its_limits_lambda_leaves_one_statistic():
    def other(states, seed):
        return -random_playouts(states, seed + 1)

    zero, one = SearchConfig(lam=0.0, c_puct=1.5), SearchConfig(lam=1.0, c_puct=1.5)
    a, b = (searched(zero, **ALL | {"rollouts": rollouts})[1] for rollouts in (random_playouts, other))
    same(a, b, ("N", "P", "child", "Nv", "Wv", "total", "value"))
    assert not np.array_equal(a.W, b.W)
    np.testing.assert_array_equal(a.Q(), b.Q())
    a, b = (searched(one, **ALL | {"value": value})[1] for value in (table_value, lambda p: -table_value(p)))
    same(a, b, ("N", "W", "P", "child", "total"))
    assert not np.array_equal(a.Wv, b.Wv)
    # and without a value network there is only this one
    for cfg in (zero, SearchConfig(c_puct=1.5)):
        np.testing.assert_array_equal(a.N, searched(cfg, **ALL | {"value": None})[1].N)


@pytest.mark.parametrize("n_thr", [0, 4])
@pytest.mark.parametrize("leaves", [1, 8])
def test_what_every_tree_must_satisfy(n_thr, leaves):
    """Visits are those below and one's own; W and Wv are the sums of what leaves brought, with alternating signs."""

    def rollouts(states, seed):
        return np.where(states @ np.arange(10) % 3 == 0, 1, -1).astype(np.float32)

    before, steps = [0], []
    back_up, cfg = DoubleTrees.back_up, SearchConfig(n_thr=n_thr, leaves=leaves, c_puct=1.5)

    def counted(trees, edges, value, over):
        back_up(trees, edges, value, over)
        steps.append(int(trees.N[0, 0].sum()))
        assert steps[-1] == trees.total[0, 0] >= before[0] + len(edges)
        before[0] = steps[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DoubleTrees, "back_up", counted)
        _, trees = searched(cfg, **ALL | {"rollouts": rollouts})
    assert trees.total[0, 0] == 150 and (leaves == 1 or len(steps) < 60)
    assert (trees.status[0, : trees.used[0]] != 0).all()
    for node in range(trees.used[0]):
        assert trees.N[0, node].sum() == trees.total[0, node]
        for action in np.flatnonzero(trees.child[0, node]):
            after = trees.child[0, node, action]
            n, w = trees.N[0, node, action], trees.W[0, node, action]
            worth = trees.value[0, after]
            below = np.flatnonzero(trees.child[0, after])
            nodes = trees.child[0, after, below]
            if trees.status[0, after] == OVER:
                assert w == -n * worth and trees.Nv[0, after] == n and trees.Wv[0, after] == w
                continue
            # n_thr visits before the node was there, and the one that opened it, all with this rollout
            assert n == 1 + n_thr + trees.total[0, after]
            own = rollouts(trees.states[0, after][None], 0)[0] * (1 + n_thr)
            assert w == pytest.approx(-(own + trees.W[0, after].sum()), abs=1e-3)
            assert trees.Nv[0, after] == 1 + trees.Nv[0, nodes].sum()
            assert trees.Wv[0, after] == pytest.approx(-(worth + trees.Wv[0, nodes].sum()), abs=1e-3)


def test_without_rollouts_the_value_is_the_visit():
    _, trees = searched(policy=table_policy, value=table_value)
    assert trees.total[0, 0] == 150 and trees.mixture.n_thr == 0
    inner = [n for n in range(1, trees.used[0]) if trees.status[0, n] == OPEN]
    for n in inner:
        assert trees.value[0, n] == table_value(GAME.encode(trees.states[0, n][None]))[0]
        edge = trees.parents[0, n], trees.via[0, n]
        assert trees.N[0][edge] == trees.Nv[0, n] == 1 + trees.total[0, n]
        assert trees.W[0][edge] == pytest.approx(trees.Wv[0, n], abs=1e-4)
    with pytest.raises(ValueError, match="rollouts or a value network"):
        Search(SearchConfig(), GAME.encode, table_policy)


def test_the_tree_policys_priors_until_the_network_answers():
    def tree_policy(states):
        priors = np.where(GAME.legal(states), 1.0, -1)
        priors[:, 4] = -1  # of the centre it has no opinion
        return (priors / np.maximum(priors, 0).sum(1, keepdims=True)).astype(np.float32)

    seen, may_answer = [], threading.Event()

    def rollouts(states, seed):
        if len(seen) < 3:
            new = trees.used[0] - 1
            seen.append((trees.P[0, new].copy(), np.isnan(trees.value[0, : new + 1]).tolist()))
        may_answer.set()
        return random_playouts(states, seed)

    def value(planes):
        assert may_answer.wait(10)
        return table_value(planes)

    cfg = SearchConfig(beta=0.5, leaves=1, c_puct=1.5, late=True)
    search = Search(cfg, GAME.encode, table_policy, value, rollouts, tree_policy)
    trees, games = search.trees(1, 60, GAME), GAME.reset(1)
    may_answer.set()
    search.plant(trees, GAME, games)
    may_answer.clear()
    search.grow(trees, GAME, games, 40)
    for node in range(trees.used[0]):
        if trees.status[0, node] == OPEN:  # p ** 0.5 over the legal moves
            logits = table_policy(GAME.encode(trees.states[0, node][None]))[0].astype(float)
            weights = np.where(trees.states[0, node, :9] == 0, np.exp(logits) ** 0.5, 0)
            expected = np.where(weights > 0, weights / weights.sum(), -1)
            np.testing.assert_allclose(trees.P[0, node], expected, atol=1e-6)
    first, nans = seen[0]
    # the root's best is not the centre: seven moves have 1/7 each of the tree policy, the centre an even 1/8 on top
    assert (first >= 0).sum() == 8 and first[4] == pytest.approx((1 / 8) / (1 + 1 / 8))
    assert first[first >= 0].sum() == pytest.approx(1) and first.max() == pytest.approx((1 / 7) / (1 + 1 / 8))
    assert nans == [False, True]  # the root waited for its value, the first node has none yet
    assert seen[2][1] == [False, False, True, True]  # answers come in one step later
    assert not np.isnan(trees.value[0, : trees.used[0]]).any()


def test_first_priors():
    moves = np.array([[True, True, False, True], [False, False, False, True]])
    np.testing.assert_allclose(first_priors(moves, None), [[1 / 3, 1 / 3, -1, 1 / 3], [-1, -1, -1, 1]], atol=1e-6)
    tree = np.array([[0.6, 0.2, 0.2, -1], [1, -1, -1, -1]], np.float32)
    # 0.6, 0.2 and an even third for the last, of 1.1333
    expected = [[0.52941, 0.17647, -1, 0.29412], [-1, -1, -1, 1]]
    np.testing.assert_allclose(first_priors(moves, tree), expected, atol=1e-5)


def test_each_symmetry_says_the_same_of_an_even_handed_network():
    def points(planes):
        return (3 * planes[:, 0] - 2.0 * planes[:, 1]).reshape(len(planes), 9).astype(np.float32)

    seen = []

    def value(planes):
        seen.append(planes)
        return points(planes) @ np.arange(9, dtype=np.float32)

    search = Search(SearchConfig(), GAME.encode, points, value, symmetries=SYMMETRIES)
    states = np.repeat(Board().play(0).play(5).play(1).states()[1], 8, 0)
    logits, values = search._evaluate(states, np.arange(8))
    np.testing.assert_array_equal(logits, points(GAME.encode(states)))
    assert len(set(values.tolist())) > 4
    for k in range(8):
        np.testing.assert_array_equal(seen[0][k], seen_from(GAME.encode(states)[0], k))


def test_a_kept_subtree_has_the_numbers_of_a_recount():
    _, trees = searched(**ALL)

    def below(node):
        after = {int(a): below(trees.child[0, node, a]) for a in np.flatnonzero(trees.child[0, node])}
        names = "N", "W", "P", "states", "total", "value", "status", "Nv", "Wv"
        return [np.round(getattr(trees, name)[0, node], 4).tolist() for name in names], after

    counted = trees.Nv.copy(), trees.Wv.copy()
    trees.recount()
    np.testing.assert_array_equal(trees.Nv, counted[0])
    np.testing.assert_allclose(trees.Wv, counted[1], atol=1e-4)
    move = trees.line()[0]
    before = below(trees.child[0, 0, move])
    assert trees.advance(np.array([move]))[0] and below(0) == before and trees.Nv[0, 0] > 10
    saved = trees.state_dict()
    again = DoubleTrees(1, 400, 9, 10)
    again.load_state_dict(saved)
    for name in ("Nv", "Wv"):
        np.testing.assert_array_equal(
            getattr(again, name)[0, : again.used[0]], getattr(trees, name)[0, : trees.used[0]]
        )


def test_a_full_tree_and_a_network_that_fails():
    _, trees = searched(**ALL, nodes=20)
    assert trees.used[0] == 20 and 19 <= trees.total[0, 0] < 150
    assert (
        trees.N[0, 0].sum() == trees.total[0, 0]
        and trees.bytes_per_node == super(DoubleTrees, trees).bytes_per_node + 8
    )
    with pytest.raises(NonFiniteLoss, match="not finite"):
        searched(**ALL | {"value": lambda planes: np.full(len(planes), np.nan, np.float32)})
