"""Commands in processes of their own."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rlkit.signals import signals_held


def run_command(module: str, arguments: list[str], folder: Path) -> int:
    """Run `python -m module arguments` in a new process, in `folder`; returns its exit status.

    Ctrl-C is passed on: KeyboardInterrupt is raised once the process has saved and ended. If this process is killed,
    the other gets SIGTERM.
    """
    process: subprocess.Popen | None = None
    stopped = False
    with contextlib.ExitStack() as until_it_ends:
        while process is None or process.returncode is None:
            try:
                if process is None:
                    with signals_held():
                        process = start_command(module, arguments, folder, until_it_ends)
                process.wait()
            except KeyboardInterrupt:
                if process is None:
                    raise
                process.send_signal(signal.SIGTERM)  # in the background of a script, it does not hear SIGINT
                stopped = True
    if stopped:
        raise KeyboardInterrupt
    return process.returncode


def start_command(
    module: str,
    arguments: list[str],
    folder: Path,
    until_it_ends: contextlib.ExitStack,
    output: Path | None = None,
) -> subprocess.Popen:
    """Start `python -m module arguments` in `folder`; it imports from our folder as we do. If this process is killed
    before the stack is closed, the other gets SIGTERM.

    output: a new file for both its streams; default: ours.
    """
    checkout = Path(__file__).parents[1]
    paths = os.pathsep.join(filter(None, [str(checkout), os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    # In a process group of its own it hears of a signal once, from here: the first lets it save, a second ends it.
    with open(output, "wb") if output else contextlib.nullcontext() as file:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": paths},
            start_new_session=True,
            stdout=file,
            stderr=file,
        )
    until_it_ends.enter_context(_terminated_after_us(process.pid))
    return process


@contextlib.contextmanager
def _terminated_after_us(pid: int) -> Iterator[None]:
    """If this process dies inside the block, process `pid` gets SIGTERM: from a shell that waits until a pipe closes
    which only we hold open.
    """
    if os.name != "posix":
        yield
        return
    command, pipe, null = ["sh", "-c", 'read end; kill -s TERM "$0"', str(pid)], subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=null, stderr=null, start_new_session=True) as shell:
        try:
            yield
        finally:
            shell.kill()
