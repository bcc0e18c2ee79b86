"""How fast it is, in turns with peers.

python -m experiments bench dqn --json        # peers need the extra `bench`; one JSON object a line
"""

import importlib

from experiments.bench import against
from experiments.bench.turns import Config
from rlkit.config import check_bounds


def main(cfg: Config) -> None:
    """Run the benchmark that cfg.what names, a module beside this one; in turns with cfg.against, if given."""
    check_bounds(cfg)
    if cfg.against:
        against.main(cfg)
    else:
        importlib.import_module(f"experiments.bench.{cfg.what}").main(cfg)
