"""Play-outs by patterns: their notes against fresh ones, their choices against the softmax over the features."""

import math

import numpy as np
import pytest
from test_go_patterns import EXTENDS, SIZES, random_games

from envs.go import board, pattern_playouts, patterns
from envs.go.board import KO
from envs.go.chains import BLACK, EMPTY, WHITE
from envs.go.game import Go
from envs.go.pattern_playouts import Turn
from envs.go.patterns import NUM_FEATURES, PADDING, SAVE_ATARI
from envs.go.position import Position


def start(states):
    """(columns, notes, a buffer for stones taken) of a copy of a state."""
    row = states[0].copy()
    c = board.columns.py_func(row, row.view(np.int64))
    notes = np.zeros((pattern_playouts.ROWS, len(c.colour) + patterns.SPARE), np.int64)
    return c, notes, np.zeros(len(c.colour), np.int16), row


def random_policy():
    weights = np.random.default_rng(1).normal(size=NUM_FEATURES)
    weights[PADDING] = 0
    return weights, pattern_playouts.policy_of(weights)


@pytest.mark.parametrize("size", SIZES)
def test_notes_are_kept(size):
    """At every move of random games: as from scratch, and the weights of a choice are the softmax over features."""
    weights, policy = random_policy()
    height, width = size
    for seed in range(4):
        game = random_games(height, width, seed)
        states, move, _ = next(game)
        c, n, taken, row = start(states)
        pattern_playouts.begin(c, n, row, policy)
        stride, me, last, captured = width + 1, BLACK, 0, 0
        points = np.array([board.to_point.py_func(row, i) for i in range(height * width)])
        while True:
            now, fresh, _, _ = start(states)
            pattern_playouts.begin(now, fresh, states[0], policy)
            np.testing.assert_array_equal(c.colour, now.colour)
            empty = np.flatnonzero(c.colour == EMPTY)
            heads = np.unique(c.head[(c.colour == BLACK) | (c.colour == WHITE)])
            np.testing.assert_array_equal(n[patterns.CODE, empty], fresh[patterns.CODE, empty])
            np.testing.assert_array_equal(n[patterns.LEVEL, heads], fresh[patterns.LEVEL, heads])
            kept = slice(pattern_playouts.WEIGHT, pattern_playouts.SUM)
            np.testing.assert_array_equal(n[kept], fresh[kept])

            choice = n.copy()
            turn = Turn(me, last, int(states[0, KO]), captured)
            pattern_playouts.respond(c, choice, policy, stride, turn, taken)
            weight = choice[pattern_playouts.WEIGHT + me - 1, points]
            (ids,), (mask,) = patterns.features(states)
            exact = np.where(mask, np.exp(weights[ids].sum(-1)), 0)[:-1]
            np.testing.assert_allclose(weight / pattern_playouts.ONE, exact, rtol=1e-3, atol=1e-3)
            assert ((weight > 0) == mask[:-1]).all()
            assert choice[pattern_playouts.SUM, : len(c.colour) // 16 + 1].sum() == weight.sum()

            last, captured = int(board.to_point.py_func(row, move)), 0
            if last:
                captured = pattern_playouts.play(c, n, policy, stride, last, me, taken)
            me = 3 - me
            try:
                states, move, _ = next(game)
            except StopIteration:
                break


@pytest.mark.parametrize("uniform", [True, False])
def test_draws_follow_the_weights(uniform):
    """Chi-square over 20,000 choices from a position in which stones have just been taken."""
    weights, policy = random_policy()
    if uniform:
        weights = np.zeros(NUM_FEATURES)
        policy = pattern_playouts.policy_of(weights)
    position = Position.parse(EXTENDS.replace(". . O . .", "X . O . .")).play(14).play(8)
    go, states = position.states()
    (ids,), (mask,) = patterns.features(states)
    c, n, taken, row = start(states)
    pattern_playouts.begin(c, n, row, policy)
    before = n[pattern_playouts.WEIGHT : pattern_playouts.SUM].copy()
    last = int(board.to_point.py_func(row, position.last_move))
    random, draws = 12345, 20_000
    counts = np.zeros(len(c.colour))
    for _ in range(draws):
        random = (random * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        signed = random - (1 << 64) if random >> 63 else random
        counts[pattern_playouts.choose(c, n, policy, go.width + 1, Turn(BLACK, last, 0, 0), taken, signed)] += 1
    np.testing.assert_array_equal(n[pattern_playouts.WEIGHT : pattern_playouts.SUM], before)
    points = [board.to_point.py_func(row, i) for i in range(go.points)]
    expected = np.where(mask, np.exp(weights[ids].sum(-1)), 0)[:-1]
    expected *= draws / expected.sum()
    frequent = expected > 5
    chi2 = (((counts[points] - expected) ** 2)[frequent] / expected[frequent]).sum()
    df = frequent.sum() - 1
    assert df >= 8 and chi2 < df + 4 * math.sqrt(2 * df)
    assert counts[points][~mask[:-1]].sum() == 0 == draws - counts[points].sum()


def test_without_weights_they_are_light_playouts():
    go = Go(5, komi=0.5)
    states = go.reset(6000)
    policy = pattern_playouts.policy_of(np.zeros(NUM_FEATURES))
    value, length = pattern_playouts.playouts(states, policy, seed=1)
    light_value, light_length = go.playouts(states, seed=2)
    for ours, theirs in ((value, light_value), (length, light_length)):
        error = math.sqrt((ours.var() + theirs.var()) / len(states))
        assert abs(ours.mean() - theirs.mean()) < 4 * error


def test_same_seed_same_numbers(threads):
    policy = random_policy()[1]
    go = Go(7)
    states = go.reset(64)
    go.play(states, np.arange(64) % 49)
    runs = []
    for count in (1, 2):
        threads(count)
        runs.append([pattern_playouts.playouts(states, policy, 3, count=2), patterns.features(np.repeat(states, 4, 0))])
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
    other = pattern_playouts.playouts(states, policy, 4, count=2)
    assert (other[1] != runs[0][0][1]).any()


def test_weights_decide():
    """A policy that likes nothing but saving its stones does so, and the game's value is that of its side to move."""
    weights = np.zeros(NUM_FEATURES)
    weights[SAVE_ATARI] = 10
    policy = pattern_playouts.policy_of(weights)
    position = Position.parse(EXTENDS, komi=0.5).play(20).play(8)
    c, n, taken, row = start(position.states()[1])
    pattern_playouts.begin(c, n, row, policy)
    last = int(board.to_point.py_func(row, 8))
    randoms = range(-(1 << 63), 1 << 63, 1 << 56)
    points = [pattern_playouts.choose(c, n, policy, 6, Turn(BLACK, last, 0, 0), taken, random) for random in randoms]
    assert np.mean([board.to_move.py_func(row, p) == 2 for p in points]) > 0.99
    _, states = position.states()
    many = np.repeat(states, 400, 0)
    value, _ = pattern_playouts.playouts(many, policy, 1)
    reply = np.repeat(position.play(2).states()[1], 400, 0)
    assert abs(value.mean() + pattern_playouts.playouts(reply, policy, 2)[0].mean()) < 0.3


def test_finished_games_are_scored_as_they_stand():
    position = Position.parse("X.X..\n.X...\nXX...\n.....\n.....", komi=7.5).play(25).play(25)
    value, length = pattern_playouts.playouts(position.states()[1], random_policy()[1], 0)
    assert value.tolist() == [1] and length.tolist() == [0]


def test_bad_weights():
    with pytest.raises(ValueError, match="finite numbers"):
        pattern_playouts.policy_of(np.zeros(7))
    with pytest.raises(ValueError, match="finite numbers"):
        pattern_playouts.policy_of(np.full(NUM_FEATURES, np.nan))
