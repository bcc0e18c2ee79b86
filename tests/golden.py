"""python tests/golden.py [NAME ...]      # prints a JSON object: what was trained -> SHA-256 of its last weights

A refactor computes the same numbers: run it at the commit before and at the one after, on one machine, and compare.
Each is a run of a few hundred updates by its command line, on one CPU thread; the weights are its agent folder's.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("RLKIT_DATA", ROOT.parent / "shared" / "data"))
EVERY_RUN = "--seed 1 --device cpu --threads 1 --trainer.no-progress --trainer.precision fp32"
RUNS = {
    "dqn": "experiments dqn --env catch --frames 6000 --num-envs 8 --batch-size 32 --samples-per-step 2"
    " --replay 2000 --learning-starts 400 --epsilon-frames 2000 --target-every 50 --eval-every 3000 --eval-episodes 4",
    "alphazero": "experiments alphazero --preset tictactoe --trainer.steps 300 --minutes 60 --eval-games 2",
    "alphago_sl": f"experiments alphago_sl --games {DATA / 'go/goquest_rated_9x9.sgf'} --channels 16 --layers 4"
    " --batch-size 32 --trainer.steps 300 --eval-every 150 --eval-positions 200",
    "language_model": f"experiments language_model --text {DATA / 'ml/tinyshakespeare.txt'} --layers 2 --width 64"
    " --context 64 --batch-size 8 --trainer.steps 300 --eval-every 150 --eval-symbols 5000",
}
"""command lines: the only place to edit where commands or flags are renamed"""


def weights(command: str) -> str:
    """The hash of what a command has trained when it ends."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", *command.split(), *EVERY_RUN.split()]
        ended = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
        if ended.returncode:
            sys.exit(f"{command}\n{ended.stderr}")
        (file,) = Path(folder).rglob("agent/weights.safetensors")
        return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    print(json.dumps({name: weights(RUNS[name]) for name in sys.argv[1:] or RUNS}, indent=1))
