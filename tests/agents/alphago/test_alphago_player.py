"""AlphaGo's parts on disk, and the player that they make."""

import io
import re
import threading
import time

import numpy as np
import pytest
import torch
from test_alphago_search import random_playouts

from agents.alphago import player as module
from agents.alphago.network import PolicyNetwork, ValueNetwork
from agents.alphago.parts import Parts, describe, evaluators, from_files
from agents.alphago.player import AlphaGo, GameFunctions
from agents.alphago.search import SearchConfig, first_priors
from agents.alphago.variants import VARIANTS
from envs.go import features, patterns
from envs.go.pattern_playouts import playouts, policy_of
from envs.go.position import Position
from envs.tictactoe import SYMMETRIES, Board, PerfectPlayer, RandomTicTacToe, TicTacToe, values
from experiments.go import gtp
from rlkit.checkpoint import save_agent
from rlkit.search.game import RESIGN

GAME = TicTacToe()

# -- parts


def parts():
    torch.manual_seed(5)
    return Parts(PolicyNetwork(3, 48, 8, 2), ValueNetwork(3, 49, 8, 2), np.arange(7, dtype=np.float32))


@pytest.mark.parametrize("kept", [("policy", "value", "rollout"), ("policy",), ("value",), ("rollout",)])
@pytest.mark.slow
def test_parts_survive_a_description(kept):
    whole = parts()
    some = Parts(**{name: getattr(whole, name) for name in kept})
    config, weights = describe(some)
    assert set(config) == set(kept) == {key.partition(".")[0] for key in weights}
    again = from_files({"config": config | {"search": {}}}, weights)
    planes = np.random.default_rng(0).integers(0, 2, (4, 49, 3, 3), np.uint8)
    for ours, theirs in zip(evaluators(some, "fp32"), evaluators(again, "fp32"), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_array_equal(ours(planes), theirs(planes))
    if again.policy is not None:
        assert evaluators(again)[0](planes).shape == (4, 10)
    if again.rollout is not None:
        np.testing.assert_array_equal(again.rollout, whole.rollout)


@pytest.mark.slow
def test_weights_without_a_config_and_the_other_way_round_are_refused():
    config, weights = describe(parts())
    with pytest.raises(ValueError, match="config of value"):
        from_files({"config": {"value": config["value"]}}, weights)
    with pytest.raises(ValueError, match="config of nothing"):
        from_files({"config": {}}, {})
    with pytest.raises(ValueError, match=r"1 weights do not fit, as bias: none there, \(9,\) wanted"):
        from_files({"config": config}, {k: w for k, w in weights.items() if k != "policy.bias"})
    with pytest.raises(KeyError):
        from_files({"config": config}, {k: w for k, w in weights.items() if not k.startswith("rollout")})


def test_an_evaluator_takes_the_present_weights_when_told():
    some = parts()
    policy, _ = evaluators(some, "fp32")
    planes = np.ones((1, 48, 3, 3), np.uint8)
    before = policy(planes)
    with torch.no_grad():
        some.policy.bias += 1
    np.testing.assert_array_equal(policy(planes), before)
    policy.refresh()
    np.testing.assert_allclose(policy(planes)[0, :9], before[0, :9] + 1, atol=1e-6)
    assert policy(planes)[0, 9] == pytest.approx(before[0, 9])


# -- the player


def toy(variant="r", simulations=200, **options):
    """Tic-tac-toe, with random rollouts."""
    functions = GameFunctions(GAME.encode, lambda weights: random_playouts, symmetries=lambda size: SYMMETRIES)
    torch.manual_seed(3)
    nets = Parts(PolicyNetwork(3, 2, 4, 2, False), ValueNetwork(3, 2, 4, 2), np.zeros(1, np.float32))
    options = {"search": SearchConfig(c_puct=1.0, leaves=4)} | options
    return AlphaGo(nets, functions, simulations, variant, **options)


def go(variant="rvp", simulations=60, **options):
    def rollouts(weights):
        policy = policy_of(weights)
        return lambda states, seed: playouts(states, policy, seed)[0]

    functions = GameFunctions(
        lambda states: features.alphago_slab(states, *map(int, states[0, :2]), colour_plane=True),
        rollouts, patterns.features, features.symmetries,
    )  # fmt: skip
    torch.manual_seed(3)
    rollout = np.random.default_rng(0).normal(size=patterns.NUM_FEATURES).astype(np.float32)
    parts = Parts(PolicyNetwork(3, 48, 4, 2), ValueNetwork(3, 49, 4, 2), rollout)
    return AlphaGo(options.pop("parts", parts), functions, simulations, variant, **options)


def play_tictactoe(player, game):
    """Our score, 1, 0 or -1, against a perfect player or a random one."""
    player.new_game(game)
    other = (PerfectPlayer if game % 4 < 2 else RandomTicTacToe)(game)
    board, ours = Board(), 1 + game % 2
    while not board.is_over:
        board = board.play((player if board.to_play == ours else other)(board))
    return board.score() * (1 if ours == 1 else -1)


@pytest.mark.slow
def test_rollouts_alone_never_lose_tic_tac_toe():
    player = toy(simulations=1000, search=SearchConfig(c_puct=3.0))
    assert min(play_tictactoe(player, game) for game in range(12)) >= 0


@pytest.mark.parametrize("variant", ["rvp", "v"])
@pytest.mark.slow
def test_with_a_perfect_value_network_few_simulations_do(variant):
    player = toy(variant, 60, search=SearchConfig(c_puct=1.0, lam=0.1))

    def perfect(planes):
        points = planes[:, 0] + 2 * planes[:, 1]
        states = np.concatenate([points.reshape(len(planes), 9), np.ones((len(planes), 1))], 1)
        return values(states.astype(np.int16))

    player._search.value = perfect
    if player._search.policy:
        player._search.policy = lambda planes: np.zeros((len(planes), 9), np.float32)
    assert min(play_tictactoe(player, game) for game in range(12)) >= 0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.slow
def test_every_variant_plays_go(variant):
    position, player = Position.empty(3, 0.5, max_moves=12), go(variant)
    moves, played = [], []
    for seed in (5, 5):
        player.new_game(seed)
        game = position
        while not game.is_over:
            move = player(game)
            sensible = game.states()[0].sensible(game.states()[1])[0]
            assert sensible[move], "illegal, or it fills its own eye"
            game = game.play(move)
        played.append([move for _, move in game.moves()])
    assert played[0] == played[1] and len(played[0]) > 4  # equal seeds, equal games, with the tree kept on the way
    with pytest.raises(ValueError, match="the game is over"):
        player(game)
    moves = player.analyze(position)
    assert moves and moves[0].keys() == {"move", "visits", "winrate", "prior", "pv"}
    assert player.analyze(game) == []
    assert player.name == ("alphago:p" if variant == "p" else f"alphago:{variant}:60")
    parts = [name for name in ("rollout", "value", "policy") if getattr(player.parts, name) is not None]
    assert "".join(name[0] for name in parts) == variant
    player.close()


def test_a_variant_without_its_part_is_refused():
    whole = go().parts
    with pytest.raises(ValueError, match="variant rvp needs the part rollout and policy, which this agent"):
        go("rvp", parts=Parts(value=whole.value))
    with pytest.raises(ValueError, match="no variant 'pv'; there are rvp, vp"):
        go("pv")
    assert go(None, parts=Parts(whole.policy)).variant == "p"
    assert go(None, parts=Parts(whole.policy, whole.value)).variant == "vp"
    assert go(None).variant == "rvp"
    for options in ({"simulations": 0}, {"resign": 1.5}):
        with pytest.raises(ValueError, match=r"simulation at least|in 0 .. 1"):
            go(**options)


def test_the_tree_policy_is_the_rollouts_softmax_also_without_rollouts():
    position = Position.empty(3, 0.5).play(4)
    game, games = position.states()
    ids, candidates = patterns.features(games)
    weights = go().parts.rollout.copy()
    weights[0] = 0
    scores = np.exp(weights[ids[0]].sum(1)) * candidates[0]
    expected = first_priors(game.sensible(games), np.where(candidates, scores / scores.sum(), -1))[0]
    for variant in ("rv", "v", "r"):
        np.testing.assert_allclose(go(variant).search(position).P[0, 0], expected, atol=1e-5)
    assert expected[9] == pytest.approx(1 / 9 / (1 + 1 / 9))  # the pass: an even share of 8 points and itself


def test_the_policy_alone_plays_its_most_probable_sensible_move():
    player, position = go("p"), Position.empty(3, 0.5).play(0)
    logits = player.policy(player.functions.encode(position.states()[1]))[0]
    logits[0] = -99  # the stone
    assert player(position) == logits.argmax()
    assert [row["move"] for row in player.analyze(position)] == np.argsort(-logits, kind="stable")[:9].tolist()
    with pytest.raises(ValueError, match="it has no search"):
        player.search(position)


def test_other_boards_are_refused():
    with pytest.raises(
        ValueError, match="plays on 3 x 3 points with 48 planes and 10 moves; here are 4 x 4, 49 and 17"
    ):
        go()(Position.empty(4))
    with pytest.raises(ValueError, match="here are 3 x 4"):
        go("v")(Position.empty((3, 4)))
    assert go("r")(Position.empty((3, 4))) in range(13)  # patterns are the same on every board


def test_it_searches_on_until_visits_and_values_agree(monkeypatch):
    for agrees_after, total in ((0, 40), (1, 45), (3, 55), (99, 80)):
        asked = []

        def best(trees, asked=asked, agrees_after=agrees_after):
            asked.append(1)
            return trees.ranked()[0] if len(asked) > agrees_after else -1

        monkeypatch.setattr(module, "best_by_value", best)
        assert toy(simulations=40).search(Board()).total[0, 0] == total
    player = toy(simulations=40)
    player.seconds = 0.0  # a limit is a limit
    assert player.search(Board()).total[0, 0] < 40


def test_it_resigns_by_the_highest_q():
    #  X X .
    #  . X .    White cannot stop both lines
    board = Board().play(0).play(3).play(1).play(7).play(4)
    assert toy(simulations=400, resign=0.5)(board) == RESIGN
    assert toy(simulations=400)(board) in (2, 5, 6, 8) and toy(simulations=400, resign=1.0)(board) != RESIGN
    assert toy(simulations=400, resign=0.0)(board.play(5)) in (2, 8)  # Black has won


def test_what_is_known_after_moves_stays_known():
    player, position = go("rvp", 200), Position.empty(3, 0.5, max_moves=27)
    trees = player.search(position)
    line = trees.line()[:2]
    child = trees.child[0, 0, line[0]]
    node = trees.child[0, child, line[1]]
    visits, evaluations = trees.N[0, node].copy(), trees.Nv[0, node]
    kept = player.kept.at(position.play(line[0]).play(line[1]), 400)
    assert kept is trees and visits.sum() > 2
    np.testing.assert_array_equal(kept.N[0, 0], visits)
    assert kept.Nv[0, 0] == evaluations
    rows = player.analyze(position.play(line[0]).play(line[1]), 0)
    for row in rows:
        assert row["winrate"] == pytest.approx((trees.Q()[row["move"]] + 1) / 2, abs=1e-6)
    fresh = Position.empty(3, 0.5, max_moves=27)
    assert player.search(fresh).total[0, 0] <= 400 and not np.array_equal(kept.N[0, 0], visits)


def test_pondering_grows_the_tree_of_the_game_and_stops():
    player, position = go("rvp", 40, ponder=True), Position.empty(3, 0.5, max_moves=27)
    before = threading.active_count()
    move = player(position)
    report = player.analyze(position, 0)  # what the move came from, though the tree has moved on
    assert report[0]["move"] == move and player._thread is None
    player.new_game(0)
    move = player(position)
    until = time.monotonic() + 20
    while player.kept.trees.total[0, 0] < 150 and time.monotonic() < until:
        time.sleep(0.01)
    player._stop_pondering()
    after = position.play(move)
    reply = int(player.kept.trees.ranked()[0])
    visits = int(player.kept.trees.N[0, 0, reply])
    trees = player.tree(after.play(reply))
    assert trees.total[0, 0] == visits - 1 > 10
    assert player(after.play(reply)) in range(10)
    game = after.play(reply)
    while not game.is_over:
        game = game.play(player(game))
    player.close()
    assert player._thread is None and threading.active_count() <= before


def test_what_goes_wrong_while_pondering_is_told():
    player = toy(simulations=20, ponder=True)
    good, calls = player._search.rollouts, []

    def failing(states, seed):
        calls.append(1)
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("out of memory")
        return good(states, seed)

    player._search.rollouts = failing
    board = Board()
    board = board.play(player(board))
    player._thread.join()  # it has failed by now, however the threads were scheduled
    with pytest.raises(RuntimeError, match="out of memory"):
        player(board.play(int(np.flatnonzero(board.legal_moves())[0])))
    player.ponder = False
    assert player(Board()) in range(9)


def test_threads_are_few_where_simulations_are():
    before, position = torch.get_num_threads(), Position.empty(3, 0.5)
    for simulations, threads in ((60, 1), (400, 2), (None, 3)):
        player = go("rvp", simulations)
        player.use_threads(3, position)
        assert player._search.threads == threads and torch.get_num_threads() == 1
    player.simulations = 200
    assert player(position) in range(10)
    with pytest.raises(ValueError, match="here are 4 x 4"):
        player.use_threads(2, Position.empty(4))
    assert [player.can_play(*sides) for sides in ((3, 3), (2, 2), (4, 4), (3, 2))] == [True, False, False, False]
    assert go("r").can_play(5, 7), "rollouts alone play on any board"
    torch.set_num_threads(before)


def test_an_agent_on_disk_plays_the_same():
    player, position = go("rvp", 60, search=SearchConfig(lam=0.25, n_thr=2)), Position.empty(3, 0.5)
    player.new_game(7)
    info = player.describe() | {"env": {"game": "go", "size": 3, "komi": 0.5}}
    assert info["kind"] == "alphago" and info["config"]["search"]["lam"] == 0.25
    weights = describe(player.parts)[1]
    again = AlphaGo.from_files(info, weights, functions=player.functions, simulations=60)
    again.new_game(7)
    first, second = player.search(position), again.search(position)
    np.testing.assert_array_equal(first.N, second.N)
    assert again.variant == "rvp" and second.mixture.n_thr == 2
    with pytest.raises(TypeError):
        AlphaGo.from_files({"config": info["config"] | {"search": {"speed": 1}}}, weights, functions=player.functions)


@pytest.mark.parametrize("variant", ["rvp", "p", "r"])
def test_gtp_asks_it_for_a_move(variant, tmp_path, monkeypatch, capsys):
    player = go()
    info = player.describe() | {"env": {"game": "go", "size": 3, "komi": 0.5}}
    save_agent(tmp_path / "agent", info, describe(player.parts)[1])
    monkeypatch.setattr("sys.stdin", io.StringIO("genmove b\nquit\n"))
    before = torch.get_num_threads()
    gtp.main(gtp.Config(agent=f"{tmp_path}:{variant}"))
    torch.set_num_threads(before)
    assert re.fullmatch(r"= ([ABC][123]|PASS)\n\n= \n\n", capsys.readouterr().out, re.IGNORECASE)
