import io
import threading
import time

import numpy as np
import pytest
from gtp_players import Analyst, FirstLegal, blocks, failing, say, session
from test_gtp_kata import SESSIONS as MORE

from envs.go.gtp import COMMANDS, Engine
from envs.go.gtp_analysis import lower_bound
from envs.go.gtp_text import failure, parse, respond
from envs.go.position import BLACK, RESIGN, WHITE, Position, from_vertex
from envs.go.random_player import RandomPlayer
from envs.go.record import GameRecord
from envs.go.sgf import to_sgf

# -- lines and responses


@pytest.mark.parametrize(
    "line, identity, words",
    [
        ("play b D4\n", "", ["play", "b", "D4"]),
        ("12 play\tb  D4 # a comment\r\n", "12", ["play", "b", "D4"]),
        ("\x07na\x00me\x7f\r\n", "", ["name"]),
        ("\ufeffname", "", ["name"]),
        ("\ufeff3 name", "3", ["name"]),
        ("na\x9bme\x85", "", ["name"]),
        ("# 1 name", "", []),
        (" \t \r\n", "", []),
        ("007", "007", []),
        ("1x name", "", ["1x", "name"]),
        ("-1 name", "", ["-1", "name"]),
        ("\u00b2 name", "", ["\u00b2", "name"]),
        ("loadsgf a\u00a0b.sgf", "", ["loadsgf", "a\u00a0b.sgf"]),
    ],
)
def test_a_line_is_an_identity_and_words(line, identity, words):
    assert parse(line) == (identity, words)


def test_responses_hold_no_empty_line_and_no_control_characters():
    assert respond("=", "", "") == "= \n\n"
    assert respond("?", "7", "syntax error") == "?7 syntax error\n\n"
    assert respond("=", "", "a\tb\n\n \nc\r\n") == "= a b\nc\n\n"
    assert respond("=", "3", "\nboard\n\nfooter\n") == "=3\nboard\nfooter\n\n"
    assert respond("=", "3", "\n") == "=3 \n\n"
    assert respond("=", "", "\x1b[2J\x9b2J\x7f") == "= [2J2J\n\n"
    assert failure(ValueError("\x1b[2J\n\x9b2J \u202e")) == r"ValueError: \x1b[2J \x9b2J \u202e"


def test_lines_that_need_no_answer_get_none_and_a_bare_identity_gets_one():
    assert (
        say(Engine(FirstLegal()), "", "\n", "# name", " \t", "5", "5 # name")
        == [None] * 4 + ["?5 unknown command\n\n"] * 2
    )


# -- every command


SESSIONS = {
    "administration": [
        ("protocol_version", "= 2"),
        ("3 name", "=3 rlkit"),
        ("version", "= 1.2"),
        ("known_command genmove", "= true"),
        ("known_command Genmove", "= false"),
        ("known_command", "? syntax error"),
        ("Name", "? unknown command"),
        ("name 1", "? syntax error"),
        ("list_commands", "= " + "\n".join(COMMANDS)),
        ("1 quit", "=1 "),
    ],
    "set-up": [
        ("boardsize", "? syntax error"),
        ("boardsize nine", "? syntax error"),
        ("boardsize -1", "? syntax error"),
        ("boardsize 0", "? unacceptable size"),
        ("boardsize 20", "? unacceptable size"),
        ("boardsize 99999999999", "? syntax error"),
        ("boardsize 3", "= "),
        ("komi x", "? syntax error"),
        ("komi nan", "? syntax error"),
        ("komi 1_0", "? syntax error"),
        ("komi -0.5", "= "),
        ("clear_board", "= "),
        (
            "showboard",
            "=\n   A B C\n 3 . . . 3\n 2 . . . 2\n 1 . . . 1\n   A B C\n"
            "Black (X) to move, move 0; captures 0 and 0, komi -0.5",
        ),
        ("rectangular_boardsize 3 2", "= "),
        ("play b C2", "= "),
        ("play b A3", "? illegal move"),
    ],
    "handicap": [
        ("fixed_handicap", "? syntax error"),
        ("fixed_handicap 1", "? invalid number of stones"),
        ("fixed_handicap 10", "? invalid number of stones"),
        ("fixed_handicap 5", "= C3 G7 C7 G3 E5"),
        ("fixed_handicap 2", "? board not empty"),
        ("undo", "? cannot undo"),
        ("genmove w", "= A9"),
        ("clear_board", "= "),
        ("place_free_handicap 1", "? invalid number of stones"),
        ("place_free_handicap 81", "? invalid number of stones"),
        ("place_free_handicap x", "? syntax error"),
        ("place_free_handicap 3", "= C3 G7 C7"),
        ("place_free_handicap 3", "? board not empty"),
        ("clear_board", "= "),
        ("set_free_handicap", "? bad vertex list"),
        ("set_free_handicap D4", "? bad vertex list"),
        ("set_free_handicap D4 d4", "? bad vertex list"),
        ("set_free_handicap D4 pass", "? bad vertex list"),
        ("set_free_handicap D4 K9", "? bad vertex list"),
        ("set_free_handicap D4 nonsense", "? bad vertex list"),
        ("set_free_handicap d4 E5", "= "),
        ("set_free_handicap D4 E5", "? board not empty"),
        ("final_status_list alive", "= E5\nD4"),
    ],
    "play": [
        ("play b", "? syntax error"),
        ("play x D4", "? syntax error"),
        ("play b I4", "? syntax error"),
        ("play b D0", "? syntax error"),
        ("play b T19", "? illegal move"),
        ("play b D4", "= "),
        ("play White d4", "? illegal move"),
        ("play BLACK e4", "= "),
        ("undo", "= "),
        ("undo", "= "),
        ("undo", "? cannot undo"),
        ("play w PASS", "= "),
        ("play b pass", "= "),
        ("genmove w", "= pass"),
        ("play w A1", "= "),
        ("genmove b", "= A9"),
        ("reg_genmove w", "= B9"),
        ("reg_genmove w", "= B9"),
        ("genmove", "? syntax error"),
        ("genmove red", "? syntax error"),
        ("reg_genmove red", "? syntax error"),
    ],
    "result": [
        ("boardsize 3", "= "),
        ("final_score", "= W+7.5"),
        ("play b B1", "= "),
        ("final_score", "= B+1.5"),
        ("komi 9", "= "),
        ("final_score", "= 0"),
        ("play b B2", "= "),
        ("play w A3", "= "),
        ("play w C2", "= "),
        ("final_status_list alive", "= A3\nB2 B1\nC2"),
        ("final_status_list dead", "= "),
        ("final_status_list seki", "= "),
        ("final_status_list", "? syntax error"),
        ("final_status_list lost", "? syntax error"),
        ("rlkit-area", "= -1 0 0\n0 1 -1\n0 1 0"),
        ("printsgf", "= (;FF[4]CA[UTF-8]GM[1]KM[9]SZ[3];B[bc];B[bb];W[aa];W[cb])"),
    ],
    "time": [
        ("time_settings 300 30 5", "= "),
        ("time_left b 280 0", "= "),
        ("time_left w -1.5 0", "= "),
        ("time_left x 1 0", "? syntax error"),
        ("time_left b 1", "? syntax error"),
        ("time_left b 1 -1", "? syntax error"),
        ("time_settings 1 2", "? syntax error"),
        ("time_settings -1 2 3", "? syntax error"),
        ("time_settings 1 2 3.5", "? syntax error"),
        ("time_settings 0 1 0", "= "),
    ],
    "analysis without an analyst": [
        ("lz-analyze b 10", "? the player cannot analyse"),
        ("kata-analyze", "? the player cannot analyse"),
        ("kata-genmove_analyze b 10", "? the player cannot analyse"),
        ("rlkit-candidates", "? the player cannot analyse"),
        (
            "gogui-analyze_commands",
            "= dboard/Area/rlkit-area\ngfx/Candidates/rlkit-candidates\nstring/Score/final_score",
        ),
    ],
}


@pytest.mark.parametrize("name", SESSIONS)
def test_every_command_has_its_answer(name):
    engine = Engine(FirstLegal(), version="1.2")
    for line, answer in SESSIONS[name]:
        assert engine.answer(line) == answer + "\n\n", line
    assert engine.done == (name == "administration")


def test_no_command_is_without_a_test():
    sessions = [*SESSIONS.values(), *MORE.values()]
    words = {line.split()[-1 if line[0].isdigit() else 0] for lines in sessions for line, _ in lines}
    words |= {"cputime", "loadsgf", "lz-genmove_analyze", "set_random_seed"}  # below
    assert words >= COMMANDS.keys()
    assert float(Engine(FirstLegal()).answer("cputime")[2:]) > 0


def test_a_seed_reaches_the_player_and_repeats_its_moves():
    engine = Engine(RandomPlayer(), size=9)
    first = say(engine, "set_random_seed 7", *["reg_genmove b"] * 9)
    assert first == say(engine, "set_random_seed 7", *["reg_genmove b"] * 9) and len(set(first)) > 2
    assert say(engine, "set_random_seed 8", *["reg_genmove b"] * 9) != first
    assert say(Engine(FirstLegal()), "set_random_seed 7", "set_random_seed x") == ["= \n\n", "? syntax error\n\n"]


def test_the_komi_outlives_boards_and_undo():
    engine = Engine(FirstLegal(), size=5)
    say(engine, "play b A1", "komi 3.5", "undo")
    assert engine.position.komi == 3.5
    say(engine, "boardsize 7", "clear_board")
    assert (engine.position.komi, engine.position.height) == (3.5, 7)


def test_play_goes_on_after_two_passes_and_out_of_turn():
    engine = Engine(FirstLegal(), size=5)
    say(engine, "play b A1", "play b pass", "play w pass")
    assert engine.position.is_over
    assert say(engine, "play w B2", "play w C3", "undo", "undo", "final_score") == ["= \n\n"] * 4 + ["= B+17.5\n\n"]
    assert engine.position.is_over


# -- players


@pytest.mark.parametrize(
    "player, answer",
    [
        (failing, "? RuntimeError: out of ideas"),
        (lambda position: None, "? TypeError: 'NoneType' object cannot be interpreted as an integer"),
        (lambda position: 81 + 1, "? the player's move 82 is off the board"),
        (lambda position: -2, "? the player's move -2 is off the board"),
        (lambda position: 80, "? the player's move J1 is illegal: White may not play J1: occupied"),
        (lambda position: RESIGN, "= resign"),
        (lambda position: np.int64(81), "= pass"),
    ],
)
def test_a_player_that_fails_leaves_the_engine_and_the_board_alone(player, answer):
    engine = Engine(player)
    engine.answer("play b J1")
    for command in ("reg_genmove w", "genmove w"):
        assert engine.answer(command) == answer + "\n\n"
    assert engine.position.move_number == (2 if answer == "= pass" else 1)
    assert engine.answer("play w A1") == "= \n\n"


def test_boards_that_the_player_cannot_play_are_refused(tmp_path):
    class Small(FirstLegal):
        def can_play(self, height, width):
            return height <= 5 and width <= 7

    engine = Engine(Small(), 5)
    sizes = say(engine, "boardsize 6", "rectangular_boardsize 7 5", "rectangular_boardsize 5 7", "boardsize 20")
    assert sizes == ["? unacceptable size\n\n", "= \n\n", *["? unacceptable size\n\n"] * 2]
    for size in (9, 5):
        (tmp_path / f"{size}.sgf").write_text(f"(;SZ[{size}]KM[1];B[aa])")
    assert engine.answer(f"loadsgf {tmp_path / '9.sgf'}") == "? unacceptable size\n\n"
    assert (engine.position.height, engine.position.width, engine.komi) == (5, 7, 7.5)
    assert engine.answer(f"loadsgf {tmp_path / '5.sgf'}") == "= \n\n" and engine.position.width == 5


def test_genmove_asks_for_the_colour_it_is_given():
    asked = []
    engine = Engine(lambda position: asked.append(position.to_play) or len(asked))
    assert say(engine, "genmove w", "genmove w", "genmove b", "undo", "undo") == [
        "= B9\n\n", "= C9\n\n", "= D9\n\n", "= \n\n", "= \n\n"
    ]  # fmt: skip
    assert asked == [WHITE, WHITE, BLACK] and engine.position.moves() == [(WHITE, 1)]


# -- records


def test_loadsgf(tmp_path):
    game = "(;GM[1]SZ[5]KM[3.5]AB[aa][ea]AW[ee];B[bb];W[cc](;B[dd];W[bd])(;B[ab]))"
    path = tmp_path / "a game.sgf"
    path.write_text(game)
    engine = Engine(FirstLegal())
    assert engine.answer(f"loadsgf {path}") == "= \n\n"
    position = engine.position
    assert (position.height, position.komi, position.move_number, position.to_play) == (5, 3.5, 4, BLACK)
    assert say(engine, "final_status_list alive")[0] == "= A5\nE5\nB4\nC3\nB2\nD2\nE1\n\n"
    for number, moves in ((0, 0), (1, 0), (2, 1), (4, 3), (5, 4), (99, 4)):
        assert engine.answer(f'loadsgf "{path}" {number}') == "= \n\n"
        assert engine.position.move_number == moves
    assert say(engine, "loadsgf", f"loadsgf {path}.gone", f"loadsgf {tmp_path}") == [
        "? syntax error\n\n", "? cannot load file\n\n", "? cannot load file\n\n"
    ]  # fmt: skip
    path.write_text("(;SZ[5];B[aa];W[aa])")
    assert engine.answer(f"loadsgf {path}") == "? cannot load file\n\n" and engine.position.move_number == 4
    path.write_text("(;SZ[5];B[aa])")  # no komi: it stays
    assert engine.answer(f"loadsgf {path}") == "= \n\n" and engine.position.komi == 3.5


def test_a_record_in_which_a_board_came_back_is_loaded_under_simple_ko(tmp_path):
    drawn = Position.parse(".O.XXO\nOXXXO.\nO.X.OO\nXX.OO.\nOOOO.O", superko="simple")
    line = drawn.play(11).play(30).play(20).play(5).play(15)
    for vertex in ("C5", "A5", "B5", "pass", "C5", "A5", "B5"):
        line = line.play(from_vertex(vertex, 5, 6))
    for name, position in (("repeats", line), ("does_not", line.root().play(11).play(30).play(20))):
        (tmp_path / name).write_text(to_sgf(GameRecord.from_position(position)))
    engine = Engine(FirstLegal())
    assert engine.answer(f"loadsgf {tmp_path / 'repeats'}") == "= \n\n"
    assert (engine.position.superko, (engine.position.board == line.board).all()) == ("simple", True)
    assert engine.answer(f"loadsgf {tmp_path / 'does_not'}") == "= \n\n"
    assert engine.position.superko == "positional"
    say(engine, f"loadsgf {tmp_path / 'repeats'}", "clear_board")
    assert engine.position.superko == "positional"


def test_printsgf_writes_what_loadsgf_reads(tmp_path):
    engine = Engine(FirstLegal(), size=7, komi=-2)
    say(engine, "fixed_handicap 3", "play w A1", "play b pass", "play w B2", f"printsgf {tmp_path / 'game.sgf'}")
    before = engine.position
    say(engine, "boardsize 9", "komi 0", f"loadsgf {tmp_path / 'game.sgf'}")
    assert (engine.position.board == before.board).all() and engine.position.moves() == before.moves()
    assert engine.position.komi == -2 and engine.position.to_play == BLACK


# -- analysis

KATA = (
    "info move A9 visits 30 winrate 0.750000 scoreMean 2.500 scoreLead 2.500 prior 0.500000 lcb 0.572994 order 0"
    " pv A9 B8 info move pass visits 10 winrate 0.500000 prior 0.250000 lcb 0.236590 order 1 pv pass"
)
LEELA = (
    "info move A9 visits 30 winrate 7500 prior 5000 lcb 5730 order 0 pv A9 B8"
    " info move pass visits 10 winrate 5000 prior 2500 lcb 2366 order 1 pv pass"
)


def test_lower_bound_is_wilsons():
    z = 1.96
    for rate, n in ((0.75, 30), (0.5, 10), (1.0, 4), (0.0, 7)):
        centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
        assert lower_bound(rate, n) == pytest.approx(centre - half)
    assert 0 <= lower_bound(0.5, 0) < 0.5


def test_analysis_lines():
    player = Analyst()
    engine = Engine(player)
    assert engine.answer("4 kata-analyze w 10") == f"=4\n{KATA}\n\n"
    assert engine.answer("lz-analyze 10") == f"=\n{LEELA}\n\n"
    assert engine.answer("lz-analyze B interval 5 maxmoves 1 minmoves 3") == f"=\n{LEELA.partition(' info')[0]}\n\n"
    assert player.asked == [(WHITE, 0.1), (BLACK, 0.1), (BLACK, 0.05)]
    assert engine.answer("kata-analyze interval 10 ownership true") == f"=\n{KATA}\n\n"
    assert say(engine, "lz-analyze b x", "lz-analyze b -5", "lz-analyze b 1 interval") == ["? syntax error\n\n"] * 3
    assert engine.answer("lz-analyze b avoid b D4 5") == "? the player cannot analyse chosen moves only\n\n"
    assert engine.answer("lz-genmove_analyze w 10") == f"=\n{LEELA}\nplay A9\n\n"
    assert engine.position.moves() == [(WHITE, 0)]
    assert engine.answer("rlkit-candidates") == "= LABEL A9 75\nTEXT 40 visits\n\n"
    say(engine, "play b pass", "play w pass")
    assert engine.answer("kata-analyze 1") == "= \n\n"
    assert engine.answer("kata-genmove_analyze") == "=\nplay pass\n\n"


@pytest.mark.parametrize("end", ["", "\n", "# enough\n", "5 name\n"])
def test_an_analysis_runs_until_the_next_line_of_any_kind(end):
    answers = blocks(session("2 lz-analyze 1\n" + end, Analyst()))
    header, *reports = answers[0].split("\n")
    assert header == "=2" and reports and all(report.startswith("info move A9") for report in reports)
    assert answers[1:] == (["=5 rlkit"] if "name" in end else [])


def test_an_analysis_goes_on_while_nothing_comes_and_ends_with_the_next_command():
    player, enough = Analyst(), threading.Event()
    out = io.StringIO()

    def lines():
        yield "kata-analyze 1\n"
        while len(player.asked) < 5:  # nothing is typed meanwhile
            time.sleep(0.005)
        yield "play b A9\n"
        enough.set()
        yield "lz-analyze b 1\n"
        yield "quit\n"
        raise AssertionError("read on behind quit")

    Engine(player).run(lines(), out)
    first, play, second, end = blocks(out.getvalue())
    assert enough.is_set() and first.count("\n") >= 4 and play == end == "= " and second.startswith("=\ninfo")


def test_an_analysis_that_fails_is_answered_and_ends():
    player = Analyst()
    player.analyze = failing
    assert session("1 lz-analyze\n2 name\n", player) == "?1 RuntimeError: out of ideas\n\n=2 rlkit\n\n"
    assert session("lz-analyze b ten\nname\n", Analyst()) == "? syntax error\n\n= rlkit\n\n"
    good, calls = Analyst().analyze, []

    def tired(position, seconds):
        calls.append(seconds)
        return failing(position) if len(calls) > 3 else good(position)

    player.analyze = tired
    out = io.StringIO()

    def lines():
        yield "lz-analyze 1\n"
        while len(calls) < 4:
            time.sleep(0.005)
        yield "name\n"

    Engine(player).run(lines(), out)
    assert [block[:2] for block in blocks(out.getvalue())] == ["=\n", "= "]
