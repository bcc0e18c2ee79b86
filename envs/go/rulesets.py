"""Rules of Go by name, as records and KataGo write them: what of them the board obeys, and what it cannot."""

import contextlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from envs.go.game import Superko

KO: dict[str, Superko] = {"SIMPLE": "simple", "POSITIONAL": "positional", "SITUATIONAL": "situational"}
"""KataGo's names of what we call superko"""


@dataclass(frozen=True)
class Ruleset:
    """Rules in KataGo's words (see `kata-get-rules` of its GTP). Our boards obey ko and suicide, and count area."""

    ko: str = "POSITIONAL"
    """a name in KO"""
    scoring: str = "AREA"
    """or TERRITORY"""
    tax: str = "NONE"
    """on two eyes of a group: NONE, SEKI or ALL"""
    suicide: bool = False
    hasButton: bool = False
    whiteHandicapBonus: str = "0"
    """points for White with handicap stones: 0, N or N-1"""
    friendlyPassOk: bool = True

    @property
    def superko(self) -> Superko:
        return KO[self.ko]

    @property
    def played(self) -> "Ruleset":
        """The nearest rules that our boards obey."""
        return Ruleset(self.ko, suicide=self.suicide, friendlyPassOk=self.friendlyPassOk)

    @property
    def komi(self) -> float:
        """Usual under these rules."""
        return 6.5 if self.scoring == "TERRITORY" else 7.0 if self.hasButton else 7.5

    def __str__(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


TROMP_TAYLOR = Ruleset(suicide=True, friendlyPassOk=False)
CHINESE = Ruleset("SIMPLE", whiteHandicapBonus="N")
JAPANESE = Ruleset("SIMPLE", "TERRITORY", "SEKI")
AGA = Ruleset("SITUATIONAL", whiteHandicapBonus="N-1")
NEW_ZEALAND = Ruleset("SITUATIONAL", suicide=True)
NAMED = {
    "tromp-taylor": TROMP_TAYLOR,
    "chinese": CHINESE,
    "chinese-ogs": Ruleset("POSITIONAL", whiteHandicapBonus="N"),
    "chinese-kgs": Ruleset("POSITIONAL", whiteHandicapBonus="N"),
    "japanese": JAPANESE,
    "korean": JAPANESE,
    "ancient-territory": Ruleset("SIMPLE", "TERRITORY", "ALL"),
    "ancient-area": Ruleset("SIMPLE", tax="ALL"),
    "stone-scoring": Ruleset("SIMPLE", tax="ALL"),
    "aga": AGA,
    "bga": AGA,
    "french": AGA,
    "aga-button": Ruleset("SITUATIONAL", hasButton=True, whiteHandicapBonus="N-1"),
    "new-zealand": NEW_ZEALAND,
    "nz": NEW_ZEALAND,  # these three as records write them
    "goe": Ruleset("SITUATIONAL", suicide=True, whiteHandicapBonus="N"),
    "ing": Ruleset("SITUATIONAL", suicide=True, whiteHandicapBonus="N"),
}


def parse_rules(text: str | dict[str, Any]) -> Ruleset:
    """Rules by a name of NAMED, by a JSON object as KataGo writes it, or by such an object. Raises ValueError."""
    if isinstance(text, str):
        name = "-".join(text.strip().lower().replace("_", "-").replace("(", " ").replace(")", " ").split())
        if name in NAMED:
            return NAMED[name]
        with contextlib.suppress(ValueError, RecursionError):
            text = json.loads(text)
    kinds = {"ko": KO, "scoring": ("AREA", "TERRITORY"), "tax": ("NONE", "SEKI", "ALL")}
    kinds |= {"whiteHandicapBonus": ("0", "N", "N-1")}
    if not isinstance(text, dict) or text.keys() - asdict(TROMP_TAYLOR).keys() - {"komi"}:
        raise ValueError(f"no rules: {text}; known are {', '.join(NAMED)}, or a JSON object as KataGo writes them")
    values = {name: value for name, value in text.items() if name != "komi"}
    for name, value in values.items():
        if not (isinstance(value, str) and value in kinds[name] if name in kinds else isinstance(value, bool)):
            raise ValueError(f"no rules: {name} cannot be {value!r}")
    return Ruleset(**values)
