"""A game's analysis as SGF, for programs that show games.

What stands where:

| property | who shows it |
|---|---|
| comments (C) | all |
| variations: the best line instead of each of the worst moves | all |
| SBKV: Black's win rate in percent | Sabaki's graph |
| V: the score, Black's positive | programs that keep to the standard |
| BM, DO: a bad move, a doubtful one | Sabaki, CGoban |
| LB: 1, 2, 3 at the best moves of a position where a mistake follows | all |
| KT, KTV: the whole analysis, packed | KaTrain 1.5 and later, which then need not analyse |
"""

import base64
import gzip
import json
import struct

from envs.go.points import from_vertex
from envs.go.position import BLACK, WHITE
from envs.go.record import GameRecord, Node
from envs.go.sgf import to_sgf
from experiments.go.game_analysis import GameAnalysis, Mistake, NodeAnalysis

BAD, DOUBTFUL = 0.2, 0.1
"""win rate that a bad and a doubtful move lose"""
LINE = 10
"""moves of a variation, at most"""


def analysed_sgf(record: GameRecord, analysis: GameAnalysis) -> str:
    """The record as it was, with the analysis: comments, variations and properties."""
    size = record.height, record.width
    nodes = [
        Node(node.colour, node.move, node.comment, node.black, node.white, node.empty, node.to_play, node.parent)
        for node in record.nodes
    ]
    more: dict[int, dict[str, list[str]]] = {}
    by_node = {mistake.node: mistake for mistake in analysis.mistakes}
    for found in analysis.nodes:
        if found.winrate is None:
            continue
        node, properties = nodes[found.node], more.setdefault(found.node, {})
        node.comment = "\n\n".join(text for text in (node.comment, comment(found, by_node.get(found.node))) if text)
        properties |= {"SBKV": [f"{100 * found.winrate:.2f}"]}
        if found.score is not None:
            properties |= {"V": [f"{found.score:.2f}"], "KT": packed(found)}
        if found.winrate_loss is not None and found.rank != 0 and found.winrate_loss >= DOUBTFUL:
            properties["BM" if found.winrate_loss >= BAD else "DO"] = ["1" if found.winrate_loss >= BAD else ""]
    for mistake in analysis.mistakes:
        above = analysis.nodes[mistake.node].parent
        points = [move.move for move in analysis.nodes[above].candidates[:3] if move.move != "pass"]
        names = [_sgf_point(from_vertex(point, *size), record.width) for point in points]
        if names:
            more[above]["LB"] = [f"{name}:{i}" for i, name in enumerate(names, 1)]
        _add_line(record, analysis, mistake, nodes, more)
    more.setdefault(0, {})["KTV"] = ["1.0"]
    order = _in_order(nodes)
    place = {old: new for new, old in enumerate(order)}
    written = GameRecord(**{name: getattr(record, name) for name in record.__dataclass_fields__ if name != "nodes"})
    written.nodes = [nodes[old] for old in order]
    for node in written.nodes[1:]:
        node.parent = place[node.parent]
    return to_sgf(written, {place[old]: properties for old, properties in more.items()})


def comment(found: NodeAnalysis, mistake: Mistake | None = None) -> str:
    """What is known of a position and the move before it, for people."""
    lines = [f"{rate(found.winrate)}{lead(found.score)} ({found.visits} visits)"]
    if found.winrate_loss is not None and found.rank == 0:
        lines.append(f"{found.move} is the best move found.")
    elif found.winrate_loss is not None and found.winrate_loss >= 0.005:
        lines.append(f"{found.move} cost {loss(found.winrate_loss, found.points_loss)}.")
    if mistake:
        lines.append(f"Better: {' '.join(mistake.pv[:LINE])}")
    return "\n".join(lines)


def rate(winrate: float | None) -> str:
    """Who is ahead: "Black 54.2 %"."""
    black = 0.5 if winrate is None else winrate
    return f"{'Black' if black >= 0.5 else 'White'} {100 * max(black, 1 - black):.1f} %"


def lead(score: float | None) -> str:
    """And by how much: ", B+3.5"."""
    return "" if score is None else f", {'B' if score >= 0 else 'W'}+{abs(score):.1f}"


def loss(winrate: float, points: float | None) -> str:
    """What a move cost: "12.3 % and 3.4 points"."""
    return f"{100 * winrate:.1f} %" + ("" if points is None else f" and {points:.1f} points")


def packed(found: NodeAnalysis) -> list[str]:
    """KaTrain's property KT: ownership and policy in half floats, the rest as JSON, each zipped, in base64."""
    moves = {
        move.move: {
            "move": move.move, "visits": move.visits, "winrate": move.winrate, "scoreLead": move.score,
            "prior": move.prior, "order": order, "pv": move.pv,
        }
        for order, move in enumerate(found.candidates)
    }  # fmt: skip
    root = {"winrate": found.winrate, "scoreLead": found.score, "visits": found.visits}
    main = json.dumps({"moves": moves, "root": root, "completed": True}).encode()
    floats = (struct.pack(f"{len(values)}e", *values) if values else b"" for values in (found.ownership, found.policy))
    return [base64.standard_b64encode(gzip.compress(data, mtime=0)).decode() for data in (*floats, main)]


def _add_line(
    record: GameRecord,
    analysis: GameAnalysis,
    mistake: Mistake,
    nodes: list[Node],
    more: dict[int, dict[str, list[str]]],
) -> None:
    """What was better, as a variation, unless the record has one that begins so."""
    size = record.height, record.width
    parent = analysis.nodes[mistake.node].parent
    line = [from_vertex(move, *size) for move in mistake.pv[:LINE]]
    if any(node.parent == parent and node.move == line[0] for node in nodes):
        return
    best = analysis.nodes[parent].candidates[0]
    colour = BLACK if mistake.colour == "B" else WHITE
    text = f"Instead of {mistake.move}: {rate(best.winrate)}{lead(best.score)}"
    more[len(nodes)] = {"SBKV": [f"{100 * best.winrate:.2f}"]}
    for move in line:
        nodes.append(Node(colour, move, text, parent=parent))
        parent, colour, text = len(nodes) - 1, BLACK + WHITE - colour, ""


def _in_order(nodes: list[Node]) -> list[int]:
    """The indices of the nodes, each after its parent and the lines in their order, as records have them."""
    children: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        children.setdefault(node.parent, []).append(index)
    order, left = [], [0]
    while left:
        order.append(index := left.pop())
        left += reversed(children.get(index, []))
    return order


def _sgf_point(move: int, width: int) -> str:
    letters = "abcdefghijklmnopqrs"
    return letters[move % width] + letters[move // width]
