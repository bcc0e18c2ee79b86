"""Several processes that learn one model: the same weights as one would have, also after a stop, a kill, a resume."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import safetensors.numpy

from rlkit.config import Divided, RunConfig
from rlkit.parallel import ranks

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]
pytestmark = pytest.mark.slow


def torchrun(folder, *words, count=2, more=(), check=True, timeout=200):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *more]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=timeout,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_gradients_are_those_of_one_batch_and_ranks_stay_the_same(tmp_path):
    torchrun(tmp_path, HERE / "averages.py", tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for name in ("half each", "half each: loss", "by tokens", "by tokens: loss"):
        assert max(first[name], second[name]) < 1e-6, name
    assert first["hashes"] == second["hashes"]
    assert first["own random numbers"] != second["own random numbers"]
    assert first["stopped"] == second["stopped"] == 6, "the one that asks has its way after the next average"
    assert first["masked"] and second["masked"]


DQN = ("-m", "experiments", "dqn", "--env", "catch", "--num-envs", "4", "--replay", "2000", "--learning-starts", "200",
       "--batch-size", "16", "--trainer.save-every", "20", "--frames", "100000", "--eval-episodes", "2", "--width",
       "0.1")  # fmt: skip


def weights(run):
    return hashlib.sha256((run / "agent" / "weights.safetensors").read_bytes()).hexdigest()


def only_run(folder):
    (run,) = (path for path in (folder / "runs" / "dqn").iterdir())
    return run


def test_a_run_goes_on_exactly_with_as_many_ranks_and_with_new_experience_with_others(tmp_path):
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    straight.mkdir(), halves.mkdir()
    torchrun(straight, *DQN, "--trainer.steps", 80)
    torchrun(halves, *DQN, "--trainer.steps", 40)
    run = only_run(halves)
    assert not (run / "ranks" / "1" / "agent").exists() and not list((run / "ranks" / "1").glob("events.*"))
    assert json.loads((run / "config.json").read_text())["batch_size"] == 16, "that of all ranks"
    said = torchrun(halves, "-m", "experiments", "dqn", "--resume", run, "--trainer.steps", 80)
    assert said.count("resumed at step 40") == 1, "rank 0 alone speaks"
    assert weights(run) == weights(only_run(straight))

    on_one = [sys.executable, "-m", "experiments", "dqn", "--resume", run, "--trainer.steps", "100", "--threads", "1"]
    alone = subprocess.run(on_one, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "resumed at step 80" in alone.stderr and "begin anew" in alone.stderr
    said = torchrun(halves, "-m", "experiments", "dqn", "--resume", run, "--trainer.steps", 120)
    assert "resumed at step 100" in said and "begin anew" in said
    assert safetensors.numpy.load_file(run / "agent" / "weights.safetensors")


def test_a_killed_rank_is_replaced_and_the_run_goes_on(tmp_path):
    """torchrun starts the same command line again; --resume is not in it. Killed before it meets the others, before
    anything is saved, and after two checkpoints.
    """
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, runpy, signal, sys, time\n"
        "from rlkit.trainer import Trainer\n"
        "start, update = int(os.environ['TORCHELASTIC_RESTART_COUNT']), Trainer.update\n"
        "def die():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "def killed(self, batch):\n"
        "    if os.environ['RANK'] == '1' and self.step == {1: 5, 2: 50}.get(start):\n"
        "        die()\n"
        "    return update(self, batch)\n"
        "Trainer.update = killed\n"
        "if os.environ['RANK'] == '1' and start == 0:\n"
        "    time.sleep(3)\n"
        "    die()\n"
        "runpy.run_module('experiments', run_name='__main__', alter_sys=True)\n"
    )
    said = torchrun(tmp_path, script, *DQN[2:], "--trainer.steps", 60, more=("--max-restarts", "3"))
    assert "another rank has ended" in said and "resumed at step 40" in said
    assert len(list((tmp_path / "runs" / "dqn").iterdir())) == 1
    assert (only_run(tmp_path) / "checkpoints" / "step_000000000060.ckpt").exists()
    assert not list((tmp_path / "runs").glob(".torchrun*"))


@dataclass
class Config(RunConfig):
    batch_size: Annotated[int, Divided] = 12
    epochs: int = 3


def test_what_is_divided():
    assert ranks.divide(Config(), 3) == Config(batch_size=4)
    with pytest.raises(ValueError, match="--batch-size 12 cannot be divided among 5 ranks: 10, say"):
        ranks.divide(Config(), 5)


def test_a_command_with_nothing_to_share_says_so(tmp_path):
    said = torchrun(tmp_path, "-m", "experiments", "heights", check=False)
    assert "heights has nothing that ranks could share: start it without torchrun" in said
