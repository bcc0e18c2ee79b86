"""DQN's settings on Atari, and the papers' own as presets: each a few lines against the one that it grew from."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import tyro

from agents.rainbow.config import RainbowConfig
from experiments.control.worlds import ReplayConfig, observations
from rlkit.config import Fixed
from rlkit.trainer import TrainConfig


@dataclass
class Config(ReplayConfig):
    """DQN in any world of one player."""

    preset: Annotated[str, Fixed] = "fast"
    """defaults; of Atari: fast (Double, dueling, 3-step, many envs), plain (without these), frugal (with more updates a
    step), gpu (fast for a large one), nature (the 2015 paper), or a later paper, each with its own numbers;
    classic for vectors, minatar for planes of a few cells: what is left out goes by --env"""
    agent: Annotated[tyro.conf.OmitArgPrefixes[RainbowConfig], Fixed] = field(
        default_factory=lambda: RainbowConfig(double=True, dueling=True, n_step=3)
    )
    # steps=0: as many updates as the frames allow
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=0, lr=2e-4, eps=0.005 / 128, precision="auto")
    )


NATURE = Config(
    preset="nature",
    frames=200_000_000,
    num_envs=1,
    batch_size=32,
    replay=1_000_000,
    learning_starts=50_000,
    epsilon_final=0.1,
    epsilon_frames=4_000_000,  # a million of the paper's frames, which are its agent's steps
    target_every=10_000,
    eval_every=10_000_000,
    eval_episodes=30,
    agent=RainbowConfig(),
    # The paper sums the batch's gradients, this loss averages them: eps shrinks by the square of the batch.
    trainer=TrainConfig(
        steps=0, optimizer="rmsprop", lr=2.5e-4, eps=0.01 / 32**2, clip=0, log_every=1000, save_every=50_000
    ),
)


def after(
    base: Config, preset: str, agent: dict[str, Any], trainer: dict[str, Any] | None = None, **more: Any
) -> Config:
    """`base` with some settings changed."""
    agent_, trainer_ = replace(base.agent, **agent), replace(base.trainer, **trainer or {})
    return replace(base, preset=preset, agent=agent_, trainer=trainer_, **more)


# Target networks: the 2015 table counts updates; what came after counts agent steps, four to an update.
ADAM = {"optimizer": "adam", "lr": 5e-5, "eps": 0.01 / 32}
DOUBLE = after(NATURE, "double", {"double": True}, target_every=7_500, epsilon_final=0.01)
C51 = after(NATURE, "c51", {"distribution": "c51"}, ADAM | {"lr": 2.5e-4}, epsilon_final=0.01, target_every=2_500)
QR = after(NATURE, "qr", {"distribution": "qr", "atoms": 200}, ADAM, epsilon_final=0.01, target_every=2_500)
IQN = after(QR, "iqn", {"distribution": "iqn", "atoms": 64})
RAINBOW = after(
    C51,
    "rainbow",
    {"double": True, "dueling": True, "n_step": 3, "noisy": True},
    {"lr": 6.25e-5, "eps": 1.5e-4, "clip": 10},
    priority=0.5,
    learning_starts=20_000,
    target_every=2_000,
    epsilon_final=0.0,
    epsilon_frames=1,
)
MUNCHAUSEN = after(
    NATURE,
    "munchausen",
    {"munchausen": True},
    ADAM,
    protocol="machado",
    learning_starts=20_000,
    target_every=2_000,
    epsilon_final=0.01,
    epsilon_frames=1_000_000,
)

FAST = Config()
CLASSIC = Config(
    preset="classic",
    env="CartPole-v1",
    frames=50_000,
    num_envs=16,
    batch_size=256,
    samples_per_step=16,
    replay=100_000,
    learning_starts=1_000,
    clip_reward=False,
    # Returns of hundreds become a few units, so that the loss is square where an episode ends: those rewards are rare,
    # and a loss that grows linearly there fits the median, which knows nothing of them.
    reward_scale=0.02,
    epsilon_final=0.02,  # more of it is in the n-step returns too
    epsilon_frames=6_000,
    target_every=50,
    eval_every=5_000,
    eval_episodes=20,
    agent=RainbowConfig(backbone="mlp2", width=2, double=True, dueling=True, n_step=3, normalise=True),
    # The falling rate and the averaged weights keep what was learned.
    trainer=TrainConfig(steps=0, lr=7e-4, lr_decay="linear", eps=1e-8, ema=0.998, ema_warmup=True, log_every=100),
)
MINATAR = Config(
    preset="minatar",
    env="MinAtar/Breakout-v1",
    frames=1_000_000,
    num_envs=16,
    batch_size=128,
    samples_per_step=16,
    replay=100_000,
    learning_starts=5_000,
    clip_reward=False,
    epsilon_final=0.02,
    epsilon_frames=100_000,
    target_every=250,
    eval_every=100_000,
    eval_episodes=20,
    agent=RainbowConfig(backbone="minatar", double=True, dueling=True, n_step=3),
    trainer=TrainConfig(steps=0, lr=5e-4, lr_decay="linear", eps=1e-5, ema=0.995, log_every=500),
)
PRESETS = {
    "fast": FAST,
    # The same agent for a large GPU: the batch grows with the number of emulators, the replay lies on the device.
    "gpu": Config(
        preset="gpu",
        frames=40_000_000,
        num_envs=64,
        batch_size=512,
        replay=1_000_000,
        learning_starts=20_000,
        epsilon_frames=1_000_000,
        target_every=250,
        eval_every=4_000_000,
        save_replay=False,
        device="cuda",
        trainer=TrainConfig(steps=0, lr=2.5e-4, eps=0.005 / 512, mode="cudagraph", precision="auto"),
    ),
    "plain": after(FAST, "plain", {"double": False, "dueling": False, "n_step": 1}),
    # Four times as many updates an agent step: for those whose steps are dear.
    "frugal": after(FAST, "frugal", {"n_step": 5}, samples_per_step=32, priority=0.5, epsilon_frames=200_000),
    "classic": CLASSIC,
    "minatar": MINATAR,
    # The papers, in the order in which they came.
    "nature": NATURE,
    "linear": after(NATURE, "linear", {"backbone": "linear"}),
    "no_target": after(NATURE, "no_target", {}, target_every=1),
    "no_replay": after(NATURE, "no_replay", {}, replay=36, learning_starts=36),  # the newest 32 transitions
    "neither": after(NATURE, "neither", {}, replay=36, learning_starts=36, target_every=1),
    "double": DOUBLE,
    "prioritised": after(DOUBLE, "prioritised", {}, {"lr": 2.5e-4 / 4}, priority=0.6),
    "dueling": after(DOUBLE, "dueling", {"dueling": True}, {"lr": 6.25e-5, "clip": 10}),
    "c51": C51,
    "qr": QR,
    "iqn": IQN,
    "noisy": after(NATURE, "noisy", {"noisy": True}, epsilon_final=0.0, epsilon_frames=1, target_every=2_500),
    "rainbow": RAINBOW,
    "munchausen": MUNCHAUSEN,
    "munchausen_iqn": after(MUNCHAUSEN, "munchausen_iqn", {"distribution": "iqn", "atoms": 64}),
}


def fitting_preset(cfg: Config) -> str:
    """Which preset a run gets that names none."""
    return {"pictures": "fast", "planes": "minatar", "vectors": "classic"}[observations(cfg)]
