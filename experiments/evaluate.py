"""Play a saved agent and say how good it is.

python -m experiments evaluate runs/dqn/<run> --episodes 30 --json
python -m experiments evaluate runs/dqn/<run>/agent --video game.mp4
python -m experiments evaluate runs/alphazero/<run> --against mcts:10000 gnugo:10 --episodes 100
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from PIL import Image

from envs.atari import HUMANS, Atari
from envs.go.position import Position
from experiments.control import worlds
from experiments.go import match
from experiments.go.pictures import draw_first_moves
from experiments.go.players import agent_folder, agent_info, board_for, go_player, load_agent
from rlkit import runtime
from rlkit.config import AtLeast, Between, check_bounds, flag
from rlkit.evaluate import episodes


@dataclass
class Config:
    """Evaluate an agent over whole episodes, with raw scores, or in matches where it plays Go."""

    path: Annotated[Path, tyro.conf.Positional]
    """run or agent folder; of an agent that plays Go also alphazero:NAME, and both with :SIMULATIONS; of an
    AlphaGo also :VARIANT"""
    episodes: Annotated[int, AtLeast(1)] = 30
    """episodes to play; of an agent that plays Go, games against each opponent"""
    against: tuple[str, ...] = ()
    """opponents of an agent that plays Go, as `match` has them; default: random and mcts:1000"""
    env: str | None = None
    """the game that the agent must be for: one of another game is refused; default: whatever it was trained on"""
    protocol: Literal["nature", "machado"] | None = None
    """rules of an Atari game's episodes; default: those that the agent was trained under"""
    epsilon: Annotated[float | None, Between(0, 1)] = None
    """share of random actions; default: the protocol's (nature .05, machado 0)"""
    max_frames: Annotated[int | None, AtLeast(1)] = None
    """frame cap of an episode; default: the protocol's (nature 18,000, machado 108,000)"""
    seed: Annotated[int, AtLeast(0)] = 0
    """of all random numbers"""
    device: str = "cpu"
    """where the agent's network is: cpu, cuda or auto"""
    threads: Annotated[int, AtLeast(0)] = 0
    """CPU threads; 0: as many as there are idle cores, or in a match one a core"""
    json: bool = False
    """print one JSON object, or one for each match"""
    video: Path | None = None
    """write one game of at most 18,000 frames as a video (needs the extra `video`)"""
    picture: Path | None = None
    """write a PNG of what an AlphaZero's network and search say after 1 and 8 moves of its own"""


def main(cfg: Config) -> dict:
    """Evaluate and print; returns what `--json` prints (of matches by opponent)."""
    check_bounds(cfg)
    found = agent_folder(str(cfg.path))
    if agent_info(found.folder if found else cfg.path).get("kind") in ("alphazero", "alphago"):
        return matches(cfg)
    if cfg.against or cfg.picture:
        raise ValueError(f"{cfg.path} plays episodes, not Go: leave --against and --picture out")
    device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
    agent, info = load_agent(cfg.path, device)
    game, trained = info["env"]["game"], info["env"]["protocol"]
    if cfg.env and (game if cfg.env == game else worlds.full_name(cfg.env)) != game:
        raise ValueError(f"{cfg.path} is an agent for {game}, not for {cfg.env}: it has other actions and pictures")
    protocol = cfg.protocol or trained
    for name in ("protocol", "max_frames", "video"):
        if getattr(cfg, name) is not None and not worlds.is_atari(game):
            raise ValueError(f"{flag(name)} is for the Atari emulator; {game} has none of it")
    epsilon = worlds.evaluation_epsilon(game, protocol) if cfg.epsilon is None else cfg.epsilon
    # One episode an environment, in at most 32 at a time.
    num_envs = next(n for n in range(min(cfg.episodes, 32), 0, -1) if cfg.episodes % n == 0)
    envs = worlds.make(
        game,
        num_envs,
        seed=cfg.seed,
        protocol=protocol,
        training=False,
        threads=runtime.threads(),
        max_frames=cfg.max_frames,
        flicker=info["env"].get("flicker"),
        size=agent.obs_shape[-1],
    )
    rng = np.random.default_rng(cfg.seed)
    scores = episodes(lambda obs, first: agent.act(obs, epsilon, rng, first), envs, cfg.episodes)
    low, high = scores.interval()
    normalised = worlds.normalised(game, scores.mean)
    out = {
        "game": game,
        "protocol": envs.protocol,
        "epsilon": epsilon,
        "episodes": cfg.episodes,
        "mean": scores.mean,
        "interval_95": [low, high],
        "median": float(np.median(scores.scores)),
        "normalised_by_human_nature": normalised["human_nature"],
        "normalised_by_human_57": normalised["human_57"],
        "mean_length": float(scores.lengths.mean()),
        "ended_by_frame_cap": scores.capped,
        "steps_per_second": scores.steps_per_second,
        "trained_frames": info["trained"]["frames"],
        "seed": cfg.seed,
    }
    print(json.dumps(out) if cfg.json else _text(out))
    if cfg.video:
        score = record(agent, info["env"], protocol, epsilon, cfg.seed, cfg.video, cfg.max_frames)
        print(f"wrote {cfg.video}: one game, score {score:g}", file=sys.stderr)
    return out


def matches(cfg: Config) -> dict[str, dict]:
    """Evaluate an agent that plays Go, on the board that it was trained on: by opponent, what `match` returns."""
    for name in ("env", "protocol", "epsilon", "max_frames", "video"):
        if getattr(cfg, name) is not None:
            raise ValueError(f"{flag(name)} is for agents of Atari games; {cfg.path} plays matches, see --against")
    path = str(cfg.path)
    if cfg.picture:
        if agent_info(agent_folder(path).folder).get("kind") != "alphazero":  # type: ignore[union-attr]
            raise ValueError(f"--picture shows what an AlphaZero thinks: {path} is none")
        size, komi = board_for([path], None, None)
        Image.fromarray(draw_first_moves(go_player(path), Position.empty(size, komi))).save(cfg.picture)
        print(f"wrote {cfg.picture}", file=sys.stderr)
    shared = {name: getattr(cfg, name) for name in ("threads", "seed", "device", "json")}
    return {
        spec: match.main(match.Config(path, spec, games=cfg.episodes, **shared))
        for spec in cfg.against or ("random", "mcts:1000")
    }


def record(
    agent: Any, env: dict[str, Any], protocol: str, epsilon: float, seed: int, path: Path, max_frames: int | None = None
) -> float:
    """Write one game as a video; returns its score. A second emulator draws: same seed, same actions, in colour."""
    try:
        import imageio.v2 as imageio

        writer = imageio.get_writer(path, fps=15, macro_block_size=2)
    except ImportError as error:
        raise ModuleNotFoundError("videos need the extra `video`: pip install -e '.[video]'") from error
    frames = max_frames or 18_000
    player = worlds.make(
        env["game"], 1, seed=seed, protocol=protocol, training=False, max_frames=frames, flicker=env.get("flicker")
    )
    camera = Atari(
        env["game"], 1, protocol=protocol, training=False, seed=seed, max_frames=frames, color_size=(210, 160)
    )
    obs, _ = player.reset(), camera.reset()
    rng, first, last = np.random.default_rng(seed), np.ones(1, bool), False
    with writer:
        while not last:
            actions = agent.act(obs, epsilon, rng, first)
            step, seen = player.step(actions), camera.step(actions)
            assert seen.r_t[0] == step.r_t[0], "the emulator that draws has left the one that is played"
            writer.append_data(seen.obs[0, -1])
            obs, first, last = step.obs, step.first, bool(step.last[0])
    return float(step.score[0])


def _text(out: dict) -> str:
    low, high = out["interval_95"]
    lines = [f"{out['game']}, protocol {out['protocol']}, epsilon {out['epsilon']:g}, {out['episodes']} episodes"]
    lines.append(f"  raw score {out['mean']:.2f}, 95 % interval {low:.2f} to {high:.2f}, median {out['median']:.1f}")
    for column in HUMANS:
        value = out[f"normalised_by_{column}"]
        lines.append(f"  normalised by {column}: " + ("no published human score" if value is None else f"{value:.3f}"))
    if out["ended_by_frame_cap"]:
        lines.append(f"  {out['ended_by_frame_cap']} episodes were ended by the frame cap: the agent may hang there")
    lines.append(f"  {out['mean_length']:.0f} steps an episode, {out['steps_per_second']:.0f} steps/s")
    return "\n".join(lines)
