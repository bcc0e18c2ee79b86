"""AlphaGo's search: two statistics an edge, worked out by hand; its limits; and the player around it."""

import threading
import time

import numpy as np
import pytest
import torch

from agents.alphago import player as module
from agents.alphago.network import PolicyNetwork, ValueNetwork
from agents.alphago.parts import Parts, describe, evaluators, from_files
from agents.alphago.player import VARIANTS, AlphaGo, World, best_by_value
from agents.alphago.search import PAPER, Search, SearchConfig, first_priors
from agents.alphago.trees import DoubleTrees
from agents.alphazero.player import RESIGN
from envs.go import features, patterns
from envs.go.pattern_playouts import playouts, policy_of
from envs.go.position import Position
from envs.tictactoe import SYMMETRIES, Board, PerfectPlayer, RandomTicTacToe, TicTacToe, values
from rlkit.errors import NonFiniteLoss
from rlkit.search import OPEN, OVER

GAME = TicTacToe()

# -- parts


def parts():
    torch.manual_seed(5)
    return Parts(PolicyNetwork(3, 48, 8, 2), ValueNetwork(3, 49, 8, 2), np.arange(7, dtype=np.float32))


@pytest.mark.parametrize("kept", [("policy", "value", "rollout"), ("policy",), ("value",), ("rollout",)])
def test_parts_survive_a_description(kept):
    whole = parts()
    some = Parts(**{name: getattr(whole, name) for name in kept})
    config, weights = describe(some)
    assert set(config) == set(kept) == {key.partition(".")[0] for key in weights}
    again = from_files({"config": config | {"search": {}}}, weights)
    planes = np.random.default_rng(0).integers(0, 2, (4, 49, 3, 3), np.uint8)
    for ours, theirs in zip(evaluators(some, "fp32"), evaluators(again, "fp32"), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_array_equal(ours(planes), theirs(planes))
    if again.policy is not None:
        assert evaluators(again)[0](planes).shape == (4, 10)
    if again.rollout is not None:
        np.testing.assert_array_equal(again.rollout, whole.rollout)


def test_weights_without_a_config_and_the_other_way_round_are_refused():
    config, weights = describe(parts())
    with pytest.raises(ValueError, match="config of value"):
        from_files({"config": {"value": config["value"]}}, weights)
    with pytest.raises(ValueError, match="config of nothing"):
        from_files({"config": {}}, {})
    with pytest.raises(RuntimeError):
        from_files({"config": config}, {k: w for k, w in weights.items() if k != "policy.bias"})
    with pytest.raises(KeyError):
        from_files({"config": config}, {k: w for k, w in weights.items() if not k.startswith("rollout")})


def test_an_evaluator_takes_the_present_weights_when_told():
    some = parts()
    policy, _ = evaluators(some, "fp32")
    planes = np.ones((1, 48, 3, 3), np.uint8)
    before = policy(planes)
    with torch.no_grad():
        some.policy.bias += 1
    np.testing.assert_array_equal(policy(planes), before)
    policy.refresh()
    np.testing.assert_allclose(policy(planes)[0, :9], before[0, :9] + 1, atol=1e-6)
    assert policy(planes)[0, 9] == pytest.approx(before[0, 9])


# -- the trees, by hand


def likes(action, states, weight=0.5):
    """Priors that give one action this weight, and share the rest evenly."""
    legal = GAME.legal(states)
    rest = (1 - weight) / np.maximum(legal.sum(1, keepdims=True) - 1, 1)
    priors = np.where(legal, rest, -1).astype(np.float32)
    priors[:, action] = np.where(legal[:, action], weight, -1)
    return priors


def double(nodes=20, action=4, weight=0.5, **options):
    trees = DoubleTrees(1, nodes, 9, 10, **{"c": 1.0, "n_vl": 3} | options)
    trees.plant(GAME.reset(1), likes(action, GAME.reset(1), weight))
    return trees


def descend(trees, z, value=None, action=0, weight=0.5, leaves=1):
    """One step in which each rollout brings z, and the value network says `value` of each new node: the edges."""
    edges = trees.select(leaves, 1000)
    states = GAME.follow(GAME.reset(1), trees, edges.tree, edges.node, edges.action)
    over, worth = GAME.outcome(states)
    worth = np.where(over, worth, np.float32(z)).astype(np.float32)
    trees.open(edges, states, likes(action, states, weight), worth, over)
    trees.back_up(edges, worth, over)
    if value is not None:
        new = (edges.new != 0) & ~over
        trees.answer(edges.tree[new], edges.new[new], None, np.full(new.sum(), value, np.float32))
    return edges


def test_two_statistics_by_hand():
    trees = double(lam=0.25)
    one = descend(trees, z=-1, value=0.2, action=0)
    assert (one.node[0], one.action[0], one.new[0]) == (0, 4, 1)  # nothing is known: the highest prior
    # the opponent to move loses the rollout and the network gives it 0.2: for us +1 and -0.2
    assert (trees.N[0, 0, 4], trees.W[0, 0, 4], trees.Nv[0, 1]) == (1, 1, 1)
    assert trees.Wv[0, 1] == pytest.approx(-0.2)
    assert trees.Q()[4] == pytest.approx(0.75 * -0.2 + 0.25 * 1)  # 0.1
    # the centre: 0.1 + 0.5 * 1 / 2 = 0.35; all others: 0 + 0.0625 * 1 / 1
    two = descend(trees, z=1, value=0.5, action=8)
    assert (two.node[0], two.action[0], two.new[0]) == (1, 0, 2)
    # of the opponent's edge -1 and -0.5; of ours +1 + 1 = 2 in two rollouts, -0.2 + 0.5 = 0.3 in two evaluations
    assert (trees.N[0, 1, 0], trees.W[0, 1, 0], trees.Nv[0, 2]) == (1, -1, 1)
    assert (trees.N[0, 0, 4], trees.W[0, 0, 4], trees.Nv[0, 1]) == (2, 2, 2)
    assert trees.Wv[0, 2] == pytest.approx(-0.5) and trees.Wv[0, 1] == pytest.approx(0.3)
    assert trees.Q()[4] == pytest.approx(0.75 * 0.15 + 0.25 * 1)
    assert trees.Q(node=1)[0] == pytest.approx(0.75 * -0.5 + 0.25 * -1)
    # the opponent's corner: -0.625 + 0.5 * 1 / 2 < 0.5 / 7: another edge of node 1, where the network is not asked
    three = descend(trees, z=1)
    assert three.node[0] == 1 and three.action[0] == 1
    assert trees.Q(node=1)[1] == -1  # one rollout, no evaluation: all the weight is on what there is
    assert (trees.N[0, 0, 4], trees.W[0, 0, 4], trees.Nv[0, 1]) == (3, 3, 2)
    assert trees.line() == [4, 0] and trees.total[0, :2].tolist() == [3, 2]
    assert (trees.Nv[0, 0], trees.Wv[0, 0]) == (2, pytest.approx(-0.3))  # of whoever moved to the root


@pytest.mark.parametrize("unvisited", ["zero", "node"])
def test_every_choice_is_by_the_formula(unvisited):
    rng, trees, compared = np.random.default_rng(4), double(200, lam=0.3, c=1.5, unvisited=unvisited), 0
    for _ in range(120):
        path, node, expected = [], 0, []
        while trees.status[0, node] == OPEN:
            N, W, P, child = (getattr(trees, name)[0, node].astype(float) for name in ("N", "W", "P", "child"))
            child = child.astype(int)
            nv, wv = np.where(child, trees.Nv[0, child], 0), np.where(child, trees.Wv[0, child], 0)
            default = 0.0
            if unvisited == "node":
                parts = [(0.3, W.sum(), N.sum()), (0.7, -trees.Wv[0, node], trees.Nv[0, node])]
                known = [(share, w / n) for share, w, n in parts if n > 0]
                default = sum(s * q for s, q in known) / sum(s for s, _ in known) if known else 0.0
            with np.errstate(invalid="ignore", divide="ignore"):
                share = 0.3 * (N > 0) + 0.7 * (nv > 0)
                mean = (np.where(N > 0, 0.3 * W / N, 0) + np.where(nv > 0, 0.7 * wv / nv, 0)) / share
            q = np.where(share > 0, mean, default)
            score = np.where(P >= 0, q + 1.5 * P * np.sqrt(max(N.sum(), 1)) / (1 + N), -np.inf)
            action = int(score.argmax())
            path.append((node, action))
            expected.append(np.sort(score)[-2:])
            node = int(child[action])
            if node == 0:
                break
        edges = descend(trees, rng.choice([-1.0, 1.0]), rng.uniform(-1, 1), int(rng.integers(9)))
        if trees.status[0, node] == OVER and node != 0:
            continue  # counted at once; the call went on to another edge
        if all(a < b - 1e-5 for a, b in expected):  # ties may fall either way in fp32
            assert (edges.node[0], edges.action[0]) == path[-1]
            compared += 1
    assert compared > 30


def test_virtual_losses_keep_the_leaves_apart_and_go():
    trees = double(weight=0.3, lam=1.0)
    edges = trees.select(3, 100)
    # the centre: 0.3, then with three losses -1 + 0.3 * sqrt(3) / 4 < 0: two others, by their order
    assert edges.action.tolist() == [4, 0, 1]
    assert trees.N[0, 0, :5].tolist() == [3, 3, 0, 0, 3] and trees.W[0, 0, 4] == -3
    states = GAME.follow(GAME.reset(1), trees, edges.tree, edges.node, edges.action)
    over, z = GAME.outcome(states)
    trees.open(edges, states, likes(2, states), z, over)
    trees.back_up(edges, np.array([0, -1, 1], np.float32), over)
    assert trees.N[0, 0].tolist() == [1, 1, 0, 0, 1, 0, 0, 0, 0] and trees.total[0, 0] == 3
    assert trees.W[0, 0, [4, 0, 1]].tolist() == [0, 1, -1]
    assert trees.select(8, 3).tree.tolist() == []  # the goal is in simulations


def test_an_edge_opens_its_node_beyond_the_threshold():
    trees = double(weight=1.0, n_thr=3, c=9.0)
    for visits in (1, 2, 3):
        assert descend(trees, z=-1).new.tolist() == [0]
        assert trees.N[0, 0, 4] == visits and trees.used[0] == 1 and trees.child[0, 0, 4] == 0
        assert trees.Q()[4] == 1 and trees.line() == [4]
    assert descend(trees, z=-1).new.tolist() == [1] and trees.N[0, 0, 4] == 4 and trees.used[0] == 2
    below = descend(trees, z=-1)
    assert below.node.tolist() == [1] and below.new.tolist() == [0]
    # several at once: the fourth opens it, and a fifth would wait for it
    trees = double(weight=1.0, n_thr=3, c=99.0)
    edges = descend(trees, z=-1, leaves=8)
    assert edges.action.tolist() == [4] * 4 and edges.new.tolist() == [0, 0, 0, 1]
    assert trees.N[0, 0, 4] == 4 and trees.W[0, 0, 4] == 4
    trees = double(weight=1.0, n_thr=0)
    assert descend(trees, z=0).new.tolist() == [1]


def test_a_threshold_that_grows_with_the_search():
    cfg = SearchConfig()
    assert [cfg.threshold(n) for n in (None, 400, 1000, 10**4, 10**6)] == [0, 0, 1, 10, 40]
    assert PAPER.threshold(400) == 40 and SearchConfig(n_thr=0).threshold(10**6) == 0
    for bad in ({"lam": 1.5}, {"n_thr": -1}, {"leaves": 0}, {"unvisited": "never"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            SearchConfig(**bad)


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("n_thr", [0, 5])
def test_ended_games_count_exactly_in_both_statistics(lam, n_thr):
    #  X X .
    #  O O .    Black to move wins at 2
    row = Board().play(0).play(3).play(1).play(4).states()[1]
    trees = DoubleTrees(1, 50, 9, 10, lam=lam, c=2.0, n_thr=n_thr)
    trees.plant(row, likes(2, row, 0.9))
    for step in range(30):
        edges = trees.select(2, 30)
        if not len(edges):
            break
        states = GAME.follow(row, trees, edges.tree, edges.node, edges.action)
        over, z = GAME.outcome(states)
        z = np.where(over, z, 0).astype(np.float32)
        trees.open(edges, states, likes(2, states), z, over)
        trees.back_up(edges, z, over)
        assert step or trees.status[0, trees.child[0, 0, 2]] == OVER  # at once, whatever the threshold
    won = trees.child[0, 0, 2]
    assert trees.N[0, 0, 2] == trees.W[0, 0, 2] == trees.Nv[0, won] == trees.Wv[0, won] > 20
    assert trees.Q()[2] == 1 and trees.total[0, 0] == 30


# -- the search


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


ALL = {"policy": table_policy, "value": table_value, "rollouts": random_playouts, "symmetries": SYMMETRIES}


@pytest.mark.parametrize("threads", [1, 2])
def test_equal_seeds_give_equal_trees_however_slow_the_networks(threads):
    def slow(planes):
        time.sleep(0.001 * (int(planes.sum()) % 3))
        return table_value(planes)

    _, first = searched(**ALL, threads=threads)
    same(first, searched(**ALL | {"value": slow}, threads=threads)[1])
    assert not np.array_equal(first.N, searched(**ALL, seed=1, threads=threads)[1].N)


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
    assert trees.total[0, 0] == 150 and trees.n_thr == 0
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

    cfg = SearchConfig(beta=0.5, leaves=1, c_puct=1.5)
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
        np.testing.assert_array_equal(seen[0][k], features.transform(GAME.encode(states)[0], k))


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


# -- the player


def toy(variant="r", simulations=200, **options):
    """Tic-tac-toe, with random rollouts."""
    world = World(GAME.encode, lambda weights: random_playouts, symmetries=lambda size: SYMMETRIES)
    torch.manual_seed(3)
    nets = Parts(PolicyNetwork(3, 2, 4, 2, False), ValueNetwork(3, 2, 4, 2), np.zeros(1, np.float32))
    options = {"search": SearchConfig(c_puct=1.0, leaves=4)} | options
    return AlphaGo(nets, world, simulations, variant, **options)


def go(variant="rvp", simulations=60, **options):
    def rollouts(weights):
        policy = policy_of(weights)
        return lambda states, seed: playouts(states, policy, seed)[0]

    world = World(
        lambda states: features.alphago_slab(states, *map(int, states[0, :2]), colour_plane=True),
        rollouts, patterns.features, features.symmetries,
    )  # fmt: skip
    torch.manual_seed(3)
    rollout = np.random.default_rng(0).normal(size=patterns.NUM_FEATURES).astype(np.float32)
    parts = Parts(PolicyNetwork(3, 48, 4, 2), ValueNetwork(3, 49, 4, 2), rollout)
    return AlphaGo(options.pop("parts", parts), world, simulations, variant, **options)


def play_tictactoe(player, game):
    """Our score, 1, 0 or -1, against a perfect player or a random one."""
    player.new_game(game)
    other = (PerfectPlayer if game % 4 < 2 else RandomTicTacToe)(game)
    board, ours = Board(), 1 + game % 2
    while not board.is_over:
        board = board.play((player if board.to_play == ours else other)(board))
    return board.score() * (1 if ours == 1 else -1)


def test_rollouts_alone_never_lose_tic_tac_toe():
    player = toy(simulations=1000, search=SearchConfig(c_puct=3.0))
    assert min(play_tictactoe(player, game) for game in range(20)) >= 0


@pytest.mark.parametrize("variant", ["rvp", "v"])
def test_with_a_perfect_value_network_few_simulations_do(variant):
    player = toy(variant, 60, search=SearchConfig(c_puct=1.0, lam=0.1))

    def perfect(planes):
        points = planes[:, 0] + 2 * planes[:, 1]
        states = np.concatenate([points.reshape(len(planes), 9), np.ones((len(planes), 1))], 1)
        return values(states.astype(np.int16))

    player._search.value = perfect
    if player._search.policy:
        player._search.policy = lambda planes: np.zeros((len(planes), 9), np.float32)
    assert min(play_tictactoe(player, game) for game in range(20)) >= 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_plays_go(variant):
    position, player = Position.empty(3, 0.5, max_moves=27), go(variant)
    moves, played = [], []
    for seed in (5, 5):
        player.new_game(seed)
        game = position
        while not game.is_over:
            move = player(game)
            sensible = game.states()[0].sensible(game.states()[1])[0]
            assert sensible[move], "illegal, or it fills its own eye"
            game = game.play(move)
        played.append([move for _, move in game.moves()])
    assert played[0] == played[1] and len(played[0]) > 4  # equal seeds, equal games, with the tree kept on the way
    with pytest.raises(ValueError, match="the game is over"):
        player(game)
    moves = player.analyze(position)
    assert moves and moves[0].keys() == {"move", "visits", "winrate", "prior", "pv"}
    assert player.analyze(game) == []
    assert player.name == ("alphago:p" if variant == "p" else f"alphago:{variant}:60")
    parts = [name for name in ("rollout", "value", "policy") if getattr(player.parts, name) is not None]
    assert "".join(name[0] for name in parts) == variant
    player.close()


def test_a_variant_without_its_part_is_refused():
    whole = go().parts
    with pytest.raises(ValueError, match="variant rvp needs the part rollout and policy, which this agent"):
        go("rvp", parts=Parts(value=whole.value))
    with pytest.raises(ValueError, match="no variant 'pv'; there are rvp, vp"):
        go("pv")
    assert go(None, parts=Parts(whole.policy)).variant == "p"
    assert go(None, parts=Parts(whole.policy, whole.value)).variant == "vp"
    assert go(None).variant == "rvp"
    for options in ({"simulations": 0}, {"resign": 1.5}):
        with pytest.raises(ValueError, match=r"simulation at least|in 0 .. 1"):
            go(**options)


def test_the_tree_policy_is_the_rollouts_softmax_also_without_rollouts():
    position = Position.empty(3, 0.5).play(4)
    game, games = position.states()
    ids, candidates = patterns.features(games)
    weights = go().parts.rollout.copy()
    weights[0] = 0
    scores = np.exp(weights[ids[0]].sum(1)) * candidates[0]
    expected = first_priors(game.sensible(games), np.where(candidates, scores / scores.sum(), -1))[0]
    for variant in ("rv", "v", "r"):
        np.testing.assert_allclose(go(variant).search(position).P[0, 0], expected, atol=1e-5)
    assert expected[9] == pytest.approx(1 / 9 / (1 + 1 / 9))  # the pass: an even share of 8 points and itself


def test_the_policy_alone_plays_its_most_probable_sensible_move():
    player, position = go("p"), Position.empty(3, 0.5).play(0)
    logits = player.policy(player.world.encode(position.states()[1]))[0]
    logits[0] = -99  # the stone
    assert player(position) == logits.argmax()
    assert [row["move"] for row in player.analyze(position)] == np.argsort(-logits, kind="stable")[:9].tolist()
    with pytest.raises(ValueError, match="it has no search"):
        player.search(position)


def test_other_boards_are_refused():
    with pytest.raises(
        ValueError, match="plays on 3 x 3 points with 48 planes and 10 moves; here are 4 x 4, 49 and 17"
    ):
        go()(Position.empty(4))
    with pytest.raises(ValueError, match="here are 3 x 4"):
        go("v")(Position.empty((3, 4)))
    assert go("r")(Position.empty((3, 4))) in range(13)  # patterns are the same on every board


def test_the_move_of_the_highest_q():
    trees = double(nodes=4, lam=1.0)
    trees.N[0, 0, [0, 1, 2, 3]], trees.W[0, 0, [0, 1, 2, 3]] = [100, 60, 9, 0], [10, 12, 9, 0]
    assert best_by_value(trees) == 1  # the third is too little known
    trees.N[0, 0, 2] = 10
    assert best_by_value(trees) == 2


def test_it_searches_on_until_visits_and_values_agree(monkeypatch):
    for agrees_after, total in ((0, 40), (1, 45), (3, 55), (99, 80)):
        asked = []

        def best(trees, asked=asked, agrees_after=agrees_after):
            asked.append(1)
            return trees.ranked()[0] if len(asked) > agrees_after else -1

        monkeypatch.setattr(module, "best_by_value", best)
        assert toy(simulations=40).search(Board()).total[0, 0] == total
    player = toy(simulations=40)
    player.seconds = 0.0  # a limit is a limit
    assert player.search(Board()).total[0, 0] < 40


def test_it_resigns_by_the_highest_q():
    #  X X .
    #  . X .    White cannot stop both lines
    board = Board().play(0).play(3).play(1).play(7).play(4)
    assert toy(simulations=400, resign=0.5)(board) == RESIGN
    assert toy(simulations=400)(board) in (2, 5, 6, 8) and toy(simulations=400, resign=1.0)(board) != RESIGN
    assert toy(simulations=400, resign=0.0)(board.play(5)) in (2, 8)  # Black has won


def test_what_is_known_after_moves_stays_known():
    player, position = go("rvp", 200), Position.empty(3, 0.5, max_moves=27)
    trees = player.search(position)
    line = trees.line()[:2]
    child = trees.child[0, 0, line[0]]
    node = trees.child[0, child, line[1]]
    visits, evaluations = trees.N[0, node].copy(), trees.Nv[0, node]
    kept = player.tree(position.play(line[0]).play(line[1]), 400)
    assert kept is trees and visits.sum() > 2
    np.testing.assert_array_equal(kept.N[0, 0], visits)
    assert kept.Nv[0, 0] == evaluations
    rows = player.analyze(position.play(line[0]).play(line[1]), 0)
    for row in rows:
        assert row["winrate"] == pytest.approx((trees.Q()[row["move"]] + 1) / 2, abs=1e-6)
    fresh = Position.empty(3, 0.5, max_moves=27)
    assert player.search(fresh).total[0, 0] <= 400 and not np.array_equal(kept.N[0, 0], visits)


def test_pondering_grows_the_tree_of_the_game_and_stops():
    player, position = go("rvp", 40, ponder=True), Position.empty(3, 0.5, max_moves=27)
    before = threading.active_count()
    move = player(position)
    report = player.analyze(position, 0)  # what the move came from, though the tree has moved on
    assert report[0]["move"] == move and player._thread is None
    player.new_game(0)
    move = player(position)
    until = time.monotonic() + 20
    while player._trees.total[0, 0] < 150 and time.monotonic() < until:
        time.sleep(0.01)
    player._stop_pondering()
    after = position.play(move)
    reply = int(player._trees.ranked()[0])
    visits = int(player._trees.N[0, 0, reply])
    trees = player.tree(after.play(reply), player._room)
    assert trees.total[0, 0] == visits - 1 > 10
    assert player(after.play(reply)) in range(10)
    game = after.play(reply)
    while not game.is_over:
        game = game.play(player(game))
    player.close()
    assert player._thread is None and threading.active_count() <= before


def test_what_goes_wrong_while_pondering_is_told():
    player = toy(simulations=20, ponder=True)
    good, calls = player._search.rollouts, []

    def failing(states, seed):
        calls.append(1)
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("out of memory")
        return good(states, seed)

    player._search.rollouts = failing
    board = Board()
    board = board.play(player(board))
    player._thread.join()  # it has failed by now, however the threads were scheduled
    with pytest.raises(RuntimeError, match="out of memory"):
        player(board.play(int(np.flatnonzero(board.legal_moves())[0])))
    player.ponder = False
    assert player(Board()) in range(9)


def test_an_agent_on_disk_plays_the_same():
    player, position = go("rvp", 60, search=SearchConfig(lam=0.25, n_thr=2)), Position.empty(3, 0.5)
    player.new_game(7)
    info = player.describe() | {"env": {"game": "go", "size": 3, "komi": 0.5}}
    assert info["kind"] == "alphago" and info["config"]["search"]["lam"] == 0.25
    weights = describe(player.parts)[1]
    again = AlphaGo.from_files(info, weights, world=player.world, simulations=60)
    again.new_game(7)
    first, second = player.search(position), again.search(position)
    np.testing.assert_array_equal(first.N, second.N)
    assert again.variant == "rvp" and second.n_thr == 2
    with pytest.raises(TypeError):
        AlphaGo.from_files({"config": info["config"] | {"search": {"speed": 1}}}, weights, world=player.world)
