"""The rules of Go: exact counts, hand-drawn boards, other people's test vectors and games."""

import json
import os
import re
from itertools import product
from pathlib import Path

import numba
import numpy as np
import pytest
from go_reference import SUPERKO, Game

from envs.go import board
from envs.go.board import PASSES, STATE_SIZE, STORED, TO_PLAY, columns, copy, is_legal_point, to_point
from envs.go.game import Go
from envs.go.position import BLACK, EMPTY, WHITE, IllegalMove, Position

DATA = Path(os.environ.get("RLKIT_DATA", Path(__file__).parents[4] / "shared" / "data")) / "go"
KO = [".....", ".XO..", "XO.O.", ".XO..", "....."]


def data(name):
    if not (DATA / name).is_file():
        pytest.skip(f"there is no {DATA / name}; RLKIT_DATA may name another folder of data")
    return (DATA / name).read_text()


def drawn(*rows, to_play=BLACK, **rules):
    return Position.parse("\n".join(rows), **rules).setup(to_play=to_play)


def rows_of(position):
    return ["".join(".XO"[colour] for colour in row) for row in position.board]


def play(position, *moves):
    for move in moves:
        position = position.play(move)
    return position


# counts: Tromp and Farneback, Combinatorics of Go (2007, revised 2016); situational ones and those without suicide by
# the superko-complexity project of J. Piche


@pytest.mark.parametrize("size, count", [(1, 1), (2, 57), (3, 12675)])
@pytest.mark.slow
def test_number_of_legal_positions(size, count):
    empty, found = Position.empty(size), 0
    for colours in product((EMPTY, BLACK, WHITE), repeat=size * size):
        stones = [[move for move, colour in enumerate(colours) if colour == wanted] for wanted in (BLACK, WHITE)]
        try:
            position = empty.setup(*stones)
        except ValueError:
            continue
        assert position.board.ravel().tolist() == list(colours)
        found += 1
    assert found == count


@numba.njit(_nrt=False)
def count_positions(blank, row, words, colours, taken):
    """How many of the boards that `colours` counts through are positions, each set up on the empty board."""
    found, points = 0, len(colours)
    for code in range(3**points):
        for i in range(points):
            colours[i] = code % 3
            code //= 3
        copy(row, blank, len(row))
        found += board.set_up(row, words, colours, taken)
    return found


@pytest.mark.exhaustive
@pytest.mark.parametrize("height, width, count", [(3, 3, 12675), (4, 4, 24_318_165)])
def test_number_of_legal_positions_compiled(height, width, count):
    blank = Go(height, width).position_row()
    row, taken = blank.copy(), np.zeros(board.area_of(height, width), np.int16)
    colours = np.zeros(height * width, np.int16)
    assert count_positions(blank, row, row.view(np.int64), colours, taken) == count


@pytest.mark.parametrize(
    "count, width, superko, suicide",
    [
        (1, 1, "positional", True),
        (9, 2, "positional", True),
        (9, 2, "positional", False),
        (907, 3, "positional", True),
        (907, 3, "positional", False),
        (959, 3, "situational", False),
    ],
)
def test_number_of_games(count, width, superko, suicide):
    """Passes are free and not counted: at each step either colour may put a stone, and every prefix is a game."""

    def games(position):
        moves = [(m, c) for m in range(width) for c in (BLACK, WHITE) if position.is_legal(m, c)]
        return 1 + sum(games(position.play(move, colour)) for move, colour in moves)

    assert games(Position.empty((1, width), superko=superko, suicide=suicide)) == count


@numba.njit(_nrt=False)
def count_games(rows, words, choice, taken):
    """The same, depth first: rows[d] is the game after d stones, choice[d] what to try next there."""
    found, depth = 1, 0
    while depth >= 0:
        row, k = rows[depth], choice[depth]
        choice[depth] += 1
        p, colour = to_point(row, k >> 1), 1 + (k & 1)
        if p == 0:  # all points have been tried
            depth -= 1
            continue
        after, after_word = rows[depth + 1], words[depth + 1]
        copy(after, row, row[STATE_SIZE] + 4 * row[STORED])
        if colour != after[TO_PLAY]:  # the other side passes, which makes a situation of its own
            board.play_point(after, after_word, 0, taken)
        if is_legal_point(after, after_word, columns(after, after_word), p, colour):
            depth += 1
            board.play_point(after, after_word, p, taken)
            choice[depth] = 0
            found += 1
    return found


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "count, width, superko, suicide",
    [
        (907, 3, "positional", True),
        (959, 3, "situational", False),
        (719_178_893, 4, "positional", False),
        (1_359_471_437, 4, "situational", False),
        (2_098_407_841, 4, "positional", True),
    ],
)
def test_number_of_games_compiled(count, width, superko, suicide):
    """The larger ones; 2x2 has 386,356,909,593 and would take days."""
    go = Go(1, width, superko=superko, suicide=suicide, max_moves=200)
    rows = np.repeat(go.reset(1), go.moves_cap, 0)  # at most 82 situations on a line, and passes
    taken = np.zeros(board.area_of(1, width), np.int16)
    assert count_games(rows, rows.view(np.int64), np.zeros(len(rows), np.int64), taken) == count


# hand-drawn boards


def test_one_stone_takes_several_chains():
    position = drawn("..X..", ".XOX.", "XO.OX", ".XOX.", "..X..").play(12)
    assert rows_of(position) == ["..X..", ".X.X.", "X.X.X", ".X.X.", "..X.."]
    assert position.captures == (4, 0)


def test_one_chain_on_three_sides_is_taken_once():
    position = drawn("OOO", "O.O", "XXX").play(4)
    assert rows_of(position) == ["...", ".X.", "XXX"]
    assert position.captures == (5, 0)


def test_what_keeps_a_liberty_stays():
    position = drawn(".X.", "XO.", "...").play(5)
    assert rows_of(position) == [".X.", "XOX", "..."]
    position = play(position, 6, 7)
    assert rows_of(position) == [".X.", "X.X", ".X."] and position.captures == (2, 0)


def test_the_opponent_goes_before_the_own_stone():
    position = drawn(".OX", "OX.", "X..").play(0)
    assert rows_of(position) == ["X.X", ".X.", "X.."]


@pytest.mark.parametrize("superko", SUPERKO)
def test_snapback(superko):
    position = drawn("XO.XO", ".XOO.", superko=superko).play(2)
    assert rows_of(position) == ["X.XXO", ".XOO."] and position.captures == (1, 0)
    position = position.play(1)
    assert rows_of(position) == ["XO..O", ".XOO."] and position.captures == (1, 2)


@pytest.mark.parametrize("superko", SUPERKO)
def test_suicide_of_a_chain(superko):
    rows = [".XO.", "XXO.", "OOO."]
    forbidden = drawn(*rows, superko=superko)
    assert not forbidden.is_legal(0) and not forbidden.legal_moves()[0]
    with pytest.raises(IllegalMove, match="Black may not play A3: suicide"):
        forbidden.play(0)
    position = drawn(*rows, suicide=True, superko=superko).play(0)
    assert rows_of(position) == ["..O.", "..O.", "OOO."]
    assert position.captures == (0, 4) and position.to_play == WHITE


def test_suicide_of_one_stone_leaves_the_board_as_it_was():
    """Nothing was ever taken off this board, and yet the position has been there."""
    for superko in SUPERKO:
        new = drawn(".X.", "X..", "...", to_play=WHITE, suicide=True, superko=superko)
        assert new.is_legal(0) == new.legal_moves()[0] == (superko != "positional"), superko
        played = play(Position.empty(3, suicide=True, superko=superko), 1, 8, 3)
        assert played.is_legal(0) == played.legal_moves()[0] == (superko != "positional"), superko
        passed = drawn(".X.", "X..", "...", suicide=True, superko=superko).play(9)
        assert passed.is_legal(0) == (superko == "simple"), f"{superko}: this was the board when Black was to move"
        if superko != "simple":
            with pytest.raises(IllegalMove, match="superko"):
                passed.play(0)


def test_suicide_of_a_chain_returns_to_an_earlier_board():
    """White's second stone takes both of White's away; the board before the first was empty of them."""
    legal = {}
    for superko in SUPERKO:
        start = drawn("..X", "XX.", "...", to_play=WHITE, suicide=True, superko=superko)
        legal[superko] = start.play(0).play(9).is_legal(1)
    assert legal == {"simple": True, "positional": False, "situational": True}


@pytest.mark.parametrize("superko", SUPERKO)
def test_ko(superko):
    position = drawn(*KO, superko=superko).play(12)
    assert rows_of(position)[2] == "X.XO." and position.captures == (1, 0)
    assert not position.is_legal(11) and not position.legal_moves()[11]
    assert position.is_legal(11, BLACK), "the taker may fill it"
    with pytest.raises(IllegalMove, match="White may not play B3: ko"):
        position.play(11)
    assert play(position, 4, 24).is_legal(11), "after an exchange elsewhere the position is a new one"
    assert play(position, 25, 4).is_legal(11)
    assert position.play(25).is_legal(11, WHITE) == (superko == "simple"), "a pass lifts the simple ban alone"


def test_what_is_no_ko():
    one_by_two = drawn("XO.", ".X.").play(2)
    assert one_by_two.captures == (1, 0) and one_by_two.is_legal(1, BLACK)
    two = drawn(".XX..", "XOO.O", ".XXO.").play(8)
    assert rows_of(two) == [".XX..", "X..XO", ".XXO."] and two.captures == (2, 0)
    assert two.is_legal(7), "two stones were taken, so one may go back"


@pytest.mark.parametrize("superko", SUPERKO)
def test_triple_ko(superko):
    """Three kos on rows 2, 4 and 6, which the players take in turn; the sixth move would close the circle."""
    start = drawn(".XO.", "XO.O", ".XO.", "X.XO", ".XO.", "XO.O", ".XO.", superko=superko)
    position = play(start, 6, 13, 22, 5, 14)
    assert position.captures == (3, 2)
    assert position.is_legal(21) == (superko == "simple")
    if superko == "simple":
        assert rows_of(position.play(21)) == rows_of(start)
    else:
        with pytest.raises(IllegalMove, match=f"White may not play B2: superko: the board .{superko}. has been so"):
            position.play(21)


def test_sending_two_returning_one():
    """Black sends two stones, White returns one: the same board, but the other side is to move."""
    line = {superko: play(Position.empty((1, 3), superko=superko), 0, 2, 1, 2) for superko in SUPERKO}
    assert {tuple(rows_of(position)) for position in line.values()} == {("..O",)}
    legal = {superko: bool(position.legal_moves()[0]) for superko, position in line.items()}
    assert legal == {"positional": False, "situational": True, "simple": True}


def test_two_passes_end_the_game():
    position = play(Position.empty(3), 4, 9)
    assert not position.is_over and not play(position, 0, 9).is_over
    over = position.play(9)
    assert over.is_over and not over.legal_moves().any() and not over.is_legal(0) and not over.is_legal(9)
    with pytest.raises(IllegalMove, match="White may not play A3: the game is over"):
        over.play(0)
    forced = over.play(0, force=True)
    assert not forced.is_over and forced.moves() == [(1, 4), (2, 9), (1, 9), (2, 0)]
    assert not over.play(9, force=True).is_over and over.play(9, force=True).play(9).is_over
    with pytest.raises(IllegalMove, match="occupied"):
        over.play(4, force=True)


def test_the_cap_ends_the_game():
    position = play(Position.empty(3, komi=0.5, max_moves=3), 4, 9, 0)
    assert position.is_over and position.score() == 8.5 and not position.legal_moves().any()
    with pytest.raises(IllegalMove, match="the game is over"):
        position.play(1)
    assert play(Position.empty(3, max_moves=3), 4, 9).legal_moves().sum() == 9
    assert position.play(1, force=True).play(2).move_number == 5


@pytest.mark.parametrize(
    "rows, owned",
    [
        (["...", "..."], ["000", "000"]),
        (["...", ".O."], ["---", "---"]),
        ([".X.O.", ".X.O.", ".X.O."], ["++0--", "++0--", "++0--"]),
        (["XXOO", "X..O", "XXOO"], ["++--", "+00-", "++--"]),  # seki: two liberties in common
        (["XXX.OOO", "X.X.O.O", "XXX.OOO"], ["+++0---", "+++0---", "+++0---"]),  # an eye is its owner's in any case
        (["X.X..", "XXXO.", "..XO."], ["+++00", "+++-0", "+++-0"]),
        (["X.O", "...", "O.X"], ["+0-", "000", "-0+"]),
    ],
)
def test_area(rows, owned):
    position = drawn(*rows, komi=1.5)
    assert ["".join("0+-"[point] for point in row) for row in position.ownership()] == owned
    score = sum(row.count("+") - row.count("-") for row in owned)
    assert position.score() == score - 1.5 == position.replace(komi=-4).score() - 5.5


def test_handicap():
    stones = [20, 24, 40, 56, 60]
    position = Position.empty(9, komi=0.5).setup(black=stones, to_play=WHITE)
    assert np.flatnonzero(position.board.ravel() == BLACK).tolist() == stones
    assert (position.to_play, position.move_number, position.moves(), position.captures) == (WHITE, 0, [], (0, 0))
    assert position.score() == 80.5 and position.play(0).to_play == BLACK


def test_superko_remembers_the_set_up_and_nothing_before_it():
    taken = drawn(*KO).play(12)
    assert not taken.play(25).is_legal(11, WHITE)
    assert taken.setup().is_legal(11, WHITE), "a set-up begins a new history"
    back = taken.setup(to_play=WHITE).play(11)
    assert rows_of(back) == KO and not back.play(25).is_legal(12, BLACK), "which has the set-up itself"


# other people's vectors and games


def test_vectors_of_katago():
    """After so many moves, the points that a player may not play on because of the game's past."""
    checks = 0
    for vector in json.loads(data("ko_superko_vectors.json"))["vectors"]:
        width, height = vector["width"], vector["height"]
        rules = {"superko": vector["rule"].lower(), "suicide": vector["multi_stone_suicide_legal"]}
        moves = [
            ("?BW".index(side), height * width if at == "pass" else at[1] * width + at[0])
            for side, at in vector["moves"]
        ]
        illegal = {c["after_move"]: {y * width + x for x, y in c["repetition_illegal"]} for c in vector["checks"]}
        player = {check["after_move"]: "?BW".index(check["player"]) for check in vector["checks"]}
        position = drawn(*(row.upper() for row in vector["board"]), to_play=moves[0][0], **rules)
        for number, (colour, move) in enumerate([*moves, (EMPTY, 0)]):
            if number in illegal:
                new = drawn(*rows_of(position), to_play=player[number], **rules)
                allowed = {m for m in range(position.points) if new.is_legal(m)}
                refused = {m for m in allowed if not position.is_legal(m, player[number])}
                assert refused == illegal[number], f"{vector['name']}, {vector['rule']}, after {number} moves"
                checks += 1
            if number == len(moves):
                break
            if move in illegal.get(number, ()):
                assert number == len(moves) - 1, "only the last move of a vector is illegal"
                with pytest.raises(IllegalMove, match="ko"):
                    position.play(move, colour)
                position = drawn(*rows_of(position), to_play=colour, **rules)
            position = position.play(move, colour)
        assert rows_of(position) == [row.upper() for row in vector["final_board"]]
    assert checks == 38


def recorded(name):
    """The moves of 9x9 games, one game a line, Black and White in turn."""
    games = []
    for line in data(name).splitlines():
        moves = re.findall(r";([BW])\[([a-i]{2})?\]", line)
        assert "".join(colour for colour, _ in moves) == ("BW" * len(moves))[: len(moves)]
        games.append([(ord(at[1]) - 97) * 9 + ord(at[0]) - 97 if at else 81 for _, at in moves])
    return games


def refusals(games, superko):
    """{game: the first move in it that is illegal}, all games in lock-step; such a move is played all the same."""
    go = Go(9, superko=superko, max_moves=500)
    order = sorted(range(len(games)), key=lambda g: -len(games[g]))
    states, found = go.reset(len(games)), {}
    for k in range(len(games[order[0]])):
        alive = [g for g in order if len(games[g]) > k]
        rows = states[: len(alive)]
        assert (rows[:, PASSES] < 2).all(), "no game goes on after two passes"
        moves = np.array([games[g][k] for g in alive])
        for i in np.flatnonzero(~go.legal(rows)[np.arange(len(alive)), moves]):
            found.setdefault(alive[i], k)
        go.play(rows, moves)
    return found


@pytest.mark.slow
def test_human_games_are_legal():
    """Games of a server that knows simple ko alone: in 5 of them the whole board comes back."""
    games = recorded("goquest_rated_9x9.sgf")
    assert (len(games), sum(map(len, games))) == (5046, 293425)
    assert refusals(games, "simple") == {}
    for superko in ("positional", "situational"):
        refused = refusals(games, superko)
        assert len(refused) == {"positional": 5, "situational": 3}[superko]
        for g, k in refused.items():
            slow = Game(9, 9, superko=superko)
            for move in games[g][:k]:
                slow.play(move)
            assert not slow.legal(games[g][k]) and (slow.ko is None or slow.ko[0] != divmod(games[g][k], 9))
            position = play(Position.empty(9, superko=superko), *games[g][:k])
            with pytest.raises(IllegalMove, match="superko"):
                position.play(games[g][k])
        for g in set(range(0, len(games), 100)) - refused.keys():
            play(Position.empty(9, superko=superko), *games[g])


def test_games_of_a_program_are_legal():
    games = recorded("azmini_selfplay_9x9.sgf")
    assert (len(games), refusals(games, "simple")) == (2412, {})
