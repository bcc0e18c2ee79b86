"""The GTP engine at the end of a pipe, and under random lines."""

import io
import random
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from gtp_players import Analyst, blocks, failing, session
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.go.gtp import COMMANDS, Engine
from envs.go.gtp_text import parse
from envs.go.position import RESIGN, from_vertex
from experiments.go import gtp

# -- streams


def test_a_session_ends_with_quit_with_its_input_and_with_its_reader():
    assert session("name\r\nquit\r\nname\r\n") == "= rlkit\n\n= \n\n"
    assert session("\n# x\nprotocol_version") == "= 2\n\n"

    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    Engine(Analyst()).run(iter(["name\n", "name\n"]), Gone())
    Engine(Analyst()).run(iter(["lz-analyze 1\n", "name\n"]), Gone())


def test_main_speaks_any_bytes_and_keeps_prints_out_of_the_protocol(monkeypatch, capsys):
    def talkative(position):
        print("thinking")
        return 0

    closed = []
    talkative.close = lambda: closed.append(True)
    monkeypatch.setattr(gtp, "go_player", lambda spec, seed: talkative)
    stdin = io.TextIOWrapper(io.BytesIO(b"1 genmove b\r\nloadsgf \xff\xfe.sgf\nn\rame\n\xc3\x28\nkomi 1\n2 showboard"))
    stdout = io.TextIOWrapper(raw := io.BytesIO(), newline="\r\n")
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(sys, "stdout", stdout)
    gtp.main(gtp.Config(agent="me", size=2))
    answers = blocks(raw.getvalue().decode())
    assert answers[:5] == ["=1 A2", "? cannot load file", "= rlkit me", "? unknown command", "= "]
    assert answers[5].startswith("=2\n") and len(answers) == 6 and closed == [True]
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == "thinking" and errors[1].startswith("loadsgf: ") and len(errors) == 2


@pytest.mark.slow
def test_a_session_through_pipes():
    command = [sys.executable, "-m", "experiments", "gtp", "--agent", "mcts:50", "--size", "5", "--komi", "0.5"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        guard = threading.Timer(120, process.kill)
        guard.start()

        def ask(line):
            print(line, file=process.stdin, flush=True)

        def block():
            lines = []
            while (line := process.stdout.readline()) not in ("\n", ""):
                lines.append(line.rstrip("\n"))
            return lines

        ask("name")
        assert block() == ["= rlkit mcts:50"]
        ask("1 lz-analyze b 1")
        assert process.stdout.readline() == "=1\n"
        assert re.match(
            r"info move \S+ visits \d+ winrate \d+ prior \d+ lcb \d+ order 0 pv ", process.stdout.readline()
        )
        assert process.stdout.readline().startswith("info")
        ask("2 genmove b")  # interrupts it
        assert all(line.startswith("info") for line in block())
        (answer,) = block()
        move = from_vertex(answer.removeprefix("=2 "), 5, 5)
        assert 0 <= move <= 25
        ask("3 kata-analyze 1")
        assert process.stdout.readline() == "=3\n"
        process.stdin.close()  # so does the end
        assert all(line.startswith("info") for line in block())
        assert process.wait() == 0
        guard.cancel()


@pytest.mark.slow
def test_the_command_line_refuses_and_survives_a_reader_that_leaves():
    command = [sys.executable, "-m", "experiments", "gtp"]
    wrong = subprocess.run([*command, "--agent", "nobody"], capture_output=True, text=True, input="")
    assert wrong.returncode == 1 and "no player" in wrong.stderr and "Traceback" not in wrong.stderr
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        process.stdin.write(b"list_commands\n" * 2000)
        process.stdin.close()
        assert process.stderr.read() == b"" and process.wait() == 0


@pytest.mark.slow
def test_the_end_is_not_put_off_by_a_search_through_all_objects():
    """Python's last collection would look at a million of torch's, which takes longer than a GUI likes to wait."""
    code = (
        "import atexit, gc, sys; from experiments.go import gtp\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000, file=sys.stderr)); gtp.main(gtp.Config(size=5))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, input="\ufeffname\nquit\n")
    assert (ended.stdout, ended.stderr) == ("= rlkit random\n\n= \n\n", "True\n")


# -- fuzz

MOVES = ["play {c} {v}", "genmove {c}", "genmove {c}"]
EXAMPLES = ["undo", "known_command {w}", "boardsize {i}", "komi {n}"]
EXAMPLES += ["fixed_handicap {i}", "place_free_handicap {i}", "set_free_handicap {v} {v}", "reg_genmove {c}"]
EXAMPLES += ["time_settings {n} {n} {i}", "time_left {c} {n} {i}", "final_status_list alive", "loadsgf {f} {i}"]
EXAMPLES += ["lz-analyze {c} {n} maxmoves {i}", "kata-analyze {i}", "rectangular_boardsize {i} {i}", "loadsgf {f}"]
EXAMPLES += ["gogui-setup {c} {v} e {v}", "set_position {c} {v} {c} {v}", "gogui-setup_player {c}"]
EXAMPLES += ["kata-set-rules {r}", "kata-set-rule suicide {r}", "kata-analyze {c} 1 avoid {c} {v},{v} {i}"]
EXAMPLES += ["kata-set-param maxTime {n}", "kata-get-param {w}", "lz-genmove_analyze allow {c} {v} 1"]
EXAMPLES += sorted(COMMANDS)  # without arguments, which may or may not do
VALUES = {
    "c": [*"bwbwbwBW", "White", "black", "x"],
    "i": ["0", "1", "2", "3", "5", "9", "13", "-1", "x", "2147483648"],
    "n": ["7", "0.5", "-3", "1e5", "1e99", "nan", ".", "1,5"],
    "w": ["name", "Name", "#", "\t", "\x00", "\xff", "\udcff", "=", "?"],
    "r": ["chinese", "japanese", "tromp-taylor", "true", "false", '{"ko":"SIMPLE"}'],
    "f": ["/dev/null", "/nonexistent"],
}


def random_line(rng):
    """A command with arguments that may fit, sometimes damaged; or any characters."""
    if rng.random() < 0.05:
        return "".join(map(chr, rng.choices(range(1, 300), k=rng.randrange(30))))
    vertex = (
        rng.choice("ABCDEFGHJ") + str(rng.randint(1, 9)) if rng.random() < 0.9 else rng.choice(["pass", "T20", "I1"])
    )
    line = rng.choice(MOVES if rng.random() < 0.85 else EXAMPLES).format(
        v=vertex, **{name: rng.choice(values) for name, values in VALUES.items()}
    )
    if rng.random() < 0.3:
        line = f"{rng.randrange(100)} {line}"
    if rng.random() < 0.1:
        at = rng.randrange(len(line) + 1)
        line = line[:at] + rng.choice(["", "#", "\r", "\t", "\n", "\xe9", "9" * 5000, f" {line} "]) + line[at + 1 :]
    return line.replace("printsgf ", "name ")  # which would write files


class Swift(Analyst):
    """Random moves, some of them wrong; nothing to wait for."""

    def __init__(self, rng):
        super().__init__()
        self.rng = rng

    def __call__(self, position):
        if self.rng.random() < 0.05:
            return self.rng.choice([failing, lambda _: None, lambda _: 10**9, lambda _: RESIGN])(position)
        return int(self.rng.choice(np.flatnonzero(position.legal_moves()).tolist()))

    def analyze(self, position, seconds=None, allowed=None):
        found = Analyst.analyze(self, position) if position.points >= 11 else []
        return [info for info in found if allowed is None or allowed[info["move"]]]


def check(engine, line):
    answer = engine.answer(line)
    engine.done = False
    if answer is None:
        assert not parse(line)[1], line
        return
    assert re.fullmatch(r"[=?][0-9]*( [^\n]*|)(\n[^\n]+)*\n\n", answer), (line, answer)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", answer), (line, answer)
    assert not re.match(r"\?[0-9]* (Attribute|Assertion|Key|Index|Name|Overflow|Unicode)", answer), (line, answer)
    position = engine.position
    assert 1 <= position.height <= 19 and position.board.shape == (position.height, position.width)


def fuzz(lines, seed, engine=None):
    """Any lines get well-formed answers."""
    rng = random.Random(seed)
    engine = engine or Engine(Swift(rng))
    engine.player.rng = rng
    for _ in range(lines):
        check(engine, random_line(rng))
        engine.player.asked.clear()
    return engine


@pytest.fixture
def at_once(monkeypatch, tmp_path):
    """Analyses take no time, and one of the records can be loaded."""
    monkeypatch.setattr("envs.go.gtp.SLICE", 0.0)
    (tmp_path / "game.sgf").write_text("(;SZ[9]KM[1];AB[aa];B[cc];W[dd];W[ee])")
    monkeypatch.setitem(VALUES, "f", [*VALUES["f"], str(tmp_path / "game.sgf")])


def test_random_commands_get_well_formed_answers(at_once):
    fuzz(2_000, seed=1)


@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(st.one_of(st.text(max_size=60), st.randoms(use_true_random=False).map(random_line)), max_size=12))
def test_any_text_gets_well_formed_answers(lines):
    engine = Engine(Swift(random.Random(0)))
    for line in lines:
        check(engine, line.replace("printsgf ", "name "))


@pytest.mark.exhaustive
def test_200_000_random_lines_leave_no_memory_behind(at_once, resident):
    engine, began = fuzz(20_000, seed=2), time.monotonic()
    engine.answer("boardsize 9")
    before = resident()
    fuzz(180_000, seed=3, engine=engine)
    engine.answer("boardsize 9")
    after = resident()
    print(f"\n180,000 lines in {time.monotonic() - began:.0f} s; {before:.1f} MB before, {after:.1f} MB after")
    assert after - before < 20
