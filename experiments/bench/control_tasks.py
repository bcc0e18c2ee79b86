"""What `bench control` asks of both: environments, steps, the mark; theirs by RL Zoo, ours as changes of a preset."""

from typing import Any, NamedTuple


class Task(NamedTuple):
    steps: int
    every: int
    mark: float
    zoo: dict[str, Any]
    """RL Zoo 2.9.2, hyperparams/dqn.yml; on MinAtar: Young and Tian, 2019"""
    agent: dict[str, Any] = {}
    trainer: dict[str, Any] = {}
    more: dict[str, Any] = {}
    """ours, where it is not the preset"""
    preset: str = "classic"


FOUR = {
    "learning_rate": 6.3e-4,
    "batch_size": 128,
    "buffer_size": 50_000,
    "learning_starts": 0,
    "target_update_interval": 250,
    "train_freq": 4,
    "gradient_steps": -1,
    "exploration_fraction": 0.12,
    "exploration_final_eps": 0.1,
}
TASKS = {
    "CartPole-v1": Task(
        50_000,
        2_500,
        475,
        {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
        },
    ),
    "Acrobot-v1": Task(
        100_000,
        5_000,
        -100,
        FOUR,
        {},
        {"lr": 1e-3, "ema": 0.995},
        {"samples_per_step": 32, "repeat_actions": 1.5, "epsilon_frames": 12_000, "epsilon_final": 0.003},
    ),
    "MountainCar-v0": Task(
        120_000,
        5_000,
        -120,
        {
            "learning_rate": 4e-3,
            "batch_size": 128,
            "buffer_size": 10_000,
            "learning_starts": 1_000,
            "gamma": 0.98,
            "target_update_interval": 600,
            "train_freq": 16,
            "gradient_steps": 8,
            "exploration_fraction": 0.2,
            "exploration_final_eps": 0.07,
        },
        {"n_step": 10},
        {},
        {"repeat_actions": 1.5, "epsilon_frames": 24_000},
    ),
    "LunarLander-v3": Task(
        100_000,
        5_000,
        200,
        FOUR,
        {},
        {"lr": 1e-3, "ema": 0.995},
        {"samples_per_step": 32, "epsilon_final": 0.05},
    ),
    "MinAtar/Breakout-v1": Task(
        500_000,
        50_000,
        5,
        {
            "learning_rate": 2.5e-4,
            "batch_size": 32,
            "buffer_size": 100_000,
            "learning_starts": 5_000,
            "target_update_interval": 1_000,
            "train_freq": 1,
            "gradient_steps": 1,
            "exploration_fraction": 0.2,
            "exploration_final_eps": 0.1,
        },
        preset="minatar",
    ),
}
