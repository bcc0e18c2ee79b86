"""Files that a run learns from: found in folders, and compared by checksum when the run is resumed."""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rlkit.config import flag
from rlkit.errors import DamagedFile
from rlkit.files import check_regular, read_json, write_atomically
from rlkit.logger import say

C = TypeVar("C")
LEFTOVERS = {
    "__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "ehthumbs.db",
    "desktop.ini",
}  # fmt: skip
"""files and folders that operating systems leave behind, in small letters, beside names that begin with a dot"""


def is_leftover(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in LEFTOVERS


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and in those inside, sorted, without leftovers; a folder that is linked comes once.

    Raises OSError for a folder that cannot be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    todo = [folder]
    while todo:
        here = todo.pop()
        if (place := os.path.realpath(here)) in seen:
            continue
        seen.add(place)
        for path in sorted(here.iterdir()):
            if not is_leftover(path):
                (todo if path.is_dir() else found).append(path)
    return sorted(found)


def unpacked(path: Path) -> bytes:
    """What a file holds, unpacked if its name ends with .gz. Raises FileNotFoundError, ValueError."""
    check_regular(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}; get it anew") from error


def fingerprint(files: Sequence[Path]) -> str:
    """sha256 of a file, or of the contents of several and their names below the folder that holds all, in any order."""
    digests = []
    top = os.path.commonpath([path.absolute().parent for path in files])
    for path in files:
        digest = hashlib.sha256()
        with open(path, "rb") as f:
            while block := f.read(1 << 20):
                digest.update(block)
        digests.append((path.absolute().relative_to(top).as_posix(), digest.hexdigest()))
    return digests[0][1] if len(digests) == 1 else hashlib.sha256(json.dumps(sorted(digests)).encode()).hexdigest()


def located(cfg: C, *names: str) -> C:
    """cfg with absolute paths in these fields, so that its run goes on from any folder.

    Raises FileNotFoundError where a run goes on and one of them is not there.
    """
    for name in names:
        path, resume = getattr(cfg, name), cfg.resume  # type: ignore[attr-defined]
        if path and os.path.exists(path):
            cfg = replace(cfg, **{name: os.path.abspath(path)})  # type: ignore[type-var]
        elif path and resume:
            raise FileNotFoundError(
                f"there is no {path}, which {resume} learns from: say where it is now by {flag(name)} PATH"
            )
    return cfg


def named(cfg: Any, *names: str) -> dict[str, list[Path]]:
    """The file that each of these fields names, if it does."""
    return {name: [Path(path)] if (path := getattr(cfg, name)) else [] for name in names}


def agent_files(path: str | Path | None) -> list[Path]:
    """The weights of an agent, which its own folder names, or that of its run; none where there is no path."""
    if not path:
        return []
    inside = Path(path) / "agent" / "weights.safetensors"
    return [inside if inside.is_file() else Path(path) / "weights.safetensors"]


class DataFiles:
    """The files that a run learns from, by the field that names them (none where it is empty).

    Their checksums are in the run's data.json: a resumed run must have the same data, which may have moved.
    """

    def __init__(self, cfg: Any, files: Mapping[str, Sequence[Path]]):
        self.paths = {name: getattr(cfg, name) for name in files}
        self.known = {
            name: {"path": str(self.paths[name] or some[0].parent), "sha256": fingerprint(some)}
            for name, some in files.items()
            if some
        }

    def save(self, run_dir: Path) -> None:
        """Write data.json."""
        write_atomically(run_dir / "data.json", json.dumps(self.known, indent=1).encode())

    def check(self, run_dir: Path, before: Any) -> None:
        """Raise ValueError where a run, which has the configuration `before`, would go on with other data.

        One from before there was a data.json must keep its paths, except where there is nothing any more.
        """
        theirs = _known(run_dir / "data.json")
        for name, new in self.paths.items():
            old = getattr(before, name)
            if name in theirs and name in self.known:
                then, now = theirs[name], self.known[name]
                if then["sha256"] == now["sha256"]:
                    continue
                if os.path.abspath(then["path"]) == os.path.abspath(now["path"]):
                    raise ValueError(f"{now['path']} has changed since {run_dir} began: restore it, or begin a new run")
                raise ValueError(
                    f"{flag(name)} {now['path']} holds other data than {then['path']}, which {run_dir} learns from: "
                    "name the same, or begin a new run"
                )
            if old == new or (old and new and os.path.abspath(old) == os.path.abspath(new)):
                continue
            if name in theirs or not old or not new or os.path.exists(old):
                raise ValueError(f"{flag(name)} cannot change when a run goes on: {run_dir} has {old}; begin a new run")
            say(f"{run_dir} has no checksum of {old}, which is gone: {new} is taken for the same")


def _known(path: Path) -> dict[str, dict[str, str]]:
    """What a data.json says, nothing where there is none. Raises DamagedFile."""
    try:
        known = read_json(path) if path.exists() else {}
        if not all({"path", "sha256"} <= set(entry) for entry in known.values()):
            raise ValueError("an entry has no path or no sha256")
    except (AttributeError, TypeError, ValueError) as error:
        raise DamagedFile(f"{path} is no record of data: {error}; remove it, and paths are compared") from error
    return known
