"""Many positions searched at once: each as if it were alone, and means over trees that are counted again slowly."""

import numpy as np
import pytest
from test_alphazero_player import network

from agents.alphazero.player import AlphaZero
from agents.alphazero.searches import Heads, Searches
from envs.go.position import BLACK, Position
from envs.tictactoe import Board
from rlkit.search.trees import OVER

GAME = [Position.empty(4, 0.5)]
for _move in (5, 10, 6, 9, 0):
    GAME.append(GAME[-1].play(_move))


def grown(player, positions, simulations, **options):
    searches = player.searches(positions, simulations, **options)
    while searches.step():
        pass
    return searches


def test_each_tree_is_the_one_of_a_search_alone():
    player = AlphaZero(network(), 60, leaves=1)
    searches = grown(player, GAME, 60)
    assert searches.done == 60 * len(GAME)
    for g, position in enumerate(GAME):
        alone = AlphaZero(network(), 60, leaves=1).search(position)
        np.testing.assert_array_equal(searches.trees.N[g, 0], alone.N[0, 0], err_msg=str(position))
        moves = searches.analysis(g)["moves"]
        assert moves[0]["move"] == int(alone.ranked()[0]) and moves[0]["pv"] == alone.line()


def test_goals_komis_and_rules_are_each_positions_own():
    repeat = Position.empty(4, 7.5, superko="simple").play(3)
    searches = grown(AlphaZero(network()), [GAME[1], repeat], np.array([40, 5]))
    assert searches.trees.total[:, 0].tolist() == [40, 5]
    searches.goal[0] = 10**6  # for which the trees have no room
    while searches.step():
        pass
    assert searches.trees.used[0] == 41 and searches.trees.total[1, 0] == 5
    with pytest.raises(ValueError, match="one size"):
        AlphaZero(network()).searches([Position.empty(4), Position.empty(5)], 10)


def test_only_the_moves_that_are_allowed():
    allowed = np.zeros((1, 17), np.bool_)
    allowed[0, [3, 7]] = True
    searches = grown(AlphaZero(network()), GAME[:1], 30, allowed=allowed)
    found = searches.analysis(0)
    assert {move["move"] for move in found["moves"]} == {3, 7} and sum(move["visits"] for move in found["moves"]) == 30
    assert (found["policy"] >= 0).all()  # the network's, of all moves


def test_scores_and_owners_are_means_over_the_tree():
    """The same sums, node by node, with the ends of games found by the rules."""
    net = network()
    player = AlphaZero(net, info={"env": {"komi": 3.5}})
    positions = [Position.empty((2, 3), 0.5).play(0), Position.empty((2, 3), 0.5).play(0).play(6)]
    searches = grown(player, positions, 80)
    trees, heads = searches.trees, Heads(net)
    assert (trees.status[1] == OVER).any()
    for g, root in enumerate(positions):
        sums = {}

        def add(node, position, branch, g=g, sums=sums):
            black = 1 if position.to_play == BLACK else -1
            if position.is_over:
                score, owner = position.score(), position.ownership().astype(float)
                weight = trees.N[g, trees.parents[g, node], trees.via[g, node]]
            else:
                game, states = position.states()
                _, _, score, owner = (x[0] for x in heads(game.encode(states)))
                score, owner, weight = black * score * 6 + 3, black * owner, 1  # 3: the komi is that much smaller
            for key in {None, branch}:
                old = sums.get(key, (0, 0, 0, 0))
                new = 1, score, score**2, owner
                sums[key] = tuple(a + weight * b for a, b in zip(old, new, strict=True))
            for action in np.flatnonzero(trees.child[g, node]):
                after = position.play(int(action))
                add(trees.child[g, node, action], after, int(action) if node == 0 else branch)

        add(0, root, None)
        found = searches.analysis(g, owners_of_moves=True)
        sign = 1 if root.to_play == BLACK else -1
        for entry in (found, *found["moves"]):
            count, score, square, owner = sums[entry.get("move")]
            assert count == entry["visits"]
            assert entry["score"] == pytest.approx(sign * score / count, abs=1e-4)
            assert entry["score_stdev"] == pytest.approx(max(square / count - (score / count) ** 2, 0) ** 0.5, abs=1e-3)
            np.testing.assert_allclose(entry["ownership"], sign * owner / count, atol=0.01)


def test_a_finished_game_is_known_exactly():
    over = Position.empty(3, 0.5).play(4).play(9).play(9)
    found = grown(AlphaZero(network()), [over, over.parent], 10).analysis(0)
    assert (found["winrate"], found["score"], found["moves"]) == (0.0, -8.5, [])  # White's turn, and Black has it all
    assert (found["ownership"] == -1).all()


def test_games_without_a_score_are_searched_too():
    searches = grown(AlphaZero(network(Board().states()[0].planes, (), has_pass=False)), [Board()], 20)
    assert searches.analysis(0).keys() == {"visits", "winrate", "policy", "moves"}


def test_states_that_were_seen_are_not_evaluated_again():
    player = AlphaZero(network(), leaves=1)
    grown(player, GAME, 20)
    heads = player.heads
    heads.outputs = None  # who asks the network now fails
    grown(player, GAME, 20)


def test_trees_grow(monkeypatch):
    whole = grown(AlphaZero(network()), GAME[:2], 100)
    monkeypatch.setattr("agents.alphazero.searches.NODES", 7)
    small = grown(AlphaZero(network()), GAME[:2], 100)
    assert small.trees.N.shape[1] == 101
    np.testing.assert_array_equal(small.trees.total[:, 0], [100, 100])
    for g in range(2):
        # leaves that were chosen together may have been fewer where a tree was full
        assert small.analysis(g)["moves"][0]["visits"] == pytest.approx(whole.analysis(g)["moves"][0]["visits"], abs=15)
        assert small.analysis(g)["score"] == pytest.approx(whole.analysis(g)["score"], abs=1)


def test_trees_fit_into_memory(monkeypatch):
    monkeypatch.setattr("agents.alphazero.searches.MEMORY", 50_000)
    searches = grown(AlphaZero(network()), GAME[:2], 10**9)
    assert searches.trees.used.tolist() == [searches.trees.N.shape[1]] * 2 and searches.done < 200
    assert isinstance(searches, Searches)
