"""The reference itself against published counts and boards small enough to check by eye."""

from itertools import product

import go_reference as go
import numpy as np
import pytest
from go_reference import BLACK, SUPERKO, WHITE, Board, Game

KO = [".....", ".XO..", "XO.O.", ".XO..", "....."]
# White's stone is in atari from above, left and below, and can run along the diagonal to the lower right.
LADDER = [".......", "..XX...", ".XO....", "..X....", ".......", ".......", "......."]


def drawn(*rows, to_play=BLACK, **rules):
    game = Game(len(rows), len(rows[0]), **rules)
    game.set_up(list(rows), to_play)
    return game


def position(game):
    rows, columns = range(game.height), range(game.width)
    return ["".join(".XO"[game.stones.get((row, column), 0)] for column in columns) for row in rows]


def play(game, *moves):
    for move in moves:
        game.play(move)
    return game


def where(plane):
    return [tuple(int(i) for i in point) for point in np.argwhere(plane)]


@pytest.mark.parametrize("size, count", [(1, 1), (2, 57), (3, 12675)])
@pytest.mark.slow
def test_legal_positions(size, count):
    """Tromp and Farneback, Combinatorics of Go."""
    points = list(go.neighbours(size, size))
    boards = (
        Board(size, size, {point: colour for point, colour in zip(points, colours, strict=True) if colour})
        for colours in product((0, BLACK, WHITE), repeat=len(points))
    )
    assert sum(all(board.liberties(point) for point in board.stones) for board in boards) == count


@pytest.mark.parametrize(
    "count, width, superko, suicide",
    [
        (9, 2, "positional", True),
        (9, 2, "positional", False),
        (907, 3, "positional", True),
        (907, 3, "positional", False),
        (959, 3, "situational", False),
    ],
)
def test_number_of_games(count, width, superko, suicide):
    """Games on one line if passes are free: at each step either colour may put a stone, and every prefix counts."""

    def games(game):
        moves = [(m, c) for m in range(game.points) for c in (BLACK, WHITE) if game.legal(m, c)]
        return 1 + sum(games(after(game, move, colour)) for move, colour in moves)

    def after(game, move, colour):
        game = game.copy()
        game.play(move, colour)
        return game

    assert games(Game(1, width, superko=superko, suicide=suicide)) == count


def test_captures_and_suicide():
    game = play(drawn(".X.", "XO.", "..."), 5)
    assert position(game) == [".X.", "XOX", "..."], "a neighbour that keeps a liberty stays"
    game = play(drawn(".OX", "OX.", "X.."), 0)
    assert position(game) == ["X.X", ".X.", "X.."], "taken before the own chain is looked at"
    assert game.captures == {BLACK: 2, WHITE: 0}
    rows = [".XO.", "XXO.", "OOO."]
    assert not drawn(*rows).legal(0)
    game = play(drawn(*rows, suicide=True), 0)
    assert position(game) == ["..O.", "..O.", "OOO."]
    assert game.captures == {BLACK: 0, WHITE: 4}
    assert [drawn(".O.", "O..", suicide=True, superko=superko).legal(0) for superko in SUPERKO] == [False, True, True]


@pytest.mark.parametrize("superko", SUPERKO)
def test_ko(superko):
    game = play(drawn(*KO, superko=superko), 12)
    assert game.ko == ((2, 1), WHITE)
    assert not game.legal(11) and game.legal(11, BLACK)
    with pytest.raises(ValueError, match="move 11 is illegal for O"):
        game.play(11)
    assert play(game.copy(), 4, 24).legal(11), "after an exchange elsewhere the position is a new one"
    assert play(game.copy(), 25, 4).legal(11) and not play(game.copy(), 25).ko
    game.play(25)
    assert game.legal(11, WHITE) == (superko == "simple"), "a pass lifts the simple ban only"


def test_what_is_no_ko():
    """A stone that was taken by two, or by one with another liberty, may be taken back at once."""
    snapback = play(drawn("XO.XO", ".XOO."), 2)
    assert snapback.captures[BLACK] == 1 and snapback.liberties((0, 2)) == {(0, 1)} and not snapback.ko
    assert position(play(snapback, 1)) == ["XO..O", ".XOO."]
    game = play(drawn("XO.", ".X."), 2)
    assert game.captures[BLACK] == 1 and not game.ko


def test_superko_by_position_and_by_situation():
    """Black sends two stones, White returns one: the same position, but the other side is to move."""
    legal = {superko: play(Game(1, 3, superko=superko), 0, 2, 1, 2).legal(0) for superko in SUPERKO}
    assert legal == {"positional": False, "situational": True, "simple": True}


def test_end_of_the_game():
    game = play(Game(2, 2), 4)
    assert game.legal_moves() == [True] * 5
    game.play(4)
    assert game.is_over and game.legal_moves() == [False] * 5
    assert play(Game(2, 2, max_moves=2), 0, 3).is_over
    game = play(Game(2, 2), 0)
    game.play(3, BLACK)
    assert (game.to_play, game.move_number, game.last) == (WHITE, 2, [(BLACK, 0), (BLACK, 3)])


def test_score():
    assert Game(3, 3).score() == -7.5
    game = drawn(".X.O.", "XX.OO", komi=1.5)
    assert game.ownership() == [[1, 1, 0, -1, -1], [1, 1, 0, -1, -1]]
    assert game.score() == -1.5
    assert drawn("..X", "...", komi=0).score() == 6


def test_true_eye():
    rows = ["..X.", "XXX.", "X.XX", "OXXO"]
    assert go.true_eye(drawn(*rows), (2, 1), BLACK), "one diagonal stone does not break an eye in the interior"
    assert not go.true_eye(drawn(*rows[:1], "OXX.", *rows[2:]), (2, 1), BLACK), "two do"
    assert not go.true_eye(drawn(*rows), (0, 1), BLACK), "a neighbour is empty"
    assert not go.true_eye(drawn(*rows), (2, 1), WHITE)
    assert go.true_eye(drawn(".X.", "X.."), (0, 0), BLACK)
    assert not go.true_eye(drawn(".X.", "XO."), (0, 0), BLACK), "on the edge one does"


def test_ladders():
    game = drawn(*LADDER, to_play=WHITE)
    assert go.captured(game, (2, 2)) and not go.captured(game, (2, 2), max_depth=3)
    assert not go.ladder_escape(game, 17)
    broken = drawn(*LADDER[:4], "....O..", *LADDER[5:], to_play=WHITE)
    assert not go.captured(broken, (2, 2))
    assert go.ladder_escape(broken, 17) and not go.ladder_escape(broken, 18)
    # The same a move earlier: Black gives the atari from below, and nothing but that captures.
    earlier = drawn(*LADDER[:3], *LADDER[4:], ".......")
    assert [move for move in range(49) if earlier.legal(move) and go.ladder_capture(earlier, move)] == [23]
    earlier.stones = {**earlier.stones, (4, 4): WHITE}
    assert not go.ladder_capture(earlier, 23)


def test_ladder_escape_by_capture():
    game = drawn("....X..", ".XXOX..", ".OOXO..", ".XX.O..", ".......", to_play=WHITE)
    assert go.saving_moves(game, (1, 3)) == {(0, 3), (3, 3)}
    assert where(go.alphago_planes(game)[go.LADDER_ESCAPE]) == [(2, 0), (3, 3)], "running along the top does not help"


def test_ladder_with_a_ko():
    """White could save the stones at the top by taking back on (1, 1), but not at once."""
    rows = [".XO.X", "XO.OX", ".XOX.", "..O..", "....."]
    assert go.ladder_capture(drawn(*rows), 7)
    assert not go.captured(drawn(rows[0], "X.XOX", *rows[2:], to_play=WHITE), (0, 2))


def test_alphago_planes():
    game = drawn(*KO)
    planes = go.alphago_planes(game, colour_plane=True)
    assert planes.shape == (49, 5, 5) and planes.dtype == np.uint8
    assert where(planes[0]) == [(1, 1), (2, 0), (3, 1)] and where(planes[1]) == [(1, 2), (2, 1), (2, 3), (3, 2)]
    assert (planes[:3].sum(0) == 1).all() and (planes[3] == 1).all() and not planes[47].any() and planes[48].all()
    assert not planes[4:11].any() and (planes[11] == planes[0] + planes[1]).all(), "stones of a set-up are old"
    assert where(planes[12]) == [(2, 1)] and where(planes[13]) == [(1, 1), (2, 0), (3, 1)]
    assert where(planes[15]) == [(2, 3)] and where(planes[14]) == [(1, 2), (3, 2)]
    assert (planes[20] + planes[21] == planes[2]).all() and where(planes[21]) == [(2, 2)]
    assert where(planes[28]) == [(2, 2)] and not planes[29:36].any() and planes[36, 2, 2]
    assert (planes[36:44].sum(0) == planes[2]).all() and (planes[46] == planes[2]).all()

    game.play(12)
    planes = go.alphago_planes(game, colour_plane=True)
    assert where(planes[4]) == [(2, 2)] and planes[11].sum() == 6 and not planes[48].any()
    assert not planes[20:47, 2, 1].any(), "forbidden by ko"
    assert go.alphago_planes(play(game, 25))[5, 2, 2], "a pass makes stones older"
    assert not go.alphago_planes(play(game, 25))[20:47].any(), "the game is over"


def test_planes_of_captures_suicide_and_eyes():
    assert go.alphago_planes(drawn(".OX", "OOX", "XX."))[23, 0, 0], "takes three"
    planes = go.alphago_planes(drawn(".OX.", "OOX.", "XXX.", to_play=WHITE, suicide=True))
    assert planes[20, 0, 0] and not planes[28:44, 0, 0].any(), "no chain is left to count"
    planes = go.alphago_planes(drawn(".X..", "XX..", "...."))
    assert planes[20, 0, 0] and not planes[46, 0, 0] and planes[46, 0, 2], "own eyes are legal, not sensible"


def test_alphagozero_planes():
    game = play(drawn("X..", "...", "..O"), 4, 9, 1)
    planes = go.alphagozero_planes(game)
    assert planes.shape == (17, 3, 3) and planes.dtype == np.uint8
    own, opponent = planes[:8], planes[8:16]
    assert [where(plane) for plane in own] == [[(2, 2)]] * 4 + [[]] * 4
    assert where(opponent[0]) == [(0, 0), (0, 1), (1, 1)]
    assert where(opponent[1]) == where(opponent[2]) == [(0, 0), (1, 1)], "the pass took a turn"
    assert where(opponent[3]) == [(0, 0)] and not opponent[4:].any(), "nothing before the set-up"
    assert not planes[16].any() and go.alphagozero_planes(play(game, 5))[16].all()
