"""An agent of any kind, from its folder.

agent = load_agent("runs/dqn/<run>")
actions = agent.act(obs)                    # of one that plays Go: agent(position)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def load_agent(path: str | Path, device: torch.device | str = "cpu", **options: Any) -> Any:
    """The agent of a run or agent folder, with its agent.json as `agent.info`. Raises FileNotFoundError, DamagedFile.

    options: what its kind takes besides, as simulations of an AlphaZero.
    """
    from agents.alphago.player import AlphaGo
    from agents.alphazero.player import AlphaZero
    from agents.pqn.agent import PQN
    from agents.rainbow.agent import Rainbow
    from agents.recurrent.agent import RecurrentDQN
    from experiments.alphago.stages import check_planes
    from rlkit.saved_agents import load_agent_files, rebuilding

    info, weights = load_agent_files(Path(path))
    kinds: dict[str, Any] = {
        "dqn": Rainbow,
        "recurrent_dqn": RecurrentDQN,
        "pqn": PQN,
        "alphazero": AlphaZero,
        "alphago": AlphaGo,
    }
    if info.get("kind") == "alphago":
        check_planes(path, info)
        options["functions"] = go_functions()
    with rebuilding(path, "an agent with these weights"):
        if info["kind"] not in ("alphazero", "alphago"):
            _ = info["env"]["game"], info["env"]["protocol"], info["trained"]["frames"]  # what evaluation asks for
        agent = kinds[info["kind"]].from_files(info, weights, device, **options)
    agent.info = info
    return agent


def go_functions() -> Any:
    """What an AlphaGo asks of Go."""
    from agents.alphago.player import GameFunctions
    from envs.go import patterns
    from envs.go.features import symmetries
    from envs.go.pattern_playouts import playouts, policy_of
    from experiments.alphago.positions import planes

    def rollouts(weights: Any) -> Any:
        policy = policy_of(weights)
        return lambda states, seed: playouts(states, policy, seed)[0]

    return GameFunctions(planes, rollouts, patterns.features, symmetries)
