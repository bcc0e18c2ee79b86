"""Settings: a dataclass for each command, whose fields carry help and bounds, and whether a run may change them.

@dataclass
class Config(RunConfig):
    batch_size: Annotated[int, AtLeast(1), Fixed] = 128
    \"\"\"transitions in an update\"\"\"
"""

import dataclasses
import functools
import inspect
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import tyro


@dataclass(frozen=True)
class Between:
    """A number must lie here, both ends included."""

    low: float
    high: float


@dataclass(frozen=True)
class AtLeast(Between):
    """A number must not be less."""

    high: float = math.inf


class Divided:
    """A field of which each of several ranks gets its share (rlkit/parallel/ranks.py)."""


class Fixed:
    """A field that must stay what it was when a run goes on: its checkpoints would not fit, or its numbers mislead."""


@dataclass
class RunConfig:
    """What every run of every command can be asked for."""

    preset: Annotated[str, Fixed] = ""
    """which set of defaults the other settings begin with"""
    resume: str | None = None
    """folder of a run to go on with"""
    seed: Annotated[int, AtLeast(0)] = 1
    """seed of all random numbers"""
    minutes: Annotated[float, AtLeast(0)] = 0
    """minutes that this process may take, its last evaluation and save included; 0: no limit"""
    device: str = "auto"
    """where the network runs: cpu, cuda, cuda:1, ..., or auto, a GPU if there is one"""
    threads: Annotated[int, AtLeast(0)] = 0
    """CPU threads, for the same numbers again from the same seed; 0: as many as there are idle cores"""


# -- fields ------------------------------------------------------------------------------------------------------------


class Field(NamedTuple):
    flag: str
    """how the command line calls it"""
    value: Any
    marks: tuple
    """what its annotation says beside the type"""


def fields(cfg: Any, prefix: str = "", fixed: bool = False) -> Iterator[Field]:
    """The fields of a configuration and of the dataclasses in it."""
    kind: Any = type(cfg)
    for name, marks in annotations(kind).items():
        value, marks = getattr(cfg, name), (*marks, Fixed) if fixed else marks
        if dataclasses.is_dataclass(value):
            inner = prefix if tyro.conf.OmitArgPrefixes in marks else f"{prefix}{name}."
            yield from fields(value, inner, Fixed in marks)
        else:
            yield Field(flag(prefix + name), value, marks)


@functools.cache
def annotations(kind: Any) -> dict[str, tuple]:
    """Of each field, also where a subclass only gives it another default."""
    marks: dict[str, tuple] = {}
    for base in reversed(kind.__mro__):
        if base is not object:
            hints = get_type_hints(base, include_extras=True)
            for name in inspect.get_annotations(base):
                marks[name] = marks.get(name, ()) + getattr(hints[name], "__metadata__", ())
    return marks


def flag(name: str) -> str:
    """`trainer.log_every` as the command line has it: --trainer.log-every."""
    return "--" + re.sub("_(?=.)", "-", name)


UNNAMED = {
    "preset", "resume", "seed", "minutes", "device", "threads", "env", "vectorization", "frames", "together", "steps",
    "log-every", "progress",
}  # fmt: skip
"""settings that run folders are not named by: what stands there already, and where, how long, how loudly it runs"""


def with_changes(name: str, cfg: Any) -> str:
    """A run's name and what it changes of its preset, as `pong_lr=0.001_no-double`, in some 60 characters at most."""
    presets = getattr(sys.modules[type(cfg).__module__], "PRESETS", {})  # they stand beside their Config
    base = presets.get(getattr(cfg, "preset", None))
    known = {*re.split("[-_x]", name)}
    for new, old in zip(fields(cfg), fields(base), strict=True) if base else ():
        key, value = new.flag.removeprefix("--").rpartition(".")[2], new.value
        text = f"{value:g}" if isinstance(value, float) else str(value)
        if new.value == old.value or key in UNNAMED or key.startswith(("eval-", "save-")) or {text} <= known:
            continue
        part = f"{key}={text}" if not isinstance(value, bool) else key if value else f"no-{key}"
        if len(name) + len(part) > 60:
            return f"{name}_more"
        name += "_" + re.sub("[^A-Za-z0-9.+=-]+", "-", part)
    return name


def check_bounds(cfg: Any) -> None:
    """Raise ValueError where a number is not finite or not within its field's bounds. None, which stands for a default,
    is within every bound.
    """
    for name, value, marks in fields(cfg):
        numbers = value if isinstance(value, tuple) else (value,)
        for x in (x for x in numbers if isinstance(x, (int, float))):
            if isinstance(x, float) and not math.isfinite(x):
                raise ValueError(f"{name} must be finite, not {x}")
            for bound in (mark for mark in marks if isinstance(mark, Between)):
                if not bound.low <= x <= bound.high:
                    wanted = f"at least {bound.low:g}"
                    if bound.high < math.inf:
                        wanted = f"between {bound.low:g} and {bound.high:g}"
                    raise ValueError(f"{name} must be {wanted}, not {x}")


CONFIGS: dict[Path, str] = {}
"""config.json of the runs of this process, which goes into their checkpoints too"""
