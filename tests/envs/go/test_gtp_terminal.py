"""A person at a terminal: moves by their names, boards, help; and a program at a pipe, which sees none of it."""

import io
import os
import sys
import termios
import threading

import pytest
from gtp_players import Analyst, FirstLegal, failing

from envs.go.gtp import COMMANDS, Engine
from envs.go.gtp_terminal import GROUPS, help_text, typed_lines
from envs.go.position import RESIGN
from experiments.go import gtp

START = """\
   A B C
 3 . . . 3
 2 . . . 2
 1 . . . 1
   A B C
Black (X) to move, move 0; captures 0 and 0, komi 7.5
"""
AFTER = """\
   A B C
 3(O). . 3
 2 . . . 2
 1 . . X 1
   A B C
Black (X) to move, move 2, last A3; captures 0 and 0, komi 7.5
"""
GREETING = (
    "rlkit{}. A move, as e5 or pass, is played for the side to move, and the engine answers it. Type help, or quit.\n"
)


def talk(typed, player=None):
    """What is shown to who types this, without the greeting."""
    engine, screen = Engine(player or FirstLegal(), 3), io.StringIO()
    engine.run(typed_lines(engine, io.StringIO(typed), screen), screen)
    text = screen.getvalue()
    assert text.startswith(GREETING.format(""))
    return text.removeprefix(GREETING.format(""))


def test_a_move_is_played_and_answered_and_the_board_shown():
    assert talk("c1\n") == f"{START}Black> White plays A3\n{AFTER}Black> \n"
    assert talk("C1\nquit\nname\n") == f"{START}Black> White plays A3\n{AFTER}Black> = \n\n"


def test_moves_that_cannot_be_played_leave_the_board():
    said = talk("c1\na3\ne5\n").removeprefix(f"{START}Black> White plays A3\n{AFTER}")
    assert said == (
        "Black> Black may not play A3: occupied\n"
        "Black> 'e5' is no point of a board of 3 x 3: use a letter and a number, or pass\n"
        "Black> \n"
    )


def test_the_protocol_goes_on_and_shows_what_it_changes():
    lines = talk("name\n\n# nothing\nplay b C1\n3 genmove w\nundo\n").splitlines()
    assert lines[6:8] == ["Black> = rlkit", ""]
    assert [line for line in lines if ">" in line] == [
        "Black> = rlkit", "Black> Black> Black> = ", "White> =3 A3", "Black> = ", "White> "
    ]  # fmt: skip
    assert sum(line.startswith("   A B C") for line in lines) == 2 * 4


def test_the_ends_of_a_game():
    assert talk("pass\n", lambda position: position.pass_move).splitlines()[6:] == [
        "Black> White passes", *START.splitlines()[:-1],
        "Black (X) to move, move 2, last pass; captures 0 and 0, komi 7.5", "The game is over: W+7.5", "Black> "
    ]  # fmt: skip
    assert "Black> White resigns\n" in talk("c1\n", lambda position: RESIGN)
    assert "Black> White has no answer: RuntimeError: out of ideas\n" in talk("c1\n", failing)
    assert talk("play b pass\npass\n").splitlines()[-9].endswith("White> The game is over.")


def test_a_move_ends_an_analysis_first():
    player = Analyst()
    text = talk("kata-analyze 1\nc1\n", player)
    report, after = text.removeprefix(START).split("\n\n")
    assert report.startswith("Black> ") and "info move A3" in report and after.startswith("White plays A3\n")


def test_help_lists_every_command_once_with_a_line():
    names = [usage.split()[0] for commands in GROUPS.values() for usage in commands]
    assert sorted(names) == sorted(COMMANDS)
    assert all(line and "\n" not in line for commands in GROUPS.values() for line in commands.values())
    lines = help_text([]).splitlines()
    assert lines[:4] == [
        "A move, as e5 or pass, is played for the side to move, and the engine answers it.", "", "The game",
        "  play COLOUR VERTEX              play a move: play b e5"
    ]  # fmt: skip
    assert [lines[i + 1] for i, line in enumerate(lines) if not line] == list(GROUPS)
    assert max(map(len, lines)) <= 120
    assert talk("help undo\nhelp golf\n").removeprefix(START) == (
        "Black>   undo                            take back one move\n"
        "Black> no command golf: help alone lists them\n"
        "Black> \n"
    )
    assert help_text(["set_random"]) == "  set_random_seed SEED            of the engine's randomness"
    assert help_text(["rectangular"]) == (
        "  rectangular_boardsize COLUMNS LINES\n" + " " * 34 + "an empty board that is no square"
    )


@pytest.fixture
def first_legal(monkeypatch):
    monkeypatch.setattr(gtp, "go_player", lambda spec, seed: FirstLegal())
    return gtp.Config(agent="me", size=3)


def test_main_has_a_prompt_in_a_terminal(monkeypatch, first_legal):
    ours, theirs = os.openpty()
    settings = termios.tcgetattr(theirs)
    settings[1] &= ~termios.OPOST  # line ends as they are
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    os.write(ours, b"c1\nprotocol_version\nhelp undo\nquit\n")
    shown = bytearray()

    def read():
        while not shown.endswith(b"= \n\n"):
            shown.extend(os.read(ours, 4096))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with os.fdopen(os.dup(theirs), "r") as stdin, os.fdopen(theirs, "w") as stdout:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        gtp.main(first_legal)
        reader.join(30)
        monkeypatch.undo()
    os.close(ours)
    assert shown.decode() == (
        f"{GREETING.format(' me')}{START}Black> White plays A3\n{AFTER}Black> = 2\n\n"
        "Black>   undo                            take back one move\nBlack> = \n\n"
    )


def test_main_has_none_at_a_pipe(monkeypatch, first_legal):
    stdin = io.TextIOWrapper(io.BytesIO(b"c1\nhelp\nquit\n"))
    stdout = io.TextIOWrapper(raw := io.BytesIO())
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stdout", stdout)
    gtp.main(first_legal)
    assert raw.getvalue() == b"? unknown command\n\n? unknown command\n\n= \n\n"
