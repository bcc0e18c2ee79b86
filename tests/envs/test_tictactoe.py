import numpy as np
import pytest

from envs.go import features
from envs.tictactoe import (
    BLACK,
    EMPTY,
    SYMMETRIES,
    WHITE,
    Board,
    IllegalMove,
    PerfectPlayer,
    RandomTicTacToe,
    TicTacToe,
    values,
)
from experiments.go.matches import play_game, play_match, random_openings, summary

GAME = TicTacToe()


def board(*moves):
    position = Board()
    for move in moves:
        position = position.play(move)
    return position


@pytest.fixture(scope="module")
def reachable():
    """All states that games lead to: [5478, 10]."""
    found, layer = [], GAME.reset(1)
    while len(layer):
        found.append(layer)
        g, moves = np.nonzero(GAME.legal(layer))
        layer = layer[g]
        GAME.play(layer, moves)
        layer = np.unique(layer, axis=0)
    return np.concatenate(found)


def test_the_game_has_its_known_number_of_positions(reachable):
    over, value = GAME.outcome(reachable)
    assert (over == GAME.is_over(reachable)).all() and (GAME.legal(reachable).any(1) == ~over).all()
    black_lost = GAME.to_play(reachable) == BLACK
    counts = [len(reachable), over.sum(), (value[~black_lost] < 0).sum(), (value[black_lost] < 0).sum()]
    assert counts == [5478, 958, 626, 316]
    assert GAME.moves_cap == (reachable[:, :9] != EMPTY).sum(1).max()


def test_values_are_those_that_everybody_knows():
    def value(*moves):
        return values(board(*moves).states()[1])[0]

    assert value() == 0
    assert [value(first) for first in range(9)] == [0] * 9
    # Only the centre answers a corner; only a corner answers the centre.
    assert [move for move in range(1, 9) if value(0, move) == 0] == [4]
    assert [move for move in (0, 1, 2, 3, 5, 6, 7, 8) if value(4, move) == 0] == [0, 2, 6, 8]
    assert value(0, 3, 1) == -1 and value(0, 3, 1, 4) == 1  # Black threatens; White did not see it
    assert value(0, 3, 1, 4, 2) == -1  # over: the side to move has lost
    # Opposite corners round White's centre: an edge holds, a third corner walks into a fork.
    assert [move for move in (1, 2, 3, 5, 6, 7) if value(0, 4, 8, move) == 0] == [1, 3, 5, 7]
    assert value(0, 4, 8, 2) == 1 and value(0, 4, 8, 2, 6) == -1
    assert values(GAME.reset(3)).tolist() == [0, 0, 0]


def test_values_are_equal_under_the_symmetries(reachable):
    assert len(np.unique(SYMMETRIES, axis=0)) == 8 and (np.sort(SYMMETRIES) == np.arange(9)).all()
    assert (features.symmetries(3)[:, :-1] == SYMMETRIES).all()
    assert SYMMETRIES[1].reshape(3, 3).tolist() == [[2, 5, 8], [1, 4, 7], [0, 3, 6]]  # anticlockwise
    some = reachable[::17]
    for table in SYMMETRIES:
        turned = some.copy()
        turned[:, :9] = some[:, table]
        assert (values(turned) == values(some)).all()
        legal = GAME.legal(some)
        assert (GAME.legal(turned) == legal[:, table]).all()


def test_a_board_tells_its_game_and_never_changes():
    empty = Board()
    one = empty.play(4)
    two = one.play(0)
    assert empty.move_number == 0 and not empty.board.any() and empty.legal_moves().all() and empty.moves() == []
    assert (one.to_play, two.to_play, two.move_number, two.last_move) == (WHITE, BLACK, 2, 0)
    assert two.moves() == [(BLACK, 4), (WHITE, 0)] and two.parent is one and one.parent is empty
    assert two.board.tolist() == [[WHITE, EMPTY, EMPTY], [EMPTY, BLACK, EMPTY], [EMPTY, EMPTY, EMPTY]]
    assert two.legal_moves().tolist() == [False, True, True, True, False, True, True, True, True]
    assert str(two) == "O . .\n. X .\n. . .\nBlack (X) to move, move 2"
    game, states = two.states()
    game.play(states, np.array([8]))
    assert two.legal_moves()[8] and Board(states[0]).move_number == 3 and Board(states[0]).moves() == []
    with pytest.raises(ValueError, match="read-only"):
        two.board[0, 0] = 0


def test_a_board_ends_and_is_scored_for_black():
    black, white, drawn = board(0, 3, 1, 4, 2), board(0, 3, 1, 4, 8, 5), board(0, 1, 2, 4, 3, 5, 7, 6, 8)
    assert [b.is_over for b in (black, white, drawn, board(0, 3))] == [True, True, True, False]
    assert [b.score() for b in (black, white, drawn, board(0, 3))] == [1, -1, 0, 0]
    assert not black.legal_moves().any()


@pytest.mark.parametrize(
    ("moves", "move", "why"),
    [
        ((4,), 4, "White may not play 4: occupied"),
        ((), 9, "Black may not play 9: there is no such point"),
        ((), -2, "there is no such point"),
        ((0, 3, 1, 4, 2), 8, "White may not play 8: the game is over"),
    ],
)
def test_an_illegal_move_is_refused(moves, move, why):
    with pytest.raises(IllegalMove, match=why):
        board(*moves).play(move)


def test_the_perfect_player_never_loses_and_takes_what_it_gets():
    games = list(play_match(PerfectPlayer, RandomTicTacToe, [Board()], 200, seed=1))
    out = summary(games)
    assert out["losses"] == 0 and out["score"] > 0.9 and not out["forfeits"] and out["ended_by_move_cap"] == 0
    assert {game.result for game in games} == {"B+1", "W+1", "0"}
    assert all(game.position().is_over for game in games)
    among_equals = summary(list(play_match(PerfectPlayer, PerfectPlayer, [Board()], 40, seed=2)))
    assert among_equals["draws"] == 40 and among_equals["distinct_games"] > 20
    assert {PerfectPlayer(seed)(board(0)) for seed in range(20)} == {4}
    assert {PerfectPlayer(seed)(Board()) for seed in range(100)} == set(range(9))
    assert {PerfectPlayer(seed)(board(0, 4, 1)) for seed in range(20)} == {2}  # all others lose
    assert PerfectPlayer()(board(0, 3, 1, 4)) in (2, 5, 6)  # the win, or two threats at once


@pytest.mark.slow
def test_random_players_win_as_often_as_chance_says():
    out = summary(list(play_match(RandomTicTacToe, RandomTicTacToe, [Board()], 500, seed=3)))
    black = (out["as_black"]["wins"] + out["as_white"]["losses"]) / 500
    assert black == pytest.approx(737 / 1260, abs=0.05) and out["draws"] / 500 == pytest.approx(8 / 63, abs=0.04)
    player = RandomTicTacToe(5)
    first = [player(Board()) for _ in range(10)]
    player.new_game(5)
    assert [player(Board()) for _ in range(10)] == first
    for made in (RandomTicTacToe, PerfectPlayer):
        with pytest.raises(ValueError, match="the game is over"):
            made()(board(0, 3, 1, 4, 2))


def test_a_match_referees_it_as_it_does_go():
    game = play_game(lambda board: 0, lambda board: 0, Board())
    assert (game.winner, game.result, game.forfeit) == (BLACK, "B+F", "illegal move")
    assert game.story == "illegal move: White may not play 0: occupied"
    starts = random_openings(Board(), 72, 2, seed=0, player=RandomTicTacToe(0))
    assert len({start.board.tobytes() for start in starts}) == 72 and all(len(start.moves()) == 2 for start in starts)
    with pytest.raises(ValueError, match="found no openings of 10 moves"):
        random_openings(Board(), 1, 10, seed=0, player=RandomTicTacToe(0))
