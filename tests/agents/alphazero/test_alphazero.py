"""Self-play and its window: records are the games, batches hold together, everything repeats and resumes."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from agents.alphazero.games import OpenGames, SelfPlayConfig
from agents.alphazero.network import BoardNetwork, alphazero_loss
from agents.alphazero.selfplay import SelfPlay
from agents.alphazero.window import Window, pack
from envs.go import features
from envs.go.game import Go
from envs.go.position import Position
from envs.tictactoe import SYMMETRIES, TicTacToe
from rlkit.errors import NonFiniteLoss
from rlkit.search import root
from rlkit.search.inference import Inference, priors_of
from rlkit.trainer import TrainConfig, Trainer

SMALL = {"games": 8, "simulations": 8, "window": 500, "batch_size": 32, "start": 50}


def test_priors_are_a_softmax_over_the_legal():
    logits = np.array([[0.0, math.log(3), 50.0], [1.0, 2.0, 3.0]], np.float32)
    priors = priors_of(logits, np.array([[True, True, False], [False] * 3]))
    np.testing.assert_allclose(priors, [[0.25, 0.75, -1], [-1, -1, -1]], rtol=1e-6)


def self_play(size=3, seed=5, on_game=None, **options):
    torch.manual_seed(3)
    network = BoardNetwork(17, 8, 1)
    torch.nn.init.normal_(network.points.weight, std=0.5)
    options = SMALL | options
    return SelfPlay(Go(size, komi=0.5), network, SelfPlayConfig(**options), features.symmetries(size), seed, on_game)


@pytest.mark.parametrize("way", ["puct", "gumbel"])
@pytest.mark.parametrize("fast", [0, 3])
@pytest.mark.slow
def test_records_of_self_play_are_the_games(way, fast):
    played = []
    plays = self_play(
        on_game=lambda game: played.append((game, plays.positions)),
        root=way,
        fast_simulations=fast,
        opening_share=0.5,
        window=3000,
    )
    while plays.finished < 20:
        plays.play()
    rows, at, searched = plays.window.rows, 0, 0
    positions = {name: rows[name].astype(np.float32) for name in rows}
    planes = np.unpackbits(rows["planes"], axis=1, count=17 * 9).reshape(-1, 17, 3, 3)
    for ended, end_row in played:
        moves, first, resigned = ended.moves, ended.value, ended.resigned
        path = [Position.empty(3, 0.5, max_moves=18)]
        for move in moves:
            assert path[-1].is_legal(move)
            path.append(path[-1].play(move))
        end, score = path[-1], path[-1].score()
        assert end.is_over and not resigned and first == np.sign(score)
        game, states = end.states()
        owner = game.ownership(states)[0]
        for number, position in enumerate(path[:-1]):
            game, states = position.states()
            if at == end_row or not (planes[at] == game.encode(states)[0]).all():
                assert fast or number < 2, "a position that was searched in full is missing"
                continue  # part of a random opening, or searched in haste
            mine, policy = (1 if position.to_play == 1 else -1), positions["policy"][at]
            assert policy.sum() == pytest.approx(1, abs=2e-3) and not policy[~position.legal_moves()].any()
            assert positions["value"][at] == mine * first and positions["known"][at] == 1
            assert positions["score"][at] == pytest.approx(mine * score / 9)
            np.testing.assert_array_equal(positions["ownership"][at], mine * owner)
            if not fast and number + 2 < len(path):
                np.testing.assert_array_equal(positions["reply"][at], positions["policy"][at + 1])
            if number + 2 == len(path):
                assert not positions["reply"][at].any()
            at, searched = at + 1, searched + 1
        assert at == end_row
    moves = sum(len(game.moves) for game, _ in played)
    assert searched > 0.8 * moves if not fast else 0.1 * moves < searched < 0.45 * moves


def test_every_call_of_the_network_has_a_position_of_each_game():
    plays = self_play(games=32, parts=1)
    evaluate, sizes = plays.source.evaluate, []

    def counting(planes):
        sizes.append(len(planes))
        return evaluate(planes)

    for _ in range(200):
        plays.source.parts[0].step(counting)
    assert np.mean(sizes) > 0.7 * 32 and max(sizes) <= 32  # the rest met the end of a game, which costs nothing


@pytest.mark.slow
def test_batches_are_turned_alike_and_repeat_with_their_seed():
    batches = [next(batch for batch in self_play(games=16) if batch) for _ in range(2)]
    other = next(batch for batch in self_play(games=16, seed=6) if batch)
    for name, tensor in batches[0].items():
        assert torch.equal(tensor, batches[1][name]), name
    assert not torch.equal(batches[0]["planes"], other["planes"])
    stones = batches[0]["planes"][:, [0, 8]].amax(1).flatten(1)
    assert batches[0]["planes"].shape == (32, 17, 3, 3) and not (batches[0]["policy"][:, :-1] * stones).any()


def test_a_window_turns_all_targets_with_the_planes():
    board = np.arange(9)
    window = Window(10, (1, 3, 3), features.symmetries(3))
    planes = (board == 1).reshape(1, 1, 3, 3).astype(np.uint8)
    row = {
        "planes": pack(planes), "policy": np.append(board == 1, 0)[None], "reply": np.append(board == 2, 0)[None],
        "value": [1.0], "score": [0.25], "ownership": (board == 1).reshape(1, 3, 3), "known": [1.0],
    }  # fmt: skip
    window.add(row)
    seen = set()
    batch = window.sample(np.random.default_rng(0), 200)
    for i in range(200):
        at = int(batch["planes"][i].flatten().argmax())
        assert batch["policy"][i].argmax() == at and batch["ownership"][i].flatten().argmax() == at
        seen.add((at, int(batch["reply"][i].argmax())))
    assert seen == {(1, 0), (1, 2), (3, 0), (3, 6), (5, 2), (5, 8), (7, 6), (7, 8)}  # an edge and a corner beside it


def test_a_window_keeps_the_newest_and_resumes_in_another_size():
    def rows(first, count):
        numbers = np.arange(first, first + count)
        zeros = {"planes": 1, "policy": 10, "reply": 10}
        out = {name: np.zeros((count, width)) for name, width in zeros.items()}
        return out | {
            "value": numbers,
            "score": 0 * numbers,
            "known": 0 * numbers,
            "ownership": np.zeros((count, 2, 4)),
        }

    window = Window(20, (1, 2, 4), features.symmetries(3)[:, :10])
    for first in range(0, 50, 7):
        window.add(rows(first, 7))
    assert len(window) == 20 and window.added == 56
    assert sorted(window.rows["value"]) == list(range(36, 56))
    for capacity, newest in ((20, 36), (5, 51), (40, 36)):
        other = Window(capacity, (1, 2, 4), features.symmetries(3)[:, :10])
        note = other.load_state_dict(window.state_dict())
        assert len(other) == 56 - newest and other.added == 56
        assert (note is None) == (capacity >= 20)
        drawn = other.rows["value"][(other.added - 1 - np.arange(len(other))) % capacity]
        np.testing.assert_array_equal(drawn, np.arange(55, newest - 1, -1))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["puct", "gumbel"])
def test_train_n_is_train_half_stop_resume(tmp_path, way):
    """Bit for bit: window, open games and trees, generators, weights."""

    def run(folder, steps):
        plays = self_play(root=way, fast_simulations=4, surprise=0.3, resign=0.05)
        cfg = TrainConfig(steps=steps, ema=0.9, progress=False, save_every=4)
        trainer = Trainer(plays.source.evaluate.network, alphazero_loss, cfg, folder, state={"experience": plays})
        if not trainer.load():
            plays._lowest.extend(np.linspace(-0.9, 0.9, 120).tolist())  # enough to resign by
        for _ in trainer.run(plays):
            pass
        trainer.close()
        return trainer, plays

    whole, games = run(tmp_path / "whole", 16)
    run(tmp_path / "halves", 7)
    resumed, others = run(tmp_path / "halves", 16)
    assert games.finished == others.finished > 3 and games.evaluations == others.evaluations
    assert games._lowest == others._lowest and -1 < games.source.resign_below < -0.5
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, array in games.window.rows.items():
        np.testing.assert_array_equal(array, others.window.rows[name])


@pytest.mark.slow
def test_two_parts_on_threads_repeat_too():
    def moves(threads):
        torch.set_num_threads(threads)
        played = []
        plays = self_play(games=12, parts=3, on_game=lambda game: played.append((game.moves, game.value)))
        for _ in range(30):
            plays.play()
        return played

    assert moves(1) == moves(2) != []


@pytest.mark.slow
def test_resignation_calibrates_itself():
    """Where the network knows who wins, the losers resign; where it knows nothing, hardly a won game is lost by it."""
    game = Go(3, komi=0.5)

    def told(value):
        def evaluate(planes):
            return np.zeros((len(planes), 10), np.float32), value(planes)

        return evaluate

    cfg = SelfPlayConfig(**SMALL | {"games": 64, "simulations": 4}, resign=0.05)
    plays = SelfPlay(game, BoardNetwork(17, 8, 1), cfg, features.symmetries(3), 1)
    rng = np.random.default_rng(0)
    for known in (True, False):
        plays._lowest.clear()
        plays.source.resign_below = -2.0
        before = plays.finished, plays.resigned
        # black's stones against white's decide; or nothing at all does
        lead = lambda p: np.tanh(2.0 * (p[:, 0].sum((1, 2), dtype=np.int32) - p[:, 8].sum((1, 2), dtype=np.int32)))  # noqa: E731
        sure = lambda p: np.sign(noise := rng.uniform(-1, 1, len(p))) * np.abs(noise) ** 0.2  # noqa: E731
        plays.source.evaluate = told(lead if known else sure)  # type: ignore[assignment]
        plays.source.evaluate.refresh = lambda: None
        while plays.finished < before[0] + 1500:
            plays.play()
        share = (plays.resigned - before[1]) / (plays.finished - before[0])
        assert len(plays._lowest) >= 100
        threshold = plays.source.resign_below
        false = np.mean(np.array(plays._lowest) < threshold)
        assert false <= 0.07, "of the games played out, the winners would have given up more than were allowed"
        assert threshold <= -0.5 and share < 0.95


def test_a_resigned_game_teaches_that_the_other_side_won():
    game, seen = Go(3, komi=0.5), []
    plays = SelfPlay(
        game, BoardNetwork(17, 8, 1), SelfPlayConfig(**SMALL, opening_share=0.0), features.symmetries(3), 1, seen.append
    )

    def black_wins(planes):  # and White knows it
        return np.zeros((len(planes), 10), np.float32), np.where(planes[:, 16, 0, 0], 0.9, -0.9).astype(np.float32)

    plays.source.evaluate = black_wins  # type: ignore[assignment]
    black_wins.refresh = lambda: None
    plays.source.resign_below = -0.5
    for part in plays.source.parts:
        part.to_the_end[:] = False
    while plays.finished < 20:
        plays.play()
    resigned = [ended for ended in seen if ended.resigned]
    assert len(resigned) > 5 and all(ended.value == 1 and not ended.rows["known"].any() for ended in resigned)
    for ended in resigned:
        black = np.unpackbits(ended.rows["planes"], axis=1, count=17 * 9)[:, -1] == 1
        np.testing.assert_array_equal(ended.rows["value"], np.where(black, 1, -1))


def test_the_window_forgets_the_older_half(monkeypatch):
    monkeypatch.setattr("agents.alphazero.window.KEPT", 4)
    window = Window(100, (1, 3, 3), features.symmetries(3))
    row = {name: np.zeros((1, *array.shape[1:]), array.dtype) for name, array in window.rows.items()}
    sizes = []
    for number in range(12):
        window.add(row | {"value": np.full(1, number, np.float32)})
        sizes.append(len(window))
        drawn = window.sample(np.random.default_rng(number), 300)["value"]
        assert drawn.min() == number + 1 - len(window) and drawn.max() == number
    assert sizes == [1, 2, 3, 4, 4, 4, 4, 4, 4, 5, 5, 6]


def test_who_gets_noise(monkeypatch):
    """Positions that are searched in full, with or without a kept tree; the prior is remembered without it."""
    perturbed, perturb = [], root.perturb

    def spying(trees, rng, which, *args):
        perturbed.append(len(which))
        perturb(trees, rng, which, *args)

    monkeypatch.setattr("rlkit.search.root.perturb", spying)
    plays = self_play(root="puct", fast_simulations=3, games=32)
    part = plays.source.parts[0]
    for _ in range(60):
        part.step(plays.source.evaluate)
    searching = ~part.fresh
    full = part.open["full"][np.arange(16), part.length]
    np.testing.assert_allclose(part.prior[searching].sum(1), 1, atol=1e-5)
    changed = np.abs(part.prior - np.maximum(part.trees.P[:, 0], 0)).max(1) > 1e-6
    np.testing.assert_array_equal(changed[searching], full[searching])
    assert sum(perturbed) > 10 and (part.trees.forced[searching] > 0).tolist() == full[searching].tolist()


def test_a_network_gone_mad_is_noticed():
    plays = self_play()
    torch.nn.init.constant_(plays.source.evaluate.network.board.bias, float("nan"))
    with pytest.raises(NonFiniteLoss, match="go back to a checkpoint"):
        plays.play()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captured graphs need a GPU")
def test_captured_graphs_say_what_the_cpu_says():
    network = BoardNetwork(17, 8, 1)
    torch.nn.init.normal_(network.points.weight, std=0.5)
    on_cpu, on_gpu = Inference(network, "fp32"), Inference(copy.deepcopy(network).to("cuda"), "fp32")
    planes = np.random.default_rng(0).integers(0, 2, (300, 17, 5, 5), dtype=np.uint8)
    sizes = [1, 9, 70, 300] * 6
    for _ in range(2):
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda size: on_gpu(planes[:size]), sizes))
        for size, (logits, value) in zip(sizes, answers, strict=True):
            expected = on_cpu(planes[:size])
            np.testing.assert_allclose(logits, expected[0], atol=1e-2)
            np.testing.assert_allclose(value, expected[1], atol=1e-2)
        for side in (on_cpu, on_gpu):
            torch.nn.init.constant_(side.network.points.weight, 0.01)
            side.refresh()


def test_surprise_gives_weight_to_what_was_learned():
    games = OpenGames(Go(3), SelfPlayConfig(surprise=0.5), 1, 0)
    surprise, full = np.array([0.0, 3.0, 1.0, 9.0], np.float32), np.array([True, True, True, False])
    counts = np.mean([games._copies(surprise, full) for _ in range(4000)], 0)
    np.testing.assert_allclose(counts, [0.5, 0.5 + 0.5 * 9 / 4, 0.5 + 0.5 * 3 / 4, 0], atol=0.05)


def test_inference_takes_new_weights_when_told():
    network = BoardNetwork(2, 8, 1, has_pass=False, heads=())
    evaluate, planes = Inference(network, "fp32"), TicTacToe().encode(TicTacToe().reset(3))
    assert not evaluate(planes)[0].any()
    torch.nn.init.normal_(network.points.weight)
    assert not evaluate(planes)[0].any()
    evaluate.refresh()
    with torch.no_grad():
        np.testing.assert_allclose(evaluate(planes)[0], network(torch.from_numpy(planes))["policy"], atol=1e-5)
    assert set(evaluate.heads(planes)) == {"policy", "value"}


def test_another_game_of_other_actions():
    plays = SelfPlay(TicTacToe(), BoardNetwork(2, 8, 1, has_pass=False, heads=()), SelfPlayConfig(**SMALL), SYMMETRIES)
    batch = next(batch for batch in plays if batch)
    assert batch["policy"].shape == (32, 9) and not (batch["policy"] * batch["planes"].amax(1).flatten(1)).any()
    assert plays.stats()["selfplay/length"] <= 9


def test_the_counts_of_another_number_of_ranks_go_on_with_a_new_window():
    """Of two ranks, one of which had played 300 positions; nothing is drawn before as many are new as at the start."""
    options = SMALL | {"start": 40}
    saved = SelfPlay(
        TicTacToe(), BoardNetwork(2, 8, 1, has_pass=False, heads=()), SelfPlayConfig(**options), SYMMETRIES
    )
    saved.positions, saved._due = 300, 3.0
    plays = SelfPlay(
        TicTacToe(), BoardNetwork(2, 8, 1, has_pass=False, heads=()), SelfPlayConfig(**options), SYMMETRIES
    )
    assert "anew" in plays.begin_anew(saved.state_dict(), 2.0) and plays.positions == 600
    next(batch for batch in plays if batch)
    assert plays.positions >= 640 and len(plays.window) >= 40


def test_too_few_games_are_refused():
    with pytest.raises(ValueError, match="fewer parts"):
        self_play(games=1, parts=2)
