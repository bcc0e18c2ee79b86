"""How fast, against whom, and how far from the bound.

python -m experiments.bench dqn --json        # needs the extra `bench`; one JSON object a line
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from agents.dqn.agent import DQNConfig
from experiments.dqn_atari import PRESETS, build
from rlkit import run, runtime
from rlkit.trainer import TrainConfig


@dataclass
class Config:
    """Measure speed. Peers run in the same process, in turns with ours."""

    what: Annotated[Literal["dqn"], tyro.conf.Positional] = "dqn"
    json: bool = False
    """one JSON object a line instead of a table"""
    game: str = "pong"
    rounds: int = 5
    """turns of each; medians are reported"""
    seconds: float = 6.0
    """length of a turn, about"""
    threads: int = 0
    """CPU threads; 0: one a core"""
    device: str = "auto"


class Turns:
    """Runs contestants in turns; each is a function that does some work and returns how many units it did."""

    def __init__(self, cfg: Config):
        self.cfg = cfg

    def measure(self, contestants: dict[str, Callable[[], int]]) -> dict[str, float]:
        """Median units/s by name, over `rounds` turns of about `seconds` each."""
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        for work in contestants.values():
            work()  # warm-up
        for _ in range(self.cfg.rounds):
            for name, work in contestants.items():
                began, units = time.perf_counter(), 0
                while time.perf_counter() - began < self.cfg.seconds:
                    units += work()
                rates[name].append(units / (time.perf_counter() - began))
        return {name: statistics.median(values) for name, values in rates.items()}


def report(cfg: Config, bench: str, value: float, unit: str, peer: str = "", peer_value: float | None = None) -> None:
    """Print one row; ratio = value / peer_value."""
    ratio = value / peer_value if peer_value else None
    row = {
        "bench": bench,
        "value": round(value, 4),
        "unit": unit,
        "peer": peer,
        "peer_value": peer_value,
        "ratio": ratio,
    }
    if cfg.json:
        print(json.dumps(row), flush=True)
    else:
        against = f"   {ratio:6.2f} x {peer} ({peer_value:,.1f})" if ratio else ""
        print(f"{bench:<44}{value:>12,.1f} {unit}{against}", flush=True)


def ours(cfg: Config, *, precision: str = "fp32", mode: str = "eager", agent: DQNConfig | None = None):
    """Our DQN as a contestant: plain, Nature network, 16 envs, batch 128, 8 samples a step."""
    trainer_cfg = TrainConfig(steps=10**9, eps=1e-4, precision=precision, mode=mode, progress=False)  # type: ignore[arg-type]
    settings = replace(
        PRESETS["fast"],
        game=cfg.game,
        replay=20_000,
        learning_starts=2_000,
        agent=agent or DQNConfig(),
        trainer=trainer_cfg,
    )
    trainer, experience, dqn = build(settings, runtime.setup(1, cfg.device, cfg.threads))
    loop = trainer.run(experience)

    def work(updates: int = 25) -> int:
        before = experience.steps
        for _ in range(updates):
            next(loop)
        return experience.steps - before

    return work, trainer, experience, dqn


def sb3(cfg: Config, num_envs: int, batch: int, every: int) -> Callable[[], int]:
    """Stable-Baselines3's DQN on the same game and network, 8 replayed samples a step."""
    try:
        from stable_baselines3 import DQN
        from stable_baselines3.common.env_util import make_atari_env
        from stable_baselines3.common.vec_env import VecFrameStack
    except ImportError as error:
        raise ModuleNotFoundError("the comparison needs the extra `bench`: pip install -e '.[bench]'") from error
    name = "ALE/" + cfg.game.title().replace("_", "") + "-v5"
    kwargs = {"frameskip": 1, "repeat_action_probability": 0.0}
    model = DQN(
        "CnnPolicy",
        VecFrameStack(make_atari_env(name, num_envs, seed=1, env_kwargs=kwargs), 4),
        buffer_size=10_000,
        learning_starts=500,
        batch_size=batch,
        train_freq=every,
        target_update_interval=8_000,
        exploration_initial_eps=0.1,
        exploration_final_eps=0.1,
        device="cuda" if runtime.setup(1, cfg.device, cfg.threads).type == "cuda" else "cpu",
    )
    model.learn(1_000)

    def work() -> int:
        before = model.num_timesteps
        model.learn(160, reset_num_timesteps=False)
        return model.num_timesteps - before

    return work


def dqn(cfg: Config) -> None:
    """Env steps/s of whole training loops, of their parts, and of the parts' bound."""
    turns = Turns(cfg)
    work, trainer, experience, _ = ours(cfg)
    work()
    batch = experience.replay.sample(128)
    obs = experience.envs.reset()
    actions = np.zeros(len(obs), np.int64)
    rng = np.random.default_rng(0)
    # The parts move other environments and another learner than the loop does, so that the loop stays whole.
    part, part_trainer, part_experience, part_agent = ours(cfg)
    part()
    envs = part_experience.envs
    if part_experience._outstanding:
        part_experience._receive()

    def repeat(count: int, thing: Callable[[], Any], units: int) -> Callable[[], int]:
        return lambda: sum(units for _ in range(count) if thing() is not Ellipsis)

    whole = turns.measure(
        {
            "ours": work,
            "sb3": sb3(cfg, 1, 32, 4),
            "sb3 at our batch": sb3(cfg, 16, 128, 1),
            "env": repeat(50, lambda: envs.step(actions), len(actions)),
            "acting": repeat(50, lambda: part_agent.act(obs, 0.1, rng), len(obs)),
            "update": repeat(5, lambda: part_trainer.update(batch), 16),
            "batch": repeat(20, lambda: part_experience.replay.sample(128), 16),
        }
    )
    bound = 1 / (1 / whole["env"] + 1 / whole["acting"] + 1 / whole["update"])
    unit = "env steps/s"
    report(cfg, "dqn fp32", whole["ours"], unit, "SB3, 1 env, batch 32 every 4 steps", whole["sb3"])
    report(cfg, "dqn fp32", whole["ours"], unit, "SB3, 16 envs, batch 128", whole["sb3 at our batch"])
    for name in ("env", "acting", "update"):
        report(cfg, f"dqn fp32, {name} alone", whole[name], unit)
    report(cfg, "dqn fp32, of the bound", whole["ours"], unit, "1/(1/env + 1/acting + 1/update)", bound)
    report(cfg, "building a batch of 128", 16e3 / whole["batch"], "ms", "its update", 16e3 / whole["update"])

    variants: dict[str, dict[str, Any]] = {"compile": {"mode": "compile"}}
    device = trainer.device
    if runtime.fastest_precision(device) == "bf16":
        variants |= {"bf16": {"precision": "bf16"}, "bf16, compile": {"precision": "bf16", "mode": "compile"}}
    if device.type == "cuda":
        variants["bf16, cudagraph"] = {"precision": "bf16", "mode": "cudagraph"}
    contestants = {name: ours(cfg, **kind)[0] for name, kind in variants.items()}
    rates = turns.measure({"fp32": work} | contestants)
    for name in variants:
        report(cfg, f"dqn {name}", rates[name], unit, "dqn fp32", rates["fp32"])

    replay = experience.replay
    columns = [replay.action, replay.age, replay.reward, replay.discount, replay.last]
    per_frame = replay.frames[0].numel() + sum(c.nbytes for c in columns) / replay.last.size
    report(cfg, "replay of 1,000,000 frames", per_frame / 1000, "GB")
    report(cfg, "warm start to the first env step", statistics.median(_start(cfg) for _ in range(3)), "s")


def _start(cfg: Config) -> float:
    code = "from experiments.dqn_atari import *; import copy; cfg = copy.deepcopy(PRESETS['fast']);"
    code += f"_, e, _ = build(cfg, runtime.setup(1, {cfg.device!r}, {cfg.threads})); e._send(); e._receive()"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main(cfg: Config) -> None:
    """Run the benchmark that cfg.what names."""
    {"dqn": dqn}[cfg.what](cfg)


if __name__ == "__main__":
    run.cli(main, lambda: tyro.cli(Config))
