"""One position: what it says, what it refuses, and that it never changes."""

import numpy as np
import pytest
from go_reference import SUPERKO, Game
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.go.position import (
    BLACK,
    RESIGN,
    WHITE,
    IllegalMove,
    Position,
    from_vertex,
    to_vertex,
)

KO = ".XO.\nXO.O\n.XO.\n...."
SIDES = st.integers(1, 6) | st.just(19)


def rows(position):
    return ["".join(".XO"[colour] for colour in row) for row in position.board]


def play(position, *moves):
    for move in moves:
        position = position.play(move)
    return position


@st.composite
def played(draw):
    """A position after random moves, passes, set-ups and replacements."""
    rules = {"superko": draw(st.sampled_from(SUPERKO)), "suicide": draw(st.booleans())}
    size = draw(SIDES), draw(SIDES)
    position = Position.empty(size, draw(st.integers(-40, 40)) / 4, **rules)
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    for kind in draw(st.lists(st.sampled_from(["play"] * 12 + ["pass", "setup", "replace"]), max_size=40)):
        if kind == "setup":
            stones, black, white = rng.permutation(position.points)[:3], rng.random() < 0.5, rng.random() < 0.5
            try:
                position = position.setup(stones[:1] if black else (), stones[1:2] if white else (), stones[2:])
            except ValueError:
                assert position.points > 1 or black or white
        elif kind == "replace":
            position = position.replace(komi=float(rng.integers(10)), to_play=int(rng.integers(1, 3)))
        elif not position.is_over:
            moves = np.flatnonzero(position.legal_moves())
            position = position.play(position.pass_move if kind == "pass" else rng.choice(moves))
    return position


def without_last(text):
    """A drawing without the marks of the move that led there."""
    board, last = text.replace("(", " ").replace(")", " ").rsplit("\n", 1)
    return [line.rstrip() for line in board.splitlines()], last.split(" to move")[0], last.split("; ")[1]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(played())
def test_a_drawing_is_read_back(position):
    text = str(position)
    again = Position.parse(text, superko=position.superko, suicide=position.suicide)
    assert (again.board == position.board).all()
    for name in ("to_play", "komi", "captures", "height", "width", "superko", "suicide"):
        assert getattr(again, name) == getattr(position, name), name
    assert without_last(str(again)) == without_last(text)
    assert (again.move_number, again.last_move, again.parent) == (0, None, None)
    assert Position.parse(text, komi=1.25).komi == 1.25
    bare = "\n".join("".join(".xo"[colour] for colour in row) for row in position.board)
    assert (Position.parse(bare).board == position.board).all() and Position.parse(bare).to_play == BLACK
    assert text.count("(") == 1 + (position.last_move not in (None, position.pass_move))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(played())
def test_a_position_never_changes(position):
    line = [position]
    while line[-1].parent is not None:
        line.append(line[-1].parent)
    before = [(p._row.tobytes(), str(p), p.score(), p.legal_moves().tolist()) for p in line]
    for array in (position.board, position.ownership(), position._row):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 1
    position.legal_moves()[:] = True
    for move in np.flatnonzero(position.legal_moves())[:5]:
        child = position.play(move)
        assert child.parent is position and child.moves() == [*position.moves(), (position.to_play, move)]
        assert child.root() is position.root()
    position.setup(empty=range(position.points))
    position.replace(komi=3, to_play=3 - position.to_play)
    game, states = position.states()
    assert game.legal(states)[0].tolist() == position.legal_moves().tolist()
    if not position.is_over:
        game.play(states, np.array([int(position.legal_moves().argmax())]))
    assert before == [(p._row.tobytes(), str(p), p.score(), p.legal_moves().tolist()) for p in line]


@pytest.mark.parametrize("suicide", [False, True])
@pytest.mark.parametrize("superko", SUPERKO)
@pytest.mark.slow
def test_both_colours_against_the_reference(superko, suicide):
    """Either colour may be asked for and may play twice."""
    for seed in range(24):
        rng = np.random.default_rng(seed)
        height, width = [(2, 3), (3, 3), (1, 6), (4, 3)][seed % 4]
        position = Position.empty((height, width), superko=superko, suicide=suicide)
        game = Game(height, width, superko=superko, suicide=suicide)
        while not position.is_over and position.move_number < 40:
            for colour in (BLACK, WHITE):
                for move in range(position.points + 1):
                    assert position.is_legal(move, colour) == game.legal(move, colour), (seed, game.last, move, colour)
            colour = position.to_play if rng.random() < 0.8 else 3 - position.to_play
            moves = [move for move in range(position.points) if position.is_legal(move, colour)]
            move = int(rng.choice(moves)) if moves and rng.random() < 0.95 else position.pass_move
            position = position.play(move, colour)
            game.play(move, colour)
            assert position.moves() == game.last and position.captures == (game.captures[1], game.captures[2])
            assert position.score() == game.score() and position.ownership().tolist() == game.ownership()
            mine, states = position.states()
            assert mine.legal(states)[0].tolist() == position.legal_moves().tolist() == game.legal_moves()


def test_superko_across_branches():
    """Lines from one position: each has its own past and the common one, in whatever order they are asked."""
    parent = Position.parse(".....\n.XO..\nXO.O.\n.XO..\n.....").play(12)
    first = play(parent, 4, 24, 11)
    second = parent.play(24, BLACK).play(4, WHITE)
    assert second.is_legal(11, WHITE), "a board of another line only"
    assert rows(second.play(11, WHITE)) == rows(first)
    third = parent.play(4).play(11, WHITE).play(24, BLACK)
    assert rows(third) == rows(first)
    assert third.is_legal(12, BLACK) and not first.play(25).is_legal(12, BLACK)
    assert rows(third.play(12, BLACK)) == rows(first.parent)
    assert not parent.is_legal(11) and not parent.play(25).is_legal(11, WHITE)


def test_the_line_of_play():
    start = Position.empty((2, 3))
    position = play(start, 0, 6, 4)
    assert position.moves() == [(BLACK, 0), (WHITE, 6), (BLACK, 4)]
    assert (position.root(), start.root(), start.moves()) == (start, start, [])
    assert [start.last_move, start.last_colour, position.last_move, position.last_colour] == [None, None, 4, BLACK]
    assert position.play(5, BLACK).moves()[-2:] == [(BLACK, 4), (BLACK, 5)]
    put = position.setup(white=[5])
    assert (put.parent, put.moves(), put.move_number, put.to_play) == (None, [], 0, WHITE)
    assert put.play(2).root() is put
    for _ in range(20):
        position = position.play(6, force=True)
    assert position.moves()[3:] == [(WHITE - i % 2, 6) for i in range(20)]


def test_replace():
    position = play(Position.empty(3, komi=6), 4, 0)
    other = position.replace(komi=-2.5, to_play=WHITE)
    assert (other.komi, other.to_play, other.moves(), other.parent) == (-2.5, WHITE, [(1, 4), (2, 0)], position.parent)
    assert (position.komi, position.to_play) == (6, BLACK) and position.replace().moves() == position.moves()
    assert not Position.parse(KO).play(6).replace(komi=0).is_legal(5), "the past stays"
    for superko in SUPERKO:
        taken = Position.parse(KO, superko=superko).play(6).replace(to_play=BLACK)
        assert taken.is_legal(5, BLACK) and taken.legal_moves()[5], "who has taken a ko may fill it"


@pytest.mark.parametrize("height, width", [(1, 1), (2, 5), (9, 9), (19, 19)])
def test_vertices(height, width):
    names = [to_vertex(move, height, width) for move in range(height * width + 1)]
    assert [from_vertex(name, height, width) for name in names] == list(range(height * width + 1))
    assert [from_vertex(name.lower(), height, width) for name in names] == list(range(height * width + 1))
    assert len(set(names)) == len(names) and not any("I" in name for name in names)
    assert (names[0], names[-1]) == (f"A{height}", "pass") and from_vertex("PASS", height, width) == height * width
    assert from_vertex("A1", height, width) == (height - 1) * width


@pytest.mark.parametrize(
    "text", ["", " A1", "A 1", "A1\n", "I5", "Z1", "A0", "A01", "A10", "K1", "AA1", "5", "A-1", "A\u00b2"]
)
def test_what_is_no_vertex(text):
    with pytest.raises(ValueError, match="is no point of a board of 9 x 9: use a letter and a number, or pass"):
        from_vertex(text, 9, 9)


def test_the_corners_of_the_largest_board():
    assert [from_vertex(text, 19, 19) for text in ("A1", "T1", "A19", "T19", "J10")] == [342, 360, 0, 18, 179]
    with pytest.raises(ValueError, match="is no point"):
        from_vertex("\u017f1", 19, 19)  # a long s, whose capital letter is S


@pytest.mark.parametrize(
    "move, colour, reason",
    [
        (4, None, "White may not play B2: occupied"),
        (-1, None, "White may not play -1: there is no move -1 on a board of 3 x 3"),
        (RESIGN, BLACK, "Black may not play -1: there is no move"),
        (10, None, "White may not play 10: there is no move 10 on a board of 3 x 3"),
        (1 << 70, None, "there is no move"),
        (-(1 << 70), None, "there is no move"),
        (0, WHITE, "White may not play A3: suicide"),
    ],
)
def test_why_a_move_is_illegal(move, colour, reason):
    position = Position.parse(".X.\nXX.\n...").replace(to_play=WHITE)
    assert not position.is_legal(move, colour)
    with pytest.raises(IllegalMove, match=reason) as error:
        position.play(move, colour)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("colour", [3, -1, 0, 100])
def test_what_is_no_colour(colour):
    position = Position.empty(3)
    for ask in (
        lambda: position.play(0, colour),
        lambda: position.is_legal(0, colour),
        lambda: position.setup(to_play=colour),
        lambda: position.replace(to_play=colour),
    ):
        with pytest.raises(ValueError, match="BLACK"):
            ask()


@pytest.mark.parametrize("move", [2.5, None, "D4"])
def test_what_is_no_move(move):
    with pytest.raises((TypeError, ValueError)):
        Position.empty(3).play(move)
    with pytest.raises((TypeError, ValueError, IndexError)):
        Position.empty(3).setup(black=[move])


@pytest.mark.parametrize("number", [np.int8, np.int64, np.uint16, np.int16])
def test_numbers_of_numpy(number):
    position = Position.empty(number(5), np.float32(0.5), max_moves=number(30))
    position = position.play(number(7), number(BLACK)).setup(white=np.array([3], number), to_play=number(BLACK))
    position = position.play(number(24))
    assert position.moves() == [(BLACK, 24)] and position.komi == 0.5 and position.is_legal(number(0))
    for value in (position.last_move, position.to_play, position.captures[0], position.moves()[0][1], position.points):
        assert type(value) is int


@pytest.mark.parametrize(
    "size", [0, -1, 20, (0, 9), (9, 0), (9, 20), (-3, 9), "9", 9.5, None, (9,), (9, 9, 9), float("nan")]
)
def test_what_is_no_size(size):
    with pytest.raises((TypeError, ValueError)):
        Position.empty(size)


@pytest.mark.parametrize(
    "rules, message",
    [
        ({"komi": float("nan")}, "komi must be a number, not nan"),
        ({"komi": float("-inf")}, "komi must be a number, not -inf"),
        ({"superko": "PSK"}, "superko is one of simple, positional, situational, not 'PSK'"),
        ({"max_moves": 0}, "max_moves must be 1 to"),
        ({"max_moves": -7}, "max_moves must be 1 to"),
        ({"max_moves": 1 << 40}, "max_moves must be 1 to"),
    ],
)
def test_rules_that_are_none(rules, message):
    with pytest.raises(ValueError, match=message):
        Position.empty(9, **rules)


def test_komi_is_checked_wherever_it_is_given():
    for change in (lambda komi: Position.empty(3).replace(komi=komi), lambda komi: Position.parse("...", komi=komi)):
        with pytest.raises(ValueError, match="komi must be a number, not nan"):
            change(float("nan"))
    with pytest.raises(ValueError, match="komi must be"):
        Position.parse(str(Position.empty(3)).replace("komi 7.5", "komi nan"))


@pytest.mark.parametrize(
    "stones, message",
    [
        ({"black": [9]}, "there is no point 9 on a board of 3 x 3"),
        ({"white": [-1]}, "there is no point -1"),
        ({"empty": [99]}, "there is no point 99"),
        ({"black": [0], "white": [1, 3]}, "a chain would have no liberty"),
        ({"black": range(9)}, "a chain would have no liberty"),
        ({"black": [0, 2, 4, 6, 8], "white": [1, 3, 5, 7]}, "a chain would have no liberty"),
    ],
)
def test_what_cannot_be_set_up(stones, message):
    with pytest.raises(ValueError, match=message):
        Position.empty(3).setup(**stones)


def test_set_up():
    position = play(Position.parse(".XO\nX..\n..."), 8).setup(black=[4, 4], white=iter([0, 8]), empty=[1, 2, 0])
    assert rows(position) == ["...", "XX.", "..O"] and position.to_play == WHITE
    assert position.setup().captures == (0, 0) and rows(position.setup()) == rows(position)
    assert rows(position.setup(black=[8])) == ["...", "XX.", "..X"], "a stone may replace one"
    assert Position.empty(3).setup(black=[0], to_play=WHITE).to_play == WHITE
    assert not play(Position.empty(3), 9, 9).setup().is_over
    assert Position.empty(3, max_moves=5, suicide=True, superko="simple").setup().max_moves == 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "hello",
        "A B C",
        "XO\nX",
        "...\n....\n...",
        "." * 20,
        "\n".join(["."] * 20),
        "XOX\nXZO\n...",
    ],
)
def test_what_is_no_drawing(text):
    with pytest.raises(ValueError, match=r"no board there|1 to 19"):
        Position.parse(text)


def test_drawings_in_other_hands():
    assert rows(Position.parse("\r\n  . x o\r\n\t. . .\r\n")) == [".XO", "..."]
    assert rows(Position.parse("   A B\n 2 X + 2\n 1 . O 1\n   A B\n")) == ["X.", ".O"]
    with pytest.raises(ValueError, match="a chain would have no liberty"):
        Position.parse("XO")
    text = str(Position.empty(3))
    for captures in ("99999 and 0", "0 and 40000"):
        with pytest.raises(ValueError, match="capture"):
            Position.parse(text.replace("0 and 0", captures))


def test_how_it_draws():
    position = play(Position.empty((2, 11), komi=-0.5), 0, 21, 1, 20, 13, 2)
    assert str(position) == (
        "   A B C D E F G H J K L\n"
        " 2 X X(O). . . . . . . . 2\n"
        " 1 . . X . . . . . . O O 1\n"
        "   A B C D E F G H J K L\n"
        "Black (X) to move, move 6, last C2; captures 0 and 0, komi -0.5"
    )
    assert "move 7, last pass;" in str(position.play(22)) and repr(position) == "<Position 2x11, move 6>"
