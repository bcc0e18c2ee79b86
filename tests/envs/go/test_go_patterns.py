"""Patterns against a second implementation by sets and tuples, under symmetries, and on boards drawn by hand."""

import itertools

import go_reference as reference
import numpy as np
import pytest

from envs.go import patterns
from envs.go.board import TO_PLAY
from envs.go.chains import BLACK, WHITE
from envs.go.game import Go
from envs.go.patterns import DIAMOND, NAKADE, NEIGHBOUR, NUM_FEATURES, PADDING, RESPONSE, SAVE_ATARI, SURROUNDING
from envs.go.position import Position

STRAIGHT, DIAGONAL = NEIGHBOUR, NEIGHBOUR + 1
SIZES = [(1, 2), (1, 7), (2, 2), (3, 3), (4, 5), (7, 5), (9, 9)]
AROUND = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)]
WIDE = [*AROUND, (-2, 0), (0, 2), (2, 0), (0, -2)]
SYMMETRIES = [
    lambda r, c, a=a, b=b, t=t: (a * c, b * r) if t else (a * r, b * c)
    for a, b, t in itertools.product((1, -1), (1, -1), (False, True))
]


def random_games(height, width, seed, most=200):
    """(states before the move [1, ...], move, reference game) along a random game that fills no eyes."""
    rng = np.random.default_rng(seed)
    go = Go(height, width, superko="simple", max_moves=1000)
    states, game = go.reset(1), reference.Game(height, width, superko="simple")
    for _ in range(most):
        candidates = np.flatnonzero(patterns.features(states)[1][0])
        move = int(rng.choice(candidates)) if len(candidates) and rng.random() > 0.03 else go.points
        yield states, move, game
        if game.is_over:
            return
        go.play(states, np.array([move]))
        game.play(move)


def drawn(text, *moves, to_play=BLACK):
    """(features [points + 1, SLOTS], candidates [points + 1]) of a drawing after moves."""
    position = Position.parse(text).replace(to_play=to_play)
    for move in moves:
        position = position.play(move)
    ids, mask = patterns.features(position.states()[1])
    return ids[0], mask[0]


def having(ids, feature):
    return np.flatnonzero((ids == feature).any(-1)).tolist()


# a second implementation


def seen(game, point, levels):
    """What the side to move sees on a point: colour, and 1, 2 or 3 liberties if it is told."""
    if point not in game.near:
        return ("border", 0)
    if point not in game.stones:
        return ("empty", 0)
    return ("own" if game.stones[point] == game.to_play else "other", levels and min(len(game.liberties(point)), 3))


def surrounding(game, point):
    sights = {offset: seen(game, (point[0] + offset[0], point[1] + offset[1]), 0 in offset) for offset in AROUND}
    return min(tuple(sights[turned(*offset)] for offset in AROUND) for turned in SYMMETRIES)


def diamond(game, last, point):
    """The diamond around the previous move with the point's place in it; None if it is outside."""
    place = (point[0] - last[0], point[1] - last[1])
    if place not in WIDE:
        return None
    sights = {}
    for r, c in WIDE:
        straight = abs(r) + abs(c) == 1
        edge = abs(r) + abs(c) == 2 and 0 in (r, c) and (last[0] + r // 2, last[1] + c // 2) not in game.near
        sights[r, c] = ("border", 0) if edge else seen(game, (last[0] + r, last[1] + c), straight)
    centre = min(len(game.liberties(last)), 3)
    return min(
        (centre, tuple(sights[turned(*offset)] for offset in WIDE), [turned(*o) == place for o in WIDE].index(True))
        for turned in SYMMETRIES
    )


def previous_stone(game):
    if not game.last or game.last[-1][1] == game.points:
        return None
    return divmod(game.last[-1][1], game.width)


def saves(game, last, point):
    """Whether the side to move saves a chain in atari beside the previous move."""
    after, taken = game.after(point, game.to_play)
    for stone in game.near[last]:
        if game.stones.get(stone) == game.to_play and len(game.liberties(stone)) == 1:
            if game.border(game.chain(stone)) & taken:
                return True
            near = after.liberties(point) - (taken - set(game.near[point])) if point in after.stones else ()
            if point in game.liberties(stone) and len(near) >= 2:
                return True
    return False


def is_candidate(game, point):
    row, column = point
    if not game.legal(row * game.width + column) or reference.true_eye(game, point, game.to_play):
        return False
    return point in game.after(point, game.to_play)[0].stones


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.slow
def test_second_implementation(size):
    surroundings: dict = {}
    diamonds: dict = {}
    height, width = size
    for seed in range(3):
        for states, _, game in itertools.islice(random_games(height, width, seed), seed, None, 5):
            (ids,), (mask,) = patterns.features(states)
            last = previous_stone(game)
            assert not mask[-1] and (ids[-1] == PADDING).all()
            for move, point in enumerate(game.near):
                assert mask[move] == is_candidate(game, point)
                if not mask[move]:
                    assert (ids[move] == PADDING).all()
                    continue
                kind, place, response, neighbour, save, _ = ids[move].tolist()
                assert SURROUNDING < kind < DIAMOND
                assert surroundings.setdefault(surrounding(game, point), kind) == kind
                key = last and diamond(game, last, point)
                assert response == (RESPONSE if key else PADDING)
                assert save == (SAVE_ATARI if last and saves(game, last, point) else PADDING)
                if key:
                    assert diamonds.setdefault(key, place) == place and DIAMOND <= place < NUM_FEATURES
                    away = abs(point[0] - last[0]), abs(point[1] - last[1])
                    assert neighbour == {1: STRAIGHT, 2: DIAGONAL}.get(sum(away) if max(away) == 1 else 0, PADDING)
                else:
                    assert place == neighbour == PADDING
    assert len(set(surroundings.values())) == len(surroundings), "different surroundings are different features"
    assert len(set(diamonds.values())) >= 0.95 * len(diamonds), "and diamonds almost always"


# what does not change


def test_symmetries_and_colours():
    """The features of a turned board are the turned features, and exchanged colours change nothing."""
    size = 6
    go = Go(size, superko="simple", max_moves=1000)
    grid = np.arange(size * size).reshape(size, size)
    for states, _, game in itertools.islice(random_games(size, size, 5), 0, None, 7):
        played = np.array([move for _, move in game.last], int)
        ids, mask = patterns.features(states)
        for turns, mirrored, swapped in itertools.product(range(4), (False, True), (False, True)):
            to = np.rot90(grid, turns)[:, :: -1 if mirrored else 1].ravel()  # the point that was at to[i] is now at i
            where = np.append(np.argsort(to), size * size)
            other = go.reset(1)
            other[0, TO_PLAY] = WHITE if swapped else BLACK
            for move in played:
                go.play(other, where[[move]])
            other_ids, other_mask = patterns.features(other)
            np.testing.assert_array_equal(other_ids[:, where], ids)
            np.testing.assert_array_equal(other_mask[:, where], mask)


def test_number_of_surroundings():
    """Those away from edges by Burnside's lemma: 7 sights of a straight neighbour, 3 of a diagonal one."""
    fixed = 7**4 * 3**4 + 2 * 7 * 3 + 7**2 * 3**2 + 2 * 7**3 * 3**2 + 2 * 7**2 * 3**3
    edge = 7**3 * 3**2 + 7**2 * 3
    corner = 7**2 * 3 + 7 * 3
    thin = (7**2 + 7 + 7 + 7**2) // 4 + 7 + 1  # between two edges, at the end of a line, and alone
    assert fixed // 8 + edge // 2 + corner // 2 + thin == patterns.NUM_SURROUNDINGS


# boards


EXTENDS = """
. . . . .
. O X . .
. . O . .
. . . . .
. . . . ."""


def test_save_by_extension():
    ids, _ = drawn(EXTENDS, 8, to_play=WHITE)  # on the right; the stone's last liberty is above
    assert having(ids, SAVE_ATARI) == [2]
    ids, _ = drawn(EXTENDS, 2, to_play=WHITE)
    assert having(ids, SAVE_ATARI) == [8]
    ids, _ = drawn(EXTENDS, 20, to_play=WHITE)
    assert having(ids, SAVE_ATARI) == [], "two liberties are no atari"


def test_no_save_into_another_atari():
    text = """
    . X O . .
    O . O . .
    . . . . .
    . . . . .
    . . . . ."""
    ids, mask = drawn(text, 0, to_play=WHITE)
    assert mask[6] and having(ids, SAVE_ATARI) == [], "the stone would have one liberty again, below"


def test_save_by_capture():
    text = """
    . O . . .
    O X . . .
    . O . . .
    . . . . .
    . . . . ."""
    ids, mask = drawn(text, 2)
    assert mask[0] and having(ids, SAVE_ATARI) == [7], "in the corner it would have one liberty"


def test_response_and_neighbour():
    text = "\n".join([".........", *["........."] * 8])
    ids, mask = drawn(text, 40)
    assert having(ids, RESPONSE) == [22, 30, 31, 32, 38, 39, 41, 42, 48, 49, 50, 58]
    assert having(ids, STRAIGHT) == [31, 39, 41, 49]
    assert having(ids, DIAGONAL) == [30, 32, 48, 50]
    assert len({*ids[[22, 38, 42, 58], 1]}) == len({*ids[[31, 39, 41, 49], 1]}) == 1
    assert len({*ids[having(ids, RESPONSE), 1]}) == 3
    assert mask.sum() == 80 and len({*ids[mask, 0]}) == 5, "corner, edge, inside, beside the stone, across from it"
    ids, _ = drawn(text, 8)
    assert having(ids, RESPONSE) == [6, 7, 16, 17, 26], "the next row does not begin where one ends"
    ids, _ = drawn(text, 40, 81)
    assert having(ids, RESPONSE) == [], "after a pass there is nothing to respond to"


def test_liberties_are_seen():
    """Of the stone above the middle: one, two, three, and two again."""
    one, two, three, again = (
        drawn(f"{row}\n.OXO.\n.....\n.....\n.....")[0][12, 0] for row in ("..O..", ".....", "..X..", ".OX..")
    )
    assert len({one, two, three}) == 3 and again == two


def test_diamond_sees_two_steps_and_the_liberties_of_the_move():
    empty = "\n".join(["......."] * 7)
    far = "\n".join(["...O..."] + ["......."] * 6)
    assert (drawn(far, 17)[0][24, 1]) != (drawn(empty, 17)[0][24, 1])
    outside = "\n".join(["..O...."] + ["......."] * 6)
    assert (drawn(outside, 17)[0][24, 1]) == (drawn(empty, 17)[0][24, 1])


@pytest.mark.parametrize(
    "shape, vital, feature",
    [
        (["OOO"], (0, 1), NAKADE),
        (["OO", "O."], (0, 0), NAKADE),
        (["OOO", ".O."], (0, 1), NAKADE + 1),
        (["OOO", "OO."], (0, 1), NAKADE + 2),
        ([".O.", "OOO", ".O."], (1, 1), NAKADE + 3),
        ([".O.", "OOO", "OO."], (1, 1), NAKADE + 4),
        (["OO"], None, PADDING),
        (["OOOO"], None, PADDING),
        (["OO", "OO"], None, PADDING),
        (["OO.", ".OO"], None, PADDING),
        (["OOO", ".O.", ".O."], None, PADDING),
        (["OOO", "OOO"], None, PADDING),
        (["OOOO", "OOO."], None, PADDING),
    ],
)
def test_nakade(shape, vital, feature):
    """Black takes White's stones, surrounded in the middle of a board, and White plays into the hole."""
    size = 9
    cells = np.full((size, size), ".")
    for r, row in enumerate(shape):
        for c, sign in enumerate(row):
            if sign == "O":
                cells[3 + r, 3 + c] = "O"
    for r, c in np.argwhere(cells == "O"):
        for point in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if cells[point] == ".":
                cells[point] = "X"
    row, column = np.argwhere(cells == "X")[0]
    cells[row, column] = "."
    ids, _ = drawn("\n".join("".join(line) for line in cells), int(row * size + column))
    found = [(int(move), int(ids[move, 5])) for move in np.flatnonzero(ids[:, 5])]
    assert found == ([] if vital is None else [((3 + vital[0]) * size + 3 + vital[1], feature)])


def test_candidates():
    text = """
    . X . O .
    X X O . O
    . X O O .
    X X . . .
    . . . . ."""
    _, mask = drawn(text)
    assert not mask[[0, 10]].any(), "own eyes"
    assert mask[2] and not mask[4], "a throw-in is allowed, suicide is not"
    ko = """
    . X O . .
    X . X O .
    . X O . .
    . . . . .
    . . . . ."""
    _, mask = drawn(ko, 6, to_play=WHITE)
    assert not mask[7], "White has just taken there"
