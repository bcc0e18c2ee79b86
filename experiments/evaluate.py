"""Play a saved agent and say how good it is.

python -m experiments evaluate runs/dqn/<run> --episodes 30 --json
python -m experiments evaluate runs/dqn/<run>/agent --video game.mp4
python -m experiments evaluate runs/dqn/pong__*                              # a table
python -m experiments evaluate runs/alphazero/<run> --against mcts:10000 gnugo:10 --episodes 100
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from PIL import Image

from envs.atari import HUMANS
from envs.go.position import Position
from experiments.any_agent import load_agent
from experiments.control import worlds
from experiments.go import match
from experiments.go.pictures import draw_first_moves
from experiments.go.players import agent_folder, agent_info, board_for, go_player
from rlkit import runtime
from rlkit.config import AtLeast, Between, check_bounds, flag
from rlkit.evaluate import episodes


@dataclass
class Config:
    """Evaluate an agent over whole episodes, with raw scores, or in matches where it plays Go."""

    path: Annotated[Path, tyro.conf.Positional]
    """run or agent folder; of an agent that plays Go also alphazero:NAME, and both with :SIMULATIONS; of an
    AlphaGo also :VARIANT"""
    others: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """further agents that play episodes: a table of all is printed"""
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
    """write one episode, of an Atari game at most 18,000 frames, as a video (needs the extra `video`)"""
    picture: Path | None = None
    """write a PNG of what an AlphaZero's network and search say after 1 and 8 moves of its own"""


def main(cfg: Config) -> dict:
    """Evaluate and print; returns what `--json` prints (of matches by opponent, of several agents by path)."""
    check_bounds(cfg)
    if cfg.others:
        return several(cfg)
    found = agent_folder(str(cfg.path))
    if agent_info(found.folder if found else cfg.path).get("kind") in ("alphazero", "alphago"):
        return matches(cfg)
    if cfg.against or cfg.picture:
        raise ValueError(f"{cfg.path} plays episodes, not Go: leave --against and --picture out")
    out = play(cfg)
    print(json.dumps(out) if cfg.json else _text(out))
    return out


def several(cfg: Config) -> dict[str, dict]:
    """Evaluate each agent over the same episodes' seeds, and print a table."""
    if cfg.video or cfg.picture or cfg.against:
        raise ValueError("--video, --picture and --against are for one agent at a time")
    out = {str(path): play(replace(cfg, path=path, others=())) for path in (cfg.path, *cfg.others)}
    if cfg.json:
        for path, row in out.items():
            print(json.dumps({"agent": path} | row))
        return out
    width = max(map(len, out))
    print(f"{'agent':<{width}}  {'game':<24}{'score':>10}{'95 % interval':>22}{'median':>10}{'episodes':>10}")
    for path, row in sorted(out.items(), key=lambda item: (item[1]["game"], -item[1]["mean"])):
        interval = "{:.2f} to {:.2f}".format(*row["interval_95"])
        numbers = f"{row['mean']:>10.2f}{interval:>22}{row['median']:>10.1f}{row['episodes']:>10}"
        print(f"{path:<{width}}  {row['game']:<24}{numbers}")
    return out


def play(cfg: Config) -> dict:
    """Whole episodes of the agent at cfg.path, and a video if one is asked for."""
    device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
    agent = load_agent(cfg.path, device)
    info = agent.info
    game, trained = info["env"]["game"], info["env"]["protocol"]
    if cfg.env and (game if cfg.env == game else worlds.full_name(cfg.env)) != game:
        raise ValueError(f"{cfg.path} is an agent for {game}, not for {cfg.env}: it has other actions and pictures")
    protocol = cfg.protocol or trained
    for name in ("protocol", "max_frames"):
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
        options=info["env"].get("options"),
    )
    rng = np.random.default_rng(cfg.seed)
    scores = episodes(lambda obs, first: agent.act(obs, epsilon, rng, first, envs.mask), envs, cfg.episodes)
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
    if cfg.video:
        from experiments.recording import record

        score = record(agent, info["env"], protocol, epsilon, cfg.seed, cfg.video, cfg.max_frames)
        print(f"wrote {cfg.video}: one episode, score {score:g}", file=sys.stderr)
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


def _text(out: dict) -> str:
    low, high = out["interval_95"]
    lines = [f"{out['game']}, protocol {out['protocol']}, epsilon {out['epsilon']:g}, {out['episodes']} episodes"]
    lines.append(f"  raw score {out['mean']:.2f}, 95 % interval {low:.2f} to {high:.2f}, median {out['median']:.1f}")
    for column in HUMANS if worlds.is_atari(out["game"]) else ():
        value = out[f"normalised_by_{column}"]
        lines.append(f"  normalised by {column}: " + ("no published human score" if value is None else f"{value:.3f}"))
    if out["ended_by_frame_cap"] and worlds.is_atari(out["game"]):
        lines.append(f"  {out['ended_by_frame_cap']} episodes were ended by the frame cap: the agent may hang there")
    lines.append(f"  {out['mean_length']:.0f} steps an episode, {out['steps_per_second']:.0f} steps/s")
    return "\n".join(lines)
