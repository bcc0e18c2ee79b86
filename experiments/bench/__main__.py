"""How fast it is, in turns with peers.

python -m experiments bench dqn --json        # peers need the extra `bench`; one JSON object a line
"""

import importlib

from experiments.bench.turns import Config
from rlkit import run


def main(cfg: Config) -> None:
    """Run the benchmark that cfg.what names: a module beside this one."""
    run.within(cfg, {"rounds": 1, "seconds": 0.01, "threads": 0})
    importlib.import_module(f"experiments.bench.{cfg.what}").main(cfg)
