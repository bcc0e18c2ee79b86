"""Commands of the Go Text Protocol that put a position on the board: handicap stones, set-up stones, game records.

Each takes the `Engine` whose position it replaces, and the words behind the command's name.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from envs.go.gtp_text import COLOURS, Refused, colour_of, integer, vertices
from envs.go.position import BLACK, EMPTY, WHITE, Position, from_vertex
from envs.go.record import BrokenSGF, GameRecord, printable


def place_handicap(engine: Any, choose: Callable[[int, int, int], list[int]], stones: str) -> str:
    """Handicap stones on the points that `choose` gives for (height, width, how many)."""
    count, position = integer(stones), engine.position
    _must_be_empty(position)
    try:
        if not 2 <= count < position.points:
            raise ValueError
        points = choose(position.height, position.width, count)
    except ValueError:
        raise Refused("invalid number of stones") from None
    engine.position = position.setup(black=points, to_play=WHITE)
    return vertices(position, points)


def set_free_handicap(engine: Any, *words: str) -> None:
    position = engine.position
    _must_be_empty(position)
    try:
        points = {from_vertex(word, position.height, position.width) for word in words}
    except ValueError:
        points = set()
    if not 2 <= len(points) == len(words) < position.points or position.pass_move in points:
        raise Refused("bad vertex list")
    engine.position = position.setup(black=points, to_play=WHITE)


def _must_be_empty(position: Position) -> None:
    if position.board.any():
        raise Refused("board not empty")


def add_stones(engine: Any, *words: str) -> None:
    """`gogui-setup b A1 w B2 e C3`: the side to move stays. Of what is said of one point, the last counts."""
    if engine.position.move_number:
        raise Refused("stones are set up before the first move")
    stones = _stones(engine.position, words, COLOURS | {"e": EMPTY, "empty": EMPTY})
    engine.position = _with_stones(engine.position, stones)


def set_position(engine: Any, *words: str) -> None:
    """KataGo's `set_position b A1 w B2`: these stones alone, Black to move; no point twice."""
    empty = engine.empty_board((engine.position.height, engine.position.width))
    stones = _stones(empty, words, COLOURS)
    if len({point for point, _ in stones}) < len(stones):
        raise Refused("a point is given twice")
    engine.position = _with_stones(empty, stones) if stones else empty


def set_player(engine: Any, colour: str) -> None:
    engine.position = engine.position.replace(to_play=colour_of(colour))


def _stones(position: Position, words: Iterable[str], colours: dict[str, int]) -> list[tuple[int, int]]:
    """(point, colour) of words that alternate between a colour and a point. Raises Refused."""
    pairs, stones = list(words), []
    if len(pairs) % 2 or any(word.lower() not in colours for word in pairs[::2]):
        raise Refused("syntax error")
    for colour, vertex in zip(pairs[::2], pairs[1::2], strict=True):
        try:
            point = from_vertex(vertex, position.height, position.width)
        except ValueError:
            point = position.pass_move
        if point == position.pass_move:
            raise Refused(f"no point of this board: {vertex}")
        stones.append((point, colours[colour.lower()]))
    return stones


def _with_stones(position: Position, stones: list[tuple[int, int]]) -> Position:
    last = dict(stones)
    black, white, empty = ([point for point in last if last[point] == colour] for colour in (BLACK, WHITE, EMPTY))
    try:
        return position.setup(black, white, empty)
    except ValueError:
        raise Refused("a chain would have no liberty") from None


def loadsgf(engine: Any, path: str, *words: str) -> None:
    from envs.go.sgf import read_sgf

    # a path may hold spaces, and GoGui then puts it between quotes
    before = integer(words[-1]) if words and words[-1].isdecimal() else None
    path = " ".join([path, *(words if before is None else words[:-1])])
    number, rules = None if before is None else max(before - 1, 0), engine.rules
    try:
        record = read_sgf(path.strip('"'))
        try:
            position = record.position(number, superko=rules.superko, suicide=rules.suicide)
        except BrokenSGF:  # a board came back, which many servers allow
            position = record.position(number, superko="simple", suicide=rules.suicide)
    except (OSError, ValueError) as error:
        print(f"loadsgf: {printable(str(error))}", file=sys.stderr)
        raise Refused("cannot load file") from None
    if not engine.can_play(position.height, position.width):
        raise Refused("unacceptable size")
    engine.komi = engine.komi if record.komi is None else record.komi
    engine.position = position.replace(komi=engine.komi)


def printsgf(engine: Any, *path: str) -> str:
    from envs.go.sgf import to_sgf, write_sgf

    record = GameRecord.from_position(engine.position)
    if not path:
        return to_sgf(record)
    write_sgf(" ".join(path).strip('"'), record)
    return ""
