"""AlphaZero on small boards.

python -m experiments.alphazero_go --size 5                           # 15 minutes on two cores: perfect play
python -m experiments.alphazero_go --preset tictactoe                 # seconds
python -m experiments.alphazero_go --resume runs/alphazero_go/<run>   # goes on where the run was stopped
"""

import copy
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from agents.alphazero.games import SelfPlayConfig
from agents.alphazero.network import BoardNetwork, alphazero_loss
from agents.alphazero.player import AlphaZero
from agents.alphazero.selfplay import SelfPlay
from envs import compiled, tictactoe
from envs.go import features
from envs.go.game import Go
from envs.go.picture import draw_game
from envs.go.position import Position
from envs.go.record import GameRecord, result_text
from envs.go.sgf import to_sgf
from experiments.ladder import Ladder
from experiments.match import random_openings
from experiments.pictures import thoughts
from experiments.players import go_player
from rlkit import run, runtime
from rlkit.checkpoint import load_agent_files, save_agent
from rlkit.logger import Timer, say
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config:
    """Train a policy and value network on its own games. Numbers of 0 stand for what suits the board."""

    preset: Literal["cpu", "gpu", "tictactoe"] = "cpu"
    """defaults: cpu (two cores or a few), gpu (a large one, with a core for each of its 12 parts), tictactoe (a toy)"""
    resume: str | None = None
    """folder of a run to go on with"""
    start_from: str | None = None
    """agent or run folder, whose weights a new run begins with; its board may be smaller"""
    game: Literal["go", "tictactoe"] = "go"
    size: int = 5
    """lines of the board"""
    komi: float | None = None
    """points for White; default: the size's (24.5, 9 and 7.5 on 5x5, 7x7 and 9x9)"""
    seed: int = 1
    minutes: float = 0
    """stop after so many minutes of this process"""
    backbone: Literal["resnet", "alphago", "transformer"] = "resnet"
    channels: int = 0
    blocks: int = 0
    heads: tuple[str, ...] = ("ownership", "score", "reply")
    """targets beside policy and value; each may be left out"""
    rungs: tuple[str, ...] = ("random", "mcts:100", "mcts:1000", "mcts:10000", "gnugo:10")
    """opponents by growing strength: it is measured against the one that it does not beat yet, and its past self"""
    eval_minutes: float = 0
    """between evaluations; the agent's folder is saved then. 0: a fifth of all minutes"""
    eval_games: int = 20
    """of each match in an evaluation"""
    eval_simulations: int = 200
    """of the network's moves there"""
    gate: float = 0.0
    """score against its past self that the network needs to take over self-play, 0.55 say; 0: it always does"""
    sgf_every: int = 100
    """games of self-play between those that are written to games.sgf; 0: none"""
    threads: int = 0
    """CPU threads; 0: one a core"""
    device: str = "auto"
    """cpu, cuda, cuda:1, ..."""
    selfplay: SelfPlayConfig = field(default_factory=SelfPlayConfig)
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=10_000_000,
            optimizer="adamw",
            lr=2e-3,
            weight_decay=1e-4,
            clip=4.0,
            ema=0.995,
            precision="auto",
            save_every=2000,
        )
    )


PRESETS = {
    "cpu": Config(),
    "gpu": Config(
        preset="gpu",
        size=9,
        minutes=30,
        channels=96,
        blocks=6,
        device="cuda",
        selfplay=SelfPlayConfig(games=6144, parts=12, window=1_000_000, batch_size=1024, start=50_000),
        trainer=TrainConfig(
            steps=10_000_000,
            optimizer="adamw",
            lr=2e-3,
            weight_decay=1e-4,
            clip=4.0,
            ema=0.999,
            precision="auto",
            mode="cudagraph",
            save_every=5000,
        ),
    ),
    "tictactoe": Config(
        preset="tictactoe",
        game="tictactoe",
        size=3,
        komi=0.0,
        minutes=5,
        channels=32,
        blocks=2,
        heads=(),
        rungs=("random", "perfect"),
        sgf_every=0,
        selfplay=SelfPlayConfig(games=64, simulations=32, window=20_000, batch_size=128, start=500),
        trainer=TrainConfig(
            steps=600, optimizer="adamw", lr=3e-3, weight_decay=1e-4, clip=4.0, ema=0.98, save_every=200
        ),
    ),
}
BY_SIZE = {5: (24.5, 32, 3, 15.0), 7: (9.0, 48, 4, 60.0), 9: (7.5, 64, 6, 600.0)}
"""komi, channels, blocks, minutes"""
FIXED = (
    "game", "size", "backbone", "channels", "blocks", "heads", "komi", "selfplay.games", "selfplay.parts",
    "selfplay.simulations", "selfplay.fast_simulations", "trainer.optimizer", "trainer.accumulate",
)  # fmt: skip
LEAST: dict[str, float] = {
    "size": 2, "seed": 0, "minutes": 0, "channels": 1, "blocks": 1, "eval_minutes": 0, "eval_games": 2,
    "eval_simulations": 1, "sgf_every": 0, "threads": 0, "selfplay.games": 1, "selfplay.parts": 1,
    "selfplay.simulations": 2, "selfplay.fast_simulations": 0, "selfplay.window": 1, "selfplay.batch_size": 1,
    "selfplay.reuse": 1e-3, "selfplay.considered": 1, "selfplay.opening_moves": 1, "trainer.save_every": 1,
    "trainer.log_every": 1, "trainer.accumulate": 1,
}  # fmt: skip


def settled(cfg: Config) -> Config:
    """With the numbers that suit the board."""
    komi, channels, blocks, minutes = BY_SIZE[min(BY_SIZE, key=lambda size: abs(size - cfg.size))]
    if cfg.game == "tictactoe" and cfg.size != 3:
        raise ValueError(f"tic-tac-toe has 3 lines, not {cfg.size}: use --preset tictactoe")
    return replace(
        cfg,
        komi=(komi if cfg.size in BY_SIZE else 7.5) if cfg.komi is None else cfg.komi,
        channels=cfg.channels or channels,
        blocks=cfg.blocks or blocks,
        minutes=cfg.minutes or minutes,
        eval_minutes=cfg.eval_minutes or (cfg.minutes or minutes) / 5,
    )


def begin_with(network: BoardNetwork, folder: str) -> None:
    """Give it the weights of an agent, of whatever board. Raises ValueError where the networks differ."""
    info, weights = load_agent_files(Path(folder))
    theirs = info.get("config", {})
    fixed = [name for name in network.config if name != "size" or network.config["backbone"] == "alphago"]
    for name in fixed:
        if theirs.get(name) != network.config[name]:
            raise ValueError(f"the network of {folder} has {name} {theirs.get(name)}, not {network.config[name]}")
    network.load_state_dict(weights)


class World:
    """A game with what evaluations and pictures need of it."""

    def __init__(self, cfg: Config):
        self.game: Any
        self.empty: Any
        if cfg.game == "tictactoe":
            self.game, self.empty, self.symmetries = tictactoe.TicTacToe(), tictactoe.Board(), tictactoe.SYMMETRIES
            self.starts = [self.empty]
        else:
            assert cfg.komi is not None
            self.game, self.symmetries = Go(cfg.size, komi=cfg.komi), features.symmetries(cfg.size)
            self.empty = Position.empty(cfg.size, cfg.komi, max_moves=3 * cfg.size**2)
            count = cfg.eval_games // 2
            # 5x5 is decided by its first moves: from the empty board both colours play what they know
            self.starts = [self.empty] if cfg.size <= 5 else random_openings(self.empty, count, 2, cfg.seed)

    def player(self, spec: str, seed: int) -> Any:
        """A rung of the ladder."""
        if isinstance(self.empty, Position):
            return go_player(spec, seed)
        return (tictactoe.PerfectPlayer if spec == "perfect" else tictactoe.RandomTicTacToe)(seed)

    def pictures(self, player: AlphaZero, moves: list[int]) -> dict[str, NDArray[np.uint8]]:
        """The latest game of self-play; and what the player thinks of its middle, and of the empty board."""
        if not isinstance(self.empty, Position) or not moves:
            return {}
        size, middle = self.empty.height, self.empty
        for move in moves[: len(moves) // 2]:
            middle = middle.play(move, force=True)
        out = {"board/game": draw_game(moves, size, size)}
        for name, position in (("empty", self.empty), ("middle", middle)):
            out |= {f"board/{name}_{what}": picture for what, picture in thoughts(player, position).items()}
        return out


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    began = time.monotonic()
    cfg = settled(cfg)
    run.at_least(cfg, LEAST)
    device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
    compiled.set_threads(1)  # self-play has a thread a part
    world = World(cfg)
    game, timer = world.game, Timer()
    network = BoardNetwork(
        game.planes, cfg.channels, cfg.blocks, cfg.backbone, cfg.heads, cfg.game == "go", cfg.size
    ).to(device)
    if cfg.start_from and not cfg.resume:
        begin_with(network, cfg.start_from)
    run_dir = run.start(cfg, "alphazero_go", cfg.game if cfg.game != "go" else f"{cfg.size}x{cfg.size}", FIXED)
    latest: list[int] = []

    def on_game(moves: list[int], first: float, resigned: bool) -> None:
        latest[:] = moves
        if cfg.sgf_every and experience.finished % cfg.sgf_every == 0:
            position = world.empty
            for move in moves:
                position = position.play(move, force=True)
            result = f"{'B' if first > 0 else 'W'}+R" if resigned else result_text(position.score())
            with open(run_dir / "games.sgf", "a") as f:
                f.write(to_sgf(GameRecord.from_position(position, result=result)) + "\n")

    trainer = Trainer(network, alphazero_loss, cfg.trainer, run_dir, timer=timer)
    plays: Any = trainer.ema.module if trainer.ema else network
    past = copy.deepcopy(plays)
    experience = SelfPlay(
        game, past if cfg.gate else plays, cfg.selfplay, world.symmetries, cfg.seed, on_game=on_game, timer=timer
    )
    say(experience.memory())
    parallel = min(2, cfg.threads or runtime.cores())
    ladder = Ladder(cfg.rungs, world.player, world.starts, cfg.eval_games, cfg.seed, parallel)
    trainer.state |= {"experience": experience, "past": past, "ladder": ladder}
    trainer.clock = ("positions", lambda: experience.positions, 0)
    if cfg.resume and not trainer.load():
        say(f"{run_dir} holds no whole checkpoint: starting at the beginning")

    def player(weights: Any) -> AlphaZero:
        return AlphaZero(weights, cfg.eval_simulations)

    def save(score: dict[str, float] | None = None) -> None:
        info = {
            "env": {"game": cfg.game, "size": cfg.size, "komi": cfg.komi},
            "trained": {
                "games": experience.finished, "positions": experience.positions, "updates": trainer.step,
                "seed": cfg.seed, "minutes": (time.monotonic() - began) / 60,
            },
            "score": score,
            "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
            "git": run.git_hash(),
        }  # fmt: skip
        save_agent(run_dir / "agent", AlphaZero(plays).describe() | info, plays.state_dict())

    def evaluation() -> None:
        save()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the match has a thread a game
        with timer("evaluate"):
            against = (lambda: player(past)) if ladder.results else None
            scores = ladder.play(f"game {experience.finished}", lambda: player(plays), against)
        torch.set_num_threads(threads)
        if not cfg.gate or scores.get("eval/against_past", 1.0) >= cfg.gate:
            past.load_state_dict(plays.state_dict())
        trainer.log(scores)
        trainer.show(world.pictures(player(plays), latest))
        save(scores)
        minutes, results = (time.monotonic() - began) / 60, {tag[5:]: round(value, 2) for tag, value in scores.items()}
        say(f"{minutes:.1f} min, {experience.finished:,} games, {trainer.step:,} updates: {results}")

    next_eval, before = cfg.eval_minutes, (0, 0, 0.0)
    for step, _, _ in trainer.run(experience):
        if step % cfg.trainer.log_every == 0:
            now = experience.evaluations, experience.simulations, timer.seconds["selfplay"]
            evaluations, simulations, seconds = (b - a for a, b in zip(before, now, strict=True))
            if before[2] and seconds:
                trainer.log({"search/evaluations_per_second": evaluations / seconds})
                trainer.log({"search/simulations_per_second": simulations / seconds})
            before = now
            trainer.log(experience.stats())
        minutes = (time.monotonic() - began) / 60
        if minutes > cfg.minutes:
            trainer.save()
            break
        if minutes > next_eval:
            next_eval = minutes + cfg.eval_minutes
            evaluation()
    if trainer.stopped:  # whoever stops a run does not want to wait for games
        save()
    else:
        evaluation()
        say(ladder.table())
    trainer.close()
    say(timer.table())
    say(f"go on: {sys.executable} -m experiments.alphazero_go --resume {run_dir}")
    if cfg.game == "go":
        say(f"play:  {sys.executable} -m experiments.match {run_dir} mcts:10000 --size {cfg.size} --komi {cfg.komi}")
    return run_dir


if __name__ == "__main__":
    run.cli(main, lambda: run.parse(PRESETS))
