"""A program that speaks GTP 2, as a player: a callable position -> move."""

import contextlib
import os
import queue
import shlex
import signal
import subprocess
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal

import numpy as np

from envs.go.position import BLACK, RESIGN, Position, from_vertex, to_vertex

START_SECONDS = 60.0
"""what a program's first answer may take at least: it has files to load"""
LINE_BYTES, ANSWER_LINES, UNREAD_LINES = 1 << 16, 1_000, 10_000
GUARD = """
trap '' HUP INT TERM
read group
read end
[ -z "$group" ] || kill -s KILL -- "-$group"
for again in 1 2 3; do
    for file in $(grep -Fls "$0" /proc/[0-9]*/environ); do
        file=${file#/proc/}
        kill -s KILL "${file%/environ}"
    done
done
"""
"""a shell that reads a process group, waits for one line more or for our end, then kills that group and all processes
with $0 in their environment: three times, for those that are just being started by others"""
Reason = Literal["death", "timeout", "garbage", "refusal"]


class PlayerFailed(Exception):
    """A player that cannot go on. `.reason` is one word for statistics, str() the whole story in one line."""

    def __init__(self, reason: Reason, story: str):
        super().__init__(f"{reason}: {story}")
        self.reason = reason


class GTPPlayer:
    """A GTP program as a player. It is started at its first move, and again at the next one after a failure.

    command: the program and its arguments, as a list or as one line that is split as a shell would. Every call
    brings the program to the position it is asked about, by the moves that are missing where that is enough, else by
    a new board. Set-up stones are sent as `play`: `set_free_handicap` would make some programs count compensation.

    The program ends with us, also where we are killed, and so does all that it has started: its process group, and on
    Linux all processes that inherited its environment, in any session and also after their parent's death. Only a
    process that left the group and cleared its environment, or that belongs to another user, is missed.

    Every failure raises PlayerFailed and ends the program: it died or would not start ("death"), gave no answer within
    `time_limit` seconds ("timeout"), answered something that is not GTP, or no vertex of this board ("garbage"), or
    answered with an error ("refusal", for example of a board size). Whether a move is legal is the caller's business.
    One call at a time; `close` may come from another thread and is final.
    """

    def __init__(self, command: list[str] | str, name: str | None = None, time_limit: float = 60.0):
        self.command = shlex.split(command) if isinstance(command, str) else list(command)
        if not self.command:
            raise ValueError("a GTP player needs a command, for example gtp:'gnugo --mode gtp'")
        self.name = name or Path(self.command[0]).name
        self.time_limit = time_limit
        self._process: subprocess.Popen | None = None
        self._guard: subprocess.Popen | None = None
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._errors: deque[bytes] = deque(maxlen=3)
        self._lock, self._closed = threading.Lock(), False
        self._line: tuple | None = None  # the size and set-up stones that the program has
        self._sent: list[tuple[int, int]] = []
        self._komi: float | None = None
        self._seed: int | None = None

    def __call__(self, position: Position) -> int:
        """A move for the side to move, or RESIGN. Raises PlayerFailed."""
        try:
            self._send_position(position)
            colour = position.to_play
            command = f"genmove {_letter(colour)}"
            answer = self._ask(command)
            if answer.lower() == "resign":
                return RESIGN
            try:
                move = from_vertex(answer, position.height, position.width)
            except ValueError as error:
                raise PlayerFailed("garbage", f"answered {answer[:80]!r} to {command!r}") from error
            self._sent.append((colour, move))
            return move
        except PlayerFailed:
            self._kill()
            raise

    def can_play(self, height: int, width: int) -> bool:
        """GTP has square boards only; whether the program takes the size is seen when it is asked."""
        return height == width

    def new_game(self, seed: int) -> None:
        """The next position belongs to another game; programs that know `set_random_seed` (GNU Go) get the seed."""
        self._line, self._seed = None, seed

    def ask(self, command: str) -> str:
        """The program's answer to one command, without the leading `=`. Raises PlayerFailed, also where it says `?`."""
        try:
            return self._ask(command)
        except PlayerFailed:
            self._kill()
            raise

    def close(self) -> None:
        """End the program and all that it has started; later calls raise PlayerFailed."""
        with self._lock:
            self._closed = True
        self._kill()

    def _send_position(self, position: Position) -> None:
        root, moves = position.root(), position.moves()
        height, width = position.height, position.width
        line = (height, width, root.board.tobytes())
        if self._process is None or self._line != line or moves[: len(self._sent)] != self._sent:
            if height != width:
                raise PlayerFailed("refusal", f"GTP has square boards only, not {height}x{width}")
            self._ask(f"boardsize {height}")
            self._ask("clear_board")
            self._line, self._sent, self._komi = line, [], None
            if self._seed is not None and self._knows("set_random_seed"):
                self._ask(f"set_random_seed {self._seed}")
            stones = root.board.ravel()
            for point in np.flatnonzero(stones):
                self._play(int(stones[point]), int(point), height, width)
        if position.komi != self._komi:
            self._ask(f"komi {position.komi:.12g}")
            self._komi = position.komi
        for colour, move in moves[len(self._sent) :]:
            self._play(colour, move, height, width)
            self._sent.append((colour, move))

    def _play(self, colour: int, move: int, height: int, width: int) -> None:
        self._ask(f"play {_letter(colour)} {to_vertex(move, height, width)}")

    def _knows(self, command: str) -> bool:
        try:
            return self._ask(f"known_command {command}").lower() == "true"
        except PlayerFailed as failure:
            if failure.reason != "refusal":
                raise
            return False

    def _ask(self, command: str) -> str:
        seconds = self.time_limit if self._process else max(START_SECONDS, self.time_limit)
        process = self._process or self._start()
        deadline = time.monotonic() + seconds
        # Never blocks: a pipe holds more than the one command that can be under way.
        with contextlib.suppress(OSError, ValueError):  # dead or closed: reading says so below
            assert process.stdin
            process.stdin.write(f"{command}\n".encode())
            process.stdin.flush()
        answer: list[str] = []
        while True:
            try:
                line = self._lines.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                line = None
            if line is None or time.monotonic() > deadline:
                raise PlayerFailed("timeout", f"no answer to {command!r} within {seconds:g} s")
            if not line:
                raise PlayerFailed("death", f"{self._epitaph(process)} at {command!r}")
            text = line.decode("utf-8", "replace").strip()
            if (text and not answer and text[0] not in "=?") or len(answer) > ANSWER_LINES:
                raise PlayerFailed("garbage", f"answered {text[:80]!r} to {command!r}")
            if text:
                answer.append(text)
            elif answer:
                break
        whole = "\n".join([answer[0][1:].strip(), *answer[1:]])
        if answer[0][0] == "?":
            raise PlayerFailed("refusal", f"answered '? {whole[:200]}' to {command!r}")
        return whole

    def _start(self) -> subprocess.Popen:
        with self._lock:
            if self._closed:
                raise PlayerFailed("death", "the player was closed")
            pipe, null, mark = subprocess.PIPE, subprocess.DEVNULL, f"GTP_PLAYER_{uuid.uuid4().hex}"
            environment = os.environ | {mark: "1"}  # a name of its own: an engine may have engines, and pass it on
            guard: subprocess.Popen | None = None
            try:
                if os.name == "posix":  # first, so that there is no moment without it
                    command = ["sh", "-c", GUARD, mark]
                    guard = subprocess.Popen(command, stdin=pipe, stdout=null, stderr=null, start_new_session=True)
                process = subprocess.Popen(
                    self.command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
                )
                if guard and guard.stdin:
                    guard.stdin.write(f"{process.pid}\n".encode())
                    guard.stdin.flush()
            except OSError as error:
                _release(guard)
                raise PlayerFailed("death", f"does not start: {error}") from error
            lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
            errors: deque[bytes] = deque(maxlen=3)

            # Both pipes are read to their end, whatever comes, and only so much is kept: a program that floods one
            # can neither block itself nor fill our memory.
            def keep_line(line: bytes) -> None:
                if not line or lines.qsize() < UNREAD_LINES:
                    lines.put(line)

            def keep_error(line: bytes) -> None:
                if line.strip():
                    errors.append(line)

            threads = [
                threading.Thread(target=_pump, args=args, daemon=True)
                for args in ((process.stdout, keep_line), (process.stderr, keep_error))
            ]
            for thread in threads:
                thread.start()
            self._process, self._guard, self._lines, self._line = process, guard, lines, None
            self._errors, self._error_thread = errors, threads[1]
            return process

    def _epitaph(self, process: subprocess.Popen) -> str:
        try:
            status = f"exit status {process.wait(timeout=0.5)}"
            self._error_thread.join(timeout=0.5)
        except subprocess.TimeoutExpired:
            status = "it closed its output"
        last = b" / ".join(line.strip() for line in self._errors).decode("utf-8", "replace")[-300:]
        return f"{status}{f' ({last})' if last else ''}"

    def _kill(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        if hasattr(os, "killpg"):
            with contextlib.suppress(OSError):  # nobody of the group is left
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        _release(self._guard)
        process.wait()
        with contextlib.suppress(OSError):
            assert process.stdin
            process.stdin.close()


def _release(guard: subprocess.Popen | None) -> None:
    """Let it kill what there is, and wait for it."""
    if guard:
        guard.communicate(b"\n\n")  # lines, since a process that we have forked may hold its input open


def _pump(stream: IO[bytes], keep: Callable[[bytes], None]) -> None:
    """Hand over every line of a stream (in pieces where it is long), and b"" at its end."""
    with stream, contextlib.suppress(OSError, ValueError):
        while line := stream.readline(LINE_BYTES):
            keep(line)
    keep(b"")


def _letter(colour: int) -> str:
    return "B" if colour == BLACK else "W"
