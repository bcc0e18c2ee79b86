"""Many games of Go at once, against the slow second implementation and against themselves."""

from functools import cache

import numpy as np
import pytest
from go_reference import BLACK, SUPERKO, WHITE, Game, true_eye

from envs.go import board, chains, knowledge, playouts
from envs.go.board import HASH, KEYS, KO, MOVES, PASSES, RECENT, REMOVED, STATE_SIZE, STORED, TAKEN, TO_PLAY
from envs.go.game import Go

SMALL = [(1, 4), (1, 7), (2, 2), (2, 3), (3, 2), (2, 5), (3, 3), (3, 4), (5, 3), (4, 4), (5, 5), (4, 7)]
LARGE = [(6, 6), (7, 7), (8, 8), (9, 9)]


@cache
def key_of(colour, point):
    return int(KEYS[colour, point])


def at(game, point):
    """The index of (row, column) in the columns of a state."""
    return (point[0] + 1) * (game.width + 1) + point[1] + 1


def hash_of(game, stones, to_play=BLACK):
    """From scratch; to_play counts for situational superko alone."""
    key = board.WHITE_TO_PLAY if game.superko == "situational" and to_play == WHITE else 0
    for point, colour in stones.items():
        key ^= key_of(colour, at(game, point))
    return key


def check_chains(c, game):
    """Colours, names, lists, sizes and liberties of all chains by flood fill."""
    colour, head, link = c.colour.tolist(), c.head.tolist(), c.link.tolist()
    expected = [chains.BORDER] * len(colour)
    for point in game.near:
        expected[at(game, point)] = game.stones.get(point, chains.EMPTY)
    assert colour == expected
    todo = set(game.stones)
    while todo:
        chain = game.chain(min(todo))
        todo -= chain
        stones = {at(game, point) for point in chain}
        name = head[min(stones)]
        assert name in stones and {head[stone] for stone in stones} == {name} and c.size[name] == len(chain)
        listed = [name]
        for _ in chain:
            listed.append(link[listed[-1]])
        assert listed[-1] == name and sorted(listed[1:]) == sorted(stones), "the list is no ring of the chain's stones"
        free = [at(game, q) for p in chain for q in game.near[p] if q not in game.stones]
        word = int(c.liberties[name])
        assert word == sum(map(chains.liberty.py_func, free)) > 0
        assert chains.in_atari.py_func(word) == (len(set(free)) == 1)
        if len(set(free)) == 1:
            assert chains.only_liberty.py_func(word) == free[0]


class Line:
    """A game of the reference, with what it does not keep itself."""

    def __init__(self, game):
        self.game = game
        self.vacated = set()
        """points that a stone was once taken from"""
        self.hashes = set()
        self.framed = [np.zeros(board.area_of(game.height, game.width), int)] * 7
        """the last boards as black + 256 * white in a frame"""
        self._remember()

    def _remember(self):
        game = self.game
        self.hashes.add(hash_of(game, game.stones, game.to_play))
        framed = np.zeros_like(self.framed[0])
        for point, colour in game.stones.items():
            framed[at(game, point)] = 1 if colour == BLACK else 256
        self.framed = [framed, *self.framed[:7]]

    def play(self, move):
        game, before = self.game, self.game.stones
        game.play(move)
        self.vacated |= before.keys() - game.stones.keys()
        if move < game.points and divmod(move, game.width) not in game.stones:
            self.vacated.add(divmod(move, game.width))
        self._remember()

    def choose(self, rng, legal):
        """Seldom a pass, and often a point that was taken from: there superko bites."""
        moves = np.flatnonzero(legal[:-1])
        if len(moves) == 0 or rng.random() < 0.02:
            return self.game.points
        again = [move for move in moves if divmod(int(move), self.game.width) in self.vacated]
        return int(rng.choice(again if again and rng.random() < 0.5 else moves))

    def superko_refuses(self, move):
        """Whether an illegal move is no suicide, where that is forbidden, and on no stone."""
        game, point = self.game, divmod(move, self.game.width)
        if game.superko == "simple" or game.is_over or point in game.stones:
            return False
        return game.suicide or point in game.after(point, game.to_play)[0].stones


def check(row, line):
    """One state against the reference: all of its header and its columns."""
    game, words = line.game, row.view(np.int64)
    c = board.columns.py_func(row, words)
    check_chains(c, game)
    for point in game.near:
        if point not in game.stones:
            assert c.head[at(game, point)] == (chains.VACATED if point in line.vacated else chains.NEVER)
    assert words[HASH] == hash_of(game, game.stones)
    stored = words[row[STATE_SIZE] // 4 :][: row[STORED]].tolist()
    assert set(stored) == (set() if game.superko == "simple" else line.hashes)
    assert (row[TAKEN + BLACK], row[TAKEN + WHITE]) == (game.captures[BLACK], game.captures[WHITE])
    assert (row[TO_PLAY], row[PASSES], row[MOVES]) == (game.to_play, game.passes, game.move_number)
    assert bool(row[REMOVED]) == bool(line.vacated)
    assert row[KO] == (at(game, game.ko[0]) if game.ko else 0) and (not game.ko or game.ko[1] == game.to_play)
    for k, (_, move) in enumerate(reversed(game.last[-8:])):
        point = at(game, divmod(move, game.width)) if move < game.points else 0
        assert row[RECENT + (game.move_number - 1 - k) % 8] == point
    bits = sum(framed << k for k, framed in enumerate(line.framed))
    assert (c.past.view(np.uint16) == bits).all()
    if game.points <= 25 or game.move_number % 4 == 0:  # the reference is slow here
        owner = np.zeros((2, len(c.colour)), np.int16)
        area = knowledge.own_points(row, words, owner[0], owner[1])
        owned = owner[0].tolist()
        sign = [[(0, 1, -1)[owned[at(game, (r, col))]] for col in range(game.width)] for r in range(game.height)]
        assert sign == game.ownership() and area == sum(map(sum, sign))
    for move, point in enumerate(game.near):
        if point not in game.stones and move % 8 == game.move_number % 8:
            p, me, after = at(game, point), game.to_play, game.after(point, game.to_play)[0]
            suicide = point not in after.stones
            assert playouts.is_sensible(c, game.width + 1, p, me) == (not suicide and not true_eye(game, point, me))
            assert board.hash_after(c, game.width + 1, words[HASH], p, me, suicide) == hash_of(game, after.stones)


def compare(go, games, seed):
    """Play games at random on both implementations in lock-step; returns how often superko refused a move."""
    rng = np.random.default_rng(seed)
    rules = {"komi": go.komi, "superko": go.superko, "suicide": go.suicide, "max_moves": go.max_moves}
    lines = [Line(Game(go.height, go.width, **rules)) for _ in range(games)]
    states = go.reset(games)
    refused = 0
    alive = list(range(games))
    while alive:
        rows = states[alive]
        legal, over, score = go.legal(rows), go.is_over(rows), go.score(rows)
        finished, value = go.outcome(rows)
        for i, g in enumerate(alive):
            line, game = lines[g], lines[g].game
            assert over[i] == finished[i] == game.is_over
            moves = game.legal_moves()
            assert legal[i].tolist() == moves, f"{go}, seed {seed}, game {g}: {game.last}"
            check(rows[i], line)
            if game.is_over:
                assert score[i] == game.score()
            assert go.to_play(rows)[i] == game.to_play
            won = np.sign(score[i]) * (1 if game.to_play == BLACK else -1)
            assert value[i] == (won if game.is_over else 0)
            refused += sum(line.superko_refuses(move) for move in range(game.points) if not moves[move])
        going = np.flatnonzero(~over)
        alive = [alive[i] for i in going]
        actions = [lines[alive[k]].choose(rng, legal[i]) for k, i in enumerate(going)]
        rows = rows[going]
        go.play(rows, np.array(actions, int))
        states[alive] = rows
        for g, action in zip(alive, actions, strict=True):
            lines[g].play(action)
    return refused


def refusals(rounds, games, seed, **rules):
    """Compare games on every shape; returns how often superko refused a move."""
    total = 0
    for number in range(rounds):
        for i, (height, width) in enumerate(SMALL + LARGE):
            komi = (0.5, -3, 7.5, 0, 6)[(i + number) % 5]
            go = Go(height, width, komi, max_moves=min(6 * height * width, 80), **rules)
            total += compare(go, games if i < len(SMALL) else 1, seed + 100 * number + i)
    return total


@pytest.mark.parametrize("suicide", [False, True])
@pytest.mark.parametrize("superko", SUPERKO)
@pytest.mark.slow
def test_random_games_agree_with_the_reference(superko, suicide):
    """6 x (12 x 3 + 4) games."""
    refused = refusals(rounds=1, games=3, seed=0, superko=superko, suicide=suicide)
    assert (refused > 0) == (superko != "simple"), "superko refused no move: these games say nothing about it"


@pytest.mark.exhaustive
@pytest.mark.parametrize("suicide", [False, True])
@pytest.mark.parametrize("superko", SUPERKO)
def test_ten_thousand_random_games_agree_with_the_reference(superko, suicide):
    """6 x 17 x (12 x 8 + 4) games."""
    refusals(rounds=17, games=8, seed=1_000_000, superko=superko, suicide=suicide)


def drawn(colours, game):
    """A reference game with the stones of a state's column of colours."""
    game.stones = {p: int(colours[at(game, p)]) for p in game.near if colours[at(game, p)]}
    return game


@pytest.mark.parametrize("height, width", [(19, 19), (19, 1), (1, 19), (13, 19), (19, 10)])
def test_chains_of_large_boards(height, width):
    """At the end of long games, where points and liberties are as many as the words must hold."""
    rng = np.random.default_rng(0)
    go = Go(height, width, max_moves=900)
    states = go.reset(3)
    for _ in range(min(700, 3 * go.points)):
        legal = go.legal(states)[:, :-1]
        go.play(states, np.where(legal.any(1), (legal * rng.random(legal.shape)).argmax(1), go.points))
        states[:, PASSES] = 0
    for row in states:
        c = board.columns.py_func(row, row.view(np.int64))
        check_chains(c, drawn(c.colour, Game(height, width)))


def test_one_chain_with_as_many_liberties_as_there_are():
    """A comb over the whole board: 342 pairs of a stone and a liberty, up to the largest points."""
    comb = [r * 19 + c for r in range(19) for c in range(19) if c % 2 == 0 or r == 0]
    for moves in (comb, [360 - move for move in comb], sorted(comb, key=lambda m: (m % 19, m))):
        go = Go(19)
        states = go.reset(1)
        for move in moves:
            go.play(states, np.array([move]))
            go.play(states, np.array([361]))
        c = board.columns.py_func(states[0], states[0].view(np.int64))
        game = drawn(c.colour, Game(19, 19))
        check_chains(c, game)
        assert len(game.stones) == len(comb)


RING = """
. . . . . . . . . .
. X X X X X X X X .
. X O O O O O O O X
X X O X X X X X O X
X O . O X . X X O X
X X O X X X X X O X
. X O O O O O O O X
. X X X X X X X X .
. . . . . . . . . .
"""


def test_the_hash_after_a_move_takes_each_chain_once():
    """Black in the middle takes a chain above and below, and one on either side of it."""
    stones = ["".join(line.split()) for line in RING.strip().splitlines()]
    go, game = Go(len(stones), len(stones[0])), Game(len(stones), len(stones[0]))
    game.set_up(stones)
    row = go.reset(1)[0]
    c = board.columns.py_func(row, row.view(np.int64))
    taken = np.zeros(len(c.colour), np.int16)
    for point, colour in game.stones.items():
        chains.place(c, go.width + 1, at(game, point), colour, taken)
    check_chains(c, game)
    after, gone = game.after((4, 2), BLACK)
    assert len(gone) == 21 and len({frozenset(game.chain(p)) for p in gone}) == 3
    key = board.hash_after(c, go.width + 1, hash_of(game, game.stones), at(game, (4, 2)), BLACK, False)
    assert key == hash_of(game, after.stones)
