"""How the Go Text Protocol writes things: its lines, its responses, and the words in them."""

import math
import re
from collections.abc import Iterable

from envs.go.position import BLACK, RESIGN, WHITE, Position, to_vertex
from envs.go.record import printable

COLOURS = {"b": BLACK, "black": BLACK, "w": WHITE, "white": WHITE}

_VERTEX = re.compile(r"pass|[a-hj-z]([1-9]|1[0-9]|2[0-5])", re.IGNORECASE | re.ASCII)
_INTEGER = re.compile(r"[0-9]{1,10}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})(e[+-]?[0-9]{1,2})?", re.IGNORECASE)
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"} | {ord("\t"): " "}


class Refused(Exception):
    """A command that fails; its text is the protocol's failure message."""


def parse(line: str) -> tuple[str, list[str]]:
    """Identity number ("" if none) and words of a line, without control characters, byte order mark and comments."""
    line = line.removeprefix("\ufeff")
    words = [word for word in line.translate(_CONTROL).replace("\n", "").partition("#")[0].split(" ") if word]
    numbered = bool(words) and words[0].isascii() and words[0].isdecimal()
    return words.pop(0) if numbered else "", words


def respond(sign: str, identity: str, text: str) -> str:
    """A response as it is sent. No line in it is empty, because an empty line ends it.

    Text that begins with a line end is a block, which begins below the sign.
    """
    body = "\n".join(line.rstrip() for line in text.translate(_CONTROL).split("\n") if line.strip())
    return sign + identity + ("\n" if body and text.startswith("\n") else " ") + body + "\n\n"


def failure(error: Exception) -> str:
    """One line for whatever went wrong."""
    story = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
    return printable(" ".join(story.split()))[:500]


def colour_of(word: str) -> int:
    """BLACK or WHITE; raises Refused, as do the next two."""
    if word.lower() not in COLOURS:
        raise Refused("syntax error")
    return COLOURS[word.lower()]


def integer(word: str) -> int:
    """A whole number, 0 to 2^31 - 1."""
    if not _INTEGER.fullmatch(word) or int(word) >= 2**31:
        raise Refused("syntax error")
    return int(word)


def number(word: str, least: float = -math.inf) -> float:
    """A finite number of at least `least`."""
    if not _NUMBER.fullmatch(word) or float(word) < least:
        raise Refused("syntax error")
    return float(word)


def is_vertex(word: str) -> bool:
    """Whether this is a pass, or a point of the largest board that the protocol knows (25 lines)."""
    return _VERTEX.fullmatch(word) is not None


def vertices(position: Position, moves: Iterable[int]) -> str:
    """The names of moves on this position's board, "resign" among them."""
    height, width = position.height, position.width
    return " ".join("resign" if move == RESIGN else to_vertex(move, height, width) for move in moves)
