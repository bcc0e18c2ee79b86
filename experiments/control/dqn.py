"""DQN (Nature 2015) on Atari, and what came after it.

python -m experiments dqn --env breakout                       # preset fast: what `make train` does, on Pong
python -m experiments dqn --preset nature --env breakout       # the 2015 paper
python -m experiments dqn --preset rainbow --env breakout      # and what came after it
python -m experiments dqn --resume runs/dqn/<run>              # goes on where the run was stopped
"""

import re
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.dqn.agent import DQN
from agents.dqn.experience import Experience, loss_that_draws
from experiments.control.dqn_presets import PRESETS as PRESETS
from experiments.control.dqn_presets import Config
from experiments.control.dqn_presets import fitting_preset as fitting_preset
from experiments.control.evaluation import Evaluation
from experiments.control.worlds import frame_dtype, full_name, make_envs, repeats
from rlkit.logger import say
from rlkit.replay import Replay
from rlkit.run import Run, interleave
from rlkit.runtime import derive_seed, rank
from rlkit.schedule import Schedule
from rlkit.trainer import Trainer


def build(cfg: Config, run: Run) -> tuple[Trainer, Experience, DQN]:
    """The parts of a run: worlds, agent, replay, experience (worlds -> replay -> batches) and trainer."""
    envs = make_envs(cfg, cfg.num_envs, stream=1, training=True)
    agent = agent_like(cfg, envs, run.device, run.precision)
    captured = cfg.trainer.mode == "cudagraph"  # one graph from drawing to the gradients
    replay = Replay(
        cfg.replay, cfg.num_envs, envs.obs_shape[1:], dtype=frame_dtype(envs), stack=envs.obs_shape[0],
        n_step=cfg.agent.n_step, gamma=cfg.agent.gamma, device=run.device, seed=derive_seed(cfg.seed, 2, rank()),
        path=run.folder / "checkpoints" / "replay.ring" if run.folder and cfg.save_replay else None,
        priority=cfg.priority, indexed=captured, masks=0 if envs.mask is None else envs.num_actions,
    )  # fmt: skip
    if cfg.learning_starts > (starts := min(cfg.learning_starts, replay.rows * cfg.num_envs)):
        say(f"learning starts after {starts:,} steps, not {cfg.learning_starts:,}: the replay holds no more")
    start = starts * envs.frames_per_step
    experience = Experience(
        envs, agent, replay, batch_size=cfg.batch_size, samples_per_step=cfg.samples_per_step, learning_starts=starts,
        epsilon=Schedule(1.0, cfg.epsilon_final, begin=start, duration=cfg.epsilon_frames),
        importance=Schedule(cfg.importance, 1.0, begin=start, duration=max(1, cfg.frames - start)),
        clip_reward=cfg.clip_reward, reward_scale=cfg.reward_scale, repeats=repeats(cfg), drawn_in_loss=captured,
        seed=derive_seed(cfg.seed, 3, rank()), timer=run.timer,
    )  # fmt: skip
    loss = loss_that_draws(replay, agent.loss) if captured else agent.loss
    return trainer_of(cfg, run, agent, experience, loss, start, envs.frames_per_step), experience, agent


def trainer_of(cfg: Any, run: Run, agent: DQN, experience: Any, loss: Callable, start: int, each: int) -> Trainer:
    """What learns, with as many updates as the frames after `start` ask for, `each` of them a step."""
    updates = (cfg.frames - start) / each * experience.samples_per_step / cfg.batch_size
    if not (steps := cfg.trainer.steps or int(updates / cfg.trainer.accumulate)) > 0:
        raise ValueError(f"--frames {cfg.frames:,} leaves nothing to learn: {start:,} are for filling the replay")
    return Trainer(
        agent.network, loss, replace(cfg.trainer, steps=steps, precision=agent.precision), run.folder,
        state={"experience": experience, "target": agent.target}, timer=run.timer, deadline=run.deadline,
        clock=("frames", lambda: experience.frames, cfg.frames),
    )  # fmt: skip


def agent_like(cfg: Any, envs: Any, device: Any, precision: Any) -> DQN:
    """DQN, or with what came after it, which a reader of DQN need not meet."""
    kind: type[DQN] = DQN
    if cfg.priority or not cfg.agent.is_dqn:
        from agents.rainbow.agent import Rainbow as kind
    return kind(envs.obs_shape, envs.num_actions, cfg.agent, device, precision)


def learn(cfg: Any, run: Run, parts: Callable | None = None) -> Generator[None, None, Path]:
    """The loop; returns the run's folder. Yields after each update, for runs in turns. parts: instead of `build`."""
    if cfg.priority and cfg.trainer.accumulate > 1:
        raise ValueError("--priority needs what each batch has taught: leave --trainer.accumulate at 1")
    if cfg.torso_from and not cfg.resume:
        from rlkit.saved_agents import load_agent_files

        load_agent_files(Path(cfg.torso_from))  # what is not there should leave no run behind
    folder = run.open(re.sub(r"[:/]", "_", cfg.env))
    trainer, experience, agent = (parts or build)(cfg, run)
    if not run.resume(trainer) and cfg.torso_from:
        from rlkit.saved_agents import load_matching

        say(f"torso: {load_matching(agent.network.torso, Path(cfg.torso_from), 'torso.')}")
        agent.sync(agent.network)
    evaluation = Evaluation(run, agent, experience)

    for step, _, aux in trainer.run(experience):
        if cfg.priority:
            experience.replay.prioritise(aux["index"], aux["priority"])
        if step % cfg.target_every == 0:
            agent.sync(trainer.model)
        if step % cfg.trainer.log_every == 0:
            trainer.log(experience.stats())
            evaluation.estimate()
        if run.evaluation_due(cfg.eval_every):
            evaluation()
        yield
    evaluation.save()
    yield  # all that learn side by side have saved before one of them plays
    if not run.stopped:
        evaluation(last=True)
    run.close(evaluate=("evaluate", folder))
    return folder


def main(cfg: Config) -> Path:
    """Train; returns the run's folder, of several the first one's."""
    runs = Run.several(replace(cfg, env=full_name(cfg.env)), "dqn")
    return interleave([learn(run.cfg, run) for run in runs], runs)[0]
