"""What a search has found at a position, as reviews and pages tell it: plain data, in Black's view."""

from typing import Any

from envs.go.position import BLACK, Position, to_vertex

CANDIDATES = 10
"""moves that are told, at most"""


def board_rows(position: Position) -> list[str]:
    """Its rows of . X O, from the top."""
    return ["".join(".XO"[stone] for stone in row) for row in position.board.tolist()]


def of_moves(moves: list[dict[str, Any]]) -> dict[str, Any]:
    """What a player says by `analyze`, in the form of `Searches.analysis`: "visits", "winrate", "moves"; else empty."""
    visits = sum(move["visits"] for move in moves)
    rate = sum(move["visits"] * move["winrate"] for move in moves) / max(visits, 1)
    return {"visits": visits, "winrate": rate, "moves": moves} if moves else {}


def black_numbers(position: Position, found: dict[str, Any]) -> dict[str, Any]:
    """What a search has found at a position, from the view of its side to move as `Searches.analysis` and `analyze` say
    it, as the fields of a NodeAnalysis, Black's view: visits, winrate, score, candidates, and where known policy and
    ownership.
    """
    own, size = position.to_play == BLACK, (position.height, position.width)
    sign = 1 if own else -1

    def rated(entry: dict[str, Any]) -> dict[str, Any]:
        score, stdev = entry.get("score"), entry.get("score_stdev")
        return {
            "visits": entry["visits"],
            "winrate": round(entry["winrate"] if own else 1 - entry["winrate"], 4),
            "score": None if score is None else round(sign * score, 2),
        } | ({} if stdev is None else {"score_stdev": round(stdev, 2)})

    out = rated(found)
    out.pop("score_stdev", None)
    out["candidates"] = []
    for move in found["moves"][:CANDIDATES]:
        line = [to_vertex(a, *size) for a in move["pv"] or [move["move"]]]
        out["candidates"].append({"move": line[0], "prior": round(float(move["prior"]), 4), "pv": line} | rated(move))
    if "policy" in found:
        out["policy"] = [round(float(p), 4) for p in found["policy"]]
    if "ownership" in found:
        out["ownership"] = [round(sign * float(x), 2) for x in found["ownership"].ravel()]
    return out
