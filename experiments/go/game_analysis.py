"""A whole game analysed: all of its positions searched, what each move cost, and the biggest mistakes, as plain data.

    search = GameSearch(player, record, simulations=200)
    while search.step():                 some more of all positions at once; stop when you like
        ...
    found = search.result()              a GameAnalysis of what is known so far; asdict(found) is JSON

Win rates (0 to 1), scores (points) and ownership are Black's everywhere here; losses are those of who moved. Moves are
named as in GTP.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from envs.go.position import BLACK, EMPTY, Position, to_vertex
from envs.go.record import BrokenSGF, GameRecord
from envs.go.rulesets import TROMP_TAYLOR, parse_rules
from experiments.go.findings import black_numbers, board_rows, of_moves

TOGETHER = 128
"""positions that are searched at once, at most: more of them take more memory and are no faster"""
COLOURS = {EMPTY: "", BLACK: "B"}


@dataclass
class Candidate:
    """A move that the search has looked at."""

    move: str
    visits: int
    winrate: float
    prior: float
    pv: list[str]
    """the line that follows, this move included"""
    score: float | None = None
    score_stdev: float | None = None


@dataclass
class NodeAnalysis:
    """The position after a node of the record, and the move that led there."""

    node: int
    """its index in the record's nodes; the root is 0"""
    parent: int
    number: int
    """moves up to here"""
    colour: str
    """who moved: "B" or "W"; "" where there is no move"""
    move: str
    main: bool
    """it belongs to the game as it was played, not to a variation"""
    comment: str
    """the record's own"""
    to_play: str = "B"
    board: list[str] = field(default_factory=list)
    """rows of . X O from the top; none where the record cannot be played up to here"""
    visits: int = 0
    """simulations, and 1 for the position itself; 0: it was not analysed"""
    winrate: float | None = None
    score: float | None = None
    candidates: list[Candidate] = field(default_factory=list)
    """by visits, CANDIDATES at most"""
    policy: list[float] | None = None
    """the network's, of the points from the top left and then of the pass; -1: illegal"""
    ownership: list[float] | None = None
    """of the points from the top left: 1 Black's, -1 White's"""
    rank: int | None = None
    """the move's place among the candidates before it, 0 the best; None: it was not among them"""
    winrate_loss: float | None = None
    """what the move cost who made it; None: not known"""
    points_loss: float | None = None


@dataclass
class Mistake:
    """A move, and what was better."""

    node: int
    number: int
    colour: str
    move: str
    better: str
    pv: list[str]
    winrate_loss: float
    points_loss: float | None


@dataclass
class PlayerSummary:
    """How one side played, as far as it was analysed."""

    moves: int = 0
    best: int = 0
    """moves that the search would have chosen too"""
    winrate_loss: float = 0.0
    """of a move, on average"""
    points_loss: float | None = None


@dataclass
class GameAnalysis:
    """A record with all that was found."""

    agent: str
    simulations: int
    height: int
    width: int
    komi: float
    rules: str
    black: str
    white: str
    black_rank: str
    white_rank: str
    result: str
    date: str
    event: str
    complete: bool
    """every position had its simulations"""
    seconds: float
    notes: list[str]
    """what a reader of the numbers has to know"""
    nodes: list[NodeAnalysis]
    mistakes: list[Mistake]
    """of the game as it was played, the dearest first"""
    summary: dict[str, PlayerSummary]
    """by colour, "B" and "W" """


class GameSearch:
    """The analysis of a game while it goes on.

    Args:
        player: one with `searches`, which takes many positions at once, or else with `analyze`.
        simulations: of each position, for the former; the latter know their own.
        variations: analyse side lines too.
        komi: what the player was trained with; where a record says none, it is that.
    Raises ValueError for players that cannot analyse, and for boards that they cannot play on.
    """

    def __init__(
        self,
        player: Any,
        record: GameRecord,
        simulations: int = 200,
        *,
        variations: bool = False,
        komi: float | None = None,
        name: str = "",
    ):
        self.player, self.name = player, name or getattr(player, "name", type(player).__name__)
        self.simulations = simulations if hasattr(player, "searches") else int(getattr(player, "simulations", 0) or 0)
        check_player(player, self.name, record.height, record.width)
        self.notes: list[str] = []
        self.record = self._with_komi(record, komi)
        self.positions = self._positions()
        children: list[list[int]] = [[] for _ in record.nodes]
        for index, node in enumerate(record.nodes[1:], 1):
            children[node.parent].append(index)
        self.main, at = {0}, 0
        while children[at]:
            self.main.add(at := children[at][0])
        wanted = range(len(record.nodes)) if variations else sorted(self.main)
        self._asked: dict[int, Position] = {}
        for index in wanted:
            position = self._asked_at(index, children[index])
            if position is not None:
                self._asked[index] = position
        self.total = sum(not position.is_over for position in self._asked.values())
        """positions to be searched"""
        self.finished = 0.0
        """of them, those that are; a position half searched is half a position"""
        self._found: dict[int, dict[str, Any]] = {}
        self._open: tuple[list[int], Any] | None = None
        self._began, self._seconds = time.monotonic(), 0.0
        self._work = self._steps()

    def _with_komi(self, record: GameRecord, komi: float | None) -> GameRecord:
        if record.komi is None:
            usual = 7.5 if komi is None else komi
            self.notes.append(f"The record says no komi: {usual:g} is taken.")
            return replace(record, komi=usual)
        if komi is not None and komi != record.komi:
            self.notes.append(
                f"{self.name} was trained with komi {komi:g} and does not see that this game has {record.komi:g}: its"
                " scores are corrected, its win rates are not, but where a search sees the end of the game."
            )
        return record

    def _positions(self) -> list[tuple[Position, int] | BrokenSGF]:
        record, rules = self.record, TROMP_TAYLOR
        if record.rules:
            try:
                rules = parse_rules(record.rules)
            except ValueError:
                self.notes.append(f"The rules {record.rules!r} are not known here: positional superko is taken.")
        if rules.scoring != "AREA":
            self.notes.append(f"The rules {record.rules} count territory; here area is counted.")
        ways = [(rules.superko, rules.suicide), ("simple", rules.suicide), ("simple", True)]
        for superko, suicide in ways:  # many servers let a board come back
            found = record.positions_of_nodes(superko=superko, suicide=suicide)  # type: ignore[arg-type]
            broken = [str(error) for error in dict.fromkeys(x for x in found if isinstance(x, BrokenSGF))]
            if not broken:
                break
        self.notes += [f"{error}: what follows it is left out." for error in broken]
        return found

    def _asked_at(self, index: int, children: list[int]) -> Position | None:
        """The position after a node, with the side to move that moves in the record."""
        found = self.positions[index]
        if isinstance(found, BrokenSGF):
            return None
        position = found[0]
        colour = next((self.record.nodes[i].colour for i in children if self.record.nodes[i].colour), EMPTY)
        return position if colour in (EMPTY, position.to_play) else position.replace(to_play=colour)

    def step(self) -> bool:
        """Search on. False: there is no more to do."""
        going = next(self._work, None) is not None
        self._seconds = time.monotonic() - self._began
        return going

    def _steps(self) -> Iterator[bool]:
        for index, position in self._asked.items():
            if position.is_over:
                self._found[index] = _ended(position)
        left = [index for index, position in self._asked.items() if not position.is_over]
        while left and hasattr(self.player, "searches"):
            now, left = left[:TOGETHER], left[TOGETHER:]
            before = self.finished
            searches = self.player.searches([self._asked[index] for index in now], self.simulations)
            self._open = now, searches
            while searches.step():
                self.finished = before + len(now) * searches.done / max(int(searches.goal.sum()), 1)
                yield True
            self._close()
            self.finished = before + len(now)
            yield True
        for index in left:
            self.player(self._asked[index])
            moves = self.player.analyze(self._asked[index], 0)  # what the move came from
            self._found[index] = of_moves(moves)
            self.finished += 1
            yield True

    def _close(self) -> None:
        """Take over what the open trees have found."""
        if self._open:
            which, searches = self._open
            self._found |= {index: searches.analysis(g) for g, index in enumerate(which)}
            self._open = None

    def result(self) -> GameAnalysis:
        """What is known so far."""
        found, still = self._found, self._open
        if still:
            found = found | {index: still[1].analysis(g) for g, index in enumerate(still[0])}
        record = self.record
        nodes = [self._node(index, found.get(index, {})) for index in range(len(record.nodes))]
        for node in nodes[1:]:
            _judge(nodes[node.parent], node)
        facts = ("height", "width", "rules", "black", "white", "black_rank", "white_rank", "result", "date", "event")
        return GameAnalysis(
            agent=self.name,
            simulations=self.simulations,
            komi=record.komi or 0.0,
            complete=self.finished >= self.total,
            seconds=round(self._seconds, 2),
            notes=list(self.notes),
            nodes=nodes,
            mistakes=mistakes(nodes),
            summary={colour: _summary(nodes, colour) for colour in "BW"},
            **{name: getattr(record, name) for name in facts},
        )

    def _node(self, index: int, found: dict[str, Any]) -> NodeAnalysis:
        record, at = self.record, self.positions[index]
        node = record.nodes[index]
        size = record.height, record.width
        out = NodeAnalysis(
            node=index,
            parent=node.parent,
            number=0,
            colour=COLOURS.get(node.colour, "W"),
            move="" if node.move is None else to_vertex(node.move, *size),
            main=index in self.main,
            comment=node.comment,
        )
        if isinstance(at, BrokenSGF):
            return out
        position = self._asked.get(index, at[0])
        out.number, out.to_play = at[1], COLOURS.get(position.to_play, "W")
        out.board = board_rows(position)
        if not found:
            return out
        numbers = black_numbers(position, found)
        out.candidates = [Candidate(**move) for move in numbers.pop("candidates")]
        return replace(out, **numbers)


def check_player(player: Any, name: str, height: int, width: int) -> None:
    """Raise ValueError where this player cannot analyse games on boards of this size."""
    if not hasattr(player, "searches") and not hasattr(player, "analyze"):
        raise ValueError(
            f"{name} only plays, and cannot say what it thinks of a position: name an agent with a network"
            " (as alphazero:9x9), or mcts:SIMULATIONS"
        )
    if hasattr(player, "can_play") and not player.can_play(height, width):
        raise ValueError(
            f"{name} cannot play on {height} x {width}, the board of this game: name an agent that was trained on it,"
            " or mcts:SIMULATIONS, which plays on any"
        )


def _ended(position: Position) -> dict[str, Any]:
    """What is known of a finished game, in the view of the side to move."""
    sign = 1 if position.to_play == BLACK else -1
    score, owners = sign * position.score(), sign * position.ownership()
    rate = (score > 0) / 2 + (score >= 0) / 2
    return {"visits": 1, "winrate": rate, "score": score, "moves": [], "ownership": owners}


def _judge(before: NodeAnalysis, after: NodeAnalysis) -> None:
    """Say what the move of `after` cost."""
    if not after.move or before.winrate is None or after.winrate is None or before.to_play != after.colour:
        return
    sign = 1 if after.colour == "B" else -1
    after.winrate_loss = round(max(sign * (before.winrate - after.winrate), 0.0), 4)
    if before.score is not None and after.score is not None:
        after.points_loss = round(max(sign * (before.score - after.score), 0.0), 2)
    after.rank = next((i for i, move in enumerate(before.candidates) if move.move == after.move), None)


def mistakes(nodes: list[NodeAnalysis], least: float = 0.05, most: int = 10) -> list[Mistake]:
    """The moves of the game that cost `least` or more of the win rate, where something better was found: the dearest
    `most`.
    """
    found = []
    for node in nodes:
        if node.main and node.winrate_loss is not None and node.winrate_loss >= least and node.rank != 0:
            best = nodes[node.parent].candidates[:1]
            found += [
                Mistake(
                    node.node,
                    node.number,
                    node.colour,
                    node.move,
                    move.move,
                    move.pv,
                    node.winrate_loss,
                    node.points_loss,
                )
                for move in best
            ]
    return sorted(found, key=lambda mistake: -mistake.winrate_loss)[:most]


def _summary(nodes: list[NodeAnalysis], colour: str) -> PlayerSummary:
    judged = [node for node in nodes if node.main and node.colour == colour and node.winrate_loss is not None]
    points = [node.points_loss for node in judged if node.points_loss is not None]
    count = max(len(judged), 1)
    return PlayerSummary(
        moves=len(judged),
        best=sum(node.rank == 0 for node in judged),
        winrate_loss=round(sum(node.winrate_loss or 0.0 for node in judged) / count, 4),
        points_loss=round(sum(points) / len(points), 2) if points else None,
    )
