"""Analyses in the Go Text Protocol, as Leela Zero, KataGo and GoGui have them: what is asked, and the answer."""

import math
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.go.gtp_text import COLOURS, Refused, colour_of, integer, number, vertices
from envs.go.position import Position, from_vertex

ANALYSES = {"lz-analyze", "kata-analyze"}
GOGUI = """\
dboard/Area/rlkit-area
gfx/Candidates/rlkit-candidates
string/Score/final_score"""


class Question(NamedTuple):
    """What an analysis is asked."""

    position: Position
    interval: float
    """seconds between reports"""
    most: int | None
    """moves in a report"""
    owners: bool
    """whether a report ends with who owns each point"""
    allowed: NDArray[np.bool_] | None
    """[points + 1], the moves that the search may begin with; None: all"""


def split_words(words: Iterable[str]) -> tuple[int | None, list[list[str]]]:
    """The colour, if there is one, and the options, each a key and what belongs to it. Raises Refused.

    words: [colour] [interval in centiseconds] [key value | allow PLAYER VERTICES DEPTH | avoid ...] ...
    """
    rest, options = list(words), []
    side = COLOURS[rest.pop(0).lower()] if rest and rest[0].lower() in COLOURS else None
    if rest and not rest[0].isalpha():
        rest.insert(0, "interval")
    while rest:
        count = 4 if rest[0] in ("allow", "avoid") else 2
        if len(rest) < count:
            raise Refused("syntax error")
        options.append(rest[:count])
        del rest[:count]
    return side, options


def read_question(position: Position, options: list[list[str]]) -> Question:
    """Of the options count interval, maxmoves, ownership, allow and avoid. Raises Refused."""
    values = {option[0]: option[1] for option in options}
    most = integer(values["maxmoves"]) if "maxmoves" in values else None
    interval = max(number(values.get("interval", "100"), 0) / 100, 0.01)
    allowed = _allowed(position, [option for option in options if len(option) == 4])
    if allowed is not None and not position.is_over and not (allowed & position.legal_moves()).any():
        raise Refused("no legal move is left")
    return Question(position, interval, most, values.get("ownership") == "true", allowed)


def _allowed(position: Position, options: list[list[str]]) -> NDArray[np.bool_] | None:
    masks: dict[int, NDArray[np.bool_]] = {}
    given: set[tuple[int, str]] = set()
    for kind, player, names, depth in options:
        colour = colour_of(player)
        if (colour, "allow") in given or (kind == "allow" and colour in masks):
            raise Refused("allow goes once for each player, and not beside avoid")
        given.add((colour, kind))
        mask = masks.setdefault(colour, np.full(position.points + 1, kind == "avoid"))
        for name in names.split(","):
            try:
                mask[from_vertex(name, position.height, position.width)] = kind == "allow"
            except ValueError:
                raise Refused(f"{kind}: no move on this board: {name}") from None
        if not integer(depth):
            raise Refused(f"{kind}: the depth is 1 at least")
    if any(integer(option[3]) > 2 for option in options):  # at depth 2 the other side moves
        print("Only the first move is restricted, whatever the depth says", file=sys.stderr)
    return masks.get(position.to_play)


def report(command: str, question: Question, infos: list[dict[str, Any]]) -> str:
    """A line with what a player's `analyze` has found; "" if there is no move."""
    parts, whole, infos = [], command.startswith("lz"), infos[: question.most]
    for order, info in enumerate(infos):
        rates = [info["winrate"], info["prior"], lower_bound(info["winrate"], info["visits"])]
        winrate, prior, lcb = (f"{round(10_000 * x)}" if whole else f"{x:.6f}" for x in rates)
        score = "" if whole or "score" not in info else "scoreMean {0:.3f} scoreLead {0:.3f} ".format(info["score"])
        move, line = (vertices(question.position, moves) for moves in ([info["move"]], info["pv"] or [info["move"]]))
        parts.append(
            f"info move {move} visits {info['visits']} winrate {winrate} {score}"
            f"prior {prior} lcb {lcb} order {order} pv {line}"
        )
    if question.owners and not whole and infos and "ownership" in infos[0]:  # of the points from the top left
        parts.append(" ".join(["ownership", *(f"{x:.3f}" for row in infos[0]["ownership"] for x in row)]))
    return " ".join(parts) + "\n" * bool(parts)


def candidates(position: Position, infos: list[dict[str, Any]]) -> str:
    """What GoGui draws over the board: the chances of the best moves, in percent."""
    on_board = [info for info in infos[:10] if info["move"] != position.pass_move]
    labels = " ".join(f"{vertices(position, [info['move']])} {100 * info['winrate']:.0f}" for info in on_board)
    return f"LABEL {labels}\nTEXT {sum(info['visits'] for info in infos)} visits"


def area(position: Position) -> str:
    """What GoGui draws: a board of 1 (Black's), -1 (White's) and 0."""
    return "\n".join(" ".join(map(str, row)) for row in position.ownership().tolist())


def lower_bound(rate: float, visits: int) -> float:
    """Of the 95 % interval (Wilson) of a rate, from this number of visits."""
    z2 = 1.96**2 / max(visits, 1)
    return (rate + z2 / 2 - math.sqrt(z2 * (rate * (1 - rate) + z2 / 4))) / (1 + z2)
