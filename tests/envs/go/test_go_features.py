"""Planes, ladders and eyes: against boards checked by eye, and everywhere against the slow reference."""

import os
import random
import re
from itertools import product
from pathlib import Path
from typing import Any

import go_reference as reference
import numpy as np
import pytest

from envs.go.features import (
    CAPTURES,
    INVERSE,
    LADDER_CAPTURE,
    LADDER_ESCAPE,
    LIBERTIES,
    LIBERTIES_AFTER,
    SELF_ATARI,
    SENSIBLE,
    TURNS,
    alphago_slab,
    alphagozero_slab,
    symmetries,
)
from envs.go.game import Go
from envs.go.position import BLACK, WHITE, Position
from rlkit.augmentations import turn_boards

DATA = Path(os.environ.get("RLKIT_DATA", Path(__file__).parents[4] / "shared" / "data")) / "go"


def alphago_planes(position, colour_plane=False):
    """Of one position."""
    game, states = position.states()
    return alphago_slab(states, game.height, game.width, colour_plane)[0]


def alphagozero_planes(position):
    """Of one position."""
    game, states = position.states()
    return game.encode(states)[0]


def transform(planes, k):
    """Planes [..., N, N] under a symmetry."""
    size = planes.shape[-1]
    return turn_boards(planes.reshape(1, -1, size, size), symmetries(size)[k : k + 1]).reshape(planes.shape)


def agree(position, game):
    """Everything that both implementations say of a position."""
    planes, expected = alphago_planes(position, colour_plane=True), reference.alphago_planes(game, colour_plane=True)
    wrong = sorted({int(plane) for plane in np.argwhere(planes != expected)[:, 0]})
    assert not wrong, f"planes {wrong} of\n{position}"
    assert (alphago_planes(position) == expected[:48]).all()
    assert (alphagozero_planes(position) == reference.alphagozero_planes(game)).all(), position
    return planes


def drawn(*rows, to_play=BLACK, **rules):
    """A position; the reference agrees on it."""
    position = Position.parse("\n".join(rows), **rules).replace(to_play=to_play)
    game = reference.Game(len(rows), len(rows[0]), **rules)
    game.set_up(list(rows), to_play)
    agree(position, game)
    return position


def where(plane):
    return [tuple(int(i) for i in point) for point in np.argwhere(plane)]


def ladders(*rows, to_play=BLACK):
    """Where the side to move captures, and escapes."""
    planes = alphago_planes(drawn(*rows, to_play=to_play))
    return where(planes[LADDER_CAPTURE]), where(planes[LADDER_ESCAPE])


# random and human games against the reference


def random_game(seed, height, width, every=10):
    """Play a random game on both, with moves out of turn here and there, and hold every tenth position together."""
    rng = random.Random(seed)
    rules: dict[str, Any] = {"superko": rng.choice(reference.SUPERKO), "suicide": rng.random() < 0.2}
    position, game = Position.empty((height, width), **rules), reference.Game(height, width, **rules)
    fills_eyes = rng.random() < 0.3
    checked = 0
    for turn in range(2 * game.points + 5):
        # Situational superko alone would let a side that moves twice in a row undo a ko; the fast rules forbid it.
        out_of_turn = rng.random() < 0.1 and rules["superko"] != "situational"
        colour = 3 - game.to_play if out_of_turn else game.to_play
        move = game.points
        if rng.random() > 0.03:
            for point in rng.sample(list(game.near), game.points):
                there = point[0] * width + point[1]
                if game.legal(there, colour) and (fills_eyes or not reference.true_eye(game, point, colour)):
                    move = there
                    break
        game.play(move, colour)
        position = position.play(move, colour)
        if turn % every == 0 or game.is_over:
            agree(position, game)
            checked += 1
        if game.is_over:
            break
    return checked


@pytest.mark.parametrize("size", range(2, 10))
@pytest.mark.slow
def test_random_games(size):
    assert sum(random_game(100 * size + seed, size, size) for seed in range(12 if size < 7 else 4))


def test_random_games_on_rectangles():
    for height, width in ((1, 1), (1, 7), (6, 1), (2, 9), (5, 3)):
        assert random_game(height, height, width)


@pytest.mark.exhaustive
@pytest.mark.parametrize("size", range(1, 10))
def test_many_random_games(size):
    assert sum(random_game(1000 * size + seed, size, random.Random(seed).choice((size, 9))) for seed in range(400))


def human_games(start, step):
    for line in (DATA / "goquest_rated_9x9.sgf").read_text().splitlines()[start::step]:
        # five of these games repeat a board
        position, game = Position.empty(9, 7, superko="simple"), reference.Game(9, 9, 7, superko="simple")
        for number, (name, point) in enumerate(re.findall(r";([BW])\[(\w*)\]", line)):
            if game.is_over:
                break
            colour = " BW".index(name)
            move = "abcdefghi".index(point[1]) * 9 + "abcdefghi".index(point[0]) if point else 81
            game.play(move, colour)
            position = position.play(move, colour)
            if number % 10 == 9:
                yield position, game


NO_DATA = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data in {DATA}; RLKIT_DATA may name another folder")


@NO_DATA
@pytest.mark.slow
def test_human_games():
    assert sum(agree(position, game)[LADDER_CAPTURE].sum() for position, game in human_games(0, 300)) > 10


@NO_DATA
@pytest.mark.exhaustive
@pytest.mark.parametrize("start", range(1, 11))
def test_many_human_games(start):
    for position, game in human_games(start, 20):
        agree(position, game)


# ladders

LADDER = [".......", "..XX...", ".XO....", ".......", ".......", ".......", "......."]


def test_ladder():
    """White runs from the upper left along the diagonal, unless a stone of its own waits there."""
    assert ladders(*LADDER) == ([(3, 2)], []), "an atari from the right would let White out below"
    running = [*LADDER[:3], "..X....", *LADDER[4:]]
    assert ladders(*running, to_play=WHITE) == ([], [])
    assert alphago_planes(drawn(*running, to_play=WHITE))[20:28, 2, 3].any(), "it may run all the same"
    breaker = [*running[:4], "....O..", *LADDER[5:]]
    assert ladders(*breaker, to_play=WHITE) == ([], [(2, 3)])
    assert ladders(*LADDER[:4], *breaker[4:]) == ([], [])
    friend = [*running[:4], "....X..", *LADDER[5:]]
    assert ladders(*friend, to_play=WHITE) == ([], [])


def test_ladder_along_the_edge():
    """White crawls to the right and is lost, unless there is a friend in the fence."""
    assert ladders("......", "......", "XX.XXX", "XO....", to_play=WHITE) == ([], [])
    assert ladders("......", "......", "X..XXX", "XO....")[0] == [(2, 1)], "from (3, 2) it would get out"
    assert ladders("......", "......", "XX.O.X", "XO....", to_play=WHITE) == ([], [(3, 2)])


def test_escape_by_capturing():
    rows = "....X..", ".XXOX..", ".OOXO..", ".XX.O..", "......."
    assert ladders(*rows, to_play=WHITE)[1] == [(2, 0), (3, 3)], "running along the top does not help"


def test_net():
    """The net at (3, 3) captures, but it is no ladder; the ladders fail because of White's stone below."""
    rows = ".......", "..XX...", ".XO....", ".X.....", ".......", ".....O.", "......."
    assert ladders(*rows)[0] == []
    assert ladders(*rows[:5], ".......", rows[6])[0] == [(2, 3), (3, 2)]


def test_throw_in():
    """White may take the stone thrown in, and is in atari again."""
    assert ladders("XO..OX", "XOOOOX", "XXXXXX", "......")[0] == [(0, 2), (0, 3)]


def test_ladder_with_a_ko():
    """White could save the stones at the top by taking back on (1, 1), but not at once."""
    rows = ".XO.X", "XO.OX", ".XOX.", "..O..", "....."
    assert (1, 2) in ladders(*rows)[0]


# eyes


def test_true_eyes():
    def fills_an_eye(*rows):
        planes = alphago_planes(drawn(*rows))
        return where(planes[CAPTURES : CAPTURES + 8].any(0) & (planes[SENSIBLE] == 0))

    assert fills_an_eye(".X..", "XX..", "....") == [(0, 0)]
    assert fills_an_eye(".X..", "XO..", "....") == [], "a diagonal stone breaks an eye in the corner"
    assert fills_an_eye("....", ".X..", "X.X.", ".X..") == [(2, 1), (3, 0)]
    assert fills_an_eye("....", "OX..", "X.X.", ".X..") == [(2, 1), (3, 0)], "inside it takes two"
    assert fills_an_eye("....", "OXO.", "X.X.", ".X..") == [(3, 0)]


# the planes as such


def test_turns_since():
    """A point that is taken and played on again counts from its latest stone; passes age; set-up stones are old."""
    position = drawn("...X", "....", "....")
    for move, colour in ((0, BLACK), (1, WHITE), (4, WHITE), (12, BLACK), (0, WHITE), (11, BLACK), (10, BLACK)):
        position = position.play(move, colour)
    turns = alphago_planes(position)[TURNS : TURNS + 8]
    assert (turns.sum(0) == (position.board != 0)).all()
    ages = np.where(position.board, turns.argmax(0), -1)
    assert ages.tolist() == [[2, 5, -1, 7], [4, -1, -1, -1], [-1, -1, 0, 1]]


def middle_games(games=24, size=9, moves=50):
    """Random games of 20 to `moves` moves: (Go, states, their positions)."""
    rng = np.random.default_rng(5)
    go = Go(size)
    states = go.reset(games)
    positions = [Position.empty(size)] * games
    for turn in range(moves):
        legal = go.legal(states)[:, :-1]
        actions = np.where(legal.any(1), np.where(legal, rng.random(legal.shape), -1).argmax(1), go.points)
        going = np.flatnonzero(np.linspace(20, moves, games) > turn)
        some = states[going]
        go.play(some, actions[going])
        states[going] = some
        for g in going:
            positions[g] = positions[g].play(int(actions[g]))
    return go, states, positions


def test_one_hot_groups():
    go, states, _ = middle_games()
    planes = alphago_slab(states, 9, 9, colour_plane=True)
    stones, legal = planes[:, 0] + planes[:, 1], go.legal(states)[:, :-1].reshape(-1, 9, 9)
    assert planes.dtype == np.uint8 and planes.max() == 1
    assert (planes[:, :3].sum(1) == 1).all() and (planes[:, 3] == 1).all() and not planes[:, 47].any()
    for group, total in ((TURNS, stones), (LIBERTIES, stones), (CAPTURES, legal), (LIBERTIES_AFTER, legal)):
        assert (planes[:, group : group + 8].sum(1) == total).all()
    assert (planes[:, SELF_ATARI : SELF_ATARI + 8].sum(1) == planes[:, LIBERTIES_AFTER]).all()
    assert not (planes[:, LADDER_CAPTURE : SENSIBLE + 1].any(1) & ~legal).any()
    assert (planes[:, 48] == (go.to_play(states) == BLACK)[:, None, None]).all()


def test_slabs(threads):
    """A slab on several threads, and one position at a time."""
    _, states, positions = middle_games()
    threads(3)
    states, positions = np.tile(states, (4, 1)), positions * 4
    for colour_plane in (False, True):
        slab = alphago_slab(states, 9, 9, colour_plane)
        assert slab.shape == (96, 48 + colour_plane, 9, 9)
        assert (slab == [alphago_planes(position, colour_plane) for position in positions]).all()
    assert (alphagozero_slab(states, 9, 9) == [alphagozero_planes(position) for position in positions]).all()
    assert alphago_slab(states[:0], 9, 9).shape == (0, 48, 9, 9)


# symmetries


@pytest.mark.parametrize("k", range(8))
def test_the_symmetries_are_those_of_the_game(k):
    """Planes of the transformed game are the transformed planes, and its legal moves the transformed legal moves."""
    _, _, positions = middle_games(games=4, size=6, moves=30)
    for position in positions:
        other = Position.empty(6)
        for colour, move in position.moves():
            other = other.play(int(symmetries(6)[INVERSE[k], move]), colour)
        assert (other.board == transform(position.board, k)).all()
        assert (alphago_planes(other) == transform(alphago_planes(position), k)).all()
        assert (alphagozero_planes(other) == transform(alphagozero_planes(position), k)).all()
        assert (other.legal_moves() == position.legal_moves()[symmetries(6)[k]]).all()


def test_the_symmetries_are_a_group():
    points = np.arange(9).reshape(3, 3)
    images = [transform(points, k).tolist() for k in range(8)]
    assert images[0] == points.tolist() and images[1] == np.rot90(points).tolist()
    assert images[4] == [[2, 1, 0], [5, 4, 3], [8, 7, 6]] and len({str(image) for image in images}) == 8
    for a, b in product(range(8), repeat=2):
        both = transform(transform(points, a), b)
        assert both.tolist() in images
        assert (both == points).all() == (b == INVERSE[a])


@pytest.mark.parametrize("k", range(8))
def test_planes_and_policies_turn_alike(k):
    rng = np.random.default_rng(k)
    planes = rng.random((3, 2, 5, 5))
    policy = np.concatenate([planes.reshape(3, 2, 25), np.ones((3, 2, 1))], -1)
    turned = policy[..., symmetries(5)[k]]
    assert (turned[..., :-1].reshape(planes.shape) == transform(planes, k)).all() and (turned[..., -1] == 1).all()
    assert (transform(planes, k) == np.rot90(planes if k < 4 else planes[..., ::-1], k % 4, (2, 3))).all()
    assert (transform(transform(planes, k), INVERSE[k]) == planes).all()
    assert (turned[..., symmetries(5)[INVERSE[k]]] == policy).all()
