"""What a network thinks of a position, as a picture."""

import numpy as np

from agents.alphazero.player import AlphaZero
from envs.go.picture import Picture, draw_board, side_by_side
from envs.go.position import BLACK, Position


def analysis_pictures(player: AlphaZero, position: Position) -> dict[str, Picture]:
    """The network's "policy", the "visits" of a search, and the "owners" that it expects, if it has that head."""
    game, states = position.states()
    heads = {name: array[0] for name, array in player.evaluate.heads(game.encode(states)).items()}
    visits = player.search(position).N[0, 0]
    policy = np.where(position.legal_moves(), np.exp(heads["policy"] - heads["policy"].max()), 0)
    boards = {
        "policy": draw_board(position, heat=policy / policy.sum(), title=f"policy, value {heads['value']:+.2f}"),
        "visits": draw_board(position, heat=visits, title=f"{visits.sum()} visits"),
    }
    if "ownership" in heads:
        black = heads["ownership"] if position.to_play == BLACK else -heads["ownership"]
        boards["owners"] = draw_board(position, moves=position.moves(), ownership=black, title="moves and owners")
    return boards


def draw_first_moves(player: AlphaZero, empty: Position, numbers: tuple[int, ...] = (1, 8)) -> Picture:
    """`analysis_pictures` after so many moves of a game of the player against itself, one below the other."""
    position, rows = empty, []
    for number in numbers:
        while position.move_number < number and not position.is_over:
            position = position.play(player(position))
        rows.append(side_by_side(*analysis_pictures(player, position).values()))
    width, height = (max(row.shape[axis] for row in rows) for axis in (1, 0))
    rows = [np.pad(r, ((0, height - r.shape[0]), (0, width - r.shape[1]), (0, 0)), mode="edge") for r in rows]
    return np.concatenate(rows)
