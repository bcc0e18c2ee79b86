"""Trees with two statistics an edge, worked out by hand."""

import numpy as np
import pytest

from agents.alphago.player import best_by_value
from agents.alphago.search import PAPER, SearchConfig
from agents.alphago.trees import DoubleTrees
from envs.tictactoe import Board, TicTacToe
from rlkit.search.trees import OPEN, OVER

GAME = TicTacToe()


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
    states = GAME.states_after(GAME.reset(1), trees, edges.tree, edges.node, edges.action)
    over, worth = GAME.outcome(states)
    worth = np.where(over, worth, np.float32(z)).astype(np.float32)
    trees.open(edges, states, likes(action, states, weight), worth, over)
    trees.back_up(edges, worth, over)
    if value is not None:
        new = (edges.new != 0) & ~over
        trees.add_evaluations(edges.tree[new], edges.new[new], None, np.full(new.sum(), value, np.float32))
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
    states = GAME.states_after(GAME.reset(1), trees, edges.tree, edges.node, edges.action)
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
        states = GAME.states_after(row, trees, edges.tree, edges.node, edges.action)
        over, z = GAME.outcome(states)
        z = np.where(over, z, 0).astype(np.float32)
        trees.open(edges, states, likes(2, states), z, over)
        trees.back_up(edges, z, over)
        assert step or trees.status[0, trees.child[0, 0, 2]] == OVER  # at once, whatever the threshold
    won = trees.child[0, 0, 2]
    assert trees.N[0, 0, 2] == trees.W[0, 0, 2] == trees.Nv[0, won] == trees.Wv[0, won] > 20
    assert trees.Q()[2] == 1 and trees.total[0, 0] == 30


def test_the_move_of_the_highest_q():
    trees = double(nodes=4, lam=1.0)
    trees.N[0, 0, [0, 1, 2, 3]], trees.W[0, 0, [0, 1, 2, 3]] = [100, 60, 9, 0], [10, 12, 9, 0]
    assert best_by_value(trees) == 1  # the third is too little known
    trees.N[0, 0, 2] = 10
    assert best_by_value(trees) == 2
