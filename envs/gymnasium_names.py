"""From a name, or from what Python hands over, to what makes an environment of gymnasium."""

import ast
import contextlib
import difflib
import functools
import importlib
import inspect
import operator
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

PACKAGES = {
    "minatar": "minatar.gym:register_envs",
    "minigrid": "minigrid",
    "babyai": "minigrid",
    "ale": "ale_py",
    **dict.fromkeys(
        ("highway", "exit", "intersection", "lane", "merge", "parking", "racetrack", "roundabout", "u"), "highway_env"
    ),
}
"""first word of a name, before / or -: what registers it; others come as module:Name-v0"""
CALLABLE = "callable/"
"""namespace of what Python has handed over instead of a name"""


def imported(name: str, what: str) -> Any:
    """The object that `module:Name` names. Raises ValueError, ModuleNotFoundError."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # as for `python -m`
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(module)
        return operator.attrgetter(attribute)(found) if attribute else found
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{what} {name}: {error}; is it installed, or in this folder?") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{what} {name}: {error}; module:Name is wanted") from error


def called(name: str, what: str) -> Callable[..., Any]:
    """`imported`, of a class or function. Raises ValueError for other things too."""
    found = imported(name, what)
    if not callable(found):
        raise ValueError(f"{what} {name} is a {type(found).__name__}: module:Name of a class or function is wanted")
    return found


def maker(name: str) -> Callable[..., gymnasium.Env]:
    """What makes the environment of this name. Raises ValueError with the nearest names, ModuleNotFoundError."""
    module, _, bare = name.rpartition(":")
    if module:
        imported(module, "environment's module")
        if bare not in gymnasium.registry and not re.search(r"-v\d+$", bare):
            return called(name, "environment")
    elif name not in gymnasium.registry and (package := PACKAGES.get(re.split("[/-]", name)[0].lower())):
        try:
            registers = imported(package, "environment")
        except ModuleNotFoundError as error:
            install = package.partition(".")[0].replace("_", "-")
            raise ModuleNotFoundError(f"{name} needs a package: pip install {install}") from error
        if ":" in package:
            registers()
    try:
        gymnasium.spec(bare)
    except gymnasium.error.Error as error:
        near = nearest(bare)
        raise ValueError(
            f"no environment {bare} is registered with gymnasium{' by ' + module if module else ''}"
            + (f"; did you mean {', '.join(near)}?" if near else "")
            + (
                " What Python has registered for one process is not there in the next"
                if bare.startswith(CALLABLE)
                else ""
            )
            + ("" if module else " One of your own is named with the module that registers it: --env module:Name-v0")
        ) from error
    return functools.partial(gymnasium.make, bare, disable_env_checker=True)


def nearest(name: str) -> list[str]:
    """Registered names like this one, whatever their case and version; Atari's games have names of their own."""
    registered = [s.id for s in gymnasium.registry.values() if not str(s.entry_point).startswith("ale_py")]
    stems = {re.sub(r"-v\d+$", "", one).lower(): one for one in registered}
    return [stems[near] for near in difflib.get_close_matches(re.sub(r"-v\d+$", "", name).lower(), stems, n=3)]


def draws(make: Callable[..., gymnasium.Env]) -> bool:
    """Whether it can be asked for pictures."""
    entry: Any = make
    if isinstance(make, functools.partial) and make.func is gymnasium.make:
        entry = gymnasium.spec(make.args[0]).entry_point
        entry = load_env_creator(entry) if isinstance(entry, str) else entry
    modes = getattr(entry, "metadata", {}).get("render_modes", ["rgb_array"])
    return "rgb_array" in modes and "render_mode" in inspect.signature(entry).parameters


def name_of(make: Callable[..., gymnasium.Env]) -> str:
    """A name for a callable that returns an environment; for one that cannot be imported, in this process only."""
    if not callable(make):
        raise ValueError(
            f"env is a name, or a class or function that returns an environment, not a {type(make).__name__}"
        )
    inner = getattr(make, "func", make)  # of a functools.partial
    bare = getattr(inner, "__qualname__", type(inner).__name__)
    name = f"{getattr(make, '__module__', None)}:{bare}"
    with contextlib.suppress(ImportError, ValueError):
        if not name.startswith("__main__:") and imported(name, "environment") is make:
            return name
    name = f"{CALLABLE}{re.sub(r'[^A-Za-z0-9]+', '_', bare).strip('_')}-v0"
    gymnasium.registry.pop(name, None)
    gymnasium.register(name, make)
    return name


def parse_kwargs(words: Sequence[str]) -> dict[str, Any]:
    """{key: value} of words key=value; a value is what Python reads it as (true and false too), else text."""
    values: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"--env-kwargs wants key=value, not {word!r}")
        try:
            values[key] = ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
        except (SyntaxError, TypeError, ValueError):
            values[key] = value
    return values
