"""DQN (Nature 2015) on Atari, and what came after it.

python -m experiments dqn --game breakout                       # preset fast: what `make train` does, on Pong
python -m experiments dqn --preset nature --game breakout       # the 2015 paper
python -m experiments dqn --preset rainbow --game breakout      # and what came after it
python -m experiments dqn --resume runs/dqn/<run>         # goes on where the run was stopped
"""

import copy
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ale_py
import numpy as np
import torch

from agents.dqn.agent import DQN
from agents.dqn.experience import Experience, drawn_by
from agents.rainbow.agent import Rainbow
from envs.vector import VectorEnv
from experiments.control import worlds as games
from experiments.control.dqn_presets import BOUNDS, FIXED, Config
from experiments.control.dqn_presets import PRESETS as PRESETS
from rlkit import evaluate, run, runtime
from rlkit.checkpoint import borrow, load_agent_files, save_agent
from rlkit.logger import Timer, say
from rlkit.replay import Replay
from rlkit.schedule import Schedule
from rlkit.together import together
from rlkit.trainer import Trainer


def make_envs(cfg: Config, num_envs: int, stream: int, training: bool) -> VectorEnv:
    """The world that cfg.game names."""
    seed, threads = runtime.derive_seed(cfg.seed, stream), runtime.threads()
    return games.make(cfg.game, num_envs, seed=seed, protocol=cfg.protocol, training=training, threads=threads)


def build(cfg: Config, device: torch.device, run_dir: Path | None = None) -> tuple[Trainer, Experience, DQN]:
    """The three parts of a run, wired."""
    timer = Timer()
    envs = make_envs(cfg, cfg.num_envs, stream=1, training=True)
    precision = runtime.fastest_precision(device) if cfg.trainer.precision == "auto" else cfg.trainer.precision
    agent = Rainbow(envs.obs_shape, envs.num_actions, cfg.agent, device, precision)
    captured = cfg.trainer.mode == "cudagraph"  # one graph from drawing to the gradients
    replay = Replay(
        cfg.replay,
        cfg.num_envs,
        envs.obs_shape[1:],
        dtype=games.frame_dtype(envs),
        stack=envs.obs_shape[0],
        n_step=cfg.agent.n_step,
        gamma=cfg.agent.gamma,
        device=device,
        seed=runtime.derive_seed(cfg.seed, 2),
        path=run_dir / "checkpoints" / "replay.ring" if run_dir and cfg.save_replay else None,
        priority=cfg.priority,
        indexed=captured,
    )
    return wire(cfg, envs, agent, replay, timer, run_dir, cfg.samples_per_step)


def wire(
    cfg: Any,
    envs: VectorEnv,
    agent: Any,
    replay: Replay,
    timer: Timer,
    run_dir: Path | None,
    samples_per_step: float,
    clip_reward: bool = True,
) -> tuple[Trainer, Experience, Any]:
    """Experience and trainer around an agent and its replay, of which `samples_per_step` are replayed."""
    captured = cfg.trainer.mode == "cudagraph"
    if cfg.learning_starts > (starts := min(cfg.learning_starts, replay.rows * cfg.num_envs)):
        say(f"learning starts after {starts:,} steps, not {cfg.learning_starts:,}: the replay holds no more")
    start = starts * envs.frames_per_step
    experience = Experience(
        envs,
        agent,
        replay,
        epsilon=Schedule("frames", 1.0, cfg.epsilon_final, begin=start, over=cfg.epsilon_frames),
        batch_size=cfg.batch_size,
        samples_per_step=samples_per_step,
        clip_reward=clip_reward,
        learning_starts=starts,
        importance=Schedule("frames", cfg.importance, 1.0, begin=start, over=max(1, cfg.frames - start)),
        drawn_in_loss=captured,
        seed=runtime.derive_seed(cfg.seed, 3),
        timer=timer,
    )
    samples = (cfg.frames - start) / envs.frames_per_step * samples_per_step
    steps = int(samples / cfg.batch_size / cfg.trainer.accumulate)
    if steps < 1 and not cfg.trainer.steps:
        raise ValueError(f"--frames {cfg.frames:,} leaves nothing to learn: {start:,} are for filling the replay")
    trainer = Trainer(
        agent.network,
        drawn_by(replay, agent.loss) if captured else agent.loss,
        replace(cfg.trainer, steps=cfg.trainer.steps or steps, precision=agent.precision),
        run_dir,
        state={"experience": experience, "target": agent.target},
        clock=("frames", lambda: experience.frames, cfg.frames),
        timer=timer,
    )
    return trainer, experience, agent


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    run.within(cfg, BOUNDS)
    parts: dict[str, Any] = {"make_envs": make_envs, "build": build, "follow": after_update(cfg)}
    return train(cfg, partial(learn, experiment="dqn", fixed=FIXED, torso_from=cfg.torso_from, **parts))


def after_update(cfg: Any) -> Callable:
    """What follows each update: new priorities, and the copy into the target network. Raises ValueError."""
    if cfg.priority and cfg.trainer.accumulate > 1:
        raise ValueError("--priority needs what each batch has taught: leave --trainer.accumulate at 1")

    def follow(trainer: Trainer, experience: Any, agent: DQN, aux: dict[str, torch.Tensor]) -> None:
        if cfg.priority:
            experience.replay.prioritise(aux["index"], aux["priority"])
        if trainer.step % cfg.target_every == 0:
            agent.sync(trainer.model)

    return follow


def train(cfg: Any, learn: Callable[[Any, torch.device, run.Deadline], Generator[bool, bool, Path]]) -> Path:
    """One run, or `cfg.together` of them with seeds that follow each other; the folder of the first.

    Raises ValueError.
    """
    began = time.monotonic()
    if cfg.resume and cfg.together > 1:
        raise ValueError("--together is for new runs: each of them goes on by itself, with its own --resume")
    cfg.game = games.known(cfg.game)
    device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
    alone = [replace(cfg, seed=cfg.seed + number, together=1) for number in range(cfg.together)]
    return together([learn(one, device, run.Deadline(cfg.minutes, began, cfg.together)) for one in alone], device)[0]


def learn(
    cfg: Any,
    device: torch.device,
    deadline: run.Deadline,
    *,
    experiment: str,
    fixed: tuple[str, ...],
    make_envs: Callable,
    build: Callable,
    follow: Callable,
    torso_from: str | None = None,
) -> Generator[bool, bool, Path]:
    """The loop of every agent in worlds of one player: learn, do what follows an update, evaluate, save.

    Yields after each update whether it was asked to stop, and is sent whether any run was.
    """
    runtime.seed_everything(cfg.seed)  # setup has, but perhaps for another run's seed
    if torso_from and not cfg.resume:
        load_agent_files(Path(torso_from))  # what is not there should leave no run behind
    eval_envs = make_envs(cfg, cfg.eval_episodes, stream=4, training=False)
    run_dir = run.start(cfg, experiment, cfg.game.replace(":", "_"), fixed)
    trainer, experience, agent = build(cfg, device, run_dir)
    trainer.deadline = deadline
    loaded = bool(cfg.resume) and trainer.load()
    if cfg.resume and not loaded:
        say(f"{run_dir} holds no checkpoint: starting at the beginning")
    if torso_from and not loaded:
        say(f"torso: {borrow(agent.network.torso, Path(torso_from), 'torso.')}")
        agent.sync(agent.network)

    player = copy.copy(agent)  # what is evaluated and saved
    player.network = trainer.averaged  # type: ignore[assignment]

    def evaluation() -> None:
        player.network.eval()  # noise is for training
        # First without a score: the games take a while, and the weights should outlive a kill.
        save(run_dir / "agent", player, cfg, experience.frames)
        rng, epsilon = np.random.default_rng(cfg.seed), games.evaluation_epsilon(cfg.game, cfg.protocol)
        with trainer.timer("evaluate"):
            scores = evaluate.episodes(
                lambda obs, first: player.act(obs, epsilon, rng, first), eval_envs, cfg.eval_episodes, deadline.end
            )
        player.network.train()
        if scores.left_out:
            say(f"evaluation: {len(scores.scores)} of {cfg.eval_episodes} episodes ended in time")
        if not len(scores.scores):
            return
        trainer.log(scores.scalars())
        save(run_dir / "agent", player, cfg, experience.frames, scores, eval_envs.protocol)

    begun = experience.steps
    next_eval = (experience.frames // cfg.eval_every + 1) * cfg.eval_every
    for step, _, aux in trainer.run(experience):
        follow(trainer, experience, agent, aux)
        if step % cfg.trainer.log_every == 0:
            trainer.log(experience.stats())
            playing = trainer.timer.seconds["act"] + trainer.timer.seconds["env"]
            steps = experience.episodes.mean_length() * cfg.eval_episodes
            guess = 1.5 * steps * playing / max(1, experience.steps - begun)  # 0 while no episode has ended
            deadline.evaluation = max(deadline.evaluation, guess)
        if experience.frames >= next_eval and trainer.goes_on(evaluations=2):  # the last one follows the loop
            next_eval += cfg.eval_every
            evaluation()
        with trainer.timer("other runs"):
            yield trainer.stopped
    save(run_dir / "agent", player, cfg, experience.frames)
    stopped = yield trainer.stopped  # all that learn together have saved before one of them evaluates
    if not stopped:  # whoever stops a run does not want to wait for games
        evaluation()
    trainer.close()
    say(trainer.timer.table())
    say(f"go on:    {run.command(f'{experiment}', '--resume', run_dir)}")
    say(f"evaluate: {run.command('evaluate', run_dir)}")
    return run_dir


def save(
    folder: Path, agent: Any, cfg: Any, frames: int, scores: evaluate.Scores | None = None, protocol: str = ""
) -> None:
    """Write the agent's folder with how it was trained, and what it scored under which protocol."""
    score = None
    if scores:
        low, high = scores.interval()
        episodes = len(scores.scores)
        score = {"mean": scores.mean, "low": low, "high": high, "episodes": episodes, "protocol": protocol}
    info = agent.describe() | {
        "env": {"game": cfg.game, "protocol": cfg.protocol, "flicker": getattr(cfg, "flicker", None)},
        "trained": {"frames": frames, "seed": cfg.seed, "preset": cfg.preset},
        "score": score,
        "versions": {"ale_py": ale_py.__version__},
    }
    save_agent(folder, info, agent.network.state_dict())
