"""Masks of actions: obeyed in acting, in exploring and in the targets of every learner, and kept by every replay."""

import dataclasses

import gym_toys
import numpy as np
import pytest
import torch

from agents.dqn.agent import DQN, DQNConfig, epsilon_greedy, random_actions
from agents.dqn.experience import Experience
from agents.pqn.agent import PQN, PQNConfig
from agents.pqn.experience import Experience as PQNExperience
from agents.rainbow.agent import Rainbow
from agents.rainbow.config import RainbowConfig
from agents.recurrent.agent import RecurrentConfig, RecurrentDQN
from envs.gymnasium import Gymnasium, Options
from experiments.control.dqn_presets import PRESETS
from rlkit.replay import Replay
from rlkit.saved_agents import load_agent_files
from rlkit.schedule import Schedule
from rlkit.sequences import SequenceReplay
from rlkit.trainer import TrainConfig

# -- acting and exploring ----------------------------------------------------------------------------------------------


def test_random_and_greedy_actions_obey_their_masks_and_are_uniform_over_them():
    rng = np.random.default_rng(0)
    mask = np.array([[True, False, True, True], [False, True, False, False]])
    drawn = np.stack([random_actions(rng, (2, 4), mask) for _ in range(6000)])
    assert (drawn[:, 1] == 1).all()
    counts = np.bincount(drawn[:, 0], minlength=4)
    assert counts[1] == 0 and (abs(counts[[0, 2, 3]] - 2000) < 200).all()  # 5 standard deviations
    q = torch.tensor([[0.0, 9.0, 2.0, 1.0], [5.0, -7.0, 5.0, 5.0]])
    assert epsilon_greedy(q, 0.0, rng, mask).tolist() == [2, 1]
    assert epsilon_greedy(q, 0.0, rng).tolist() == [1, 0]
    for epsilon in (0.5, 1.0):
        taken = np.stack([epsilon_greedy(q, epsilon, rng, mask) for _ in range(200)])
        assert mask[0][taken[:, 0]].all() and mask[1][taken[:, 1]].all() and set(taken[:, 0]) == {0, 2, 3}


def illegal_first_(agent):
    """Make an agent find action 3 better than all others, everywhere."""
    head = agent.network.head
    with torch.no_grad():
        (head.linear if hasattr(head, "linear") else head.advantage).bias[3] += 1e4


@pytest.mark.parametrize("kind", ["dqn", "recurrent", "pqn"])
@pytest.mark.parametrize("world", ["forbidden", "taxi", "go"])
def test_no_illegal_action_is_ever_sent(kind, world):
    name, kwargs = {
        "forbidden": ("gym_toys:Forbidden", ()),
        "taxi": ("Taxi-v4", ()),
        "go": ("envs.go:rlkit/Go-v0", ("size=3", "max_moves=9")),
    }[world]
    envs = Gymnasium(name, 4, options=Options(kwargs), seed=1)
    sent, send = [], envs.send
    envs.send = lambda actions: (sent.append((envs.mask, actions)), send(actions))[1]
    shape, num_actions = envs.obs_shape, envs.num_actions
    planes = len(shape) > 2
    schedule = Schedule(1.0, 0.0, begin=40, duration=120)
    if kind == "pqn":
        agent = PQN(shape, num_actions, PQNConfig(width=0.1))
        experience = PQNExperience(envs, agent, epsilon=schedule, num_steps=8, minibatches=4)
    else:
        replay = {"stack": 1, "frame_shape": shape[1:], "dtype": torch.from_numpy(np.zeros(0, envs.obs_dtype)).dtype}
        replay |= {"masks": num_actions}
        if kind == "dqn":
            agent = DQN(shape, num_actions, DQNConfig(backbone="minatar" if planes else "mlp", width=0.1))
            memory = Replay(400, 4, **replay)
        else:
            torso = "minatar" if planes else "mlp"
            agent = RecurrentDQN(
                shape, num_actions, RecurrentConfig(torso=torso, width=0.1, features=8, burn_in=2, length=6)
            )
            memory = SequenceReplay(400, 4, agent.state_size, length=8, period=4, **replay)
        experience = Experience(
            envs, agent, memory, epsilon=schedule, batch_size=8, samples_per_step=4, learning_starts=60
        )
    illegal_first_(agent)
    while len(sent) < 70:
        next(experience)
    for mask, actions in sent:
        assert mask[np.arange(4), actions].all()
    assert any((~mask[:, 3]).any() for mask, _ in sent)  # the one that the agent likes best
    assert world != "go" or not all(mask.all() for mask, _ in sent)


# -- targets -----------------------------------------------------------------------------------------------------------

KINDS = {
    "dqn": (DQN, DQNConfig()),
    "double": (DQN, DQNConfig(double=True)),
    "double dueling": (DQN, DQNConfig(double=True, dueling=True)),
    "c51": (Rainbow, RainbowConfig(distribution="c51")),
    "double c51": (Rainbow, RainbowConfig(distribution="c51", double=True)),
    "qr": (Rainbow, RainbowConfig(distribution="qr")),
    "iqn": (Rainbow, RainbowConfig(distribution="iqn")),
    "munchausen": (Rainbow, RainbowConfig(munchausen=True)),
    "munchausen qr": (Rainbow, RainbowConfig(munchausen=True, distribution="qr")),
    "munchausen iqn": (Rainbow, RainbowConfig(munchausen=True, distribution="iqn")),
}


def prefer_(network, action, by):
    """Raise what a network says of one action, whatever it says it by."""
    head = getattr(network.head, "head", network.head)
    bias = head.advantage.bias if hasattr(head, "advantage") else head.linear.bias
    with torch.no_grad():
        of_action = bias.view(3, -1)[action]
        if getattr(network, "distribution", "none") == "c51":
            of_action += by * network.support / network.support[-1]
        else:
            of_action += by
        if hasattr(head, "advantage"):
            head.value.bias += by / 3  # the mean advantage that is taken off


@pytest.mark.parametrize("kind", KINDS)
def test_an_illegal_next_action_is_never_chosen_whatever_it_promises(kind):
    """Action 2 is illegal at both states: how good it looks there must not matter. Without masks it does."""
    make, cfg = KINDS[kind]
    cfg = dataclasses.replace(cfg, backbone="mlp", width=0.1)
    generator = torch.Generator().manual_seed(1)
    batch = {
        "s_tm1": torch.randn(5, 1, 4, generator=generator),
        "s_t": torch.randn(5, 1, 4, generator=generator),
        "a_tm1": torch.tensor([0, 1, 0, 1, 0]),
        "r_t": torch.randn(5, generator=generator),
        "discount_t": torch.tensor([0.9, 0.9, 0.0, 0.9, 0.9]),
    }
    masks = torch.tensor([[True, True, False]]).repeat(5, 1)
    masked = batch | {"mask_tm1": masks, "mask_t": masks}
    torch.manual_seed(3)
    agent = make((1, 4), 3, cfg)

    def losses_of(batch):
        torch.manual_seed(5)  # of IQN's quantiles
        loss, aux = agent.loss(agent.network, batch)
        loss.backward()
        assert all(p.grad.isfinite().all() for p in agent.network.parameters())
        return loss.item(), aux["td_error"].item()

    prefer_(agent.network, 2, -50.0), prefer_(agent.target, 2, -50.0)
    before = losses_of(masked)
    as_if_absent = losses_of(batch)  # so bad that it is not chosen anyway
    assert before == pytest.approx(as_if_absent, rel=1e-5)
    prefer_(agent.network, 2, 150.0), prefer_(agent.target, 2, 150.0)
    assert losses_of(masked) == pytest.approx(before, rel=1e-4)
    assert losses_of(batch) != pytest.approx(before, rel=1e-2)


@pytest.mark.parametrize("double", [False, True])
def test_recurrent_targets_obey_the_mask_of_each_moment(double):
    cfg = RecurrentConfig(
        torso="mlp", width=0.1, features=8, burn_in=2, length=6, n_step=2, double=double, dueling=False
    )
    torch.manual_seed(1)
    agent = RecurrentDQN((1, 4), 3, cfg)
    shape, generator = (3, 8), torch.Generator().manual_seed(1)
    illegal = torch.arange(24).view(shape) % 2 + 1  # 1 or 2, another one at each moment; 0 is always taken
    mask = torch.ones(*shape, 3, dtype=torch.bool).scatter(2, illegal[..., None], False)
    batch = {
        "s": torch.randn(*shape, 1, 4, generator=generator),
        "a": torch.zeros(shape, dtype=torch.int64),
        "r_t": torch.randn(shape, generator=generator),
        "discount_t": torch.full(shape, 0.9),
        "first": torch.zeros(shape, dtype=torch.bool),
        "last": torch.zeros(shape, dtype=torch.bool),
        "state": torch.zeros(3, agent.state_size),
        "mask": mask,
    }

    def raised(unroll):
        """What is illegal at a moment promises much there."""
        return lambda *args: unroll(*args) + 1e4 * ~mask[:, cfg.burn_in :]

    expected = agent.loss(agent.network, batch)[0].item()
    agent.target.unroll, agent.network.unroll = raised(agent.target.unroll), raised(agent.network.unroll)
    assert agent.loss(agent.network, batch)[0].item() == pytest.approx(expected)
    assert agent.loss(agent.network, {k: v for k, v in batch.items() if k != "mask"})[0].item() > 100


def test_pqn_values_are_of_what_is_allowed():
    envs = Gymnasium("gym_toys:Forbidden", 3, seed=1)
    agent = PQN(envs.obs_shape, 4, PQNConfig(width=0.1))
    experience = PQNExperience(envs, agent, epsilon=Schedule(0.5, 0.5), num_steps=8, minibatches=2)
    illegal_first_(agent)
    for _ in range(12):
        q = agent.q_values(torch.from_numpy(np.asarray(experience._obs))).numpy()
        value = experience._send()
        np.testing.assert_allclose(value, np.where(experience._mask, q, -np.inf).max(1), rtol=1e-5)
        step = experience._next_step()
        experience._obs, experience._mask = torch.from_numpy(step["obs"]), step["mask"]
    assert (value < 100).any()  # at even cells 3 is illegal


# -- replays -----------------------------------------------------------------------------------------------------------


def filled(replay, rows, rng, **more):
    """Masks [rows, E, 5] and ends [rows, E] of rows of random episodes."""
    envs = replay.num_envs
    masks, ends = rng.random((rows, envs, 5)) < 0.5, rng.random((rows, envs)) < 0.15
    ends[1:] &= ~ends[:-1]
    for t in range(rows):
        first = np.ones(envs, bool) if t == 0 else ends[t - 1]
        frame, one = np.full((envs, 2), t, np.float32), np.ones(envs, np.float32)
        replay.add(frame, one, one, one, first, ends[t], masks[t], **more)
    return masks, ends


@pytest.mark.parametrize("priority", [0.0, 0.5])
@pytest.mark.parametrize("rows", [9, 57])  # of a ring of 20
def test_every_state_has_its_own_mask_over_the_rings_end_and_after_a_resume(tmp_path, rows, priority):
    options = {
        "stack": 1,
        "n_step": 3,
        "dtype": torch.float32,
        "masks": 5,
        "path": tmp_path / "ring",
        "priority": priority,
    }
    replay, again = (Replay(40, 2, (2,), **options) for _ in range(2))
    masks, _ = filled(replay, rows, np.random.default_rng(rows))
    again.load_state_dict(replay.state_dict())
    for one in (replay, again):
        batch = one.sample(400)
        t_tm1, t = (batch[s][:, 0, 0].long().numpy() for s in ("s_tm1", "s_t"))
        own = [(batch[x].numpy()[:, None] == masks[at]).all(2) for x, at in (("mask_tm1", t_tm1), ("mask_t", t))]
        assert (own[0] & own[1]).any(1).all()  # of one environment
        assert t_tm1.min() >= rows - 20 and (t > t_tm1).all() and (t - t_tm1).max() == 3
    assert replay.nbytes - Replay(40, 2, (2,), stack=1, dtype=torch.float32).nbytes == 40 * 5


@pytest.mark.parametrize("rows", [15, 57])
def test_sequences_have_the_mask_of_each_moment(tmp_path, rows):
    options = {"length": 6, "period": 4, "frame_shape": (2,), "stack": 1, "dtype": torch.float32, "masks": 5}
    replay, again = (SequenceReplay(40, 2, 3, path=tmp_path / "ring", **options) for _ in range(2))
    masks, _ = filled(replay, rows, np.random.default_rng(1), state=torch.zeros(2, 3))
    again.load_state_dict(replay.state_dict())
    for one in (replay, again):
        batch = one.sample(50)
        times = batch["s"][:, :, 0, 0].long().numpy()
        assert batch["mask"].shape == (50, 6, 5)
        assert (batch["mask"].numpy()[:, None] == np.moveaxis(masks[times], 2, 1)).all((2, 3)).any(1).all()


# -- learning ----------------------------------------------------------------------------------------------------------


def learned(seed, folder, monkeypatch):
    """(score, illegal actions) of a DQN where illegal actions would pay ten times as much."""
    from experiments.control import dqn

    monkeypatch.chdir(folder)
    gym_toys.Forbidden.illegal = 0
    cfg = dataclasses.replace(
        PRESETS["classic"], env="gym_toys:Forbidden", frames=1600, num_envs=8, batch_size=16, samples_per_step=6,
        learning_starts=300, epsilon_frames=1000, target_every=20, eval_every=10_000, eval_episodes=4,
        reward_scale=1.0, seed=seed, device="cpu", threads=1,
        agent=RainbowConfig(backbone="mlp", width=0.25, gamma=0.9, double=True, n_step=3),
        trainer=TrainConfig(steps=0, progress=False, lr=3e-3, log_every=200),
    )  # fmt: skip
    info, _ = load_agent_files(dqn.main(cfg))
    return info["score"]["mean"], gym_toys.Forbidden.illegal


@pytest.mark.slow
def test_where_an_illegal_action_pays_none_is_taken_and_the_goal_is_learned(tmp_path, monkeypatch, learning_seed):
    """20 of 20 seeds, as they are and with disturbed first weights; none where gradients have the wrong sign."""
    score, illegal = learned(1 + learning_seed, tmp_path, monkeypatch)
    assert illegal == 0 and score == 1.0
