"""The configuration of a run from its config.json: checked, with the keys of today, written anew where it is lost."""

import contextlib
import dataclasses
import json
from collections.abc import Container
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rlkit.config import Fixed, fields
from rlkit.errors import DamagedFile
from rlkit.files import read_json, write_atomically

C = TypeVar("C")

RENAMED = {"game": "env", "games": "envs"}
"""keys of older files"""


def load_config(kind: type[C], run_dir: Path) -> C:
    """The configuration of a run; a lost config.json is written anew from the newest whole checkpoint.

    Raises FileNotFoundError, DamagedFile, and ValueError for keys that `kind` does not have.
    """
    path = Path(run_dir) / "config.json"
    try:
        return _config_from(kind, read_json(path), path)
    except (DamagedFile, OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        if found := _recovered(kind, path, f"{path} is missing" if missing else str(error)):
            return found
        raise FileNotFoundError(f"{run_dir} is no run: it has no config.json") if missing else error from None


def renamed(values: dict[str, Any], names: Container[str]) -> dict[str, Any]:
    """The values of a config.json, older ones under the keys that they have now, where those are among `names`."""
    return {
        new if name not in names and (new := RENAMED.get(name, name)) in names else name: value
        for name, value in values.items()
    }


def _config_from(kind: type[C], values: dict[str, Any], path: Path) -> C:
    values = renamed(values, get_type_hints(kind))
    values.pop("threads_in_use", None)
    return from_dict(kind, values, str(path))


def _recovered(kind: type[C], path: Path, why: str) -> C | None:
    """Write config.json anew from a checkpoint of its run, and say so; None where none has a fitting one."""
    from rlkit.checkpoint import checkpoints, load_checkpoint  # torch comes with it
    from rlkit.logger import say

    for folder in [*path.parent.glob("checkpoints"), *path.parent.glob("*/checkpoints")]:
        for saved in checkpoints(folder):
            with contextlib.suppress(DamagedFile, ValueError):
                if text := load_checkpoint(saved).get("config"):
                    cfg = _config_from(kind, json.loads(text), saved)
                    write_atomically(path, text.encode())
                    say(f"{why}; written anew from {saved}")
                    return cfg
    return None


def check_fixed(cfg: Any, before: Any, run_dir: Path) -> None:
    """Raise ValueError where a resumed run would change a fixed field."""
    for new, old in zip(fields(cfg), fields(before), strict=True):
        if Fixed in new.marks and new.value != old.value:
            raise ValueError(f"{new.flag} cannot change when a run goes on: {run_dir} has {old.value}; begin a new run")


# -- from plain values -------------------------------------------------------------------------------------------------


def from_dict(kind: type[C], values: dict[str, Any], where: str) -> C:
    """A dataclass (and the dataclasses in it) from plain values. Raises DamagedFile for values of other types than its
    fields', ValueError for unknown keys.
    """
    hints = get_type_hints(kind)
    if unknown := set(values) - set(hints):
        raise ValueError(
            f"{where} has unknown keys: {', '.join(sorted(unknown))}; is it a run of another experiment, or version?"
        )
    return kind(**{key: _restored(hints[key], value, f"{where}: {key}") for key, value in values.items()})


def _restored(hint: Any, value: Any, where: str) -> Any:
    """What JSON has for a field of this type."""
    kind, inner = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    if kind is tuple and isinstance(value, list):  # JSON has lists only
        return tuple(_restored(inner[0], item, where) for item in value)
    for one in inner if kind in (Union, UnionType) else ():
        with contextlib.suppress(DamagedFile):
            return _restored(one, value, where)
    if type(value) is hint or (hint is float and type(value) is int) or (kind is Literal and value in inner):
        return value
    raise DamagedFile(f"{where} cannot be {value!r}")
