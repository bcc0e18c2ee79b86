"""Rotated checkpoints, and agents saved. Loading never runs code from a file."""

import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from rlkit.config import CONFIGS
from rlkit.errors import DamagedFile, NonFiniteLoss, SaveFailed
from rlkit.files import read_bytes, write_atomically
from rlkit.runtime import rank

MAGIC = b"RLK1"


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
    if rank():
        return  # the first of several ranks saves
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


def git_hash() -> str:
    """Short hash of the checkout this runs in, with + where it was changed; empty outside one."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
