"""Many games of Go at once: trees, threads, refusals and play-outs."""

from types import SimpleNamespace

import numpy as np
import pytest
from go_reference import BLACK, SUPERKO, WHITE, Game, true_eye
from test_go_game import check_chains, drawn

from envs.go import board, playouts
from envs.go.board import MOVES, STORED
from envs.go.game import MOST_MOVES, Go
from envs.go.position import Position


def random_states(go, games, plies, seed):
    """States of games after so many random legal moves, few of them passes; finished games stay as they are."""
    rng = np.random.default_rng(seed)
    states = go.reset(games)
    for _ in range(plies):
        legal = go.legal(states)
        actions = (legal * (rng.random(legal.shape) + 1) * ([1.0] * go.points + [0.52])).argmax(1)
        alive = np.flatnonzero(legal.any(1))
        rows = states[alive]
        go.play(rows, actions[alive])
        states[alive] = rows
    return states


def followed(go, games, nodes, seed):
    """Grow a random tree below each game and hold every edge's `follow` against the game that was played out.

    Returns how many moves are illegal only because of a position in the game, and only because of one on the path.
    """
    rng = np.random.default_rng(seed)
    count, size = len(games), go.state_size
    tree = np.arange(count)
    trees = SimpleNamespace(states=np.zeros((count, nodes, size), np.int16), parents=np.zeros((count, nodes), np.int32))
    trees.states[:, 0] = games[:, :size]
    played = np.zeros((nodes, *games.shape), np.int16)
    played[0] = games
    by_game = by_path = 0
    for new in range(1, nodes):
        parent = rng.integers(max(0, new - 3), new, count)
        parent[go.is_over(played[parent, tree])] = 0
        legal = go.legal(played[parent, tree])
        actions = (legal * rng.random(legal.shape)).argmax(1)
        rows = go.states_after(games, trees, tree, parent, actions)
        played[new] = played[parent, tree]
        go.play(played[new], actions)
        expected = go.legal(played[new])
        wrong = np.argwhere(go.legal(rows) != expected)
        assert len(wrong) == 0, f"{go}: after {actions[wrong[0, 0]]} move {wrong[0, 1]} is {expected[tuple(wrong[0])]}"
        rows[:, STORED] = played[new, :, STORED]
        assert (rows[:, :size] == played[new, :, :size]).all()
        trees.states[:, new], trees.parents[:, new] = rows[:, :size], parent
        known = rows.copy()  # as if there had been no path
        known[:, STORED] = games[:, STORED]
        known.view(np.int64)[:, size // 4 :] = games.view(np.int64)[:, size // 4 :]
        by_path += int((go.legal(known) != expected).sum())
        known[:, STORED] = 0
        by_game += int((go.legal(known) != expected).sum())
    return by_game, by_path


@pytest.mark.parametrize("suicide", [False, True])
@pytest.mark.parametrize("superko", SUPERKO)
def test_an_edge_of_a_tree_knows_the_game_and_the_path(superko, suicide):
    totals = np.zeros(2, int)
    for shape, plies in (((2, 2), 4), ((2, 3), 10), ((1, 5), 6), ((3, 3), 0), ((3, 3), 20)):
        go = Go(*shape, superko=superko, suicide=suicide, max_moves=60)
        games = random_states(go, 60, plies, seed=plies)
        totals += followed(go, games[~go.is_over(games)], 16, seed=5)
    assert (totals > 0).all() == (superko != "simple")


def test_threads_and_single_rows_give_the_same_bits(threads):
    go = Go(4, 5, max_moves=70)
    rng = np.random.default_rng(3)

    def verbs(rows, parents, edges, moves):
        after, here = rows.copy(), np.arange(len(rows))
        with pytest.raises(ValueError, match=r"game 0: ask legal\(\) first"):
            go.play(after, moves)
        trees = SimpleNamespace(states=rows[:, None, : go.state_size].copy(), parents=parents)
        below = go.states_after(rows, trees, here, 0 * here, edges)
        below = below[:, : go.state_size], go.legal(below)
        return [go.legal(rows), after, go.score(rows), *go.outcome(rows), go.encode(rows), go.is_over(rows), *below]

    for plies in (0, 9, 30, 64):
        states = random_states(go, 600, plies, seed=plies)
        legal = go.legal(states)
        edges = np.where(legal.any(1), (legal * rng.random(legal.shape)).argmax(1), go.points)
        moves = edges.copy()
        moves[::97] = -5  # refused everywhere in the same way
        parents = np.zeros((600, 1), np.int32)
        results = []
        for count in (1, 2, 3):
            threads(count)
            results.append(verbs(states, parents, edges, moves))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)
        for g in range(0, 600, 97):
            one = slice(g, g + 1)
            alone = verbs(states[one], parents[one], edges[one], moves[one])
            for a, b in zip(results[0], alone, strict=True):
                np.testing.assert_array_equal(a[g], b[0])


def test_what_cannot_be_played_is_refused_and_the_rest_is_played():
    go = Go(3, max_moves=6)
    states = go.reset(8)
    go.play(states, np.full(8, 4))
    for game, passes in ((6, 2), (7, 5)):
        for k in range(passes):
            rows = states[game : game + 1].copy()
            go.play(rows, np.array([9 if passes == 2 else (0, 1, 2, 3, 5)[k]]))
            states[game] = rows[0]
    assert go.is_over(states).tolist() == [False] * 6 + [True] * 2
    before = states.copy()
    with pytest.raises(ValueError, match="action 4 cannot be played in game 1"):
        go.play(states, np.array([0, 4, -1, 10, 1 << 40, 9, 8, 8]))
    assert (states[[1, 2, 3, 4, 6, 7]] == before[[1, 2, 3, 4, 6, 7]]).all()
    assert (states[[0, 5], MOVES] == 2).all() and go.to_play(states)[0] == BLACK
    assert not go.legal(states)[6:].any() and go.legal(states)[0].sum() == 8


@pytest.mark.parametrize(
    "rules",
    [
        {"height": 0},
        {"height": 20},
        {"height": 9, "width": -1},
        {"komi": float("nan")},
        {"komi": float("inf")},
        {"superko": "psk"},
        {"max_moves": -1},
        {"max_moves": MOST_MOVES + 1},
    ],
)
def test_rules_that_are_none(rules):
    with pytest.raises(ValueError, match=r"board|komi|superko|max_moves"):
        Go(**rules)


def test_play_outs_depend_on_the_seed_alone(threads):
    go = Go(5)
    states = random_states(go, 64, 8, seed=0)
    before = states.copy()
    threads(1)
    value, length = go.playouts(states, seed=1, count=5)
    threads(2)
    for a, b in zip(go.playouts(states, seed=1, count=5), (value, length), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(go.playouts(states[:7], seed=1, count=5)[1], length[:7])
    assert (states == before).all()
    assert (go.playouts(states, seed=2, count=5)[1] != length).mean() > 0.5
    same = np.repeat(states[:1], 64, 0)
    assert len(set(go.playouts(same, seed=1)[1].tolist())) > 3, "each game has a stream of its own"


def test_play_outs_end_where_nothing_is_left_to_play():
    """The board, the chains and the score of a play-out's last position; what is empty is an eye or a suicide."""
    for height, width in ((1, 5), (2, 3), (3, 3), (4, 4), (6, 3), (5, 5)):
        go = Go(height, width, komi=0)
        for seed in range(25):
            row = go.position_row()
            words, work = row.view(np.int64), np.zeros((2, board.area_of(height, width)), np.int16)
            points, moves = playouts.playout(row, words, playouts.mix(seed, 0), work[0], work[1], 3 * go.points)
            c = board.columns.py_func(row, words)
            game = drawn(c.colour, Game(height, width))
            check_chains(c, game)
            if moves < 3 * go.points:
                assert points == sum(map(sum, game.ownership()))
                for point in set(game.near) - set(game.stones):
                    for colour in (BLACK, WHITE):
                        suicide = point not in game.after(point, colour)[0].stones
                        assert suicide or true_eye(game, point, colour)


def slow_play_out(rng, game):
    """(Black minus White, moves): uniform over what is no suicide, no ko and no own eye."""
    stones, moves, passes, colour = game, 0, 0, BLACK
    while passes < 2 and moves < 3 * game.points:
        found = []
        for point in game.near:
            if point not in stones.stones and stones.ko != (point, colour) and not true_eye(stones, point, colour):
                after, _ = stones.after(point, colour)
                if point in after.stones:
                    found.append(after)
        if found:
            stones, passes = found[rng.integers(len(found))], 0
        else:
            passes, stones.ko = passes + 1, None
        moves, colour = moves + 1, 3 - colour
    end = Game(game.height, game.width)
    end.stones = stones.stones
    return sum(map(sum, end.ownership())), moves


@pytest.mark.parametrize("height, width", [(2, 3), (3, 3)])
@pytest.mark.slow
def test_play_outs_are_distributed_like_slow_ones(height, width):
    rng = np.random.default_rng(4)
    slow = np.array([slow_play_out(rng, Game(height, width)) for _ in range(400)])
    many = 20_000
    for komi in (-3.5, 0.5, 3.5):
        go = Go(height, width, komi=komi)
        value, length = go.playouts(go.reset(many), seed=9)
        expected = np.sign(slow[:, 0] - komi)
        assert abs(value.mean() - expected.mean()) < 4 * max(value.std(), 0.1) / 20
        assert abs(length.mean() - slow[:, 1].mean()) < 4 * length.std() / 20


def test_play_outs_from_the_edges():
    go = Go(1, komi=0)
    assert [float(x[0]) for x in go.playouts(go.reset(1), 0, 3)] == [0, 6], "two passes each"
    go = Go(1, 2, komi=0)
    assert [float(x[0]) for x in go.playouts(go.reset(1), 0, 10)] == [-1, 40], "a stone, its capture, two passes"
    go = Go(5, komi=7.5)
    finished = go.reset(1)
    for _ in range(2):
        go.play(finished, np.array([25]))
    assert [float(x[0]) for x in go.playouts(finished, 0, 3)] == [-1, 0] == [go.outcome(finished)[1][0], 0]
    go = Go(19)
    value, length = go.playouts(go.reset(4), seed=1, count=2)
    assert (abs(value) <= 1).all() and (length > 2 * 250).all() and (length <= 2 * 3 * 361).all()


def test_states_of_another_board_are_refused():
    small, large = Go(5), Go(19)
    states = large.reset(2)
    for verb in (small.legal, small.sensible, small.score, small.outcome, small.ownership, small.encode):
        with pytest.raises(ValueError, match="states of"):
            verb(states)
    with pytest.raises(ValueError, match="int32"):
        large.legal(states.astype(np.int32))
    with pytest.raises(ValueError, match="states of"):
        large.score(small.reset(1))
    with pytest.raises(ValueError, match="whole numbers"):
        small.play(small.reset(1), np.array([1.5]))
    with pytest.raises(ValueError, match="1 and more"):
        small.playouts(small.reset(1), 0, count=0)
    assert len(small.legal(small.reset(0))) == 0


def test_a_finished_game_is_played_out_as_it_stands():
    wall = Position.parse(".X...\n.X...\n.X...\n.X...\n.X...", komi=20.5).play(25).play(25)
    game, states = wall.states()
    assert game.outcome(states)[1][0] == 1  # Black has all 25 points
    value, length = game.playouts(states, seed=0, count=3)
    assert (value[0], length[0]) == (1, 0)


def test_ownership_of_slabs():
    position = Position.parse("XX.\nX..\n..O")
    game, states = position.states()
    np.testing.assert_array_equal(game.ownership(np.repeat(states, 3, 0))[2], position.ownership())
