"""DQN's experience from actors: the moments are those that were lived through, and none leads into another life."""

import numpy as np
import pytest
import torch

from agents.dqn.actors import EPSILON, TURNS, Actor, ActorExperience, Replays, ladder
from agents.dqn.agent import DQN, DQNConfig
from envs.catch import Catch
from rlkit.parallel import stream as stream_module
from rlkit.parallel.stream import Stream, StreamConfig
from rlkit.replay import Replay
from rlkit.schedule import Schedule
from rlkit.trainer import TrainConfig, Trainer

SIZE, ENVS = 36, 3


def agent() -> DQN:
    torch.manual_seed(0)
    return DQN(Catch(1, size=SIZE, seed=0).obs_shape, 3, DQNConfig(n_step=2), torch.device("cpu"), "fp32")


def actor(index: int, start: int) -> Actor:
    def make(start: int):
        return Catch(ENVS, size=SIZE, seed=10 * index + start), agent(), None, 5 + index

    return Actor(make, ladder(2 * ENVS)[index * ENVS : (index + 1) * ENVS], start)


def experience(actors: int, network, path=None, **options) -> ActorExperience:
    replays = [
        Replay(600, ENVS, (SIZE, SIZE), n_step=2, seed=index, path=path and path / f"{index}.ring", priority=0.5)
        for index in range(actors)
    ]
    settings = {"frames_per_step": 1, "batch_size": 16, "samples_per_step": 4, "learning_starts": 300}
    settings |= {"clip_reward": True, "reward_scale": 1.0, "importance": Schedule(1.0, 1.0)}
    return ActorExperience(Stream(actor, network, StreamConfig(actors=actors, **options)), replays, **settings)


def test_the_ladder_is_horgans():
    assert ladder(1)[0] == EPSILON and ladder(8)[0] == EPSILON
    np.testing.assert_allclose(ladder(8)[-1], 0.4**8)
    np.testing.assert_allclose(ladder(360)[100], 0.4 ** (1 + 7 * 100 / 359))


def test_an_actor_hands_over_what_it_lives_through():
    """The rows of two calls are one stream: each frame is the world's, moved by the action before it."""
    one = actor(0, 0)
    weights = {name: tensor.numpy() for name, tensor in agent().network.state_dict().items()}
    first, second = one.play(weights, 0, 1.0, True), one.play(weights, 3, 0.25, False)
    assert (first.version, second.version) == (0, 3)
    assert len(first.content["rows"][0]) == TURNS and len(second.content["rows"][0]) == TURNS // 4
    frame, action, reward, discount, begins, last, mask, state = (
        None if a is None else np.concatenate([a, b])
        for a, b in zip(first.content["rows"], second.content["rows"], strict=True)
    )
    assert mask is None and state is None and first.counts["steps"] == TURNS * ENVS
    world = Catch(ENVS, size=SIZE, seed=0)
    obs, was_last = world.reset(), np.zeros(ENVS, bool)
    for t in range(len(frame)):
        np.testing.assert_array_equal(frame[t], obs[:, -1])
        np.testing.assert_array_equal(last[t], was_last)
        step = world.step(action[t])
        going = ~was_last
        np.testing.assert_array_equal(reward[t][going], step.r_t[going])
        np.testing.assert_array_equal(discount[t][going], step.discount_t[going])
        obs, was_last = step.obs, step.last
    np.testing.assert_array_equal(second.content["now"][0], obs[:, -1])
    ended = sum(n["episodes"] for n in (first.counts, second.counts))
    assert last.sum() <= ended <= last.sum() + ENVS and begins[0].all(), "a step that has ended one may be on its way"


def test_replays_of_all_give_equal_parts_and_take_their_priorities_back():
    replays = []
    for value in range(3):
        replay = Replay(60, 2, (1,), stack=1, priority=1.0, seed=value, dtype=torch.float32)
        for _ in range(20):
            no = np.zeros(2, bool)
            replay.add(np.full((2, 1), value, np.float32), np.full(2, value), np.zeros(2), np.ones(2), no, no)
        replays.append(replay)
    all_ = Replays(replays)
    batch = all_.sample(8, 1.0)
    counts = np.bincount(batch["a_tm1"].numpy(), minlength=3)
    assert (
        len(all_) == 120 and sorted(counts) == [2, 3, 3] and sorted(batch["a_tm1"].tolist()) == batch["a_tm1"].tolist()
    )
    assert {int(all_.sample(1, 1.0)["a_tm1"]) for _ in range(60)} == {0, 1, 2}, "fewer samples than replays"
    batch = all_.sample(8, 1.0)
    all_.prioritise(batch["index"], batch["a_tm1"] + 1.0)
    for value, replay in enumerate(replays):
        assert replay._highest == max(1, value + 1 + 1e-6)
    batch = all_.sample(6, 1.0)  # two from each: a transition's chance is 2 P(i), and weights are one over it
    leaves = [replay.tree.leaves for replay in replays]
    chance = [leaves[a][i] / leaves[a].sum() for a, i in zip(batch["a_tm1"], batch["index"], strict=True)]
    torch.testing.assert_close(batch["weight"], (min(chance) / torch.stack(chance)).float())


def test_a_call_worth_less_than_a_batch_does_not_keep_actors_waiting(monkeypatch):
    monkeypatch.setattr(stream_module, "Actors", lambda *_: None)
    made = experience(2, agent().network)
    made.batch_size = 10 * int(made._samples_per_call)
    made._credit = made.batch_size - 1.0
    assert made._wanted
    made._credit += 1
    assert not made._wanted


@pytest.mark.slow
def test_nothing_leads_from_one_life_into_another_and_the_ratio_holds(cluster, tmp_path):
    learner = agent()
    stream = experience(2, learner.network, tmp_path, max_lag=1, publish_every=5)
    cfg = TrainConfig(steps=60, progress=False)
    trainer = Trainer(learner.network, learner.loss, cfg, tmp_path, state={"experience": stream})
    stream.stream.actors.ray.kill(stream.stream.actors._handles[1])
    for step, batch, _ in trainer.run(stream):
        stream.replay.prioritise(batch["index"], torch.ones(16))
        if step == 30:
            stream.stream.actors.ray.kill(stream.stream.actors._handles[0])
    while stream.stream.actors.lost < 2:
        next(stream)
    rows = sum(replay.count for replay in stream.replay.replays)
    assert stream.steps <= rows * ENVS <= stream.steps + 2 * ENVS, "a row where a life was cut, all others once"
    assert max(stream.stream.lags) <= 1
    assert sum(check_lives(replay) for replay in stream.replay.replays) > 20
    owed = stream.samples_per_step * (stream.steps - 300) - 16 * 60
    assert owed <= 3 * stream._samples_per_call, "actors wait for a learner that is slower"
    trainer.save()
    stream.stream.close()

    again = experience(2, learner.network, tmp_path)
    loaded = Trainer(learner.network, learner.loss, cfg, tmp_path, state={"experience": again})
    assert loaded.load() and again.steps == stream.steps and again.learning and again.stream.updates == 60
    while not all(again._now):
        again._store(again.stream.take(True, False))
    for replay in again.replay.replays:
        check_lives(replay)
    again.stream.close()


def check_lives(replay: Replay) -> int:
    """Where no row is marked as the last, the next one is the world's next: Catch's ball has fallen by a row. Returns
    how many rows begin a life."""
    times = np.arange(max(0, replay.count - replay.rows), replay.count) % replay.rows
    frames = replay.frames[:-1].reshape(replay.rows, ENVS, SIZE, SIZE).numpy()[times]
    ball = (frames.any(-1).argmax(-1) * 10) // SIZE  # the first row that is lit
    going = ~replay.last[times][:-1]
    np.testing.assert_array_equal((ball[1:] - ball[:-1])[going], 1)
    return int((ball == 0).sum())
