"""AlphaGo's stages on disk: what one leaves behind, and the next one takes up."""

from pathlib import Path
from typing import Any

import torch

from agents.alphago import parts as alphago
from agents.alphago.parts import Parts
from envs.go.features import ALPHAGO_ORDER
from envs.go.game import Go
from rlkit.checkpoint import save_agent
from rlkit.saved_agents import load_agent_files, rebuilding

MAKES = {
    "policy": "alphago_sl",
    "rollout": "alphago_rollout",
    "value": "alphago_value",
}


def save(folder: Path, parts: Parts, game: Go, trained: dict[str, Any], score: dict[str, Any]) -> None:
    """Write an agent's folder with some of an AlphaGo's parts."""
    config, weights = alphago.describe(parts)
    info = {
        "kind": "alphago",
        "config": config,
        "env": {"game": "go", "size": game.height, "komi": game.komi, "planes": ALPHAGO_ORDER},
        "trained": trained,
        "score": score,
    }
    save_agent(folder, info, weights)


def load(path: str | None, part: str, flag: str, device: torch.device | str = "cpu") -> tuple[Parts, dict[str, Any]]:
    """(parts, agent.json) of a run or agent folder that has `part`, which `flag` names on the command line.

    Raises FileNotFoundError, DamagedFile, and ValueError for an agent without it; all say which command makes one.
    """
    remedy = f"python -m experiments {MAKES[part]} makes one"
    if not path:
        raise ValueError(f"{flag} is missing, the folder of a {part} network or policy: {remedy}")
    try:
        info, weights = load_agent_files(Path(path))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{flag}: {error}; {remedy}") from error
    if info.get("kind") != "alphago" or not info.get("config", {}).get(part):
        raise ValueError(f"{flag}: {path} holds no AlphaGo's {part}: {remedy}")
    check_planes(path, info)
    with rebuilding(path, "these weights"):
        return alphago.from_files(info, weights, device), info


def check_planes(path: str | Path, info: dict[str, Any]) -> None:
    """Raise ValueError where an AlphaGo's agent.json says that it learned from other planes than those that are made
    here: it would load, and see another board.
    """
    theirs = info.get("env", {}).get("planes", ALPHAGO_ORDER)  # the first ones did not say
    if theirs != ALPHAGO_ORDER:
        raise ValueError(
            f"{path} learned from the planes {theirs!r}; here they are {ALPHAGO_ORDER!r}: play it with the version that"
            f" made it, or train it anew by {MAKES['policy']}"
        )
