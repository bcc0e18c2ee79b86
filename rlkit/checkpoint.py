"""Files that survive bad luck: written aside, checksummed, renamed into place. Loading never runs code from a file."""

import hashlib
import io
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from rlkit.errors import DamagedFile
from rlkit.run import git_hash

MAGIC = b"RLK1"


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write `path` so that at any moment either the old or the new content is there, whole.

    Raises OSError (a full disk, say) with the old file untouched.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(aside, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int = 3) -> Path:
    """Write folder/step_<step>.ckpt and keep the newest `keep`. Tensors and plain Python values only.

    Checkpoints of later steps belong to a run that was given up (or are damaged) and are removed as well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.write(hashlib.sha256(buffer.getbuffer()).digest() + MAGIC)
    path = folder / f"step_{step:012d}.ckpt"
    write_atomically(path, buffer.getbuffer())
    kept = [p for p in checkpoints(folder) if p <= path][:keep]
    for old in (*checkpoints(folder), *folder.glob(".step_*")):  # the dotted ones were left by a kill
        if old not in kept:
            old.unlink()
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in one file, on the CPU. Raises DamagedFile."""
    data = path.read_bytes()
    payload, digest, magic = data[:-36], data[-36:-4], data[-4:]
    if magic != MAGIC or hashlib.sha256(payload).digest() != digest:
        raise DamagedFile(f"{path} is truncated or altered: its checksum does not fit")
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints of a folder, newest first."""
    return sorted((p for p in folder.glob("step_*.ckpt") if re.fullmatch(r"step_\d+\.ckpt", p.name)), reverse=True)


class ChunkFile:
    """One file of equal slots that holds an array in chunks, for what is too large to be written anew at every save.

    `write` puts changed chunks into slots that the newest table does not use and returns a new table (slot and
    checksum of every chunk), which the caller stores in its checkpoint. Killed between the two, the old table and
    its slots are as they were. The file is at most twice the array, and as a rule the array plus one save's news.
    """

    def __init__(self, path: Path, slot_bytes: int):
        self.path, self.slot_bytes = path, slot_bytes
        self._table: dict[int, list] = {}  # chunk -> [slot, bytes, sha256]

    def write(self, chunks: Iterable[tuple[int, list[np.ndarray]]]) -> dict[int, list]:
        """Store (number, arrays of at most `slot_bytes` together) chunks; returns the table of all of them."""
        used = {slot for slot, _, _ in self._table.values()}
        free = (slot for slot in itertools.count() if slot not in used)
        table = dict(self._table)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "r+b" if self.path.exists() else "w+b") as f:
            for chunk, arrays in chunks:
                slot, size, digest = next(free), 0, hashlib.sha256()
                f.seek(slot * self.slot_bytes)
                for array in arrays:
                    data = np.ascontiguousarray(array).view(np.uint8).reshape(-1).data
                    digest.update(data)
                    size += f.write(data)
                table[chunk] = [slot, size, digest.hexdigest()]
            f.flush()
            os.fsync(f.fileno())
        self._table = table
        return table

    def read(self, table: dict[int, list]) -> Iterator[tuple[int, bytes | None]]:
        """Yield (chunk, bytes) of a table that `write` returned; None for a chunk that is damaged."""
        self._table = dict(table)
        with open(self.path, "rb") if self.path.exists() else io.BytesIO() as f:
            for chunk, (slot, size, digest) in table.items():
                f.seek(slot * self.slot_bytes)
                data = f.read(size)
                yield chunk, data if hashlib.sha256(data).hexdigest() == digest else None


def save_agent(folder: Path, info: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Write an agent's folder: weights.safetensors and agent.json, which holds the checksum of the former, this
    checkout's hash, and versions: of python and torch, and those that info["versions"] adds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blob = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in weights.items()})
    path = folder / "weights.safetensors"
    # Killed between the two files, the new description stands beside the old weights: it admits both.
    old = [hashlib.sha256(path.read_bytes()).hexdigest()] if path.exists() else []
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, **info.get("versions", {})}
    info = {**info, "versions": versions, "git": git_hash()}
    info = {**info, "weights_sha256": [hashlib.sha256(blob).hexdigest(), *old]}
    write_atomically(folder / "agent.json", json.dumps(info, indent=1).encode())
    write_atomically(path, blob)


def load_agent_files(
    path: Path, kind: str | None = None, otherwise: str = ""
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(agent.json, weights) of an agent's folder, or of the agent in a run's folder.

    Raises FileNotFoundError where there is no agent, DamagedFile where its files do not belong together, and, where a
    kind is given, ValueError for another, with what the message says `otherwise`.
    """
    folder = path / "agent" if (path / "agent" / "agent.json").exists() else path
    if not (folder / "agent.json").exists():
        hint = "the run has not saved one yet" if (path / "config.json").exists() else "name a run or agent folder"
        raise FileNotFoundError(f"{path} holds no agent (no agent.json): {hint}")
    try:
        info = json.loads((folder / "agent.json").read_text())
        blob = (folder / "weights.safetensors").read_bytes()
        if hashlib.sha256(blob).hexdigest() not in info["weights_sha256"]:
            raise DamagedFile(f"{folder}/weights.safetensors is truncated or altered: its checksum does not fit")
        weights = safetensors.torch.load(blob)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DamagedFile(f"{folder} is not a whole agent: {error!r}") from error
    if kind is not None and info.get("kind") != kind:
        raise ValueError(f"{path} holds an agent of kind {info.get('kind')!r}, {otherwise}")
    return info, weights


@contextmanager
def described(path: str | Path, what: str) -> Iterator[None]:
    """What goes wrong in rebuilding `what` from an agent's files, until the end of the block, is the files' fault."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedFile(f"{path}: agent.json does not describe {what}: {error!r}") from error


def borrow(module: nn.Module, path: Path, prefix: str = "") -> str:
    """Give a module those weights of an agent's or run's folder that fit it by name, after `prefix`, and shape.

    Returns what was taken and what was not, for people. Raises FileNotFoundError, DamagedFile, and ValueError where
    nothing fits.
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
