"""Files that survive crashes: written aside, checksummed, renamed into place; only regular files are read."""

import hashlib
import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.errors import DamagedFile


def check_regular(path: Path) -> None:
    """Raise DamagedFile for what is there and no file: opening a named pipe would wait for ever."""
    if path.exists() and not path.is_file():
        raise DamagedFile(f"{path} is no regular file; remove it, or name another")


def read_bytes(path: Path) -> bytes:
    """Of a regular file. Raises FileNotFoundError, DamagedFile."""
    check_regular(path)
    return path.read_bytes()


def read_json(path: Path, kind: type = dict) -> Any:
    """The JSON value in a file, which must be of this Python type. Raises FileNotFoundError, DamagedFile."""
    try:
        values = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path} is no JSON: {error}") from error
    if not isinstance(values, kind):
        raise DamagedFile(f"{path} holds no {kind.__name__}")
    return values


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


def sweep(run_dir: Path) -> None:
    """Remove what `write_atomically` left in a run's folder when it was killed; its lock must be held."""
    for path in (path for depth in (".*", "*/.*", "*/*/.*") for path in run_dir.glob(depth)):
        if re.fullmatch(r"\..+\.\d+", path.name) and path.is_file():
            path.unlink()


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
        self.path.parent.mkdir(exist_ok=True)
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
        """Yield (chunk, bytes) of a table that `write` returned; None for a damaged chunk. Raises DamagedFile."""
        check_regular(self.path)
        self._table = dict(table)
        with open(self.path, "rb") if self.path.exists() else io.BytesIO() as f:
            for chunk, (slot, size, digest) in table.items():
                f.seek(slot * self.slot_bytes)
                data = f.read(size)
                yield chunk, data if hashlib.sha256(data).hexdigest() == digest else None
