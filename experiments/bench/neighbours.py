"""Two runs at once, and one beside a busy program: what each learner keeps of its speed.

All are started anew for each turn, as people start them: with the flags of their defaults, in processes of their own.
"""

import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from experiments.bench.turns import Config, report

LEARNERS = {
    "dqn": "dqn --replay 20000 --learning-starts 2000 --no-save-replay",
    "alphazero": "alphazero --selfplay.games 64 --selfplay.start 200",
    "images": "images --data fashion-mnist --augment flipped shifted --batch-size 128",
    "language model": "language_model",
}

# Counts updates, or rounds of self-play, from the fifth on for so many seconds, and is gone. Prints how many there were
# in a second, and the share of the time that ranks took for their averages.
WORKER = """
import os, sys, time
from agents.alphazero.selfplay import SelfPlay
from experiments.__main__ import load, parse
from rlkit.trainer import Trainer

seconds, (name, *flags), times, averaging = float(sys.argv[1]), sys.argv[2:], [], []

def counted(method):
    def count(self, *args):
        out = method(self, *args)
        times.append(time.monotonic())
        averaging.append(self.timer.seconds["average"])
        if len(times) > 5 and (passed := times[-1] - times[4]) > seconds:
            print((len(times) - 5) / passed, (averaging[-1] - averaging[4]) / passed, flush=True)
            os._exit(0)
        return out
    return count

unit = SelfPlay.play if name == "alphazero" else Trainer.update
setattr(SelfPlay if name == "alphazero" else Trainer, unit.__name__, counted(unit))
command = load(name)
command.main(parse(command, [*flags, "--trainer.no-progress"]))
"""
BUSY = "while True: pass"


def outputs(worker: str, words: list[str], runs: int = 1, ranks: int = 1) -> list[str]:
    """What so many processes print that are started at once, or so many ranks of one run. Raises RuntimeError where one
    fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "worker.py")
        file.write_text(f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{worker}")
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        command = [sys.executable, *torchrun, str(file), *words]
        started = [
            subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(runs)
        ]
        found = []
        for process in started:
            out, errors = process.communicate()
            if process.returncode and not (ranks > 1 and out):  # the other ranks fail where the first has gone
                raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}: {errors[-2000:]}")
            found.append(out)
        return found


def measure(cfg: Config, flags: str, runs: int = 1, busy: int = 0, ranks: int = 1) -> list[tuple[float, float]]:
    """Of so many runs started at once beside so many busy programs, or of the first of so many ranks of one run:
    (updates a second, share of the time for averages).
    """
    with contextlib.ExitStack() as held:
        for _ in range(busy):
            held.callback(subprocess.Popen([sys.executable, "-c", BUSY]).kill)
        found = outputs(WORKER, [str(cfg.seconds), *flags.split()], runs, ranks)
    return [(float(rate), float(share)) for rate, share in map(str.split, found)]


def rates(cfg: Config, flags: str, runs: int = 1, busy: int = 0) -> list[float]:
    """Updates a second of so many runs started at once, beside so many busy programs."""
    return [rate for rate, _ in measure(cfg, flags, runs, busy)]


def main(cfg: Config) -> None:
    """Updates/s (of AlphaZero, rounds of self-play with their updates), medians of cfg.rounds turns."""
    for name, flags in LEARNERS.items():
        turns: dict[str, list[float]] = defaultdict(list)
        for _ in range(cfg.rounds):
            turns["two"].append(sum(rates(cfg, flags, runs=2)))
            turns["two, one thread each"].append(sum(rates(cfg, f"{flags} --threads 1", runs=2)))
            turns["alone"].append(*rates(cfg, flags))
            turns["beside"].append(*rates(cfg, flags, busy=1))
        median = {what: statistics.median(values) for what, values in turns.items()}
        unit = "updates/s"
        report(cfg, f"{name}: two at once", median["two"], unit, "--threads 1", median["two, one thread each"])
        report(cfg, f"{name}: beside a busy program", median["beside"], unit, "alone", median["alone"])
