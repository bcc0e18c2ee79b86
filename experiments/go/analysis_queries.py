"""Queries of KataGo's analysis engine: JSON objects read into positions to search, with its words for what is wrong."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.go.position import BLACK, WHITE, IllegalMove, Position, from_vertex
from envs.go.rulesets import parse_rules

COLOURS = {"b": BLACK, "black": BLACK, "w": WHITE, "white": WHITE}
PERSPECTIVES = {"BLACK": BLACK, "WHITE": WHITE, "SIDETOMOVE": None}
MOST = 0x3FFFFFFFFFFFFFFF
PAIRS = 'Must be an array of pairs of the form: ["b" or "w", GTP board vertex]'
RESTRICTIONS = "Must be a list of dicts with subfields 'player', 'moves', 'untilDepth'"
SIZE = "Must provide an integer from 2 to 19"
TURNS = "Must specify an array of integers indicating turns to analyze"
RULES = (
    'Must specify rules string, such as "chinese" or "tromp-taylor", or a JSON object with detailed rules parameters.'
)


class Wrong(Exception):
    """A query that cannot be answered: its message and the field that is at fault."""

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field


@dataclass
class Query:
    """What is asked about the positions of one game."""

    id: str
    turns: list[tuple[int, int, Position]] = field(default_factory=list)
    """(turn number, priority, position)"""
    visits: int = 0
    seconds: float = math.inf
    perspective: int | None = BLACK
    """whose win rates and scores are told: BLACK, WHITE, None for the side to move"""
    pv_length: int = 15
    report_every: float = math.inf
    """seconds between reports while a search goes on"""
    first_report: float = math.inf
    include: set[str] = field(default_factory=set)
    """of Ownership, MovesOwnership, Policy"""
    forbidden: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    """colour -> [points + 1], the moves that it may not begin with"""
    warnings: list[tuple[str, str]] = field(default_factory=list)
    """(field, message)"""


class Fields:
    """The fields of a JSON object, each read with a check; raises Wrong."""

    def __init__(self, values: dict[str, Any], height: int = 0, width: int = 0):
        self.values, self.height, self.width = values, height, width

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def integer(self, name: str, low: int, high: int, message: str) -> int:
        value = self.values.get(name)
        if type(value) is not int or not low <= value <= high:
            raise Wrong(name, message)
        return value

    def number(self, name: str, low: float, high: float, message: str) -> float:
        value = self.values.get(name)
        if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
            raise Wrong(name, message)
        return float(value)  # type: ignore[arg-type]

    def boolean(self, name: str) -> bool:
        value = self.values.get(name, False)
        if not isinstance(value, bool):
            raise Wrong(name, "Must be a boolean")
        return value

    def integers(self, name: str, message: str) -> list[int]:
        value = self.values.get(name)
        if not isinstance(value, list) or not all(type(x) is int for x in value):
            raise Wrong(name, message)
        return value

    def player(self, name: str) -> int:
        value = self.values.get(name)
        if not isinstance(value, str) or value.lower() not in COLOURS:
            raise Wrong(name, 'Must be "b" or "w"')
        return COLOURS[value.lower()]

    def point(self, name: str, text: Any, message: str, passes: bool = True) -> int:
        if not isinstance(text, str):
            raise Wrong(name, message)
        try:
            if found := re.fullmatch(r"\((\d{1,2}),(\d{1,2})\)", text, re.ASCII):
                column, row = int(found[1]), int(found[2])
                move = row * self.width + column if column < self.width and row < self.height else -1
            else:
                move = from_vertex(text, self.height, self.width)
        except ValueError:
            move = -1
        if move < 0 or (move == self.height * self.width and not passes):
            raise Wrong(name, f"Could not parse board location: {text[:100]}")
        return move

    def moves(self, name: str, passes: bool) -> list[tuple[int, int]]:
        """(colour, move)"""
        found = []
        values = self.values[name]
        if not isinstance(values, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in values):
            raise Wrong(name, PAIRS)
        for player, where in values:
            if not isinstance(player, str) or not isinstance(where, str):
                raise Wrong(name, PAIRS)
            if player.lower() not in COLOURS:
                raise Wrong(name, f"Could not parse player: {player[:100]}")
            found.append((COLOURS[player.lower()], self.point(name, where, PAIRS, passes)))
        return found


def read_query(values: dict[str, Any], visits: int, perspective: int | None) -> Query:
    """A query, with these where it does not say itself how many visits, and who sees the win rates. Raises Wrong."""
    fields = Fields(values)
    width, height = (fields.integer(name, 2, 19, SIZE) for name in ("boardXSize", "boardYSize"))
    fields = Fields(values, height, width)
    query = Query(values["id"], visits=visits, perspective=perspective)
    stones = fields.moves("initialStones", False) if "initialStones" in fields else []
    if "moves" not in fields:
        raise Wrong("moves", "Must specify an array of [player,location] pairs")
    moves = fields.moves("moves", True)
    first = fields.player("initialPlayer") if "initialPlayer" in fields else None
    priorities = _priorities(fields, len(moves))
    rules = _rules(fields, query)
    komi = rules.komi
    if "komi" in fields:
        message = "Must be a integer or half-integer from -150.0 to 150.0"
        komi = fields.number("komi", -150, 150, message)
        if 2 * komi != round(2 * komi):
            raise Wrong("rules", message)
    _settings(fields, query)
    if "maxVisits" in fields:
        query.visits = fields.integer("maxVisits", 1, 1 << 50, "Must be an integer from 1 to 2^50")
    if "analysisPVLen" in fields:
        query.pv_length = fields.integer("analysisPVLen", 1, 1000, "Must be an integer from 1 to 1000")
    for name in ("Ownership", "MovesOwnership", "Policy", "PVVisits", "OwnershipStdev", "MovesOwnershipStdev"):
        if fields.boolean(f"include{name}"):
            query.include.add(name)
    seconds = "Must be number of seconds from 0.001 to 1000000.0"
    if "reportDuringSearchEvery" in fields:
        query.report_every = query.first_report = fields.number("reportDuringSearchEvery", 0.001, 1e6, seconds)
    if "firstReportDuringSearchAfter" in fields:
        query.first_report = fields.number("firstReportDuringSearchAfter", 0.001, 1e6, seconds)
    _restrict(fields, query)
    if first is None:
        black = sum(colour == BLACK for colour, _ in stones)
        first = moves[0][0] if moves else WHITE if black > 1 and black == len(stones) else BLACK
    positions = _replay(fields, komi, (rules.superko, rules.suicide), stones, moves, first)
    query.turns = [(turn, priority, positions[turn]) for turn, priority in priorities.items()]
    return query


def _priorities(fields: Fields, moves: int) -> dict[int, int]:
    """Turn -> priority, by turn."""
    turns = fields.integers("analyzeTurns", TURNS) if "analyzeTurns" in fields else [moves]
    for turn in turns:
        if not 0 <= turn <= moves:
            raise Wrong("analyzeTurns", f"Invalid turn number: {turn}")
    priorities = [0] * len(turns)
    if "priorities" in fields:
        priorities = fields.integers("priorities", "Must specify an array of integers indicating priorities")
        if "analyzeTurns" not in fields:
            raise Wrong("priorities", "Can only specify when also specifying analyzeTurns")
        if len(priorities) != len(turns):
            raise Wrong("priorities", "Must be of matching length to analyzeTurns")
        for priority in priorities:
            if abs(priority) > MOST:
                raise Wrong("priorities", f"Invalid priority: {priority}")
        if "priority" in fields:
            raise Wrong("priority", "Cannot specify both priority and priorities")
    elif "priority" in fields:
        message = "Must be a number between -2^62 and 2^62"
        priorities = [fields.integer("priority", -MOST, MOST, message)] * len(turns)
    return dict(sorted(zip(turns, priorities, strict=True)))


def _rules(fields: Fields, query: Query) -> Any:
    text = fields.values.get("rules")
    if not isinstance(text, (str, dict)):
        raise Wrong("rules", RULES)
    try:
        rules = parse_rules(text)
    except (ValueError, TypeError):
        raise Wrong("rules", f"Could not parse rules: {str(text)[:200]}") from None
    if rules.scoring != "AREA" or rules.tax != "NONE" or rules.hasButton:
        query.warnings.append(("rules", f"Rules {rules} not supported by neural net, using {rules.played} instead"))
    return rules


def _settings(fields: Fields, query: Query) -> None:
    settings = fields.values.get("overrideSettings", {})
    if not isinstance(settings, dict):
        raise Wrong("overrideSettings", "Must be an object")
    own = Fields(settings)
    try:
        if "reportAnalysisWinratesAs" in own:
            name = str(settings["reportAnalysisWinratesAs"]).upper()
            if name not in PERSPECTIVES:
                raise Wrong("", f"reportAnalysisWinratesAs must be one of {', '.join(PERSPECTIVES)}")
            query.perspective = PERSPECTIVES[name]
        if "maxTime" in own:
            query.seconds = own.number("maxTime", 0, 1e20, "maxTime must be a number of seconds")
        for name in ("maxVisits", "maxPlayouts"):
            if name in own:
                query.visits = own.integer(name, 1, 1 << 50, f"{name} must be an integer from 1 to 2^50")
    except Wrong as error:
        raise Wrong("overrideSettings", f"Could not set settings: {error}") from None
    known = {"reportAnalysisWinratesAs", "maxTime", "maxVisits", "maxPlayouts"}
    if unknown := [str(name)[:100] for name in settings if name not in known]:
        query.warnings.append(("overrideSettings", f"Unknown config params: {','.join(unknown[:50])}"))


def _restrict(fields: Fields, query: Query) -> None:
    """allowMoves and avoidMoves, which here hold for the first move alone."""
    names = [name for name in ("allowMoves", "avoidMoves") if name in fields]
    if not names:
        return
    if len(names) > 1:
        raise Wrong("allowMoves", "Cannot specify both allowMoves and avoidMoves")
    name, entries = names[0], fields.values[names[0]]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Wrong(name, RESTRICTIONS)
    if name == "allowMoves" and len(entries) > 1:
        raise Wrong(name, "Currently allowMoves only allows one entry")
    for entry in entries:
        if not {"moves", "untilDepth", "player"} <= entry.keys():
            raise Wrong(name, RESTRICTIONS)
        own = Fields(entry, fields.height, fields.width)
        colour = own.player("player")
        if not isinstance(entry["moves"], list):
            raise Wrong("moves", "Must be an array of GTP board vertices")
        moves = [own.point("moves", move, "Must be an array of GTP board vertices") for move in entry["moves"]]
        if own.integer("untilDepth", 1, 10**9, "Must be a positive integer") > 2:
            query.warnings.append((name, "Only the first move is restricted, whatever untilDepth says"))
        shape = fields.height * fields.width + 1
        mask = query.forbidden.setdefault(colour, np.zeros(shape, np.bool_))
        if name == "allowMoves":
            mask[:] = True
        mask[moves] = name == "avoidMoves"


def _replay(
    fields: Fields,
    komi: float,
    rules: tuple[Any, bool],
    stones: list[tuple[int, int]],
    moves: list[tuple[int, int]],
    first: int,
) -> list[Position]:
    """The positions before each move and after the last; boards may come back, and suicides be played, if need be."""
    points = {move: colour for colour, move in stones}  # the last one said counts
    sides = ([move for move, colour in points.items() if colour == side] for side in (BLACK, WHITE))
    black, white = sides
    error: Wrong | None = None
    for superko, suicide in dict.fromkeys([rules, ("simple", rules[1]), ("simple", True)]):
        start = Position.empty((fields.height, fields.width), komi, superko=superko, suicide=suicide)
        try:
            positions = [start.setup(black, white, to_play=first)]
        except ValueError as reason:
            raise Wrong("initialStones", f"Illegal stones: {reason}") from None
        for number, (colour, move) in enumerate(moves):
            try:
                before = positions[-1]
                if colour != before.to_play:
                    before = positions[-1] = before.replace(to_play=colour)
                positions.append(before.play(move, force=True))
            except IllegalMove:
                text = str(fields.values["moves"][number][1])
                error = error or Wrong("moves", f"Illegal move {number}: {text}")
                break
        else:
            return positions
    assert error is not None
    raise error
