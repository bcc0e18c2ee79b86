"""DQN's training loop against Stable-Baselines3, and against the bound of its own parts."""

import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from agents.dqn.agent import DQN
from agents.dqn.experience import Experience
from agents.rainbow.config import RainbowConfig
from envs.atari import Atari
from experiments.bench.turns import Config, in_process, in_turns, repeat, report
from experiments.control.dqn import PRESETS, build
from rlkit import runtime
from rlkit.bf16 import fastest_precision
from rlkit.replay import Replay
from rlkit.run import Run
from rlkit.trainer import TrainConfig, Trainer

NUM_ENVS, BATCH = 16, 128


def ours(cfg: Config, priority: float = 0.0, **trainer: Any) -> tuple[Callable[[], int], Trainer, Experience, DQN]:
    """Our DQN as a contestant: the paper's network and loss, 16 envs, batch 128, 8 replayed samples a step."""
    settings = replace(
        PRESETS["fast"],
        env=cfg.env,
        num_envs=NUM_ENVS,
        batch_size=BATCH,
        replay=20_000,
        learning_starts=2_000,
        priority=priority,
        agent=RainbowConfig(),
        trainer=TrainConfig(steps=10**9, eps=1e-4, progress=False, **trainer),
        device=cfg.device,
        threads=cfg.threads,
    )
    learner, experience, agent = build(settings, Run(settings, "dqn"))
    loop = learner.run(experience)

    def work() -> int:
        before = experience.steps
        for _ in range(25):
            aux = next(loop)[2]
            if priority:
                experience.replay.prioritise(aux["index"], aux["priority"])
        return experience.steps - before

    return work, learner, experience, agent


PEER = """
import sys

import ale_py  # registers the games
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack

env, num_envs, batch, every, device = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
envs = make_atari_env(env, num_envs, seed=1, env_kwargs={"frameskip": 1, "repeat_action_probability": 0.0})
model = DQN(
    "CnnPolicy", VecFrameStack(envs, 4), buffer_size=10_000, learning_starts=500, batch_size=batch, train_freq=every,
    target_update_interval=8_000, exploration_initial_eps=0.1, exploration_final_eps=0.1, device=device,
)
model.learn(1_000)
for _ in sys.stdin:
    before = model.num_timesteps
    model.learn(160, reset_num_timesteps=False)
    print(model.num_timesteps - before, flush=True)
"""


def sb3(cfg: Config, num_envs: int, batch: int, every: int) -> Callable[[], int]:
    """Stable-Baselines3's DQN on the same game and network, 8 replayed samples a step.

    It sits in a process of its own, asleep between its turns, as its users run it: ours sets malloc for the whole
    process, from which it would gain too.
    """
    name = "ALE/" + cfg.env.title().replace("_", "") + "-v5"
    device = runtime.setup(1, cfg.device, cfg.threads).type
    return in_process("stable_baselines3", PEER, name, num_envs, batch, every, device)


def updates(cfg: Config, agent: DQN, batch: dict, layout: torch.memory_format, **trainer: Any) -> Callable[[], int]:
    """The update alone, on a copy of the agent's network."""
    agent = copy.deepcopy(agent)
    for network in (agent.network, agent.target):
        network.to(memory_format=layout)  # type: ignore[call-overload]
    batch = {k: v.contiguous(memory_format=layout) if v.ndim == 4 else v for k, v in batch.items()}
    learner = Trainer(agent.network, agent.loss, TrainConfig(progress=False, **trainer))
    return repeat(5, lambda: learner.update(batch), NUM_ENVS)


def replayed(cfg: Config, priority: float) -> Callable[[], int]:
    """Drawing a batch, its update and, by priority, what follows from it; without environments."""
    work, learner, experience, _ = ours(cfg, priority)
    work()

    def one() -> None:
        batch = experience.replay.sample(BATCH, 0.5)
        aux = learner.update(batch)
        if priority:
            experience.replay.prioritise(aux["index"], aux["priority"])

    return repeat(5, one, NUM_ENVS)


def main(cfg: Config) -> None:
    """Env steps/s of whole training loops, of their parts, and of the parts' bound."""
    work, learner, experience, agent = ours(cfg)
    work()
    batch = experience.replay.sample(BATCH)
    envs = Atari(cfg.env, NUM_ENVS, threads=cfg.threads or runtime.cores())
    obs, actions, rng = envs.reset(), np.zeros(NUM_ENVS, np.int64), np.random.default_rng(0)
    innermost, outermost = torch.channels_last, torch.contiguous_format
    rates = in_turns(
        cfg,
        {
            "ours": work,
            "sb3": sb3(cfg, 1, 32, 4),
            "sb3 at our batch": sb3(cfg, NUM_ENVS, BATCH, 1),
            "env": repeat(50, lambda: envs.step(actions), NUM_ENVS),
            "acting": repeat(50, lambda: agent.act(obs, 0.1, rng), NUM_ENVS),
            "update": updates(cfg, agent, batch, innermost),
            "batch": repeat(20, lambda: experience.replay.sample(BATCH), NUM_ENVS),
        },
    )
    unit = "env steps/s"
    bound = 1 / (1 / rates["env"] + 1 / rates["acting"] + 1 / rates["update"])
    report(cfg, "dqn fp32", rates["ours"], unit, "SB3, 1 env, batch 32 every 4 steps", rates["sb3"])
    report(cfg, "dqn fp32", rates["ours"], unit, "SB3, 16 envs, batch 128", rates["sb3 at our batch"])
    for name in ("env", "acting", "update"):
        report(cfg, f"dqn fp32, {name} alone", rates[name], unit)
    report(cfg, "dqn fp32, of the bound", rates["ours"], unit, "1/(1/env + 1/acting + 1/update)", bound)
    milliseconds = 1000 * NUM_ENVS
    report(cfg, "building a batch", milliseconds / rates["batch"], "ms", "its update", milliseconds / rates["update"])

    # What makes the update itself faster, and what the whole loop has of it.
    variants: dict[str, Callable[[], int]] = {
        "update fp32": updates(cfg, agent, batch, innermost),
        "update fp32, channels outermost": updates(cfg, agent, batch, outermost),
        "update fp32, compile": updates(cfg, agent, batch, innermost, mode="compile"),
    }
    if fastest_precision(learner.device) == "bf16":
        variants["update bf16"] = updates(cfg, agent, batch, innermost, precision="bf16")
        variants["update bf16, compile"] = updates(cfg, agent, batch, innermost, precision="bf16", mode="compile")
        variants["dqn bf16"] = ours(cfg, precision="bf16")[0]
    if learner.device.type == "cuda":
        variants["dqn bf16, cudagraph"] = ours(cfg, precision="bf16", mode="cudagraph")[0]
    rates = in_turns(cfg, variants | {"dqn fp32": work})
    for name in variants:
        report(cfg, name, rates[name], unit, base := f"{name.split()[0]} fp32", rates[base])

    rates = in_turns(cfg, {"uniform": replayed(cfg, 0.0), "prioritised": replayed(cfg, 0.5)})
    each = {name: milliseconds / rate for name, rate in rates.items()}
    report(cfg, "prioritised replay: batch and update", each["prioritised"], "ms", "uniform", each["uniform"])

    report(cfg, "replay of 1,000,000 frames", Replay(1_000_000, NUM_ENVS).nbytes / 1e9, "GB")
    report(cfg, "warm start to the first env step", statistics.median(_start(cfg) for _ in range(cfg.rounds)), "s")


def _start(cfg: Config) -> float:
    code = "from dataclasses import replace; from experiments.control.dqn import PRESETS, Run, build;"
    code += f"settings = replace(PRESETS['fast'], device={cfg.device!r}, threads={cfg.threads});"
    code += "_, experience, _ = build(settings, Run(settings, 'dqn'));"
    code += "experience._send(); experience._receive()"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began
