"""The runs of a search on actors, where a trial finds what it uses of a subprocess.Popen.

    poll, send_signal --> RemoteProcess --> RemoteCommands.look --> CommandActor.go_on, on another machine
                                       <-- returncode, or LOST <--

Runs wait for an idle actor, and each `look`, of whichever run, has all that are idle go on.
"""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlkit.parallel.actors import ActorConfig, Actors
from rlkit.processes import start_command
from rlkit.signals import signals_held

LOOK = 0.5
"""seconds that an actor waits for its command to end before it answers"""


def check_actors(count: int, seeds: int, jobs: int, run: Any) -> None:
    """Raise ValueError where so many cannot share the trials. run: configuration of the command that these perform."""
    if count % seeds:
        raise ValueError(f"--actors {count}: a trial has {seeds} --seeds at once, so ask for a multiple of {seeds}")
    if count and jobs > 1:
        raise ValueError(f"--actors {count} have {count // seeds} trials at once: leave --jobs at 1")
    if count and hasattr(run, "elsewhere") and run.elsewhere.actors:
        raise ValueError("each run has --actors of its own, which cannot run on others: use --jobs")


@contextlib.contextmanager
def starter(cfg: ActorConfig) -> Iterator[Callable[..., Any]]:
    """`start_command`, or what takes the same and has actors do it, where there are some. Raises as `Actors` does."""
    if cfg.actors:
        with Actors(CommandActor, cfg) as actors:
            yield RemoteCommands(actors).start
    else:
        yield start_command


class CommandActor:
    """Performs one command at a time, in an actor's process."""

    def __init__(self, index: int, start: int):
        self.until_it_ends = contextlib.ExitStack()

    def start(self, module: str, arguments: list[str], folder: Path, output: Path) -> None:
        if not folder.is_dir():
            where = f"{folder} is not there on {socket.gethostname()}"
            raise FileNotFoundError(f"{where}: --actors want the search's folder under the same path on all machines")
        self.process = start_command(module, arguments, folder, self.until_it_ends, output)

    def go_on(self, signals: list[int]) -> int | None:
        """Hand on signals; the exit status of the command, if it ends within LOOK seconds."""
        for number in signals:
            self.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(LOOK)
            self.until_it_ends.close()
        return self.process.returncode


class RemoteProcess:
    """A command that an actor performs, or will once one is idle. Its returncode is LOST where its actor was lost."""

    def __init__(self, look: Callable[[], None], job: tuple):
        self._look, self.job = look, job
        self.signals: list[int] = []
        """to be handed on"""
        self.returncode: Any = None

    def poll(self) -> Any:
        self._look()
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def wait(self) -> None:
        while self.poll() is None:
            time.sleep(LOOK)


class RemoteCommands:
    """Commands that idle actors take up in turn."""

    def __init__(self, actors: Actors):
        self.actors = actors
        self.waiting: list[RemoteProcess] = []
        self.running: dict[int, RemoteProcess] = {}
        """by actor"""

    def start(
        self, module: str, arguments: list[str], folder: Path, until_it_ends: contextlib.ExitStack, output: Path
    ) -> RemoteProcess:
        """As `start_command` has it; the stack is the actor's own."""
        self.waiting.append(RemoteProcess(self.look, (module, arguments, folder.absolute(), output.absolute())))
        return self.waiting[-1]

    def look(self) -> None:
        """Hear what has ended, and have idle actors go on."""
        with signals_held():  # an answer that is heard by half would be waited for without end
            for index, code in self.actors.results():
                if code is not None and index in self.running:  # else lost before it had begun
                    self.running.pop(index).returncode = code
            for process in [one for one in self.waiting if one.signals]:
                self.waiting.remove(process)
                process.returncode = -process.signals[0]
            for index in sorted(self.actors.idle):
                if index in self.running:
                    signals, self.running[index].signals = self.running[index].signals, []
                    self.actors.call(index, "go_on", signals)
                elif self.waiting:
                    self.running[index] = self.waiting.pop(0)
                    self.actors.call(index, "start", *self.running[index].job)
