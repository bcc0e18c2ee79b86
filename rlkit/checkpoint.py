"""Rotated checkpoints, and agents on disk. Loading never runs code from a file."""

import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from rlkit.config import CONFIGS
from rlkit.errors import DamagedFile, NonFiniteLoss, SaveFailed
from rlkit.files import read_bytes, read_json, write_atomically

MAGIC = b"RLK1"
M = TypeVar("M", bound=nn.Module)


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int = 3) -> Path:
    """Write folder/step_<step>.ckpt and keep the newest `keep`. Tensors and plain Python values only.

    Checkpoints of later steps belong to a run that was given up (or are damaged) and are removed as well. The run's
    configuration goes in with the state.
    """
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    config = next((CONFIGS[parent] for parent in folder.absolute().parents if parent in CONFIGS), None)
    torch.save(state | {"config": config}, buffer)
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest() + MAGIC)
    path = folder / f"step_{step:012d}.ckpt"
    if path.is_dir():  # nobody knows what is in it
        path.rename(path.with_suffix(".folder"))
    write_atomically(path, buffer.getbuffer())
    kept = [p for p in checkpoints(folder) if p <= path and p.is_file()][:keep]
    for old in (*checkpoints(folder), *folder.glob(".step_*")):  # the dotted ones were left by a kill
        if old not in kept and not old.is_dir():
            old.unlink()
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in one file, on the CPU. Raises DamagedFile."""
    try:
        data = read_bytes(path)
    except OSError as error:  # a link to nowhere
        raise DamagedFile(f"{path} cannot be read: {error}") from error
    payload, digest, magic = data[:-36], data[-36:-4], data[-4:]
    if magic != MAGIC or hashlib.sha256(payload).digest() != digest:
        raise DamagedFile(f"{path} is truncated or altered: its checksum does not fit")
    try:
        return dict(torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises errors of many types
        raise DamagedFile(f"{path} does not load: {error}") from error


def checkpoints(folder: Path) -> list[Path]:
    """What has a checkpoint's name in a folder, newest first; `load_checkpoint` says which of them are whole."""
    return sorted((p for p in folder.glob("step_*.ckpt") if re.fullmatch(r"step_\d+\.ckpt", p.name)), reverse=True)


def save_agent(folder: Path, info: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Write an agent's folder: weights.safetensors and agent.json, which holds the checksum of the former, this
    checkout's hash, and versions: of python and torch, and those that info["versions"] adds.

    Raises NonFiniteLoss for weights that are not finite, and SaveFailed; the agent that was there before stays whole.
    """
    if bad := [name for name, w in weights.items() if not w.isfinite().all()]:
        raise NonFiniteLoss(f"{', '.join(bad[:3])} not finite: the agent was not saved to {folder}")
    blob = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in weights.items()})
    path = folder / "weights.safetensors"
    try:
        folder.mkdir(exist_ok=True)
        # Killed between the two files, the new description stands beside the old weights: it admits both.
        old = [hashlib.sha256(path.read_bytes()).hexdigest()] if path.is_file() else []
        versions = {"python": sys.version.split()[0], "torch": torch.__version__, **info.get("versions", {})}
        info = {**info, "versions": versions, "git": git_hash()}
        info = {**info, "weights_sha256": [hashlib.sha256(blob).hexdigest(), *old]}
        files = [(folder / "agent.json", json.dumps(info, indent=1).encode()), (path, blob)]
        if not files[0][0].exists():  # the first time there is no agent until both are there
            files.reverse()
        for file, data in files:
            write_atomically(file, data)
    except OSError as error:
        raise SaveFailed(
            f"could not save the agent to {folder}: {error}. The one before is whole. Free some space, then resume (or,"
            " where the run's folder is gone, begin a new run)"
        ) from error


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


def git_hash() -> str:
    """Short hash of the checkout this runs in, with + where it was changed; empty outside one."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
