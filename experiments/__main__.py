"""python -m experiments [COMMAND [FLAGS]]: lists the commands, or runs one. The script `lecture-rl` does the same."""

import ast
import difflib
import importlib
import sys
from pathlib import Path
from typing import Any

COMMANDS = {
    "worlds of one player": {
        "dqn": "control.dqn",
        "apex": "control.apex",
        "memory": "control.memory",
        "pqn": "control.pqn",
        "suite": "control.suite",
        "curves": "control.curves",
    },
    "Go": {
        "alphazero": "go.alphazero",
        "match": "go.match",
        "gtp": "go.gtp",
        "review": "go.review",
        "analysis": "go.analysis",
        "make_games": "go.make_games",
    },
    "AlphaGo, all of it or a stage": {
        "alphago": "alphago.pipeline",
        "alphago_sl": "alphago.sl",
        "alphago_rollout": "alphago.rollout",
        "alphago_rl": "alphago.rl",
        "alphago_value": "alphago.value",
        "alphago_match": "alphago.table",
    },
    "without a world": {
        "heights": "supervised.heights",
        "images": "supervised.images",
        "obstacles": "supervised.obstacles",
        "language_model": "sequences.language_model",
        "translation": "sequences.translation",
        "pretraining": "sequences.pretraining",
    },
    "for all": {
        "evaluate": "evaluate",
        "export": "export",
        "play": "play",
        "tune": "tune",
        "bench": "bench.__main__",
    },
}
"""topic -> command -> module; each has `main(cfg)`, a dataclass `Config` and, if it makes runs, PRESETS of it.
One that hands words on to another command has `arranged(words)`, with `--` before those."""
MODULES = {name: module for topic in COMMANDS.values() for name, module in topic.items()}


def load(name: str) -> Any:
    """The module of a command."""
    return importlib.import_module(f"experiments.{MODULES[name]}")


def parse(command: Any, args: list[str] | None = None) -> Any:
    """The configuration that a command line asks for."""
    import tyro

    from rlkit import command_line

    if hasattr(command, "arranged"):
        args = command.arranged(sys.argv[1:] if args is None else args)
    if hasattr(command, "PRESETS"):
        return command_line.parse(command.PRESETS, args, getattr(command, "fitting_preset", None))
    return tyro.cli(command.Config, args=args)


def overview() -> str:
    """All commands with the first line of what their files say; imports none of them."""
    lines = ["usage: lecture-rl COMMAND [FLAGS]        COMMAND --help lists its flags"]
    for topic, commands in COMMANDS.items():
        lines += ["", topic]
        for name, module in commands.items():
            text = (Path(__file__).parent / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
            lines.append(f"  {name:<16}{(ast.get_docstring(ast.parse(text)) or '').partition(chr(10))[0]}")
    return "\n".join(lines)


def main() -> None:
    """Run the command that the arguments of this process name."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        print(overview())
        return
    name = sys.argv[1]
    if name not in MODULES:
        close = difflib.get_close_matches(name, MODULES, 1)
        sys.exit(f"error: there is no command {name!r}{f'; {close[0]}?' if close else ''}\n\n{overview()}")
    from rlkit import command_line

    sys.argv = [f"lecture-rl {name}", *sys.argv[2:]]
    command = load(name)
    command_line.cli(command.main, lambda: checked(name, parse(command)))


def checked(name: str, cfg: Any) -> Any:
    """cfg, if its command may be started as it was; see `check_divided`."""
    from rlkit.parallel import check_divided

    check_divided(name, cfg)
    return cfg


if __name__ == "__main__":
    main()
