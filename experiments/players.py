"""Where a name or a folder becomes a player or an agent."""

import sys
from pathlib import Path
from typing import Any

import ale_py
import torch

from agents.dqn.agent import DQN
from rlkit.checkpoint import DamagedFile, load_agent_files, save_agent
from rlkit.evaluate import Scores
from rlkit.run import git_hash


def save_dqn(folder: Path, agent: DQN, cfg: Any, frames: int, scores: Scores | None = None) -> None:
    """Write the agent's folder with how it was trained and what it scored."""
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
    info, weights = load_agent_files(Path(path))
    kinds = {"dqn": DQN}
    try:
        return kinds[info["kind"]].from_files(info, weights, device), info
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedFile(f"{path}: agent.json does not describe an agent with these weights: {error!r}") from error
