"""A game of Go on the page: each message has the whole game, so that a page may be loaded anew, go back and try another
move, and go on with another server, and nothing is lost with either.

    {"do": "look", "game": GAME}                              the position
    {"do": "move", "game": GAME, "player": "alphazero:9x9", "simulations": 400}     ... after the player's move
    {"do": "analyse", "game": GAME, "player": ..., "visits": 10000}                  what it thinks, again and again
    {"do": "score", "game": GAME, "player": ...}              owners, and the stones that are probably dead

GAME: "height", "width", "komi", "rules" (a name as in KataGo), "black" and "white" (points that are set up), "first"
("B" or "W"), "moves" (points, or "pass"). Points are named as in GTP; win rates, scores and owners are Black's.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from envs.go.points import chains, from_vertex, to_vertex
from envs.go.position import BLACK, RESIGN, WHITE, IllegalMove, Position
from envs.go.record import result_text
from envs.go.rulesets import parse_rules
from experiments.go.findings import black_numbers, board_rows, of_moves
from experiments.go.game_analysis import check_player
from experiments.page.engines import Engines
from experiments.page.messages import number
from rlkit.search.kept_tree import UNLIMITED

MOST_MOVES = 3_000
MOST_VISITS = 100_000
MOST_SECONDS = 600.0
SIMULATIONS = 400
"""of a move, where a page does not say"""
PIECE = 64
"""of them, between two looks at whether the page still wants the move"""
PERIOD = 0.25
"""seconds between two answers of an analysis"""
DEAD = -0.4
"""ownership of a chain's points, on average and for its own colour, under which it is taken for dead"""
COLOURS = {"B": BLACK, "W": WHITE}


class Table:
    """Answers the page of one game. engines: where its players come from."""

    def __init__(self, engines: Engines):
        self.engines = engines
        self.players: dict[str, Any] = {}
        self._line: list[Position] = []
        self._of: tuple[Any, ...] = ()

    def close(self) -> None:
        for player in self.players.values():
            if hasattr(player, "close"):
                player.close()

    def answers(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        known = {"look": self._look, "move": self._move, "analyse": self._analyse, "score": self._score}
        if message["do"] not in known:
            raise ValueError(f"a game of Go answers {', '.join(known)}")
        yield from known[message["do"]](self._position(message.get("game")), message)

    # -- what is answered ----------------------------------------------------------------------------------------------

    def _look(self, position: Position, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"position": view(position)}

    def _move(self, position: Position, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if position.is_over:
            raise ValueError("the game is over")
        player = self._player(message, position)
        began = time.monotonic()
        simulations = int(number(message, "simulations", 0, MOST_VISITS, 0))
        yield from _think(player, position, simulations, number(message, "seconds", 0, MOST_SECONDS, 0))
        move = player(position)
        said = {"seconds": round(time.monotonic() - began, 3)}
        if move == RESIGN:
            yield {"move": "resign", "position": view(position)} | said
        else:
            name = to_vertex(move, position.height, position.width)
            yield {"move": name, "position": view(position.play(move))} | said

    def _analyse(self, position: Position, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        visits = number(message, "visits", 1, MOST_VISITS, 10_000)
        player = self._player(message, position)
        check_player(player, str(message.get("player")), position.height, position.width)
        if position.is_over:
            yield {"analysis": None, "done": True}
            return
        for found, done in _findings(player, position, int(visits)):
            yield {"analysis": black_numbers(position, found) if found else None, "done": done}

    def _score(self, position: Position, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        dead = [self._point(name, position) for name in message["dead"]] if "dead" in message else None
        if dead is None:
            dead = []
            player = self._player(message, position)
            if hasattr(player, "searches"):
                before = position
                while before.passes and before.parent:  # of a game that is over, a search knows nothing but its score
                    before = before.parent
                searches = player.searches([before], 64)
                while searches.step():
                    yield {"scoring": True}
                dead = probably_dead(before, searches.analysis(0).get("ownership"))
        try:
            alive = position.setup(empty=dead)
        except ValueError as error:
            raise ValueError(f"these stones cannot all be dead: {error}") from None
        yield {
            "dead": [to_vertex(move, position.height, position.width) for move in dead],
            "ownership": alive.ownership().ravel().tolist(),
            "score": alive.score(),
            "result": result_text(alive.score()),
        }

    # -- what messages mean --------------------------------------------------------------------------------------------

    def _position(self, game: Any) -> Position:
        """Raises ValueError where this is no game."""
        if not isinstance(game, dict):
            raise ValueError('a message has a "game"')
        height, width = (int(number(game, name, 1, 19, 9)) for name in ("height", "width"))
        komi, moves = number(game, "komi", -361, 361, 7.5), game.get("moves", [])
        if not isinstance(moves, list) or len(moves) > MOST_MOVES or not all(isinstance(m, str) for m in moves):
            raise ValueError(f'"moves" is a list of up to {MOST_MOVES} points')
        stones = [game.get(name, []) for name in ("black", "white")]
        if not all(isinstance(names, list) and all(isinstance(x, str) for x in names) for names in stones):
            raise ValueError('"black" and "white" are lists of points')
        rules, first = game.get("rules", "tromp-taylor"), game.get("first", "B")
        if not isinstance(rules, str) or first not in ("B", "W"):
            raise ValueError('"rules" is a name, and "first" B or W')
        of = (height, width, komi, rules, first, *map(tuple, stones))
        if of != self._of:
            obeyed = parse_rules(rules)
            start = Position.empty((height, width), komi, superko=obeyed.superko, suicide=obeyed.suicide)
            black, white = ([self._point(name, start) for name in names] for names in stones)
            if black or white or first == "W":
                start = start.setup(black, white, to_play=COLOURS[first])
            self._of, self._line = of, [start]
        # What is the same as in the message before need not be played again, and a search may go on from there.
        wanted = [from_vertex(move, height, width) for move in moves]
        same = 0
        while same < min(len(wanted), len(self._line) - 1) and self._line[same + 1].last_move == wanted[same]:
            same += 1
        del self._line[same + 1 :]
        for move in wanted[same:]:
            try:
                self._line.append(self._line[-1].play(move))
            except IllegalMove as error:
                raise ValueError(f"move {len(self._line)}: {error}") from None
        return self._line[-1]

    def _point(self, name: Any, position: Position) -> int:
        move = from_vertex(name, position.height, position.width) if isinstance(name, str) else position.pass_move
        if move == position.pass_move:
            raise ValueError(f"{str(name)[:20]!r} is no point of this board")
        return move

    def _player(self, message: dict[str, Any], position: Position) -> Any:
        spec = str(message.get("player"))
        if spec not in self.players:
            self.players[spec] = self.engines.player(spec)
        player = self.players[spec]
        if hasattr(player, "can_play") and not player.can_play(position.height, position.width):
            raise ValueError(f"{spec} cannot play on {position.height} x {position.width}: choose another")
        return player


def view(position: Position) -> dict[str, Any]:
    """What a page draws of a position, and knows of its rules."""
    size = position.height, position.width
    over = position.is_over
    return {
        "rows": board_rows(position),
        "to_play": "B" if position.to_play == BLACK else "W",
        "number": position.move_number,
        "last": None if position.last_move is None else to_vertex(position.last_move, *size),
        "captures": position.captures,
        "legal": "".join(map(str, position.legal_moves()[:-1].astype(int))),
        "over": over,
        "result": result_text(position.score()) if over else None,
        "ownership": position.ownership().ravel().tolist() if over else None,
    }


def probably_dead(position: Position, ownership: Any) -> list[int]:
    """The stones whose chain the side to move's view of owners [H, W] gives to the other colour."""
    if ownership is None:
        return []
    own = np.asarray(ownership).ravel() * (1 if position.to_play == BLACK else -1)
    dead: list[int] = []
    for chain in chains(position.board):
        colour = 1 if position.board.flat[chain[0]] == BLACK else -1
        if float(own[chain].mean()) * colour < DEAD:
            dead += chain
    return sorted(dead)


def _think(player: Any, position: Position, simulations: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Let `player(position)` have these limits; where it keeps a tree, search in pieces first, between which a page may
    say that it wants no more.
    """
    if not hasattr(player, "kept"):
        if simulations and hasattr(player, "simulations"):
            player.simulations = simulations
        if hasattr(player, "seconds"):
            player.seconds = seconds or None
        return
    player.simulations, player.seconds = None if seconds else simulations or SIMULATIONS, None
    trees, end = player.kept.at(position, player.simulations), time.monotonic() + (seconds or MOST_SECONDS)
    goal, done = player.simulations or UNLIMITED, -1
    while done < (now := int(trees.total[0, 0])) < goal and time.monotonic() < end:
        yield {"thinking": now}
        done = now
        player.kept.grow(position, min(goal, now + PIECE), end)
    if seconds:
        player.seconds = 0.0


def _findings(player: Any, position: Position, visits: int) -> Iterator[tuple[dict[str, Any] | None, bool]]:
    """(what is known so far, whether that is all), every PERIOD."""
    if hasattr(player, "searches"):
        searches = player.searches([position], visits)
        told = 0.0
        while searches.step():
            if time.monotonic() > told + PERIOD:
                yield searches.analysis(0), False
                told = time.monotonic()
        yield searches.analysis(0), True
        return
    count = 0
    while count < visits:
        moves = player.analyze(position, PERIOD)
        found = of_moves(moves)
        before, count = count, found.get("visits", 0)
        if count <= before:  # full
            break
        if "ownership" in moves[0]:
            found["ownership"] = moves[0]["ownership"]
        yield found, False
    yield None, True
