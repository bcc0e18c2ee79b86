import os
import select
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from envs.go.gtp import Engine
from envs.go.gtp_client import GTPPlayer, PlayerFailed
from envs.go.position import BLACK, RESIGN, WHITE, Position, from_vertex

PROGRAM = r"""
import sys, time, subprocess
for line in sys.stdin:
    if len(sys.argv) > 1:
        print(line.strip(), file=open(sys.argv[1], "a"))
    command, *words = line.split()
    answer = "true" if command == "known_command" else ""
    if command == "CASE":
        PART
    print("=", answer, end="\n\n", flush=True)
"""


def program(part, *args, at="genmove"):
    """The command of a program that does as it is told, except at one command."""
    return [sys.executable, "-ISc", PROGRAM.replace("CASE", at).replace("PART", part), *map(str, args)]


@pytest.fixture
def make():
    players = []

    def player(*args, time_limit=20.0, **kwargs):
        players.append(GTPPlayer(program(*args, **kwargs), time_limit=time_limit))
        return players[-1]

    yield player
    for p in players:
        p.close()


def vertices(size, *names):
    return [from_vertex(name, size, size) for name in names]


def test_only_what_is_missing_is_sent(make, tmp_path):
    log = tmp_path / "log"
    player = make("answer = 'd4'", log)
    c3, d4, e5, e1 = vertices(5, "C3", "D4", "E5", "E1")
    position = Position.empty(5, 6.5).play(c3)
    player.new_game(7)
    assert player(position) == d4
    position = position.play(d4).play(e5)
    player(position)
    start = ["boardsize 5", "clear_board", "known_command set_random_seed", "set_random_seed 7", "komi 6.5"]
    assert log.read_text().splitlines() == [*start, "play B C3", "genmove W", "play B E5", "genmove W"]
    log.unlink()
    player(position.replace(komi=0.5).play(e1))  # the program believes in a move of its own that was not played
    assert log.read_text().splitlines()[-6:] == [
        "komi 0.5",
        "play B C3",
        "play W D4",
        "play B E5",
        "play W E1",
        "genmove B",
    ]


def test_stones_that_were_set_up_are_sent(make, tmp_path):
    log = tmp_path / "log"
    player = make("answer = 'PASS'", log)
    a1, b2, c3 = vertices(3, "A1", "B2", "C3")
    position = Position.empty(3, 0.5).setup(black=[a1, c3], white=[b2], to_play=WHITE)
    assert player(position) == position.pass_move
    assert log.read_text().splitlines() == [
        "boardsize 3", "clear_board", "play B C3", "play W B2", "play B A1", "komi 0.5", "genmove W"
    ]  # fmt: skip
    assert position.play(position.pass_move).moves() == [(WHITE, position.pass_move)]


def test_resignation(make):
    assert make("answer = 'Resign'")(Position.empty(5)) == RESIGN


@pytest.mark.parametrize(
    ("part", "reason", "story"),
    [
        ("time.sleep(1000)", "timeout", "no answer to 'genmove B' within 0.3 s"),
        ("sys.exit('out of memory')", "death", r"exit status 1 \(out of memory\) at 'genmove B'"),
        ("import os; os.close(1); time.sleep(1000)", "death", "it closed its output"),
        ("print('hello\\n\\n= D4\\n')", "garbage", "answered 'hello' to 'genmove B'"),
        ("answer = 'Z9'", "garbage", "answered 'Z9'"),
        ("answer = ''", "garbage", "answered ''"),
        ("print('\\0' * 10**6)", "garbage", "answered"),
        ("print('= D4\\n' * 10**4)", "garbage", "answered"),
        ("print('? no idea\\n')", "refusal", r"answered '\? no idea' to 'genmove B'"),
        ("while True: print()", "timeout", "no answer"),
    ],
)
@pytest.mark.slow
def test_failures_have_a_reason_and_the_next_game_is_played(make, part, reason, story):
    player = make(part, time_limit=0.3 if reason == "timeout" else 20.0)
    with pytest.raises(PlayerFailed, match=f"^{reason}: .*{story}") as failed:
        player(Position.empty(5))
    assert failed.value.reason == reason and "\n" not in str(failed.value)
    player.command, player.time_limit = program("answer = 'D4'"), 20.0
    assert player(Position.empty(5)) == from_vertex("D4", 5, 5)


def test_a_flood_on_stderr_blocks_nobody(make):
    player = make("sys.stderr.write('x' * 10**6 + '\\n' * 10**5); answer = 'D4'")
    assert player(Position.empty(5)) == from_vertex("D4", 5, 5)


def test_what_a_program_refuses_is_said(make):
    with pytest.raises(PlayerFailed, match=r"refusal: answered '\? unacceptable size' to 'boardsize 5'"):
        make("print('? unacceptable size\\n', flush=True)", at="boardsize")(Position.empty(5))
    with pytest.raises(PlayerFailed, match="square boards only, not 3x5"):
        make("pass")(Position.empty((3, 5)))
    quiet = make("print('? unknown command\\n', flush=True); continue", at="known_command")
    quiet.new_game(1)
    with pytest.raises(PlayerFailed, match="answered ''"):  # it got as far as genmove
        quiet(Position.empty(5))


def test_an_engine_over_a_program_plays_on_squares_alone(make):
    engine = Engine(make("pass"))
    assert engine.answer("rectangular_boardsize 5 7") == "? unacceptable size\n\n"
    assert engine.answer("rectangular_boardsize 7 7") == "= \n\n"


def test_a_program_that_is_not_there():
    with pytest.raises(PlayerFailed, match=r"^death: does not start: .*no-such-program"):
        GTPPlayer("no-such-program --mode gtp")(Position.empty(5))
    with pytest.raises(ValueError, match="needs a command"):
        GTPPlayer("  ")


def held_open(fifo, seconds=10):
    """What was written to a named pipe, b"" where nobody holds it any more."""
    assert select.select([fifo], [], [], seconds)[0]
    return os.read(fifo, 100)


@pytest.fixture
def alive(tmp_path):
    """A named pipe that shows who is alive: its path, and the end to read."""
    if sys.platform == "win32":
        pytest.skip("named pipes and process groups are POSIX")
    os.mkfifo(tmp_path / "alive")
    fifo = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    yield str(tmp_path / "alive"), fifo
    os.close(fifo)


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="shows what left its process group")
LEFT = "(echo here; sleep 1000) &"  # its parent ends at once


@pytest.mark.parametrize(
    ("script", "session"),
    [
        ("echo here; sleep 1000", False),
        pytest.param("echo here; sleep 1000", True, marks=needs_proc),
        pytest.param(LEFT, True, marks=needs_proc),
    ],
    ids=["in its group", "in a session of its own", "without a parent"],
)
def test_close_ends_the_program_and_its_children(make, alive, script, session):
    path, fifo = alive
    out = f"stdin=subprocess.DEVNULL, stdout=open({path!r}, 'w'), stderr=subprocess.DEVNULL"
    player = make(f"subprocess.Popen(['sh', '-c', {script!r}], {out}, start_new_session={session}); answer = 'A1'")
    before = threading.active_count()
    player(Position.empty(5))
    process = player._process
    assert held_open(fifo) == b"here\n"
    player.close()
    assert held_open(fifo) == b""
    assert process.returncode is not None
    for thread in threading.enumerate():
        if thread.name.endswith("(_pump)"):
            thread.join(10)
    assert threading.active_count() <= before
    with pytest.raises(PlayerFailed, match="was closed"):
        player(Position.empty(5))


@needs_proc
def test_a_program_that_ignores_the_end_of_its_input_ends_where_we_are_killed(alive):
    path, fifo = alive
    part = f"subprocess.Popen(['sh', '-c', {LEFT!r}], stdout=open({path!r}, 'w'), start_new_session=True)"
    code = "import sys; from envs.go.gtp_client import *; GTPPlayer(sys.argv[1:]).ask('genmove b')"
    command = [sys.executable, "-c", code, *program(f"{part}; time.sleep(1000)")]
    with subprocess.Popen(command, cwd=Path(__file__).parents[3]) as ours:
        assert held_open(fifo, 60) == b"here\n"
        ours.kill()
    assert held_open(fifo) == b""


def test_nobody_else_holds_the_input_of_a_program(make):
    players = [make("answer = 'A1'") for _ in range(3)]
    for player in players:
        player(Position.empty(5))
    players[0]._process.stdin.close()
    assert players[0]._process.wait(10) == 0  # it has read the end, while the others go on


def test_close_wakes_a_call_that_waits(make):
    player, failures = make("time.sleep(1000)"), []
    begun = threading.Event()
    ask = player._ask

    def told(command, *args):
        if command.startswith("genmove"):
            begun.set()
        return ask(command, *args)

    player._ask = told

    def call():
        try:
            player(Position.empty(5))
        except PlayerFailed as failure:
            failures.append(failure.reason)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(10)
    player.close()
    thread.join(10)
    assert failures == ["death"]


def test_gnu_go_keeps_step_and_repeats_itself():
    from experiments.go.players import go_player

    if not (shutil.which("gnugo") or shutil.which("/usr/games/gnugo")):
        pytest.skip("needs GNU Go (Debian's package gnugo)")
    player = go_player("gnugo:1", 3)
    games = []
    for _ in range(2):
        player.new_game(11)
        position = Position.empty(5, 7.5).setup(white=[0])
        for _ in range(6):
            position = position.play(player(position))
        games.append(position.moves())
        shown = player.ask("list_stones black"), player.ask("list_stones white")
        for colour, names in zip((BLACK, WHITE), shown, strict=True):
            stones = {from_vertex(name, 5, 5) for name in names.split()}
            assert stones == set((position.board.ravel() == colour).nonzero()[0].tolist())
    assert games[0] == games[1] and player.ask("get_random_seed") == "11"
    with pytest.raises(PlayerFailed, match=r"^refusal: .*unacceptable size.*boardsize 20"):
        player.ask("boardsize 20")
    player.close()
