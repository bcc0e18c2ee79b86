"""Who plays on the page: the names that it offers, and players by name."""

import shutil
import threading
from pathlib import Path
from typing import Any

from experiments.go.players import PRETRAINED, agent_folder, go_player

PLAYOUTS = (100, 1_000, 10_000)
GNUGO = 10
"""level"""


class Engines:
    """Players for many games at once, each its own.

    Args:
        runs: the folder of runs whose agents are offered; agents elsewhere, and programs, cannot be named from a page.
        more: specs of `match` that are offered too.
    """

    def __init__(self, runs: Path, more: tuple[str, ...] = (), device: str = "cpu", threads: int = 1, seed: int = 0):
        self.runs, self.more, self.seed = runs, more, seed
        self._setup = (seed, device, threads)
        self._device: Any = None
        self._lock = threading.Lock()

    def offered(self) -> list[dict[str, Any]]:
        """Each with "name", "kind" and, where it is known, the largest "size" and the "komi" it was trained with."""
        found = [{"name": spec, "kind": "more"} for spec in self.more]
        for folder in sorted(PRETRAINED.glob("*/agent.json")):
            found.append({"name": f"alphazero:{folder.parent.name}", "kind": "ships", **_board(folder)})
        found += [{"name": f"mcts:{playouts}", "kind": "search"} for playouts in PLAYOUTS]
        if shutil.which("gnugo") or shutil.which("/usr/games/gnugo"):
            found.append({"name": f"gnugo:{GNUGO}", "kind": "program"})
        found.append({"name": "random", "kind": "search"})
        for kind in ("alphazero", "alphago"):
            for file in sorted(self.runs.glob(f"{kind}/*/agent/agent.json")):
                board = _board(file)
                if board.pop("game", "go") == "go":
                    found.append({"name": str(file.parent.parent), "kind": "run", **board})
        return found

    def player(self, spec: str) -> Any:
        """A player of its own for who asks. Raises ValueError for one that is not offered."""
        if spec not in {each["name"] for each in self.offered()}:
            raise ValueError(f"no player {spec[:100]!r} is offered here")
        if not agent_folder(spec):
            return go_player(spec, self.seed)
        return go_player(spec, device=self.device())

    def device(self) -> Any:
        """Where networks are; the first time, torch is imported and set up."""
        with self._lock:
            if self._device is None:
                from rlkit import runtime

                self._device = runtime.setup(*self._setup)
            return self._device

    def warm(self, spec: str) -> None:
        """Load what a first move needs, before somebody waits for it."""
        from envs.go.position import Position

        player = self.player(spec)
        player.simulations = 8
        player(Position.empty(int(spec.partition(":")[2].partition("x")[0] or 9)))


def _board(file: Path) -> dict[str, Any]:
    """What an agent.json says of the board; nothing where it cannot be read."""
    import json

    try:
        env = json.loads(file.read_text(encoding="utf-8")).get("env", {})
        return {name: env[name] for name in ("size", "komi", "game") if isinstance(env.get(name), (int, float, str))}
    except (OSError, ValueError, AttributeError):
        return {}
