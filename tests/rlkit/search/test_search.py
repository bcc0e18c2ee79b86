"""The search knows the answer: bandits, hand-computed backups, a solved game."""

import random

import numpy as np
import pytest
from gtp_players import simple_eyes

from agents.uct.player import UCTPlayer, random_order, simulate
from envs.go.position import Position
from envs.tictactoe import TicTacToe, values
from rlkit.search.trees import OVER, Trees

GAME = TicTacToe()
LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]


class Board:
    """One game of tic-tac-toe, as a player is given it."""

    def __init__(self, moves=()):
        self.row = GAME.reset(1)
        for move in moves:
            GAME.play(self.row, np.array([move]))

    def states(self):
        return Playing(), self.row


class Playing(TicTacToe):
    """Tic-tac-toe with random play-outs."""

    sensible = TicTacToe.legal

    def playouts(self, states, seed):
        """One game at a time, on lists: a hundred thousand of them are played here."""
        rng, value = random.Random(int(seed)), np.zeros(len(states), np.float32)
        for i, row in enumerate(states.tolist()):
            mover = row[9]
            empty = [point for point in range(9) if not row[point]]
            for point in rng.sample(empty, len(empty)):
                row[point] = mover
                if any(row[a] == row[b] == row[c] == mover for a, b, c in LINES):
                    value[i] = 1 if mover == states[i, 9] else -1
                    break
                mover = 3 - mover
        return value, None


def grown(trees, value):
    """Search tic-tac-toe with a table as evaluator: value(state) of the side to move."""
    games = GAME.reset(len(trees.N))
    rng = np.random.default_rng(0)
    trees.plant(games, random_order(rng, GAME.legal(games)))
    return games, lambda states: np.array([value(s) for s in states], np.float32)


def test_hand_computed_backup_of_two_plies():
    trees = Trees(1, 8, 9, 10, exploration="puct", c=1.0)
    priors = np.full((1, 9), 0.01, np.float32)
    priors[0, 4] = 0.9
    trees.plant(GAME.reset(1), priors)

    def open_one(value, prior_at):
        edges = trees.select(1, 100)
        states = GAME.states_after(GAME.reset(1), trees, edges.tree, edges.node, edges.action)
        p = np.where(GAME.legal(states), 0.01, -1).astype(np.float32)
        p[0, prior_at] = 0.9
        trees.expand(edges, states, p, np.array([value], np.float32), np.array([False]))
        return int(edges.node[0]), int(edges.action[0])

    assert open_one(-0.5, 0) == (0, 4)  # the opponent thinks -0.5 of it, so the edge is worth +0.5
    assert (trees.N[0, 0, 4], trees.W[0, 0, 4]) == (1, 0.5)
    assert open_one(0.25, 8) == (1, 0)
    assert (trees.N[0, 1, 0], trees.W[0, 1, 0]) == (1, -0.25)
    assert (trees.N[0, 0, 4], trees.W[0, 0, 4]) == (2, 0.75)
    assert open_one(1.0, 1) == (2, 8)  # +1 for X at depth 3 is -1 for O and +1 for X above it
    assert (trees.N[0, 2, 8], trees.W[0, 2, 8]) == (1, -1.0)
    assert (trees.N[0, 1, 0], trees.W[0, 1, 0]) == (2, 0.75)
    assert (trees.N[0, 0, 4], trees.W[0, 0, 4]) == (3, -0.25)
    assert trees.total[0, 0] == 3
    assert trees.line() == [4, 0, 8]


def test_ucb1_visits_all_edges_first_then_by_the_bound():
    trees = Trees(1, 64, 9, 10, exploration="ucb1", c=0.5)
    mean = np.linspace(-0.8, 0.8, 9)
    games, _ = grown(trees, None)
    first = []
    for i in range(40):
        edges = trees.select(1, 1000)
        if i < 9:
            first.append(int(edges.action[0]))
        at_root = int(edges.action[0]) if edges.node[0] == 0 else None
        path = int(edges.node[0])
        while path != 0:
            at_root, path = int(trees.via[0, path]), int(trees.parents[0, path])
        if i >= 9:
            n, w = np.float64(trees.N[0, 0]), np.float64(trees.W[0, 0])
            n[at_root] -= 1  # without the virtual loss of this very descent
            w[at_root] += 1
            bound = w / n + 0.5 * np.sqrt(np.log(n.sum()) / n)
            assert at_root == bound.argmax()
        states = GAME.states_after(games, trees, edges.tree, edges.node, edges.action)
        sign = -1 if (states[0, :9] != 0).sum() % 2 else 1
        value = np.array([sign * mean[at_root]], np.float32)
        trees.expand(edges, states, np.where(GAME.legal(states), 1, -1).astype(np.float32), value, np.array([False]))
    assert sorted(first) == list(range(9))
    assert trees.N[0, 0].argmax() == 8
    np.testing.assert_allclose(trees.W[0, 0] / trees.N[0, 0], mean, atol=1e-5)


def test_virtual_loss_is_a_loss_of_whoever_chose_the_edge():
    trees = Trees(1, 20, 9, 10, exploration="ucb1", c=0.1)
    games, _ = grown(trees, None)
    for pending in (1, 9 + 2):  # the root's edges once, and two below: then one more stays open
        edges = trees.select(pending, 100)
        if pending > 1:
            break
        states = GAME.states_after(games, trees, edges.tree, edges.node, edges.action)
        over, value = GAME.outcome(states)
        trees.expand(edges, states, random_order(np.random.default_rng(1), GAME.legal(states)), value + 0.9, over)
    first = trees.via[0, 1]  # its only value so far is -0.9: all others are tried before it is again
    assert sorted(edges.action[edges.node == 0]) == sorted(set(range(9)) - {first})
    deeper = edges.node[edges.node != 0]
    assert (deeper == 1).all() and len(deeper) >= 1
    assert trees.W[0, 0, first] == pytest.approx(-0.9 - len(deeper))
    np.testing.assert_array_equal(trees.W[0, 1][edges.action[edges.node == 1]], -1)


@pytest.mark.parametrize("leaves", [1, 8])
def test_virtual_loss_is_undone(leaves):
    trees = Trees(3, 200, 9, 10, exploration="puct", c=1.0)
    games, evaluate = grown(trees, lambda s: float(np.sin(s @ np.arange(10))))
    done = 0
    while len(edges := trees.select(leaves, 150)):
        states = GAME.states_after(games, trees, edges.tree, edges.node, edges.action)
        over, value = GAME.outcome(states)
        value = np.where(over, value, evaluate(states))
        order = random_order(np.random.default_rng(done), GAME.legal(states))
        trees.expand(edges, states, order, value, over)
        done += 1
    assert (trees.total[:, 0] == 150).all()
    for g in range(3):
        for node in range(trees.used[g]):
            assert trees.N[g, node].sum() == trees.total[g, node]
            for action in np.flatnonzero(trees.child[g, node]):
                after = trees.child[g, node, action]
                n, w = trees.N[g, node, action], trees.W[g, node, action]
                if trees.status[g, after] == OVER:
                    assert w == pytest.approx(-n * trees.value[g, after])
                else:  # its own evaluation and everything below it
                    assert n == 1 + trees.total[g, after]
                    assert w == pytest.approx(-(trees.value[g, after] + trees.W[g, after].sum()), abs=1e-3)


def test_one_tree_and_many_give_the_same_numbers():
    def value(state):
        return float(np.cos(state @ np.arange(1, 11)))

    results = []
    for count in (1, 50):
        trees = Trees(count, 120, 9, 10, exploration="puct", c=2.0)
        games, evaluate = grown(trees, value)
        even = np.where(GAME.legal(games), 1 / 9, -1).astype(np.float32)
        trees.plant(games, even)
        while len(edges := trees.select(4, 100)):
            states = GAME.states_after(games, trees, edges.tree, edges.node, edges.action)
            over, worth = GAME.outcome(states)
            legal = GAME.legal(states)
            priors = np.where(legal, 1 / np.maximum(legal.sum(1, keepdims=True), 1), -1).astype(np.float32)
            trees.expand(edges, states, priors, np.where(over, worth, evaluate(states)), over)
        results.append((trees.N[:, 0], trees.W[:, 0]))
    for g in range(50):
        np.testing.assert_array_equal(results[1][0][g], results[0][0][0])
        np.testing.assert_array_equal(results[1][1][g], results[0][1][0])


def test_uct_finds_wins_and_blocks():
    #  X X .      X wins at 2
    #  O O .
    assert UCTPlayer(300)(Board([0, 3, 1, 4])) == 2
    #  X . .      O must block at 2 ... X: 0, 1; O: 4
    assert UCTPlayer(1000)(Board([0, 4, 1])) == 2


def test_uct_agrees_with_the_solved_game():
    for moves in ((0, 8), (4, 0, 8), (0, 4, 8), (0, 1), (0, 1, 4), (4, 1, 0)):
        best = UCTPlayer(1500)(Board(moves))
        assert -values(Board((*moves, best)).row) == values(Board(moves).row), f"{moves} -> {best}"


def test_uct_never_loses_tic_tac_toe():
    rng = np.random.default_rng(3)
    for game in range(16):
        board, player = Board(), UCTPlayer(600, seed=game)
        while not GAME.outcome(board.row)[0][0]:
            mine = (GAME.to_play(board.row)[0] == 1) == (game % 2 == 0)
            move = player(board) if mine else int(rng.choice(np.flatnonzero(GAME.legal(board.row)[0])))
            GAME.play(board.row, np.array([move]))
        loser = GAME.to_play(board.row)[0] if GAME.outcome(board.row)[1][0] < 0 else 0
        assert loser != (1 if game % 2 == 0 else 2), f"lost game {game}"


def test_a_reused_subtree_keeps_its_statistics_exactly():
    trees = Trees(3, 200, 9, 10, exploration="puct", c=1.0)
    games, evaluate = grown(trees, lambda s: float(np.sin(s @ np.arange(10))))

    def grow(goal):
        while len(edges := trees.select(4, goal)):
            states = GAME.states_after(games, trees, edges.tree, edges.node, edges.action)
            over, value = GAME.outcome(states)
            legal = np.where(GAME.legal(states), 0.1, -1).astype(np.float32)
            trees.expand(edges, states, legal, np.where(over, value, evaluate(states)), over)

    def below(g, node):
        """Everything under a node, by the actions that lead there."""
        after = {int(a): below(g, trees.child[g, node, a]) for a in np.flatnonzero(trees.child[g, node])}
        arrays = trees.N, trees.W, trees.P, trees.states, trees.total, trees.value, trees.status
        return [np.array(array[g, node]).tolist() for array in arrays], after

    grow(150)
    actions = np.array([trees.line(0)[0], trees.line(1)[0], -1])
    before = [below(g, trees.child[g, 0, a]) for g, a in enumerate(actions[:2])]
    np.testing.assert_array_equal(trees.advance(actions), [True, True, False])
    assert [below(g, 0) for g in range(2)] == before and trees.used[2] == 0
    GAME.play(games, np.where(actions < 0, 0, actions))
    np.testing.assert_array_equal(trees.states[:2, 0], games[:2])
    fresh = np.where(GAME.legal(games[2:]), 1 / 8, -1).astype(np.float32)
    trees.plant(games[2:], fresh, 0.0, np.array([2]))
    grow(180)
    assert (trees.total[:, 0] == 180).all()
    for g in range(3):
        assert all(trees.N[g, node].sum() == trees.total[g, node] for node in range(trees.used[g]))


def test_same_seed_same_search_and_a_full_tree_ends_it():
    board = Position.empty(5)
    a, b = (UCTPlayer(500, seed=4).search(board).N[0, 0] for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, UCTPlayer(500, seed=5).search(board).N[0, 0])
    game, games = board.states()
    trees = Trees(1, 20, 26, game.state_size, exploration="ucb1")
    trees.plant(games, random_order(np.random.default_rng(0), game.sensible(games)))
    simulate(trees, game, games, lambda s: np.zeros(len(s), np.float32), 1000, np.random.default_rng(0))
    assert trees.used[0] == 20 and trees.total[0, 0] == 19


def test_a_finished_game_and_a_lone_pass():
    over = Position.empty(2).play(4).play(4)
    assert UCTPlayer(50).search(over).total[0, 0] == 0
    assert UCTPlayer(50).analyze(over) == []
    #  White may only pass: every other point would be suicide
    board = Position.parse("XX.\nX.X\n.XX").replace(to_play=2)
    assert board.legal_moves().sum() == 1
    assert UCTPlayer(50)(board) == board.pass_move


@pytest.mark.slow
def test_superko_binds_below_the_root():
    # Black has just taken the ko at B2 by C2's capture; retaking is forbidden for White at the root and, after any
    # pair of passes or moves that change nothing, the position before may not come back below it.
    position = Position.parse(".XO.\nX.XO\n.XO.\n....", komi=0.5)
    position = position.play(12).play(5)  # White takes at B3, the ko's other side
    trees = UCTPlayer(4000, seed=1).search(position)
    checked = 0
    for node in range(1, trees.used[0]):
        if trees.status[0, node] == OVER:
            continue
        path, n = [], node
        while n != 0:
            path.append(int(trees.via[0, n]))
            n = int(trees.parents[0, n])
        line = position
        for move in reversed(path):
            line = line.play(move)  # raises IllegalMove where the search went against the rules
        eyes = simple_eyes(line.board, line.to_play).ravel()
        np.testing.assert_array_equal(trees.P[0, node] >= 0, line.legal_moves() & ~np.append(eyes, False))
        checked += 1
    assert checked > 3000


@pytest.mark.slow
def test_an_analysis_goes_on_where_it_was():
    position, player = Position.empty(5), UCTPlayer(200)
    first, second = player.analyze(position), player.analyze(position)
    assert sum(m["visits"] for m in first) == 200 and sum(m["visits"] for m in second) == 400
    assert all(m["pv"][0] == m["move"] and 0 <= m["winrate"] <= 1 for m in second)
    assert [m["visits"] for m in second] == sorted((m["visits"] for m in second), reverse=True)
    assert sum(m["visits"] for m in player.analyze(position.play(12))) == 200


def test_equal_visits_are_ranked_by_their_mean():
    trees = Trees(1, 4, 9, 10)
    trees.N[0, 0, [1, 5, 7]], trees.W[0, 0, [1, 5, 7]] = [3, 3, 2], [0.5, 1.5, 2.0]
    assert trees.ranked()[:3].tolist() == [5, 1, 7]


def test_a_move_and_what_it_came_from():
    position, player = Position.empty(5), UCTPlayer(60)
    for _ in range(3):
        move = player(position)
        report = player.analyze(position, 0)
        assert report[0]["move"] == move and sum(m["visits"] for m in report) == 60
    with pytest.raises(ValueError, match="over"):
        player(Position.empty(5).play(25).play(25))


def test_a_finished_game_does_not_slow_the_others():
    calls = []
    for roots in (3, 4):
        games = GAME.reset(roots)
        for move in (0, 3, 1, 4, 2) if roots == 4 else ():  # the last game is over
            GAME.play(games[3:], np.array([move]))
        trees = Trees(roots, 130, 9, 10, exploration="ucb1")
        trees.plant(games, random_order(np.random.default_rng(0), GAME.legal(games)))
        count = []
        evaluate = lambda s, count=count: count.append(1) or np.zeros(len(s), np.float32)  # noqa: E731
        simulate(trees, Playing(), games, evaluate, 100, np.random.default_rng(0))
        assert (trees.total[:3, 0] == 100).all()
        calls.append(len(count))
    assert calls[1] <= calls[0] + 5
