"""The trained network as a player: its tree, its limits, and what it says of a position."""

import time

import numpy as np
import pytest
import torch

from agents.alphazero.network import BoardNetwork
from agents.alphazero.player import AlphaZero
from agents.uct.player import UCTPlayer
from envs.go import position as rules
from envs.go.gtp import Engine
from envs.go.position import BLACK, Position
from envs.tictactoe import Board
from rlkit.search import kept_tree
from rlkit.search.game import RESIGN

ALL = ("ownership", "score", "reply")


@pytest.fixture(autouse=True)
def small_trees(monkeypatch):
    """Memory that other tests have used has to be cleared first, a gigabyte of it in half a second."""
    monkeypatch.setattr(kept_tree, "MEMORY", 10**7)


def network(planes=17, heads=ALL, **options):
    """Of random weights, the last layers too, which otherwise begin at 0."""
    torch.manual_seed(7)
    net = BoardNetwork(planes, 8, 1, heads=heads, **options)
    for parameter in (*net.points.parameters(), *net.board.parameters()):
        torch.nn.init.normal_(parameter, std=0.5)
    return net


def spoken(value):
    """A network that says this value of every position, and has no preferences."""
    net = network()
    for parameter in (*net.points.parameters(), *net.board.parameters()):
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(net.board.bias[:1], np.arctanh(value))
    return net


def statistics(trees, node=0):
    return {name: getattr(trees, name)[0, node].copy() for name in ("N", "W", "P", "total", "value")}


def legal(position, player):
    return position.is_legal(player(position))


# -- the tree from move to move


@pytest.mark.parametrize("start", [Position.empty(4, 0.5), Position.empty(4, 0.5, max_moves=48).play(3)])
def test_what_is_known_of_the_position_after_moves_stays_known(start):
    player = AlphaZero(network(), 200)
    trees = player.search(start)
    assert trees.total[0, 0] == 200
    line = trees.line()[:2]
    child = trees.child[0, 0, line[0]]
    node = trees.child[0, child, line[1]]
    expected, below = statistics(trees, node), trees.child[0, node] != 0
    after = start.play(line[0]).play(line[1])
    kept = player.kept.at(after, 200)
    assert kept is trees and expected["total"] > 2
    for name, value in statistics(kept).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    np.testing.assert_array_equal(kept.child[0, 0] != 0, below)
    visits = int(kept.total[0, 0])
    calls, evaluate = [], player.evaluate

    def counted(planes):
        calls.append(len(planes))
        return evaluate(planes)

    player.evaluate = counted
    assert legal(after, player) and kept.total[0, 0] == 200 and sum(calls) <= 200 - visits
    np.testing.assert_array_equal(kept.P[0, 0] >= 0, after.legal_moves())


def test_a_tree_that_does_not_belong_to_the_position_is_not_used():
    start = Position.empty(4, 0.5)
    for change in (
        lambda after: Position.empty(4, 0.5).play(5).play(6),  # the same board of another game
        lambda after: after.replace(komi=3),
        lambda after: after.replace(to_play=3 - after.to_play),
        lambda after: after.parent,
    ):
        player = AlphaZero(network(), 60)
        player.search(start)
        player.search(start.play(5).play(6))
        position = change(start.play(5).play(6))
        fresh, trees = AlphaZero(network(), 60), player.search(position)
        np.testing.assert_array_equal(trees.N[0, 0], fresh.search(position).N[0, 0])
    # komi changed, or a side moved twice, between the position searched and the one asked about
    for position in (start.play(5).replace(komi=3).play(6), start.play(5).play(6, BLACK), start.play(16, 2)):
        player = AlphaZero(network(), 60)
        player.search(start)
        np.testing.assert_array_equal(
            player.search(position).N[0, 0], AlphaZero(network(), 60).search(position).N[0, 0]
        )


def test_games_repeat_themselves_whatever_was_played_before():
    player, moves = AlphaZero(network(), 50), []
    for seed in (1, 2):
        player.new_game(seed)
        position = Position.empty(3, 0.5, max_moves=27)
        while not position.is_over:
            position = position.play(player(position))
        moves.append(position.moves())
    assert moves[0] == moves[1] and len(moves[0]) > 3


def test_in_a_long_game_the_end_by_the_cap_never_comes_near():
    position, player = Position.empty(2, 0.5), AlphaZero(network(), 30)
    ends = []
    for _ in range(12):
        trees = player.search(position)
        ends.append(player.kept._last_end - position.move_number)
        moves = [a for a in trees.ranked() if trees.P[0, 0, a] >= 0 and not position.play(int(a)).is_over]
        position = position.play(int(moves[0]))
    assert min(ends) >= 8 - 2 - 1 and player.kept._last_end > 8  # twice the points, less half the actions


def test_an_evaluation_that_fails_leaves_no_trace():
    player, position = AlphaZero(network(), 60), Position.empty(4, 0.5)
    good, calls = player.evaluate, []

    def failing(planes):
        calls.append(1)
        if len(calls) == 7:
            raise RuntimeError("out of memory")
        return good(planes)

    player.evaluate = failing
    with pytest.raises(RuntimeError):
        player(position)
    np.testing.assert_array_equal(player.search(position).N, AlphaZero(network(), 60).search(position).N)


# -- limits


def test_a_full_tree_plays_from_what_it_has(monkeypatch):
    position = Position.empty(4, 0.5)
    game, _ = position.states()
    monkeypatch.setattr(kept_tree, "MEMORY", 20 * (2 * game.state_size + 16 * game.num_actions))
    for simulations in (1000, None):
        player = AlphaZero(network(), simulations)
        player.seconds = None if simulations else 60
        assert legal(position, player)
        trees = player.kept.trees
        assert trees.used[0] == 20 and 19 <= trees.total[0, 0] < 1000  # ended games need no node


def test_a_time_limit_shorter_than_an_evaluation():
    position = Position.empty(4, 0.5)
    for simulations in (400, None):
        player = AlphaZero(network(), simulations)
        for player.seconds in (1e-9, 0.0):
            player.new_game(0)
            assert legal(position, player) and 1 <= player.search(position).total[0, 0] <= 3
    player.seconds = None
    with pytest.raises(ValueError, match="needs a limit: set simulations, or seconds"):
        player(position)


def test_a_time_limit_where_every_line_ends_the_game():
    """On 1x1 only a pass is legal, and the second ends it: no simulation ever needs the network."""
    player = AlphaZero(network(heads=()), None)
    player.seconds = 0.05
    position, began = Position.empty(1, 0.5), time.monotonic()
    assert player(position) == position.pass_move
    assert time.monotonic() - began < 5  # it was half a minute, whatever the limit


def test_time_alone_is_no_bound_on_simulations_and_both_bind():
    position = Position.empty(3, 0.5)
    player = AlphaZero(network(), None)
    player.seconds = 0.3
    assert legal(position, player) and player.kept.trees.total[0, 0] > 50
    player = AlphaZero(network(), 10)
    player.seconds = 60
    assert player.search(position).total[0, 0] == 10


def test_leaves_are_few_while_the_tree_is_small():
    player, sizes = AlphaZero(network(), 100, leaves=4), []
    good = player.evaluate
    player.evaluate = lambda planes: sizes.append(len(planes)) or good(planes)
    player(Position.empty(4, 0.5))
    assert sizes[:4] == [1, 1, 1, 1] and max(sizes) == 4


def test_one_simulation_and_none():
    assert legal(Position.empty(3), AlphaZero(network(), 1))
    for options in ({"simulations": 0}, {"resign": 1.5}, {"resign": -0.1}):
        with pytest.raises(ValueError, match=r"simulation at least|in 0 .. 1"):
            AlphaZero(network(), **options)


# -- moves


def test_it_resigns_when_even_its_best_move_is_bad_enough():
    assert RESIGN == rules.RESIGN
    position = Position.empty(5, 0.5).play(12)
    # All positions look equally bad to whom they belong to: after one's own move it is the other's.
    bad, worse = (AlphaZero(spoken(value), 1, resign=0.9) for value in (0.85, 0.95))
    assert legal(position, bad) and worse(position) == RESIGN
    assert legal(position, AlphaZero(spoken(0.95), 1))  # never, unless it is told to
    deep = AlphaZero(spoken(0.95), 60, resign=0.9)  # after two moves it is one's own again
    assert legal(position, deep)


def test_a_finished_game_has_no_move_and_a_lone_pass_is_played():
    player = AlphaZero(network(), 20, resign=0.0)
    over = Position.empty(3).play(9).play(9)
    with pytest.raises(ValueError, match="the game is over"):
        player(over)
    assert player.analyze(over) == []
    board = Position.parse("XX.\nX.X\n.XX").replace(to_play=2)
    assert AlphaZero(network(), 20)(board) == board.pass_move


def test_it_sees_that_a_pass_wins():
    position = Position.empty(3, 0.5).play(4).play(9)  # Black has the whole board, and White has passed
    assert AlphaZero(spoken(0.0), 100)(position) == position.pass_move


def test_other_boards_and_other_games_are_refused():
    player = AlphaZero(network(), 10, info={"env": {"size": 4}})
    assert legal(Position.empty(4), player) and legal(Position.empty(3), player)
    with pytest.raises(ValueError, match=r"boards of up to 4 lines, not 5 x 3: choose a smaller"):
        player(Position.empty((5, 3)))
    with pytest.raises(ValueError, match=r"another game: it looks at 17 planes and may pass; here are 2 planes and 9"):
        player(Board())
    assert [player.can_play(*sides) for sides in ((4, 4), (3, 4), (1, 1), (5, 3), (3, 5))] == [True] * 3 + [False] * 2
    assert AlphaZero(network(), 10).can_play(19, 19), "a tower of convolutions has no size"
    biased = network(backbone="alphago", size=6)
    assert [AlphaZero(biased, 10).can_play(6, lines) for lines in (5, 6, 7)] == [True, True, False]
    assert not AlphaZero(biased, 10, info={"env": {"size": 4}}).can_play(5, 5)
    with pytest.raises(ValueError, match="boards of up to 6 lines"):
        AlphaZero(biased, 10)(Position.empty(7))
    toy = AlphaZero(network(2, (), has_pass=False), 10)
    assert Board().legal_moves()[toy(Board())]
    with pytest.raises(ValueError, match=r"2 planes and cannot pass; here are 17 planes and 10 moves on 3 x 3"):
        toy(Position.empty(3))
    assert legal(Position.empty(4), player)  # and it goes on


def test_the_toy_goes_on_in_its_tree_too():
    player = AlphaZero(network(2, (), has_pass=False), 100)
    board = Board()
    trees = player.search(board)
    move = int(trees.ranked()[0])
    visits = trees.N[0, 0, move]
    assert player.kept.at(board.play(move), 100).total[0, 0] == visits - 1 > 0


# -- analysis


def test_what_an_analysis_says():
    net, position = network(), Position.empty((3, 4), 0.5).play(5).play(7)
    player = AlphaZero(net, 60)
    moves = player.analyze(position)
    assert sum(m["visits"] for m in moves) == 60
    trees, heads = player.kept.trees, player.evaluate.heads
    game, games = position.states()
    here = heads(game.encode(games))
    for m in moves:
        after = position.play(m["move"])
        assert m["pv"][0] == m["move"] and after.move_number == 3
        assert m["winrate"] == pytest.approx((trees.W[0, 0, m["move"]] / m["visits"] + 1) / 2)
        assert m["prior"] == trees.P[0, 0, m["move"]]
        game, games = after.states()
        # what the other side leads by is what we do not, in points of a board of 12
        assert m["score"] == pytest.approx(-12 * heads(game.encode(games))["score"][0], abs=1e-4)
        np.testing.assert_array_equal(m["ownership"], here["ownership"][0])
    assert [m["visits"] for m in moves] == sorted((m["visits"] for m in moves), reverse=True)
    assert len({m["score"] for m in moves}) > 1 and moves[0]["ownership"].shape == (3, 4)
    bare = AlphaZero(network(heads=()), 60).analyze(position)
    assert all(m.keys() == {"move", "visits", "winrate", "prior", "pv"} for m in bare)


def test_an_analysis_goes_on_and_says_what_a_move_came_from():
    position, player = Position.empty(4, 0.5), AlphaZero(network(), 50)
    move = player(position)
    report = player.analyze(position, 0)
    assert report[0]["move"] == move and sum(m["visits"] for m in report) == 50
    for total in (50, 100):  # in a larger tree, so from the beginning
        assert sum(m["visits"] for m in player.analyze(position)) == total
    after = position.play(move)
    known = next(m["visits"] for m in player.analyze(position, 0) if m["move"] == move) - 1
    assert sum(m["visits"] for m in player.analyze(after)) == known + 50
    assert sum(m["visits"] for m in player.analyze(after, 1e-6)) > known + 50
    timed = AlphaZero(network(), None)
    timed.seconds = 0.05
    assert timed.analyze(position)  # as many as a move gets


@pytest.mark.parametrize("make", [lambda: UCTPlayer(50), lambda: AlphaZero(network(), 50)])
def test_an_analysis_of_some_moves_alone(make):
    position, player = Position.empty(4, 0.5), make()
    some, other = (np.isin(np.arange(17), moves) for moves in ([5, 6, 16], [0, 1]))
    for total in (50, 100):  # it goes on
        found = player.analyze(position, None, some.copy())
        assert {row["move"] for row in found} == {5, 6, 16} and sum(row["visits"] for row in found) == total
    for moves, most in ((other, 2), (None, 17)):  # and begins anew
        found = player.analyze(position, None, moves)
        assert len(found) <= most and sum(row["visits"] for row in found) == 50
        assert moves is None or {row["move"] for row in found} <= {0, 1}
    player.analyze(position, None, some)
    assert sum(row["visits"] for row in player.analyze(position.play(5))) == 50
    player.analyze(position, None, some)
    if isinstance(player, AlphaZero):
        assert player(position) == make()(position)


def test_uct_and_the_network_speak_alike():
    position = Position.empty(4, 0.5)
    uct, ours = (player.analyze(position) for player in (UCTPlayer(30), AlphaZero(network(heads=()), 30)))
    assert uct[0].keys() == ours[0].keys() and uct[0]["prior"] == 1 / 17


def test_a_session_with_ownership():
    engine = Engine(AlphaZero(network(), 30), 3, 0.5)
    answer = engine.answer("kata-analyze b 1 ownership true")
    body, _, owners = answer[2:].strip().partition(" ownership ")
    values = np.array([float(x) for x in owners.split()])
    assert body.startswith("info move ") and "scoreLead" in body and values.shape == (9,) and abs(values).max() <= 1
    game, games = engine.position.states()
    np.testing.assert_allclose(values, engine.player.evaluate.heads(game.encode(games))["ownership"].ravel(), atol=6e-4)
    for quiet in ("kata-analyze b 1 ownership false", "kata-analyze 1", "lz-analyze 1 ownership true"):
        assert " ownership " not in engine.answer(quiet)
    answer = engine.answer("kata-genmove_analyze w 1 ownership true")
    assert " ownership " in answer and answer.strip().splitlines()[-1].startswith("play ")
    assert engine.answer("boardsize 19") == "= \n\n"


def test_a_session_in_which_it_resigns_and_hears_of_a_clock():
    engine = Engine(AlphaZero(spoken(0.95), 1, resign=0.9), 5)
    assert engine.answer("genmove b") == "= resign\n\n" and engine.position.move_number == 0
    engine.player.resign = None
    engine.answer("time_settings 0 1 1000")
    assert engine.answer("genmove b").startswith("= ") and 0 < engine.player.seconds < 1
    engine = Engine(AlphaZero(network(), 5, info={"env": {"size": 3}}), 5)
    assert engine.answer("genmove b").startswith("? ValueError: this agent was trained on boards of up to 3 lines")
    assert [engine.answer(f"boardsize {lines}") for lines in (19, 3)] == ["? unacceptable size\n\n", "= \n\n"]
