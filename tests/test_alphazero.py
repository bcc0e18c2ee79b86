"""The parts of AlphaZero that stand so far: loss, network, priors, self-play's records, the player on disk."""

import math

import numpy as np
import pytest
import torch

from agents.alphazero.network import BoardNetwork
from agents.alphazero.player import AlphaZero
from agents.alphazero.selfplay import SelfPlay, SelfPlayConfig, priors_of
from envs.go import features
from envs.go.game import Go
from envs.go.position import Position
from experiments import alphazero_go
from experiments.players import go_player
from rlkit.losses import policy_value
from rlkit.trainer import TrainConfig


def test_policy_value_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)], [1.0, 1.0]])
    pi = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    policy, value = policy_value(logits, torch.tensor([0.5, -1.0]), pi, torch.tensor([1.0, 1.0]))
    expected = [-(math.log(0.25) + math.log(0.75)) / 2, math.log(2)]
    np.testing.assert_allclose(policy, expected, rtol=1e-6)
    np.testing.assert_allclose(value, [0.25, 4.0])


def test_priors_are_a_softmax_over_the_legal():
    logits = np.array([[0.0, math.log(3), 50.0], [1.0, 2.0, 3.0]], np.float32)
    priors = priors_of(logits, np.array([[True, True, False], [False] * 3]))
    np.testing.assert_allclose(priors, [[0.25, 0.75, -1], [-1, -1, -1]], rtol=1e-6)


@pytest.mark.parametrize("size", [3, 5, 9])
def test_one_network_for_all_sizes_begins_without_an_opinion(size):
    network = BoardNetwork(17, channels=8, blocks=3)
    out = network(torch.randint(0, 2, (4, 17, size, size), dtype=torch.uint8))
    assert out["policy"].shape == (4, size * size + 1) and out["ownership"].shape == (4, size, size)
    assert not out["policy"].any() and not out["value"].any()
    loss = sum(((x - 1) ** 2).sum() for x in out.values())
    loss.backward()
    assert all(p.grad is not None for p in network.parameters())


def self_play(games=8, size=3, **options):
    network = BoardNetwork(17, 8, 1).eval()
    cfg = SelfPlayConfig(games=games, simulations=8, window=500, batch_size=32, **options)
    return SelfPlay(Go(size, komi=0.5), network, cfg, features.symmetries(size), seed=5)


def test_records_of_self_play_are_the_games():
    plays = self_play()
    while plays.finished < 20:
        plays.play()
    window, at = plays.window, 0
    for length, first in zip(plays.lengths, plays.wins, strict=True):
        position, owner = Position.empty(3, 0.5, max_moves=18), None
        for row in range(at, at + length):
            planes, policy = window["planes"][row], window["policy"][row]
            assert (planes[0] == (position.board == position.to_play)).all()
            assert policy.sum() == pytest.approx(1) and not policy[~position.legal_moves()].any()
            assert window["value"][row] == (first if (row - at) % 2 == 0 else -first)
            mine = window["ownership"][row] * (1 if (row - at) % 2 == 0 else -1)
            owner = mine if owner is None else owner
            assert (mine == owner).all()
            if row + 1 < at + length:  # the move is what the next position has more
                after = window["planes"][row + 1]
                new = np.flatnonzero(after[8] & ~(after[9] != 0))
                position = position.play(int(new[0]) if len(new) else position.pass_move)
        at += length


def test_self_play_repeats_with_its_seed_and_batches_hold_together():
    torch.manual_seed(3)
    first, second = self_play(games=16), self_play(games=16)
    second.network.load_state_dict(first.network.state_dict())
    batches = [next(batch for batch in iter(plays) if batch) for plays in (first, second)]
    for name, tensor in batches[0].items():
        assert torch.equal(tensor, batches[1][name]), name
    own, policy = batches[0]["planes"][:, 0].flatten(1), batches[0]["policy"]
    assert batches[0]["planes"].shape == (32, 17, 3, 3) and not (policy[:, :-1] * own).any()  # turned alike


def test_main_and_the_player_that_it_saves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = alphazero_go.Config(
        size=3, komi=0.5, minutes=0.05, channels=8, blocks=1, eval_games=2, eval_simulations=10, eval_minutes=9,
        device="cpu", selfplay=SelfPlayConfig(games=16, simulations=8, batch_size=32, window=1000),
        trainer=TrainConfig(steps=20, ema=0.9, progress=False, log_every=5),
    )  # fmt: skip
    run_dir = alphazero_go.main(cfg)
    player = go_player(str(run_dir))
    assert isinstance(player, AlphaZero)
    position = Position.empty(3, 0.5)
    assert position.is_legal(player(position)) and player(position) == player(position)
