"""Where a name or a folder becomes a player or an agent.

The emulator and torch are imported where they are needed: a Go player without a network starts at once.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import agents.alphazero
from agents.alphago.variants import VARIANTS

if TYPE_CHECKING:
    import torch


GO_PLAYERS = (
    "random, mcts:SIMULATIONS, gnugo:LEVEL, gtp:COMMAND, an agent's or run's folder, or alphazero:NAME, one that ships"
    " (as alphazero:5x5); the last two may end in :SIMULATIONS, an AlphaGo's also in :VARIANT or :VARIANT:SIMULATIONS"
)
PRETRAINED = Path(agents.alphazero.__file__).parent / "pretrained"


class Agent(NamedTuple):
    """What a spec says of an agent."""

    folder: Path
    simulations: int | None = None
    variant: str = ""
    """of an AlphaGo, one of VARIANTS"""


def agent_folder(spec: str) -> Agent | None:
    """The agent that a spec names, FOLDER[:VARIANT][:SIMULATIONS]; None where it names none.

    A folder whose very name ends in a colon and a number goes before the other reading. Raises ValueError,
    FileNotFoundError.
    """
    if spec.partition(":")[0] in ("random", "mcts", "gnugo", "gtp"):
        return None
    if spec and Path(spec).is_dir():
        return Agent(Path(spec))
    if spec.startswith("alphazero:"):
        name, colon, rest = spec.removeprefix("alphazero:").partition(":")
        ships = sorted(path.parent.name for path in PRETRAINED.glob("*/agent.json"))
        if name not in ships:
            raise FileNotFoundError(f"no agent {name!r} ships with this version; there are: {', '.join(ships) or None}")
        return Agent(PRETRAINED / name, _number(spec, rest, 1) if colon else None)
    folder, _, rest = spec.rpartition(":")
    first, _, variant = folder.rpartition(":")
    if variant in VARIANTS and first and Path(first).is_dir():
        return Agent(Path(first), _number(spec, rest, 1), variant)
    if not folder or not Path(folder).is_dir():
        return None
    return Agent(Path(folder), variant=rest) if rest in VARIANTS else Agent(Path(folder), _number(spec, rest, 1))


def agent_info(folder: Path) -> dict[str, Any]:
    """Its agent.json."""
    from rlkit.saved_agents import load_agent_files  # torch comes with it

    return load_agent_files(folder)[0]


def trained_board(folder: Path) -> dict[str, Any]:
    """Size and komi that an agent was trained with, as far as its agent.json says. Raises DamagedFile."""
    from rlkit.saved_agents import rebuilding  # torch comes with it

    with rebuilding(folder, "a board"):
        env = agent_info(folder).get("env", {})
        return {name: kind(env[name]) for name, kind in (("size", int), ("komi", float)) if name in env}


def board_for(specs: Iterable[str], size: int | None, komi: float | None) -> tuple[int, float]:
    """Size and komi as asked for; None: those that the first agent among the players was trained with, else 9 and 7.5.

    Says on stderr which agents were trained with another komi.
    """
    trained = {spec: trained_board(found[0]) for spec in specs if (found := agent_folder(spec))}
    first: dict[str, Any] = next(iter(trained.values()), {})
    size = first.get("size", 9) if size is None else size
    komi = first.get("komi", 7.5) if komi is None else komi
    for spec, env in trained.items():
        if env.get("komi") not in (None, komi):
            print(f"{spec} was trained with komi {env['komi']:g} and now plays with {komi:g}", file=sys.stderr)
    return size, komi


def go_player(
    spec: str,
    seed: int = 0,
    time_limit: float = 60.0,
    *,
    simulations: int | None = None,
    seconds: float | None = None,
    resign: float | None = None,
    device: torch.device | str = "cpu",
) -> Any:
    """A player of Go, a callable position -> move, from what a person types (see GO_PLAYERS).

    Args:
        seed: of its randomness, in 0 .. 2^31 - 1.
        time_limit: seconds that a program may take for a move (`gnugo:` and `gtp:`), or it forfeits.
        simulations, seconds: what an agent with a network searches for each move at most, where the spec says no
            simulations; seconds alone: as many as they allow; neither: its default. `mcts:` obeys seconds too.
        resign: as `AlphaZero` has it. device: of its network.

    Players that hold a process have `close()`. Raises ValueError for a spec that means nothing and for options that
    the player does not take, FileNotFoundError for a program or an agent that is not there, DamagedFile.
    """
    if agent := agent_folder(spec):
        folder, own, variant = agent
        if own and simulations and own != simulations:
            raise ValueError(f"{spec} says {own} simulations, and --simulations {simulations}: leave one of them out")
        count = own or simulations or None
        limit: dict[str, Any] = {"simulations": count} if count or seconds else {}
        if variant:
            limit["variant"] = variant
        player = _board_agent(spec, folder, {"resign": resign, "device": device, **limit})
    elif simulations or resign is not None:
        raise ValueError(f"{spec} takes neither --simulations nor --resign: only an agent with a network does")
    else:
        player = _other_player(spec, seed, time_limit)
    if seconds:
        if not hasattr(player, "seconds"):
            raise ValueError(f"{spec} cannot be told a time for each move")
        player.seconds = seconds
    return player


def _board_agent(spec: str, folder: Path, options: dict[str, Any]) -> Any:
    info = agent_info(folder)
    kind, game = info.get("kind"), info.get("env", {}).get("game", "go")
    if "variant" in options and kind != "alphago":
        raise ValueError(f"{spec} holds an agent of kind {kind!r}: only an AlphaGo has variants")
    if kind not in ("alphazero", "alphago"):
        raise ValueError(f"{spec} holds an agent of kind {kind!r}, which does not play Go")
    if game != "go":
        raise ValueError(f"{spec} holds an agent for {game}, which does not play Go")
    if "variant" in options:
        missing = [part for part in VARIANTS[options["variant"]] if not info["config"].get(part)]
        if missing:
            raise ValueError(f"{spec} needs what this agent does not have: {' and '.join(missing)}")
    from experiments.any_agent import load_agent

    return load_agent(folder, **options)


def _other_player(spec: str, seed: int, time_limit: float) -> Any:
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
    raise ValueError(f"{spec!r} is no player of Go: it must be {GO_PLAYERS}")


def _number(spec: str, text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{spec!r} needs a whole number of at least {least} after the colon")
    return int(text)


def _mcts(simulations: int, seed: int) -> Any:
    from agents.uct.player import UCTPlayer

    return UCTPlayer(simulations, seed=seed)
