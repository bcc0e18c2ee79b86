"""Random command lines of all commands: none may end in a traceback, and what failed may leave no run behind.

python tests/fuzz.py --lines 5000 --seed 1 --processes 2         # half an hour on two cores

Each line runs in a fork of a process that has imported everything and run nothing of torch, in an empty folder beside
some files and runs, whole and broken ones. A line that begins to learn, play or listen is ended after two seconds.
"""

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import typing
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from experiments.__main__ import MODULES, load  # noqa: E402
from experiments.__main__ import main as run_command  # noqa: E402

COMMANDS = sorted(set(MODULES) - {"bench"})
NUMBERS = """0 1 2 3 7 -1 -3 0.5 1e-9 1e308 -1e308 nan inf -inf 1e3 1000000000 99999999999999999999 0x10 1_000
    ٣ 1,5"""
WORDS = ["", " ", "abc", "--", "-", "pong", "catch", "tictactoe", "a b", "ü", "\udcff", "x" * 5000, "..", "/", "*"]
FILES = "text.txt empty.txt bytes.bin games.sgf pictures nosuch nosuch/x fifo /dev/null . dangling"
SECONDS, PATIENCE = 2, 60


def prepare(folder: Path) -> None:
    """Files and runs that lines may name."""
    import numpy as np
    from PIL import Image

    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 300)
    (folder / "pairs.txt").write_text("\n".join(f"{i}\tnumber {i}" for i in range(200)))
    (folder / "table.csv").write_text("child,parent\n" + "\n".join(f"{60 + i % 9},{61 + i % 7}" for i in range(50)))
    (folder / "empty.txt").touch()
    (folder / "bytes.bin").write_bytes(bytes(range(256)) * 9)
    (folder / "games.sgf").write_text("(;GM[1]SZ[5]KM[5.5];B[cc];W[bb];B[dd];W[cb];B[bc])\n" * 30)
    os.mkfifo(folder / "fifo")
    (folder / "dangling").symlink_to("nowhere")
    for label in ("cat", "dog"):
        (folder / "pictures" / label).mkdir(parents=True)
        for i in range(5):
            image = np.full((12, 12, 3), 40 * i, np.uint8)
            Image.fromarray(image).save(folder / "pictures" / label / f"{i}.png")
    small = ["--trainer.no-progress", "--trainer.steps=2", "--threads=1"]
    for module, flags in {
        "language_model": ["--text=text.txt", "--model=rnn", "--layers=1", "--width=8", "--context=8", "--tokens=3"],
        "images": ["--backbone=mlp", "--epochs=1"],
        "heights": [],
        "dqn": ["--env=catch", "--frames=400", "--num-envs=4", "--learning-starts=50", "--replay=400",
                      "--batch-size=8", "--width=.1", "--eval-episodes=2"],
    }.items():  # fmt: skip
        line = [sys.executable, "-m", "experiments", module, *flags, *small]
        assert os.spawnve(os.P_WAIT, sys.executable, line, os.environ | {"PYTHONPATH": str(ROOT)}) == 0, line
        run_dir = next((folder / "runs" / module).iterdir())
        run_dir.rename(folder / f"run_{module}")
    shutil.rmtree(folder / "runs")
    whole = sorted(folder.glob("run_*"))
    for i, damage in enumerate((b"", b"{", b"[" * 100_000, b'{"seed": "x"}', b"null", b"\xff\xfe")):
        copy = folder / f"broken{i}"
        shutil.copytree(whole[i % len(whole)], copy)
        (copy / ("config.json" if i % 2 else "agent/agent.json")).write_bytes(damage)
    shutil.copytree(ROOT / "agents/alphazero/pretrained/5x5", folder / "agent5x5")


def fields(kind: type, prefix: str = "") -> list[tuple[str, typing.Any]]:
    """(flag, type) of a configuration, and of those in it."""
    out, hints = [], typing.get_type_hints(kind, include_extras=False)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        flag = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(hint):
            out += fields(hint, "" if field.name == "agent" else f"{flag}.")
        else:
            out.append((flag, hint))
    return out


def some_line(rng: random.Random, runs: list[str]) -> list[str]:
    """A command and its arguments."""
    command = rng.choice(COMMANDS)
    module = load(command)
    known = fields(module.Config)
    files = [*FILES.split(), "pairs.txt", "table.csv", *runs, "agent5x5", "agent5x5:8", "mcts:10", "random", "gnugo:1"]

    def value(hint: typing.Any) -> str:
        choices = [c for c in typing.get_args(hint) if isinstance(c, str)]
        choices += [c for part in typing.get_args(hint) for c in typing.get_args(part) if isinstance(c, str)]
        if choices and rng.random() < 0.8:
            return rng.choice(choices)
        kinds = str(hint)
        if ("int" in kinds or "float" in kinds) and rng.random() < 0.9:
            return rng.choice(NUMBERS.split())
        return rng.choice(files if rng.random() < 0.7 else WORDS)

    line = [rng.choice(files if rng.random() < 0.8 else WORDS) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
    for flag, hint in rng.sample(known, min(len(known), rng.randint(0, 6))):
        if hint is bool:
            line.append(rng.choice((f"--{flag}", f"--no-{flag}")))
        else:
            line += [f"--{flag}", *(value(hint) for _ in range(rng.choice((1, 1, 1, 1, 1, 0, 2))))]
    if hasattr(module, "PRESETS") and rng.random() < 0.4:
        line += ["--preset", rng.choice([*module.PRESETS, "nosuch"])]
    if any(flag == "resume" for flag, _ in known) and rng.random() < 0.3:
        line += ["--resume", rng.choice(runs)]
    return [command, *(word.replace("\0", "") for word in line)]


def perform(line: list[str], home: Path, work: Path) -> None:
    """In a fork: be this command, with its output in a file."""
    from envs.go.gtp import Engine
    from experiments.go import match
    from rlkit import processes
    from rlkit.trainer import Trainer

    os.setsid()
    os.chdir(work)
    for path in home.iterdir():
        if path.name == "fifo" or path.is_symlink() or path.is_file():
            os.symlink(path, work / path.name)
        else:
            shutil.copytree(path, work / path.name)
    output = os.open("output", os.O_WRONLY | os.O_CREAT)
    for number, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(target, number)
    text = {"encoding": "utf-8", "errors": "surrogateescape"}
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0, "r", **text), os.fdopen(1, "w", **text), os.fdopen(2, "w", **text)
    resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))

    def begun(*_: object) -> None:
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.alarm(SECONDS)

    def wrapped(owner: typing.Any, name: str) -> None:
        inner = getattr(owner, name)

        def outer(*args: typing.Any, **kw: typing.Any) -> typing.Any:
            begun()
            return inner(*args, **kw)

        setattr(owner, name, outer)

    for owner, name in ((Trainer, "run"), (Engine, "run"), (match, "play_match"), (processes, "run_command")):
        wrapped(owner, name)
    sys.argv = ["lecture-rl", *line]
    code: object = 0
    try:
        run_command()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(int(code or 0))  # type: ignore[call-overload]


def judged(line: list[str], home: Path) -> str:
    """What is wrong with how a line ended; empty if nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                perform(line, home, work)
            os._exit(98)
        began = time.monotonic()
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() - began > PATIENCE:
                os.killpg(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        path = work / "output"
        text = path.read_text(errors="replace") if path.exists() else ""
        code = os.waitstatus_to_exitcode(ended[1])
        if code == -signal.SIGKILL:
            return f"hangs: {text[-300:]}"
        if "Traceback" in text or code < 0 or code >= 98:
            return f"traceback ({code}): {text[-1500:]}"
        if code and (left := [str(p) for p in work.glob("runs/*/*")]):
            return f"left {left}: {text[-300:]}"
        if code and not text.strip():
            return f"ended with {code} and no word"
    return ""


def some_lines(job: tuple[int, int, str]) -> list[tuple[list[str], str]]:
    """Run so many lines of a seed; returns those that went wrong, with what did."""
    seed, count, home = job
    rng = random.Random(seed)
    runs = sorted(p.name for p in Path(home).iterdir() if p.name.startswith(("run_", "broken")))
    wrong = []
    for number in range(count):
        line = some_line(rng, runs)
        if problem := judged(line, Path(home)):
            wrong.append((line, problem))
            print(json.dumps({"line": shlex.join(line), "wrong": problem}), flush=True)
        if number % 100 == 99:
            print(f"seed {seed}: {number + 1} lines, {len(wrong)} wrong", file=sys.stderr, flush=True)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--lines", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        prepare(Path(folder))
        for command in COMMANDS:
            load(command)
        jobs = [(args.seed * 1000 + i, args.lines // args.processes, folder) for i in range(args.processes)]
        with multiprocessing.get_context("fork").Pool(args.processes) as pool:
            wrong = [one for part in pool.imap(some_lines, jobs) for one in part]
        os.chdir("/")
    kinds = [problem.split(":")[0].split(" ")[0] for _, problem in wrong]
    found = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("traceback", "left", "hangs", "ended"))
    print(f"{len(jobs) * jobs[0][1]:,} lines: {found}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
