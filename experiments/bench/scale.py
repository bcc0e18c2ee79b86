"""One run on several ranks, beside as many runs that know nothing of each other.

python -m experiments bench scale --json --seconds 10

Each rank has the batch that a run alone has, so the two do the same work but for the average of the gradients, and for
the waiting of the faster rank. Ranks are worth their while where they make most of the updates that two runs do.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments.bench.turns import Config, report

RANKS = 2
LEARNERS: dict[str, tuple[str, dict[str, int]]] = {
    "dqn": ("--learning-starts 2000 --no-save-replay", {"num-envs": 16, "batch-size": 128, "replay": 20_000}),
    "images": ("--data digits --epochs 10000", {"batch-size": 64}),
    "language_model": ("--model transformer", {"batch-size": 16}),
}
"""of each command: its flags, and what is divided among ranks"""

# Counts updates for so many seconds after the fifth, and says how many there were in one, and the share of averaging.
WORKER = """
import json, os, sys, time
from experiments.__main__ import load, parse
from rlkit.trainer import Trainer

seconds, (name, *flags), times, begun = float(sys.argv[1]), sys.argv[2:], [], []
update = Trainer.update

def counted(self, batch):
    out = update(self, batch)
    times.append(time.monotonic())
    if len(times) == 5:
        begun.append(self.timer.seconds["average"])
    if len(times) > 5 and times[-1] - times[4] > seconds:
        passed, averaging = times[-1] - times[4], self.timer.seconds["average"] - begun[0]
        print(json.dumps({"rate": (len(times) - 5) / passed, "average": averaging / passed}), flush=True)
        os._exit(0)
    return out

Trainer.update = counted
command = load(name)
command.main(parse(command, [*flags, "--trainer.no-progress"]))
"""


def measure(cfg: Config, name: str, flags: str, runs: int = 1, ranks: int = 1) -> list[dict[str, float]]:
    """Of so many runs at once, or of rank 0: updates a second, and the share of time that averages take."""
    with tempfile.TemporaryDirectory() as folder:
        worker = Path(folder, "worker.py")
        worker.write_text(WORKER)
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        command = [sys.executable, *torchrun, str(worker), str(cfg.seconds), name, *flags.split()]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": folder}
        # As torchrun has it for ranks: one thread each.
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        started = [subprocess.Popen(command, env=env, **pipes) for _ in range(runs)]
        found = []
        for process in started:
            out, errors = process.communicate()
            lines = [line for line in out.splitlines() if line.startswith('{"rate"')]
            if not lines:
                raise RuntimeError(f"{name} {flags} ended with {process.returncode}: {errors[-2000:]}")
            found.append(json.loads(lines[0]))
        return found


def main(cfg: Config) -> None:
    """Updates/s of RANKS ranks together and of as many runs, medians of cfg.rounds turns."""
    for name, (flags, divided) in LEARNERS.items():
        alone, shared = (
            " ".join([flags, *(f"--{flag} {times * size}" for flag, size in divided.items())]) for times in (1, RANKS)
        )
        together, averages, apart = [], [], []
        for _ in range(cfg.rounds):
            first = measure(cfg, name, shared, ranks=RANKS)[0]
            together.append(RANKS * first["rate"])
            averages.append(100 * first["average"])
            apart.append(sum(run["rate"] for run in measure(cfg, name, alone, runs=RANKS)))
        report(
            cfg,
            f"{name}: {RANKS} ranks",
            statistics.median(together),
            "updates/s",
            "runs apart",
            statistics.median(apart),
        )
        report(cfg, f"{name}: averaging", statistics.median(averages), "% of the time")
