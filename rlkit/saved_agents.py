"""Saved agents read again: their files, checked, and networks with their weights. Runs no code from a file."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from rlkit.errors import DamagedFile
from rlkit.files import read_bytes, read_json

M = TypeVar("M", bound=nn.Module)


def load_agent_files(
    path: Path, kind: str | None = None, otherwise: str = ""
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(agent.json, weights) of an agent's folder, or of the agent in a run's folder.

    Raises FileNotFoundError where there is no agent, DamagedFile where its files do not belong together, and, where a
    kind is given, ValueError for another kind, with a message that ends with `otherwise`.
    """
    folder = path / "agent" if (path / "agent" / "agent.json").exists() else path
    if not (folder / "agent.json").exists():
        hint = "the run has not saved one yet" if (path / "config.json").exists() else "name a run or agent folder"
        raise FileNotFoundError(f"{path} holds no agent (no agent.json): {hint}")
    try:
        info, weights = _read_agent(folder)
    except DamagedFile:  # or it was being saved: then the second look finds files that fit
        info, weights = _read_agent(folder)
    if kind is not None and info.get("kind") != kind:
        raise ValueError(f"{path} holds an agent of kind {info.get('kind')!r}, {otherwise}")
    return info, weights


def _read_agent(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        # In this order, a save in between leaves a description that admits these weights.
        blob, info = read_bytes(folder / "weights.safetensors"), read_json(folder / "agent.json")
        if hashlib.sha256(blob).hexdigest() not in info["weights_sha256"]:
            raise DamagedFile("weights.safetensors is truncated or altered: its checksum does not fit")
        for name in ("config", "env", "trained"):
            if not isinstance(info.get(name, {}), dict):
                raise DamagedFile(f"agent.json has no object as its {name!r}")
        return info, safetensors.torch.load(blob)
    except (DamagedFile, KeyError, TypeError, OSError, safetensors.SafetensorError) as error:
        raise DamagedFile(f"{folder} is not a whole agent: {error}") from error


@contextmanager
def rebuilding(path: str | Path, what: str) -> Iterator[None]:
    """Raise errors inside the block, which rebuilds `what` from an agent's files, as DamagedFile."""
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedFile(f"{path}: agent.json does not describe {what}: {error!r}") from error


def check_shapes(build: Callable[[], nn.Module], weights: dict[str, Tensor]) -> None:
    """Raise ValueError where these are not the weights of what `build` makes.

    It is built without memory, for a file may claim any size, and only until it has far more numbers than the weights.
    """
    room = 2 * sum(w.numel() for w in weights.values()) + (1 << 24), 8 * len(weights) + 100
    numbers = tensors = 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal numbers, tensors
        numbers, tensors = numbers + (0 if tensor is None else tensor.numel()), tensors + 1
        if numbers > room[0] or tensors > room[1]:
            raise ValueError("it describes a far larger network than these weights are of")

    parameters = hooks.register_module_parameter_registration_hook(count)
    buffers = hooks.register_module_buffer_registration_hook(count)
    modules = hooks.register_module_module_registration_hook(lambda module, name, part: count(module, name, None))
    with parameters, buffers, modules, torch.device("meta"):
        wanted = {name: tuple(w.shape) for name, w in build().state_dict().items()}
    if wrong := {name for name, w in weights.items() if wanted.get(name) != w.shape} | wanted.keys() - weights.keys():
        name = min(wrong)
        there = tuple(weights[name].shape) if name in weights else "none"
        raise ValueError(
            f"{len(wrong)} weights do not fit, as {name}: {there} there, {wanted.get(name, 'none')} wanted"
        )


def rebuild(build: Callable[[], M], weights: dict[str, Tensor]) -> M:
    """What `build` makes, with these weights. Raises ValueError, RuntimeError where they do not fit."""
    check_shapes(build, weights)
    module = build()
    module.load_state_dict(weights)
    return module


def load_matching(module: nn.Module, path: Path, prefix: str = "") -> str:
    """Load those weights of an agent's or run's folder whose names (without `prefix`) and shapes the module has.

    Returns a line for people that says what was loaded and what was not. Raises FileNotFoundError, DamagedFile, and
    ValueError where nothing fits.
    """
    _, weights = load_agent_files(path)
    theirs = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    ours = module.state_dict()
    taken = {name: w for name, w in theirs.items() if name in ours and ours[name].shape == w.shape}
    shapes = {name: (list(w.shape), list(theirs[name].shape) if name in theirs else "none") for name, w in ours.items()}
    left = [f"{name} ({here} here, {there} there)" for name, (here, there) in shapes.items() if name not in taken]
    if not taken:
        few = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        raise ValueError(f"{path} has no weights that fit: {few}; train one with the same backbone, width and shape")
    module.load_state_dict(taken, strict=False)
    numbers = sum(w.numel() for w in taken.values()), sum(w.numel() for w in ours.values())
    report = f"took {len(taken)} of {len(ours)} tensors, {numbers[0]:,} of {numbers[1]:,} numbers, from {path}"
    return report + (f"; left as they were: {', '.join(left)}" if left else "")
