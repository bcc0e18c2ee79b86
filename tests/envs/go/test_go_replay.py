"""Recorded games as arrays: the positions that a replay one by one gives, and what is left out."""

import numpy as np
import pytest

from envs.go.chains import BLACK, WHITE
from envs.go.game import Go
from envs.go.position import Position
from envs.go.replay import UNKNOWN, from_lists, gather
from envs.go.sgf import parse


def random_games(count, size, seed):
    """(records, what Position says of them)."""
    rng, texts = np.random.default_rng(seed), []
    for _ in range(count):
        position, moves = Position.empty(size, 6.5), ""
        for i in range(int(rng.integers(10, 40))):
            legal = np.flatnonzero(position.legal_moves())
            move = int(rng.choice(legal[legal < size * size])) if (legal < size * size).any() else size * size
            point = "" if move == size * size else "abcdefghi"[move % size] + "abcdefghi"[move // size]
            moves += f";{'BW'[i % 2]}[{point}]"
            position = position.play(move)
            if position.is_over:
                break
        texts.append(f"(;SZ[{size}]KM[6.5]RE[{'BW'[int(rng.integers(2))]}+R]{moves})")
    return parse("\n".join(texts))


def test_states_are_those_of_a_replay_one_by_one():
    records = random_games(6, 5, 0)
    games, left_out = gather(records)
    assert not left_out and len(games) == 6 and games.game.height == 5 and set(games.komi) == {6.5}
    index = np.random.default_rng(1).permutation(len(games.moves))[:60]
    states = games.states(index)
    for row, i in zip(states, index, strict=True):
        g = int(np.searchsorted(games.begins, i, "right")) - 1
        number = int(i - games.begins[g])
        position = records[g].position(number)
        assert games.number(np.array([i]))[0] == number
        assert (games.game.encode(row[None])[0, [0, 8]].argmax(0).shape) == (5, 5)
        own, other = games.game.encode(row[None])[0, 0], games.game.encode(row[None])[0, 8]
        assert np.array_equal(own, position.board == position.to_play)
        assert np.array_equal(other, position.board == 3 - position.to_play)
        assert games.game.to_play(row[None])[0] == position.to_play
    ends = games.begins[1:] - 1
    finals = games.states(ends)
    games.game.play(finals, games.moves[ends])
    assert games.game.score(finals).tolist() == [record.position().score() for record in records]


def test_outcomes_are_those_of_the_result_field_for_the_side_to_move():
    black, white, draw, void = (f"(;SZ[5]RE[{result}];B[aa];W[bb];B[cc])" for result in ("B+R", "W+2.5", "0", "Void"))
    games, _ = gather(parse(black + white + draw + void))
    assert games.winner.tolist() == [BLACK, WHITE, 0, UNKNOWN]
    assert games.z(np.arange(12)).tolist() == [1, -1, 1, -1, 1, -1, 0, 0, 0, 0, 0, 0]


def test_what_cannot_be_used_is_counted():
    texts = [
        "(;SZ[5]RE[B+R];B[aa];W[bb])",
        "(;SZ[9]RE[B+R];B[aa];W[bb])",
        "(;SZ[5]HA[2]AB[aa][bb]RE[B+R];W[cc])",
        "(;SZ[5]RE[B+R];B[aa];B[bb])",
        "(;SZ[5]RE[B+R];B[aa])",
        "(;SZ[5]PB[one (2000)]PW[two (1500)]RE[B+R];B[aa];W[bb])",
    ]
    games, left_out = gather(parse("".join(texts)), least_moves=2)
    assert len(games) == 2 and dict(left_out) == {
        "another board": 1, "stones set up": 1, "sides that do not alternate": 1, "too few moves": 1
    }  # fmt: skip
    games, left_out = gather(parse("".join(texts)), least_rating=1500)
    assert len(games) == 1 and left_out["players rated too low, or not at all"] == 3
    assert gather(parse("".join(texts)), size=9)[0].game.height == 9
    with pytest.raises(ValueError, match="no game can be used: 1 with another board"):
        gather(parse(texts[0]), size=7)


def test_a_game_ends_at_its_first_illegal_move_and_after_two_passes():
    games, _ = gather(parse("(;SZ[5];B[aa];W[aa];B[cc])(;SZ[5];B[aa];W[];B[];W[bb])(;SZ[5];B[aa];W[bb])"))
    assert np.diff(games.begins).tolist() == [1, 3, 2]
    assert games.moves.tolist() == [0, 0, 25, 25, 0, 6]


def test_some_of_the_games_in_another_order():
    games = from_lists(Go(5), [[0, 1], [2, 3, 4], [5]], [BLACK, WHITE, 0], [1.0, 2.0, 3.0])
    some = games.select(np.array([2, 1]))
    assert some.moves.tolist() == [5, 2, 3, 4] and some.begins.tolist() == [0, 1, 4]
    assert some.winner.tolist() == [0, WHITE] and some.komi.tolist() == [3.0, 2.0] and some.of.tolist() == [0, 1, 1, 1]
