"""KataGo's commands for rules and parameters in the Go Text Protocol: what of them is obeyed here, and what is refused.

Each takes the `Engine` that it asks or changes, and the words behind the command's name.
"""

import json
import sys
from dataclasses import asdict, replace
from typing import Any

from envs.go.gtp_text import Refused, integer, number
from envs.go.rulesets import KO, Ruleset, parse_rules

PARAMETERS = {"maxVisits": ("simulations", 1 << 50), "maxTime": ("seconds", 1e20)}
"""KataGo's name -> the player's attribute, and how KataGo writes that there is no limit"""


def current_rules(engine: Any) -> Ruleset:
    """Those of the position, which a loaded game may have brought with it."""
    position = engine.position
    ko = next(name for name, superko in KO.items() if superko == position.superko)
    return replace(engine.rules, ko=ko, suicide=position.suicide)


def set_rules(engine: Any, text: str, *more: str) -> None:
    """Rules by name, or as a JSON object; from here on, and where moves are taken back. The stones stay."""
    text = " ".join([text, *more])
    try:
        rules = parse_rules(text)
    except ValueError as error:
        raise Refused(str(error)) from None
    if '"komi"' in text:
        raise Refused("the komi is no rule here: say komi POINTS")
    _obey(engine, rules)
    if rules.whiteHandicapBonus != "0":
        print("White gets no points for Black's handicap stones: set the komi", file=sys.stderr)


def set_rule(engine: Any, name: str, value: str) -> None:
    """One of the rules alone: `kata-set-rule ko SIMPLE`."""
    rules: dict[str, Any] = asdict(current_rules(engine))
    if name not in rules:
        raise Refused(f"no rule: {name}; there are {' '.join(rules)}")
    if isinstance(rules[name], bool) and value.lower() not in ("true", "false"):
        raise Refused(f"{name} is true or false, not {value}")
    rules[name] = value.lower() == "true" if isinstance(rules[name], bool) else value.upper()
    try:
        wanted = parse_rules(rules)
    except ValueError as error:
        raise Refused(str(error)) from None
    if wanted.whiteHandicapBonus != "0":
        raise Refused("White gets no points for handicap stones here: set the komi, and leave whiteHandicapBonus 0")
    _obey(engine, wanted)


def kgs_rules(engine: Any, name: str) -> None:
    """As KGS calls them: chinese, aga, japanese or new_zealand."""
    set_rules(engine, "chinese-kgs" if name.lower() == "chinese" else name)


def _obey(engine: Any, rules: Ruleset) -> None:
    wrong = [
        *(["territory"] if rules.scoring != "AREA" else []),
        *([f"a tax on {'seki' if rules.tax == 'SEKI' else 'all groups'}"] if rules.tax != "NONE" else []),
        *(["a button"] if rules.hasButton else []),
    ]
    if wrong:
        raise Refused(f"not played here: {', '.join(wrong)}; the nearest rules are {rules.played}")
    engine.rules = rules.played
    if current_rules(engine) != engine.rules:
        engine.position = engine.position.with_rules(engine.rules.superko, engine.rules.suicide)


def parameters(engine: Any) -> list[str]:
    """Names of those that this player has."""
    return [name for name, (attribute, _) in PARAMETERS.items() if hasattr(engine.player, attribute)]


def get_parameter(engine: Any, name: str) -> str:
    attribute, unlimited = _parameter(engine, name)
    value = engine.seconds if attribute == "seconds" else getattr(engine.player, attribute)
    value = unlimited if value is None else value
    return f"{value:g}" if attribute == "seconds" else str(value)


def set_parameter(engine: Any, name: str, value: str) -> None:
    """The seconds hold until the clock says otherwise."""
    attribute, unlimited = _parameter(engine, name)
    if attribute == "seconds":
        seconds = number(value, 0)
        if seconds >= unlimited and getattr(engine.player, "simulations", 0) is None:
            raise Refused("a move needs a limit: set maxVisits before")
        engine.seconds = engine.player.seconds = None if seconds >= unlimited else seconds
    elif not integer(value):
        raise Refused(f"{name} is 1 at least")
    else:
        engine.player.simulations = integer(value)


def _parameter(engine: Any, name: str) -> tuple[str, float]:
    known = parameters(engine)
    if name not in known:
        raise Refused(f"invalid parameter: {name}; there are: {' '.join(known) or 'none'}")
    return PARAMETERS[name]


def models(engine: Any) -> str:
    """A JSON array, empty for a player without a network."""
    facts = {"internalName": engine.name, "maxBatchSize": getattr(engine.player, "leaves", 1), "name": engine.name}
    facts |= {"usesHumanSLProfile": False, "usingFP16": "false", "version": 1}
    return json.dumps([facts] if hasattr(engine.player, "describe") else [], separators=(",", ":"))
