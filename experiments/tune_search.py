"""What is searched: the words of --search, checked against the command's fields.

trainer.lr=log:1e-5:1e-2      a range of numbers, drawn by their logarithm
batch_size=32:128             a range; whole numbers, as the field is one
batch_size=32,64,128          one of these
double=true,false             on or off
hidden=256,"256 128"          one of these, where a field takes several words
"""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlkit.config import Field, check_bounds, fields

if TYPE_CHECKING:
    from optuna import Trial

Parse = Callable[[list[str]], Any]
"""flags of the command -> its configuration; raises ValueError or SystemExit"""

OWN = ("preset", "resume", "seed", "together", "eval_every")
"""fields that no search may change: without the same evaluations, trials cannot be compared while they run"""


@dataclass(frozen=True)
class Searched:
    """A field and what it may be: one of `choices`, or a number between `low` and `high`.

    default: what the command takes by itself, as a value of this search; None where that is not within it.
    """

    name: str
    flag: str
    kind: type
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    default: Any = None

    def suggest(self, trial: "Trial") -> Any:
        """The value that a trial takes."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.kind is int:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def words(self, value: Any) -> list[str]:
        """The flag that gives the command this value."""
        if self.kind is bool:
            head, dot, tail = self.flag.removeprefix("--").rpartition(".")
            return [f"--{head}{dot}{'' if value == 'true' else 'no-'}{tail}"]
        if self.kind is tuple:
            return [self.flag, *value.split()]
        return [f"{self.flag}={value}"]


def read_search(texts: Sequence[str], parse: Parse, extra: Sequence[str]) -> list[Searched]:
    """The search that --search asks for, of a command that is given the flags `extra` besides.

    Raises ValueError for unknown names, values that the command refuses and ranges of what is no number.
    """
    if not texts:
        raise ValueError("--search is empty: name a field and its values, as in trainer.lr=log:1e-5:1e-2")
    base = parse([*extra])
    check_bounds(base)
    known = {field_name(field): field for field in fields(base)}
    found = [_read(text, known, parse, extra) for text in texts]
    for one in found:
        if [other.name for other in found].count(one.name) > 1:
            raise ValueError(f"--search names {one.name} twice")
        if any(word.partition("=")[0].replace("_", "-") == one.flag for word in extra):
            raise ValueError(f"{one.flag} is searched: leave it out of the command's own flags")
    return found


def field_name(field: Field) -> str:
    """`trainer.log_every`, as it is written in Python."""
    return field.flag.removeprefix("--").replace("-", "_")


def _read(text: str, known: dict[str, Field], parse: Parse, extra: Sequence[str]) -> Searched:
    name, equals, values = text.partition("=")
    name = name.removeprefix("--").replace("-", "_")
    if not equals or not values:
        raise ValueError(f"--search {text}: write NAME=A,B,C or NAME=LOW:HIGH or NAME=log:LOW:HIGH")
    if name not in known:
        close = [other for other in known if other.endswith(f".{name}")] or difflib.get_close_matches(name, known, 1)
        raise ValueError(f"--search {text}: there is no {name}{f'; {close[0]}?' if close else ''}")
    if name in OWN:
        raise ValueError(f"--search {text}: {name} is the same in all trials")
    field = known[name]

    def value_of(words: list[str]) -> Any:
        """What the command makes of a value."""
        try:
            cfg = parse([*extra, *words])
            check_bounds(cfg)
        except (SystemExit, ValueError) as error:
            why = f" ({error})" if isinstance(error, ValueError) else ""
            raise ValueError(f"--search {text}: the command refuses {' '.join(words)}{why}") from None
        return next(one.value for one in fields(cfg) if one.flag == field.flag)

    scale, colon, rest = values.partition(":")
    if not colon:
        kind: type = bool if isinstance(field.value, bool) else tuple if isinstance(field.value, tuple) else str
        one = Searched(name, field.flag, kind, tuple(dict.fromkeys(values.split(","))))
        if kind is bool and set(one.choices) - {"true", "false"}:
            raise ValueError(f"--search {text}: {name} is true or false")
        meant = {choice: value_of(one.words(choice)) for choice in one.choices}
        default = next((choice for choice, value in meant.items() if value == field.value), None)
        return Searched(name, field.flag, kind, one.choices, default=default)
    log = scale == "log"
    low_text, _, high_text = rest.partition(":") if log else (scale, "", rest)
    low, high = (value_of([f"{field.flag}={end}"]) for end in (low_text, high_text))
    kind = type(low)
    if kind not in (int, float) or not math.isfinite(low) or not math.isfinite(high):
        raise ValueError(f"--search {text}: {name} is no number; list its values, with commas")
    if not low < high or (log and low <= 0):
        raise ValueError(f"--search {text}: a range goes up{', and with log begins above 0' if log else ''}")
    inside = isinstance(field.value, (int, float)) and low <= field.value <= high
    return Searched(name, field.flag, kind, (), low, high, log, kind(field.value) if inside else None)
