"""What came after the 2015 paper: each variant's loss in whole, by hand, and each learning a toy."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from test_dqn import drive, learned_catch, prepared, tiny
from test_replay import Worlds, filled
from torch import nn

from agents.dqn.experience import loss_that_draws
from agents.rainbow.agent import Rainbow
from agents.rainbow.config import RainbowConfig
from agents.rainbow.network import ImplicitHead
from agents.rainbow.noisy import NoisyDense
from experiments import evaluate
from experiments.any_agent import load_agent
from experiments.control import dqn as dqn_atari
from experiments.control.dqn import build
from experiments.control.dqn_presets import NATURE, PRESETS
from rlkit.nn.heads import DuelingHead, LinearHead
from rlkit.replay import Replay
from rlkit.trainer import Trainer

FAST = RainbowConfig(width=0.25, double=True, dueling=True, n_step=3)
GAMMA = 0.9


class Table(nn.Module):
    """A network that answers from a table [states, actions, atoms]; an observation is a state's number."""

    def __init__(self, table, support=(0.0,)):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(table))
        self.support = torch.tensor(support)

    def z(self, obs, tau=None):
        return self.table[obs]

    def tau(self, batch):
        n = self.table.shape[-1]
        return ((torch.arange(n) + 0.5) / n)[None]

    def forward(self, obs):
        z = self.z(obs)
        return (z.softmax(-1) * self.support).sum(-1) if len(self.support) > 1 else z.mean(-1)


def loss_of(table, target, support=(0.0,), **cfg):
    """(loss, aux) of one transition: state 0, action 1, reward .5, to state 1 with discount .9."""
    agent = Rainbow((4, 36, 36), 2, RainbowConfig(**cfg))
    agent.target = Table(target, support)
    batch = {"s_tm1": torch.tensor([0]), "a_tm1": torch.tensor([1]), "s_t": torch.tensor([1])}
    batch |= {"r_t": torch.tensor([0.5]), "discount_t": torch.tensor([GAMMA])}
    return agent.loss(Table(table, support), batch)


# -- the losses in whole -----------------------------------------------------------------------------------------------


def test_munchausen_dqn_by_hand():
    q_tm1, q_t, tau = np.array([0.02, 0.0]), np.array([0.5, 0.53]), 0.03  # of the target network
    pi = np.exp(q_t / tau) / np.exp(q_t / tau).sum()
    bonus = tau * np.log(np.exp(q_tm1[1] / tau) / np.exp(q_tm1 / tau).sum())
    target = 0.5 + 0.9 * bonus + GAMMA * (pi * (q_t - tau * np.log(pi))).sum()
    loss, aux = loss_of(
        [[[0.0], [0.3]], [[0.0], [0.0]]], [q_tm1[:, None].tolist(), q_t[:, None].tolist()], munchausen=True
    )
    assert aux["priority"].item() == pytest.approx(target - 0.3, rel=1e-5) and target > 0.9
    assert loss.item() == pytest.approx(0.5 * (target - 0.3) ** 2, rel=1e-5)


def test_c51_by_hand():
    # atoms -1, 0, 1. The target network: action 0 is worth 0 for sure, action 1 is 0 or 1 evenly, and the better one.
    sure, even = [-99.0, 0.0, -99.0], [-99.0, 0.0, 0.0]
    target = [[[0.0] * 3] * 2, [sure, even]]
    logits = [[[0.0] * 3, np.log([0.5, 0.25, 0.25]).tolist()], [[0.0] * 3] * 2]
    loss, aux = loss_of(logits, target, (-1.0, 0.0, 1.0), distribution="c51", atoms=3, v_max=1.0)
    # .5 + .9 x {0, 1} = .5 and 1.4: half of the first goes to 0 and half to 1, the second to 1: [0, .25, .75]
    assert loss.item() == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.25), rel=1e-5)
    assert aux["q"].item() == pytest.approx((0.0 - 0.25) / 2, rel=1e-5)
    # the priority is the divergence: .25 ln(.25 / .25) + .75 ln(.75 / .25)
    assert aux["priority"].item() == pytest.approx(0.75 * np.log(3), rel=1e-5)
    # with double the online network, to which action 0 is the better next one, chooses: .5 to 0 and to 1
    online = copy.deepcopy(logits)
    online[1] = [[0.0, 0.0, 9.0], [9.0, 0.0, 0.0]]
    loss, _ = loss_of(online, target, (-1.0, 0.0, 1.0), distribution="c51", atoms=3, v_max=1.0, double=True)
    assert loss.item() == pytest.approx(-np.log(0.25), rel=1e-5)


def test_qr_by_hand():
    # two quantiles, of shares .25 and .75; the next action is 0, of mean 1
    target = [[[0.0, 0.0]] * 2, [[0.0, 2.0], [0.5, 0.5]]]
    online = [[[0.0, 0.0], [0.5, 2.3]], [[0.0, 0.0]] * 2]
    loss, aux = loss_of(online, target, distribution="qr", atoms=2)
    # targets .5 and 2.3. Quantile .5: errors 0, 1.8: .25 (1.8 - .5) / 2. Quantile 2.3: -1.8, 0: .25 (1.8 - .5) / 2
    assert loss.item() == pytest.approx(0.25 * 1.3, rel=1e-5)
    assert aux["q"].item() == pytest.approx((0 + 1.4) / 2)


def test_munchausen_over_quantiles_by_hand():
    tau, q_t = 0.03, np.array([1.0, 1.02])
    pi = np.exp(q_t / tau) / np.exp(q_t / tau).sum()
    bonus = tau * np.log(0.5)
    z_t = np.array([[0.9, 1.1], [1.0, 1.04]])  # of means q_t
    target = 0.5 + 0.9 * bonus + GAMMA * (pi[:, None] * (z_t - tau * np.log(pi)[:, None])).sum(0)
    error = target - np.array([[0.0], [3.0]])
    weight = np.abs(np.array([[0.25], [0.75]]) - (error < 0))
    huber = np.where(np.abs(error) < 1, error**2 / 2, np.abs(error) - 0.5)
    loss, _ = loss_of([[[0.0] * 2, [0.0, 3.0]], [[0.0] * 2] * 2], [[[0.0] * 2] * 2, z_t.tolist()], distribution="qr",
                      atoms=2, munchausen=True)  # fmt: skip
    assert loss.item() == pytest.approx((weight * huber).mean(1).sum(), rel=1e-5)


def test_importance_weighs_the_loss_and_not_the_priority():
    agent = Rainbow((4, 36, 36), 3, FAST)
    obs = torch.randint(0, 256, (2, 4, 36, 36), dtype=torch.uint8)
    batch = {"s_tm1": obs, "s_t": obs.flip(0), "a_tm1": torch.tensor([0, 2]), "r_t": torch.tensor([1.0, -2.0])}
    batch["discount_t"] = torch.tensor([0.5, 0.0])
    whole, aux = agent.loss(agent.network, batch)
    alone = [agent.loss(agent.network, {k: v[i : i + 1] for k, v in batch.items()})[0].item() for i in range(2)]
    assert whole.item() == pytest.approx(sum(alone) / 2, rel=1e-4)
    weighted, same = agent.loss(agent.network, batch | {"weight": torch.tensor([0.25, 1.0])})
    assert weighted.item() == pytest.approx((0.25 * alone[0] + alone[1]) / 2, rel=1e-4)
    torch.testing.assert_close(same["priority"], aux["priority"])
    assert aux["priority"].shape == (2,) and not aux["priority"].requires_grad


# -- heads and networks ------------------------------------------------------------------------------------------------


def test_heads_with_atoms_are_one_head_an_atom():
    x = torch.randn(5, 7)
    head = DuelingHead(7, 3, atoms=4)
    value, advantage = head.value(x), head.advantage(x).view(5, 3, 4)
    for atom in range(4):
        a = advantage[:, :, atom]
        torch.testing.assert_close(head(x)[:, :, atom], value[:, atom, None] + a - a.mean(1, keepdim=True))
    linear = LinearHead(7, 3, atoms=4)
    torch.testing.assert_close(linear(x).flatten(1), linear.linear(x))


def test_the_implicit_head_by_its_formula():
    head = ImplicitHead(6, LinearHead(6, 2))
    x, tau = torch.randn(3, 6), torch.tensor([[0.0, 0.3, 1.0]])
    for n in range(3):
        cosines = torch.tensor([np.cos(np.pi * i * float(tau[0, n])) for i in range(64)], dtype=torch.float32)
        expected = head.head(x * torch.relu(head.phi(cosines)))
        torch.testing.assert_close(head(x, tau)[:, :, n], expected, atol=1e-5, rtol=1e-4)
    each = head(x, tau.expand(3, 3) * torch.tensor([[1.0], [0.5], [0.1]]))
    torch.testing.assert_close(each[1], head(x[1:2], tau * 0.5)[0])


@pytest.mark.slow
def test_noise_is_factorised_new_with_each_call_and_off_in_evaluation():
    torch.manual_seed(0)
    layer = NoisyDense(3, 4, sigma0=0.5)
    assert layer.weight.abs().max() <= 3**-0.5 and (layer.sigma_weight == 0.5 * 3**-0.5).all()
    eye, zero = torch.eye(3), torch.zeros(1, 3)
    noises = []
    for _ in range(4000):
        out = layer(torch.cat([eye, zero]))  # one call: one noise for all rows
        noise = (out[:3] - out[3]).T - layer.weight
        noises.append(noise.detach())
    assert (torch.linalg.matrix_rank(torch.stack(noises), atol=1e-5) == 1).all()
    noises = torch.stack(noises).numpy() / (0.5 * 3**-0.5)
    # f(e) has mean 0, and E f(e)^2 = E|e| = sqrt(2 / pi): the product's variance is 2 / pi
    np.testing.assert_allclose(noises.mean(0), 0, atol=0.06)
    np.testing.assert_allclose(noises.var(0), 2 / np.pi, atol=0.1)
    shift = np.array([(layer(zero)[0] - layer.bias).tolist() for _ in range(4000)]) / (0.5 * 3**-0.5)
    np.testing.assert_allclose(shift.var(0), np.sqrt(2 / np.pi), atol=0.1)  # of f(e) alone
    layer.eval()
    torch.testing.assert_close(layer(eye), layer.weight.T + layer.bias)


@pytest.mark.slow
def test_a_noisy_agent_explores_by_its_noise_and_is_evaluated_without(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    agent = Rainbow((4, 36, 36), 3, dataclasses.replace(FAST, noisy=True))
    assert all(isinstance(m, NoisyDense) for m in agent.network.modules() if isinstance(m, nn.Linear))
    obs = np.random.default_rng(0).integers(0, 256, (1, 4, 36, 36), np.uint8)
    assert len({agent.q_values(obs)[0, 0].item() for _ in range(5)}) == 5
    cfg = tiny(agent=agent.cfg, frames=500, epsilon_final=0.0, epsilon_frames=1)
    loaded = load_agent(run_dir := dqn_atari.main(cfg))
    assert len({loaded.q_values(obs)[0, 0].item() for _ in range(5)}) == 1
    means = [evaluate.main(evaluate.Config(run_dir, episodes=4, epsilon=0.0))["mean"] for _ in range(2)]
    assert means[0] == means[1]


def test_what_does_not_go_together_is_refused():
    for change in ({"double": True}, {"distribution": "c51"}, {"n_step": 3}):
        with pytest.raises(ValueError, match="munchausen has a soft policy"):
            Rainbow((4, 36, 36), 3, RainbowConfig(munchausen=True, **change))


# -- presets -----------------------------------------------------------------------------------------------------------


def test_constants_of_the_papers():
    """(target network's period in agent steps, first update's, learning rate, atoms, n)."""
    expected = {
        "c51": (10_000, 50_000, 2.5e-4, 51, 1),
        "qr": (10_000, 50_000, 5e-5, 200, 1),
        "iqn": (10_000, 50_000, 5e-5, 64, 1),
        "double": (30_000, 50_000, 2.5e-4, 51, 1),
        "noisy": (10_000, 50_000, 2.5e-4, 51, 1),
        "prioritised": (30_000, 50_000, 6.25e-5, 51, 1),
        "rainbow": (8_000, 20_000, 6.25e-5, 51, 3),
        "munchausen": (8_000, 20_000, 5e-5, 51, 1),
        "munchausen_iqn": (8_000, 20_000, 5e-5, 64, 1),
    }
    for name, values in expected.items():
        cfg = PRESETS[name]
        steps = cfg.target_every * cfg.batch_size / cfg.samples_per_step
        assert (steps, cfg.learning_starts, cfg.trainer.lr, cfg.agent.atoms, cfg.agent.n_step) == values, name


def test_presets_say_their_name_and_the_ablations_differ_in_one_thing():
    for name, cfg in PRESETS.items():
        assert cfg.preset == name

    def changes(name):
        cfg = dataclasses.asdict(PRESETS[name])
        return {k for k, v in dataclasses.asdict(NATURE).items() if cfg[k] != v} - {"preset"}

    assert changes("no_target") == {"target_every"} and changes("linear") == {"agent"}
    assert changes("no_replay") == {"replay", "learning_starts"}
    assert changes("neither") == changes("no_replay") | changes("no_target")


def test_without_replay_the_newest_transitions_are_learned():
    cfg = dataclasses.replace(PRESETS["no_replay"], env="catch", frames=400, device="cpu", threads=1)
    _, experience, _ = build(cfg, prepared(cfg))
    batches = [next(experience) for _ in range(40)]
    replay = experience.replay
    time, _ = replay.draw_moments(2000)
    assert len(batches[-1]["a_tm1"]) == 32 and replay.count > 36
    assert set(time.tolist()) <= set(range(replay.count - 33, replay.count - 1)) and len(set(time.tolist())) > 25


def test_a_plain_dqn_sees_vectors_too():
    cfg = tiny(env="tmaze", frames=500, agent=dataclasses.replace(FAST, backbone="mlp"))
    _, _, experience, agent = drive(cfg)
    assert experience.replay.frames.dtype == torch.float32 and agent.obs_shape == (1, 3)
    assert set(experience.replay.sample(64)["s_tm1"].unique().tolist()) == {0.0, 1.0}


def test_a_linear_network_is_one_matrix_of_pixels():
    agent = Rainbow((4, 36, 36), 3, RainbowConfig(backbone="linear"))
    obs = np.random.default_rng(0).integers(0, 256, (2, 4, 36, 36), np.uint8)
    (weight, bias) = agent.network.parameters()
    expected = torch.from_numpy(obs.reshape(2, -1) / 255).float() @ weight.T + bias
    torch.testing.assert_close(agent.q_values(obs), expected, atol=1e-4, rtol=1e-4)


# -- learning ----------------------------------------------------------------------------------------------------------

QUIET = {"epsilon_final": 0.0, "epsilon_frames": 1}
LATE = {
    "learning_starts": 800,
    "frames": 2800,
}  # noise alone may never try to catch in a corner: more random play first
SOFT = {"munchausen": True, "double": False, "n_step": 1}
C51 = {"distribution": "c51", "v_max": 2.0, "atoms": 21}
VARIANTS = {
    "prioritised": ({}, {"priority": 0.6}),
    "c51": (C51, {}),
    "qr": ({"distribution": "qr", "atoms": 21}, {}),
    "iqn": ({"distribution": "iqn", "atoms": 8}, {}),
    "noisy": ({"noisy": True}, LATE | QUIET),
    "munchausen": (SOFT, {}),
    "munchausen_iqn": (SOFT | {"distribution": "iqn", "atoms": 8}, {}),
    "rainbow": (C51 | {"noisy": True}, {"priority": 0.5} | LATE | QUIET),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_learns_catch(name, monkeypatch, learning_seed, record_property):
    """20 of 20 seeds with first weights disturbed, each with 1.0; broken: -.18 at most."""
    network, more = VARIANTS[name]
    agent = dataclasses.replace(FAST, backbone="mlp", width=1.0, gamma=0.9, **network)
    score, _ = learned_catch(monkeypatch, learning_seed, agent=agent, **more)
    record_property("score", score)
    assert score >= 0.9


@pytest.mark.parametrize("name", ["prioritised", "c51", "qr", "rainbow"])
@pytest.mark.slow
def test_a_loss_that_draws_its_batch_gives_the_same_run(name):
    """What one captured graph will hold, uncaptured."""
    network, more = VARIANTS[name]
    cfg = tiny(
        agent=dataclasses.replace(FAST, **network), **(more | {"frames": 500, "learning_starts": 300, "priority": 0.6})
    )
    expected = drive(cfg)[0]
    trainer, experience, agent = build(cfg, prepared(cfg))
    experience._sample, replay = experience.replay.draw_shares, experience.replay
    trainer = Trainer(agent.network, loss_that_draws(replay, agent.loss), trainer.cfg)
    found = []
    for step, batch, aux in trainer.run(experience):
        assert set(batch) == {"share", "importance"}
        found.append(aux["loss"].item())
        replay.prioritise(aux["index"], aux["priority"])
        if step % cfg.target_every == 0:
            agent.sync(trainer.model)
    assert found == expected and len(found) > 30


def test_an_index_of_equal_priorities_draws_uniformly():
    replay, _ = filled(None)
    indexed = Replay(128, 2, (3, 2), n_step=2, indexed=True)
    worlds = Worlds(2, ["", "", "", "terminal", "", "truncation", ""])
    for _ in range(50):
        indexed.add(*worlds.row())
    possible = int((indexed.tree.leaves > 0).sum())
    time, env = replay.draw_moments(5000)
    assert possible == len(set(zip(time.tolist(), env.tolist(), strict=True)))
    batch = indexed.sample(possible * 3)
    assert (batch["index"].bincount()[batch["index"].unique()] == 3).all() and (batch["weight"] == 1).all()


@pytest.mark.slow
def test_the_loop_of_a_run_gives_priorities_back_and_noise_survives_an_evaluation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen, prioritise = [], Replay.prioritise

    def watched(replay, index, priority):
        prioritise(replay, index, priority)
        seen.append((len(replay.tree.leaves.unique()), network[0].training))

    network, built = [], dqn_atari.build

    def build(*args):
        parts = built(*args)
        network.append(parts[2].network)
        return parts

    monkeypatch.setattr(Replay, "prioritise", watched)
    monkeypatch.setattr(dqn_atari, "build", build)
    cfg = tiny(agent=dataclasses.replace(FAST, noisy=True), priority=0.6, frames=900, eval_every=400)
    dqn_atari.main(dataclasses.replace(cfg, eval_episodes=4))
    assert len(seen) > 100 and seen[-1][0] > 50 and all(training for _, training in seen)


def test_priorities_need_every_batch():
    cfg = tiny(priority=0.5)
    with pytest.raises(ValueError, match="needs what each batch has taught"):
        dqn_atari.main(dataclasses.replace(cfg, trainer=dataclasses.replace(cfg.trainer, accumulate=2)))


@pytest.mark.slow
def test_prioritised_half_and_resume_equals_the_whole_bit_for_bit(tmp_path):
    cfg = tiny(agent=dataclasses.replace(FAST, distribution="iqn", atoms=4, noisy=True), priority=0.6, frames=560)
    expected, whole, experience, _ = drive(cfg, tmp_path / "whole")
    first, *_ = drive(cfg, tmp_path / "halves", stop=len(expected) // 2)
    torch.manual_seed(12345)
    second, resumed, again, _ = drive(cfg, tmp_path / "halves", load=True)
    assert first + second == expected and len(second) > 10
    assert torch.equal(experience.replay.tree.leaves, again.replay.tree.leaves)
    assert experience.replay.tree.leaves.unique().numel() > 100
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
