"""Game records: SGF files of one game or many, read and written through sgfmill.

    for record in read_collection("games.sgf", on_error="skip"):
        for position, move in record.positions():
            ...

Kept of a game are its players, komi, rules and result, and of each node the stones set up, the move and the comment;
markup (labels, triangles) and clocks are dropped. Boards are rectangles of 1 to 19 lines a side.

What programs have made of the standard is read as it is meant: names of properties in small letters, games without the
first `;`, nodes with several moves. A komi or handicap that makes no sense is taken as not said.
"""

import codecs
import errno
import functools
import math
import os
import re
import string
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sgfmill import sgf_grammar, sgf_properties

from envs.go.charsets import ROOT, to_utf8
from envs.go.position import BLACK, EMPTY, WHITE
from envs.go.record import BrokenSGF, GameRecord, Node, amount, printable

MAX_LINES = 19
MAX_KOMI = MAX_LINES**2
FOX_KOMI: dict[float, float] = {275: 5.5, 325: 6.5, 350: 7.0, 375: 7.5, 550: 5.5, 650: 6.5, 700: 7.0, 750: 7.5}
"""what a big server writes: hundredths of points, or of Chinese stones, which are two points each"""
TEXTS = {"PB": "black", "PW": "white", "BR": "black_rank", "WR": "white_rank"}
TEXTS |= {"RE": "result", "RU": "rules", "DT": "date", "EV": "event"}
SIDES = {b"b": BLACK, b"black": BLACK, b"1": BLACK, b"w": WHITE, b"white": WHITE, b"2": WHITE}

_BRACKET = re.compile(rb"\[[^\\\]]*(?:\\.[^\\\]]*)*\]|[()\[]", re.DOTALL)  # a whole value, or a bracket by itself
_START = re.compile(rb"\(\s*(?:;|[A-Z]{1,2}\s*\[)")
_LOST = re.compile(rb"[A-Z]\s*\[")
_UNUSUAL = re.compile(rb"\(\s*[A-Za-z]|(?<![A-Za-z])[a-z]+\s*\[|\]\s*[BW][a-z]*\s*\[")
_TOKEN = re.compile(
    rb"\[[^\\\]]*(?:\\.[^\\\]]*)*\]|(?P<open>\(\s*(?=[A-Za-z]))|(?P<name>[A-Za-z]+)|(?P<end>[;()])", re.DOTALL
)


class Collection:
    """The games of a file, one after the other: an iterator of GameRecord, made by `read_collection`."""

    def __init__(self, data: bytes, name: str, on_error: Literal["raise", "skip"] = "raise"):
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        self.skipped: list[BrokenSGF] = []
        """what was left out so far; each error names its place"""
        self._name, self._on_error = printable(name), on_error
        self._data, unread = to_utf8(data)
        self._unread = deque(unread)
        self._pieces = _split(self._data)
        self._number, self._seen, self._line = 0, 0, 1

    def __iter__(self) -> "Collection":
        return self

    def __next__(self) -> GameRecord:
        for begin, end, problem in self._pieces:
            self._number += 1
            self._line += self._data.count(b"\n", self._seen, begin)
            self._seen = begin
            place = f"{self._name}, line {self._line}, game {self._number}"
            while self._unread and self._unread[0][1] <= begin:
                self._unread.popleft()
            if self._unread and self._unread[0][0] <= begin:
                problem = printable(self._unread[0][2])
            try:
                if problem:
                    raise ValueError(problem)
                return _read_game(self._data[begin:end], place, self._line)
            except ValueError as error:
                broken = BrokenSGF(f"{place}: {error}")
                if self._on_error == "raise":
                    raise broken from None
                self.skipped.append(broken)
        raise StopIteration


def read_collection(path: str | os.PathLike, on_error: Literal["raise", "skip"] = "raise") -> Collection:
    """The games of an SGF file, read one at a time: one game a line, or any collection `(;...)(;...)`.

    A broken game raises BrokenSGF and the iteration may go on behind it, or, with "skip", it is left out and noted in
    the iterator's `skipped`. So is a file without any game. The file's text is held in memory.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise OSError(errno.EINVAL, "no regular file", str(path))  # opening a named pipe would wait for ever
    return Collection(Path(path).read_bytes(), str(path), on_error)


def read_sgf(path: str | os.PathLike) -> GameRecord:
    """The first game of an SGF file; raises BrokenSGF."""
    return next(read_collection(path))


def parse(text: str | bytes, name: str = "text") -> list[GameRecord]:
    """The games in a text; raises BrokenSGF at the first that is broken. name: what its messages call the text."""
    data = codecs.BOM_UTF8 + text.encode("utf-8", "replace") if isinstance(text, str) else text
    return list(Collection(data, name))


def to_sgf(record: GameRecord, more: Mapping[int, Mapping[str, Sequence[str]]] | None = None) -> str:
    """A record as SGF (FF[4], UTF-8), all of it on one line but for the line ends in comments.

    more: further properties by the index of their node, name -> values, as {3: {"SBKV": ["54.2"]}}; reading drops them.
    Reads back equal, but that SGF knows no tabs, and no line ends in names. Raises ValueError at a move or stone off
    the board.
    """
    trees: list[Any] = []
    children = [0] * len(record.nodes)
    for node in record.nodes[1:]:
        children[node.parent] += 1
    for index, node in enumerate(record.nodes):
        if index and children[node.parent] == 1:
            tree = trees[node.parent]
        else:
            tree = sgf_grammar.Coarse_game_tree()
            if index:
                trees[node.parent].children.append(tree)
        trees.append(tree)
        properties = (_header(record) if index == 0 else {}) | _properties(node, record.height, record.width)
        for name, values in (more or {}).get(index, {}).items():
            properties[name] = [_escaped(value) for value in values]
        tree.sequence.append(properties)
    return sgf_grammar.serialise_game_tree(trees[0], wrap=None).decode()


def write_sgf(path: str | os.PathLike, records: GameRecord | Iterable[GameRecord]) -> None:
    """Write a game or several to a file, one a line, all or nothing: a file that was there stays until the end."""
    path = Path(path)
    text = "".join(map(to_sgf, [records] if isinstance(records, GameRecord) else records))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        unfinished.write_bytes(text.encode())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _split(data: bytes) -> Iterator[tuple[int, int, str]]:
    """Where games begin and end in UTF-8, with what is wrong about their brackets ("" if nothing). In linear time."""
    here, games = 0, 0
    while start := _START.search(data, here):
        begin, games = start.start(), games + 1
        if lost := _LOST.search(data, here, begin):
            yield lost.start(), begin, "moves or properties that belong to no game"
        depth = 0
        for token in _BRACKET.finditer(data, begin):
            at, first = token.start(), data[token.start() : token.start() + 1]
            if first == b"(":
                if depth and ROOT.match(data, at):
                    here = at
                    yield begin, at, "it is not closed before the next game begins"
                    break
                depth += 1
            elif first == b")":
                depth -= 1
                if not depth:
                    here = token.end()
                    yield begin, here, ""
                    break
            elif token.end() == at + 1:
                line = data.count(b"\n", 0, at) + 1
                yield begin, len(data), f"the [ on line {line} is never closed; nothing behind it can be read"
                return
        else:
            yield begin, len(data), "it is not closed before the end of the text"
            return
    if not games or _LOST.search(data, here):
        yield here, len(data), "moves or properties that belong to no game" if games else "there is no game in it"


def _read_game(piece: bytes, place: str, line: int) -> GameRecord:
    """One game in UTF-8, which begins on `line`; raises ValueError with the reason."""
    piece = _as_standard(piece)
    try:
        tree = sgf_grammar.parse_sgf_game(piece)
    except ValueError as error:
        _, stop = sgf_grammar.tokenise(piece)
        if stop < len(piece):
            stop += len(piece[stop:]) - len(piece[stop:].lstrip())
            line += piece.count(b"\n", 0, stop)
            raise ValueError(f"'{_shown(piece[stop:])}' on line {line} cannot be read") from None
        raise ValueError(f"it is not built like SGF: {error}") from None
    root = tree.sequence[0]
    if root.get("GM", [b"1"])[0].strip() not in (b"1", b""):
        raise ValueError(f"GM[{_shown(root['GM'][0])}] is not Go")
    height, width = _size(root)
    record = GameRecord(height, width, place=place, nodes=[])
    record.komi, record.handicap = _komi(root), _handicap(root, height * width)
    for name, attribute in TEXTS.items():
        if name in root:
            setattr(record, attribute, sgf_grammar.simpletext_value(root[name][0]).decode())
    table = _points(height, width)
    waiting = [(tree, -1)]
    while waiting:
        tree, parent = waiting.pop()
        for properties in tree.sequence:
            record.nodes.append(_node(properties, parent, table, record))
            parent = len(record.nodes) - 1
        waiting += [(child, parent) for child in reversed(tree.children)]
    return record


def _as_standard(piece: bytes) -> bytes:
    """A game with names of properties in capitals, a `;` behind each `(`, and at most one B or W property in a node."""
    if not _UNUSUAL.search(piece):  # which may also be in a comment
        return piece
    moved = False

    def mend(token: re.Match[bytes]) -> bytes:
        nonlocal moved
        text = token[0]
        if token["name"]:
            # Small letters count for nothing beside capitals ("AddBlack"), as in the standard's first versions.
            text = text.upper() if text.islower() else text.translate(None, string.ascii_lowercase.encode())
            again = moved and text in (b"B", b"W")
            moved |= text in (b"B", b"W")
            return b";" + text if again else text
        if token["open"] or token["end"]:
            moved = False
        return text + b";" if token["open"] else text

    return _TOKEN.sub(mend, piece)


def _node(properties: dict[str, list[bytes]], parent: int, table: dict[bytes, int], record: GameRecord) -> Node:
    node = Node(parent=parent)
    for name, values in properties.items():
        if name in ("B", "W"):
            if node.colour or len(values) > 1:
                raise ValueError(f"two moves in one node, after {_shown(values[0])}")
            node.colour, node.move = BLACK if name == "B" else WHITE, table.get(values[0].strip())
            if node.move is None:
                raise ValueError(f"{name}[{_shown(values[0])}] is no point of a {record.height}x{record.width} board")
        elif name == "C":
            node.comment = "\n".join(sgf_grammar.text_value(value).decode() for value in values)
        elif name in ("AB", "AW", "AE"):
            stones = _stones(name, values, record.height, record.width)
            setattr(node, {"AB": "black", "AW": "white", "AE": "empty"}[name], stones)
        elif name == "PL":
            side = values[0].strip().lower()
            if side and side not in SIDES:
                raise ValueError(f"PL[{_shown(values[0])}] is neither B nor W")
            node.to_play = SIDES.get(side, EMPTY)
    if len(node.black) + len(node.white) + len(node.empty) > len({*node.black, *node.white, *node.empty}):
        raise ValueError("one node sets the same point twice")
    return node


def _stones(name: str, values: list[bytes], height: int, width: int) -> tuple[int, ...]:
    side = max(height, width)
    try:
        points = _presenter(side).interpret(name, values)
        moves = sorted((side - 1 - row) * width + column for row, column in points)  # sgfmill counts rows from below
        if any(column >= width for _, column in points) or (moves and moves[-1] >= height * width):
            raise ValueError
    except ValueError:
        raise ValueError(f"{name}[{_shown(b']['.join(values))}] is not on a {height}x{width} board") from None
    return tuple(moves)


def _size(root: dict[str, list[bytes]]) -> tuple[int, int]:
    raw = root.get("SZ", [b"19"])[0]
    try:
        # SGF names columns before rows
        sides = [sgf_properties.interpret_number(part) for part in raw.split(b":")]
        width, height = sides * 2 if len(sides) == 1 else sides
        if not 1 <= min(width, height) <= max(width, height) <= MAX_LINES:
            raise ValueError
    except ValueError:
        raise ValueError(f"SZ[{_shown(raw)}] is no board of 1 to {MAX_LINES} lines a side") from None
    return height, width


def _komi(root: dict[str, list[bytes]]) -> float | None:
    """Points for White; None where nothing is said that makes sense."""
    text = root.get("KM", [b""])[0].decode().strip()
    komi = amount(text.removeprefix("-").removeprefix("+"))
    if komi is not None and (komi > MAX_KOMI or komi in FOX_KOMI):
        komi = FOX_KOMI.get(komi) if b"foxwq" in root.get("AP", [b""])[0].lower() else None
    return -komi if komi is not None and text.startswith("-") else komi


def _handicap(root: dict[str, list[bytes]], points: int) -> int:
    """Stones; 0 where nothing is said that makes sense."""
    stones = amount(root.get("HA", [b""])[0].decode()) or 0.0
    return int(stones) if stones <= points and stones.is_integer() else 0


def _shown(raw: bytes) -> str:
    """A piece of a file for a message, on one line and short."""
    text = raw[:60].decode("utf-8", "replace")
    return printable(" ".join(text[:20].split())) + ("..." if len(text) > 20 else "")


@functools.lru_cache(maxsize=32)
def _presenter(side: int) -> sgf_properties.Presenter:
    return sgf_properties.Presenter(side, "UTF-8")


@functools.lru_cache(maxsize=32)
def _points(height: int, width: int) -> dict[bytes, int]:
    """SGF's name of every point -> move; both names of a pass, the one to be written last."""
    side = max(height, width)  # sgfmill knows squares only: a rectangle is the top left of one
    table = {
        sgf_properties.serialise_go_point((side - 1 - row, column), side): row * width + column
        for row in range(height)
        for column in range(width)
    }
    return table | {b"tt": height * width, b"": height * width}


@functools.lru_cache(maxsize=32)
def _names(height: int, width: int) -> dict[int, bytes]:
    return {move: name for name, move in _points(height, width).items()}


def _header(record: GameRecord) -> dict[str, list[bytes]]:
    sides = [record.width] if record.width == record.height else [record.width, record.height]
    header = {"FF": [b"4"], "GM": [b"1"], "CA": [b"UTF-8"], "SZ": [":".join(map(str, sides)).encode()]}
    if record.komi is not None:
        if not math.isfinite(record.komi):
            raise ValueError(f"a komi of {record.komi} cannot be written")
        header["KM"] = [sgf_properties.serialise_real(record.komi)]
    if record.handicap:
        header["HA"] = [sgf_properties.serialise_number(record.handicap)]
    return header | {
        name: [_escaped(text)] for name, attribute in TEXTS.items() if (text := getattr(record, attribute))
    }


def _properties(node: Node, height: int, width: int) -> dict[str, list[bytes]]:
    names, properties = _names(height, width), {}
    try:
        if node.move is not None:
            properties["B" if node.colour == BLACK else "W"] = [names[node.move]]
        for name, points in (("AB", node.black), ("AW", node.white), ("AE", node.empty)):
            if points:
                properties[name] = [names[point] for point in points]
    except KeyError as error:
        raise ValueError(f"{error} is no point of a {height}x{width} board") from None
    if node.to_play:
        properties["PL"] = [b"B" if node.to_play == BLACK else b"W"]
    if node.comment:
        properties["C"] = [_escaped(node.comment)]
    return properties


def _escaped(text: str) -> bytes:
    return sgf_grammar.escape_text(text.encode("utf-8", "replace"))
