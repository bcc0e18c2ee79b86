"""One run on several ranks, beside as many runs that know nothing of each other.

python -m experiments bench scale --json --seconds 10

Each rank has the batch that a run alone has, so the two do the same work but for the average of the gradients, and for
the waiting of the faster rank. Ranks are worth their while where they make most of the updates that two runs do.
"""

import statistics

from experiments.bench.neighbours import measure, rates
from experiments.bench.turns import Config, report

RANKS = 2
LEARNERS: dict[str, tuple[str, dict[str, int]]] = {
    "dqn": ("--learning-starts 2000 --no-save-replay", {"num-envs": 16, "batch-size": 128, "replay": 20_000}),
    "images": ("--data digits --epochs 10000", {"batch-size": 64}),
    "language_model": ("--model transformer", {"batch-size": 16}),
}
"""of each command: its flags, and what is divided among ranks"""


def main(cfg: Config) -> None:
    """Updates/s of RANKS ranks together and of as many runs, medians of cfg.rounds turns."""
    for name, (flags, divided) in LEARNERS.items():
        alone, shared = (  # a thread each, as torchrun has it for ranks
            " ".join([name, flags, "--threads 1", *(f"--{flag} {times * size}" for flag, size in divided.items())])
            for times in (1, RANKS)
        )
        together, averages, apart = [], [], []
        for _ in range(cfg.rounds):
            rate, share = measure(cfg, shared, ranks=RANKS)[0]
            together.append(RANKS * rate)
            averages.append(100 * share)
            apart.append(sum(rates(cfg, alone, runs=RANKS)))
        report(
            cfg,
            f"{name}: {RANKS} ranks",
            statistics.median(together),
            "updates/s",
            "runs apart",
            statistics.median(apart),
        )
        report(cfg, f"{name}: averaging", statistics.median(averages), "% of the time")
