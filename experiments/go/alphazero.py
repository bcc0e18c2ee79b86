"""AlphaZero on small boards.

python -m experiments alphazero --size 5                           # 15 minutes on two cores: perfect play
python -m experiments alphazero --preset tictactoe                 # seconds
python -m experiments alphazero --resume runs/alphazero/<run>     # goes on where the run was stopped
"""

import contextlib
import copy
import functools
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agents.alphazero.games import FinishedGame, SelfPlayConfig
from agents.alphazero.network import BoardNetwork, alphazero_loss
from agents.alphazero.selfplay import SelfPlay
from agents.alphazero.sources import Actor, ActorGames, LocalGames
from experiments.go.board_games import BoardGame
from experiments.go.elo_ladder import EloLadder
from experiments.go.evaluation import Evaluation
from experiments.go.players import agent_folder
from experiments.go.resumable import TextLines, TrainingMinutes
from rlkit import compiled, runtime
from rlkit.checkpoint import checkpoints
from rlkit.config import AtLeast, Between, Fixed, RunConfig, check_bounds
from rlkit.logger import say
from rlkit.parallel.stream import StreamConfig, check_resume
from rlkit.run import Run
from rlkit.saved_agents import load_agent_files
from rlkit.trainer import TrainConfig, Trainer

BASE = TrainConfig(
    steps=0, optimizer="adamw", lr=2e-3, lr_decay="cosine", weight_decay=1e-4, clip=4.0, ema=0.998,
    precision="auto", save_every=2000,
)  # fmt: skip


@dataclass
class Config(RunConfig):
    """Train a policy and value network on its own games. Numbers of 0 stand for what suits the board."""

    preset: Annotated[Literal["cpu", "gpu", "tictactoe"], Fixed] = "cpu"
    """defaults: cpu (two cores or a few), gpu (a large one, with a core for each of its 12 parts), tictactoe (a toy)"""
    start_from: str | None = None
    """agent or run folder, whose weights a new run begins with; its board may be smaller"""
    env: Annotated[Literal["go", "tictactoe"], Fixed] = "go"
    """the game"""
    size: Annotated[int, AtLeast(2), Fixed] = 5
    """lines of the board"""
    komi: Annotated[float | None, Between(-361, 361), Fixed] = None
    """points for White; default: the size's (24.5, 9 and 7.5 on 5x5, 7x7 and 9x9)"""
    backbone: Annotated[Literal["resnet", "alphago", "transformer"], Fixed] = "resnet"
    """tower of the network"""
    channels: Annotated[int, AtLeast(0), Fixed] = 0
    """of the network's tower; 0: what suits the board"""
    blocks: Annotated[int, AtLeast(0), Fixed] = 0
    """of the network's tower; 0: what suits the board"""
    heads: Annotated[tuple[str, ...], Fixed] = ("ownership", "score", "reply")
    """what the network predicts beside policy and value: some of ownership, score and reply"""
    rungs: tuple[str, ...] = ("random", "mcts:100", "mcts:1000", "mcts:10000", "gnugo:10")
    """opponents by growing strength: the network meets the first one that it does not beat yet, and its past self"""
    eval_minutes: Annotated[float, AtLeast(0)] = 0
    """minutes between evaluations, which take a third of that at most; the agent's folder is saved then. 0: a fifth of
    all minutes"""
    eval_games: Annotated[int, AtLeast(2)] = 20
    """games of each match in an evaluation"""
    eval_simulations: Annotated[int, AtLeast(1)] = 200
    """simulations of each of the network's moves in an evaluation"""
    gate: Annotated[float, Between(0, 1)] = 0.0
    """score against its past self that the network needs to take over self-play, 0.55 say; 0: it always does"""
    sgf_every: Annotated[int, AtLeast(0)] = 100
    """one of so many games of self-play is written to games.sgf; 0: none"""
    selfplay: SelfPlayConfig = field(default_factory=SelfPlayConfig)
    elsewhere: tyro.conf.OmitArgPrefixes[StreamConfig] = field(default_factory=StreamConfig)
    trainer: TrainConfig = field(default_factory=lambda: replace(BASE))


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
        trainer=replace(BASE, ema=0.999, mode="cudagraph", save_every=5000),
    ),
    "tictactoe": Config(
        preset="tictactoe",
        env="tictactoe",
        size=3,
        komi=0.0,
        minutes=5,
        channels=32,
        blocks=2,
        heads=(),
        rungs=("random", "perfect"),
        sgf_every=0,
        selfplay=SelfPlayConfig(games=64, simulations=32, window=20_000, batch_size=128, start=500),
        trainer=replace(BASE, steps=600, lr=3e-3, ema=0.98, precision="fp32", save_every=200),
    ),
}
BY_SIZE = {5: (24.5, 32, 3, 15.0), 7: (9.0, 48, 4, 60.0), 9: (7.5, 64, 6, 600.0)}
"""komi, channels, blocks, minutes"""


def with_defaults(cfg: Config) -> Config:
    """With the numbers that suit the board. Raises ValueError for those that make no sense."""
    check_bounds(cfg)
    if cfg.selfplay.fast_simulations and not cfg.selfplay.full_share:
        raise ValueError("--selfplay.full-share 0 leaves nothing to learn from; 0.25, say")
    if cfg.selfplay.opening_moves > cfg.size**2:
        raise ValueError(f"--selfplay.opening-moves can be {cfg.size**2} at most on this board")
    komi, channels, blocks, minutes = BY_SIZE[min(BY_SIZE, key=lambda size: abs(size - cfg.size))]
    if cfg.env == "tictactoe" and cfg.size != 3:
        raise ValueError(f"tic-tac-toe has 3 lines, not {cfg.size}: use --preset tictactoe")
    return replace(
        cfg,
        komi=(komi if cfg.size in BY_SIZE else 7.5) if cfg.komi is None else cfg.komi,
        channels=cfg.channels or channels,
        blocks=cfg.blocks or blocks,
        minutes=cfg.minutes or minutes,
        eval_minutes=cfg.eval_minutes or (cfg.minutes or minutes) / 5,
    )


def load_weights(network: BoardNetwork, folder: str) -> None:
    """Give it the weights of an agent, which may be of another board. Raises ValueError where the networks differ."""
    info, weights = load_agent_files((agent_folder(folder) or (Path(folder), None))[0])
    theirs = info.get("config") or {}
    fixed = [name for name in network.config if name != "size" or network.config["backbone"] == "alphago"]
    for name in fixed:
        if theirs.get(name) != network.config[name]:
            raise ValueError(f"the network of {folder} has {name} {theirs.get(name)}, not {network.config[name]}")
    network.load_state_dict(weights)


def make_actor(cfg: Config, network: dict[str, Any], index: int, start: int) -> Actor:
    """The actor of this number: its share of the games, and a network like the learner's."""
    assert cfg.komi is not None
    game = BoardGame(cfg.env, cfg.size, cfg.komi, 0, cfg.seed).game
    net = BoardNetwork(**network).to("cuda" if cfg.elsewhere.actor_gpus else "cpu").eval()
    share = index, cfg.elsewhere.actors
    return Actor(lambda start: LocalGames(game, net, cfg.selfplay, cfg.seed, share, start), start)


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    minutes, cfg = TrainingMinutes(), with_defaults(cfg)
    run, actors = Run(cfg, "alphazero"), cfg.elsewhere.actors
    for asked, why in ((cfg.gate, "--gate needs what rank 0 alone measures"), (actors, "--actors serve one learner")):
        if run.ranks and asked:
            raise ValueError(f"{why}: leave it out where torchrun divides a run")
    check_resume(cfg)
    with contextlib.ExitStack() as until_the_end:
        return learn(cfg, run, minutes, until_the_end)


def learn(cfg: Config, run: Run, minutes: TrainingMinutes, until_the_end: contextlib.ExitStack) -> Path:
    """The parts of a run, and the loop; returns the run's folder."""
    compiled.set_threads(1)  # self-play has a thread a part
    assert cfg.komi is not None
    board = BoardGame(cfg.env, cfg.size, cfg.komi, cfg.eval_games // 2, cfg.seed)
    network = BoardNetwork(
        board.game.planes, cfg.channels, cfg.blocks, cfg.backbone, cfg.heads, cfg.env == "go", cfg.size
    ).to(run.device)
    if cfg.start_from and not (cfg.resume and checkpoints(Path(cfg.resume) / "checkpoints")):
        load_weights(network, cfg.start_from)
    folder = run.open(cfg.env if cfg.env != "go" else f"{cfg.size}x{cfg.size}")

    limit, over = run.cfg.trainer, None
    if not limit.steps:  # the minutes are the limit, and the learning rate goes by them
        limit, over = replace(limit, steps=10**9), lambda: minutes.all / (minutes.before + cfg.minutes)
    trainer = Trainer(network, alphazero_loss, limit, folder, timer=run.timer, elapsed=over, deadline=run.deadline)
    player: Any = trainer.averaged
    past = copy.deepcopy(player)  # as it was measured last, or, with a gate, as it last passed
    games = TextLines(folder / "games.sgf")

    def on_game(game: FinishedGame) -> None:
        if cfg.sgf_every and experience.finished % cfg.sgf_every == 0:
            games.append(board.record(game.moves, game.value if game.resigned else None))

    plays, source = past if cfg.gate else player, None
    if actors := cfg.elsewhere.actors:
        make = functools.partial(make_actor, cfg, network.config)
        source = ActorGames(make, plays, cfg.elsewhere, max(1, cfg.selfplay.parts // actors))
        until_the_end.callback(source.close)
    experience = SelfPlay(board.game, plays, run.cfg.selfplay, board.symmetries, cfg.seed, on_game, run.timer, source)
    say(experience.memory())
    parallel = cfg.threads or runtime.cores()
    ladder = EloLadder(cfg.rungs, board.player, board.starts, cfg.eval_games, cfg.seed, parallel, board.varied)
    evaluation = Evaluation(run, board, ladder, experience, player, past, minutes)
    trainer.state |= {"experience": experience, "past": past, "ladder": ladder, "elapsed": minutes, "games": games}
    trainer.clock = ("positions", lambda: experience.positions * run.count, 0)
    if not run.resume(trainer):
        games.load_state_dict({"bytes": 0})

    next_eval = cfg.eval_minutes
    for step, _, _ in trainer.run(experience):
        if step % cfg.trainer.log_every == 0:
            trainer.log(experience.rates() | experience.stats())
        if run.leads and minutes.here > next_eval and trainer.goes_on(evaluations=2):
            if not run.ranks:  # they save together
                trainer.save()  # the games take a while, and all should outlive a kill
            evaluation(time.monotonic() + 60 * cfg.eval_minutes / 3)  # a quarter of all time at most
            next_eval = minutes.here + cfg.eval_minutes
    if run.stopped:
        evaluation.save()
    else:
        with contextlib.suppress(KeyboardInterrupt):
            evaluation(run.deadline.end)
            trainer.save()  # with its result
            say(ladder.table())
    run.close(**({"play": ("match", folder, "mcts:10000")} if cfg.env == "go" else {}))
    return folder
