"""Where a name or a folder becomes a player or an agent.

The emulator and torch are imported where they are needed: a Go player without a network starts at once.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from agents.dqn.agent import DQN
    from rlkit.evaluate import Scores

GO_PLAYERS = "random, mcts:SIMULATIONS, gnugo:LEVEL, gtp:COMMAND or an agent's folder"


def save_dqn(folder: Path, agent: DQN, cfg: Any, frames: int, scores: Scores | None = None) -> None:
    """Write the agent's folder with how it was trained and what it scored."""
    import ale_py
    import torch

    from rlkit.checkpoint import save_agent
    from rlkit.run import git_hash

    score = None
    if scores:
        low, high = scores.interval()
        score = {
            "mean": scores.mean,
            "low": low,
            "high": high,
            "episodes": len(scores.scores),
            "protocol": cfg.protocol,
        }
    info = agent.describe() | {
        "env": {"game": cfg.game, "protocol": cfg.protocol},
        "trained": {"frames": frames, "seed": cfg.seed, "preset": cfg.preset},
        "score": score,
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "ale_py": ale_py.__version__},
        "git": git_hash(),
    }
    save_agent(folder, info, agent.network.state_dict())


def load_agent(path: Path, device: torch.device | str = "cpu") -> tuple[DQN, dict[str, Any]]:
    """The agent of a run or agent folder, and its agent.json. Raises FileNotFoundError, DamagedFile."""
    from agents.dqn.agent import DQN
    from rlkit.checkpoint import load_agent_files
    from rlkit.errors import DamagedFile

    info, weights = load_agent_files(Path(path))
    kinds = {"dqn": DQN}
    try:
        return kinds[info["kind"]].from_files(info, weights, device), info
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedFile(f"{path}: agent.json does not describe an agent with these weights: {error!r}") from error


def go_player(spec: str, seed: int = 0, time_limit: float = 60.0) -> Any:
    """A player of Go, a callable position -> move, from what a person types (see GO_PLAYERS).

    seed: of its randomness, in 0 .. 2^31 - 1. time_limit: seconds that a program may take for a move (`gnugo:` and
    `gtp:`). Players that hold a process have `close()`. Raises ValueError for a spec that means nothing,
    FileNotFoundError for a program or an agent that is not there, DamagedFile.
    """
    from envs.go.gtp_client import GTPPlayer
    from envs.go.random_player import RandomPlayer

    kind, _, rest = spec.partition(":")
    if spec == "random":
        return RandomPlayer(seed)
    if kind == "mcts":
        return _mcts(_number(spec, rest, 1), seed)
    if kind == "gnugo":
        level = _number(spec, rest, 0)
        program = shutil.which("gnugo") or shutil.which("/usr/games/gnugo")
        if not program:
            raise FileNotFoundError("GNU Go is not installed; on Debian and Ubuntu: apt-get install gnugo")
        # Without these it plays simple ko, resigns, and passes before it has taken what is dead: our referee would
        # count all three as strength of the other side.
        flags = "--chinese-rules --positional-superko --never-resign --capture-all-dead --play-out-aftermath"
        command = f"{program} --mode gtp --level {level} {flags} --seed {seed}"
        return GTPPlayer(command, name=spec, time_limit=time_limit)
    if kind == "gtp" and rest.strip():
        command_line = shlex.split(rest)
        if not shutil.which(command_line[0]):
            raise FileNotFoundError(f"{spec}: there is no program {command_line[0]!r}; give its whole path")
        return GTPPlayer(command_line, time_limit=time_limit)
    if spec and Path(spec).is_dir():
        from agents.alphazero.player import AlphaZero
        from rlkit.checkpoint import load_agent_files

        info, weights = load_agent_files(Path(spec))
        if info.get("kind") != "alphazero":
            raise ValueError(f"{spec} holds an agent of kind {info.get('kind')!r}, which does not play Go")
        return AlphaZero.from_files(info, weights)
    raise ValueError(f"{spec!r} is no player of Go: it must be {GO_PLAYERS}")


def _number(spec: str, text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{spec!r} needs a whole number of at least {least} after the colon")
    return int(text)


def _mcts(simulations: int, seed: int) -> Any:
    from agents.uct.player import UCTPlayer

    return UCTPlayer(simulations, seed=seed)
