"""The ring against a plain list of everything that ever happened."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlkit.replay import Replay

GAMMA = 0.9


class Worlds:
    """E made-up environments that remember everything; a frame is filled with the number of its moment."""

    def __init__(self, num_envs, ends):
        self.rows, self.num_envs, self.ends = [], num_envs, ends
        self.first, self.last = np.ones(num_envs, bool), np.zeros(num_envs, bool)

    def row(self):
        t = len(self.rows)
        rng = np.random.default_rng(t)
        frame = np.empty((self.num_envs, 3, 2), np.uint8)
        frame[:] = (1 + (t * self.num_envs + np.arange(self.num_envs)) % 250)[:, None, None]
        reward, action = rng.normal(size=self.num_envs), rng.integers(0, 5, self.num_envs)
        kind = np.array([self.ends[(t * self.num_envs + e) % len(self.ends)] for e in range(self.num_envs)])
        discount = np.where((kind == "terminal") | (kind == "life"), 0.0, 1.0)
        self.rows.append((frame, action, reward, discount, self.first, self.last))
        out = self.rows[-1]
        ended = ((kind == "terminal") | (kind == "truncation")) & ~self.last
        self.first, self.last = self.last, ended
        return out

    def expected(self, t, e, n, stack):
        """The transition that starts at row t, from first principles."""

        def state(t):
            frames, k = [], t
            while len(frames) < stack and k >= 0:
                frames.append(self.rows[k][0][e])
                if self.rows[k][4][e]:
                    break
                k -= 1
            frames += [np.zeros((3, 2), np.uint8)] * (stack - len(frames))
            return np.stack(frames[::-1])

        total, discount, k = 0.0, 1.0, t
        while k < t + n and not self.rows[k][5][e]:
            total += discount * self.rows[k][2][e]
            discount *= GAMMA * self.rows[k][3][e]
            k += 1
        return state(t), self.rows[t][1][e], total, discount, state(k)


@settings(max_examples=40, deadline=None)
@given(
    num_envs=st.integers(1, 3),
    n=st.integers(1, 4),
    stack=st.sampled_from([1, 3, 4]),
    rows=st.integers(16, 30),
    length=st.integers(6, 70),
    ends=st.lists(st.sampled_from(["", "", "", "", "terminal", "truncation", "life"]), min_size=1, max_size=40),
)
@pytest.mark.slow
def test_every_sampled_transition_is_the_one_that_happened(num_envs, n, stack, rows, length, ends):
    worlds = Worlds(num_envs, ends)
    replay = Replay(rows * num_envs, num_envs, (3, 2), stack=stack, n_step=n, gamma=GAMMA)
    for _ in range(length):
        replay.add(*worlds.row())
    low, high = max(0, length - rows + stack - 1) if length > rows else 0, length - n
    startable = [(t, e) for t in range(low, high) for e in range(num_envs) if not worlds.rows[t][5][e]]
    if not startable:
        with pytest.raises(ValueError, match="no transition"):
            replay.sample(4)
        return
    time, env = replay.draw_moments(64)
    assert set(zip(time.tolist(), env.tolist(), strict=True)) <= set(startable)
    time, env = (np.array(x) for x in zip(*startable, strict=True))
    batch = replay.batch_at_moments(time, env)
    for i, (t, e) in enumerate(startable):
        s_tm1, a, r, discount, s_t = worlds.expected(t, e, n, stack)
        np.testing.assert_array_equal(batch["s_tm1"][i], s_tm1)
        assert batch["a_tm1"][i] == a
        assert batch["r_t"][i] == pytest.approx(r, abs=1e-5)
        assert batch["discount_t"][i] == pytest.approx(discount, abs=1e-6)
        if discount:
            np.testing.assert_array_equal(batch["s_t"][i], s_t)


def test_sampling_is_uniform_over_startable_transitions():
    worlds = Worlds(2, ["", "", "terminal", "", ""])
    replay = Replay(40, 2, (3, 2), n_step=2, seed=3)
    for _ in range(35):
        replay.add(*worlds.row())
    low, high = 35 - 20 + 3, 33
    startable = [(t, e) for t in range(low, high) for e in range(2) if not worlds.rows[t][5][e]]
    time, env = replay.draw_moments(len(startable) * 1000)
    counts = np.array([((time == t) & (env == e)).sum() for t, e in startable])
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    # mean = degrees of freedom, sd = sqrt(2 dof): five standard deviations
    dof = len(startable) - 1
    assert abs(chi_square - dof) < 5 * np.sqrt(2 * dof)


def test_states_have_their_channels_innermost():
    """Convolutions on a CPU save a pass over the batch when it arrives in their own layout."""
    replay = Replay(100, 2, (36, 36))
    for i in range(40):
        z = np.zeros(2)
        replay.add(np.full((2, 36, 36), i, np.uint8), z, z, z, z > 0, z > 0)
    s = replay.sample(8)["s_tm1"]
    assert s.shape == (8, 4, 36, 36) and s.dtype == torch.uint8
    assert s.is_contiguous(memory_format=torch.channels_last)


def filled(path, rows=64, count=50, seed=0):
    worlds = Worlds(2, ["", "", "", "terminal", "", "truncation", ""])
    with mock.patch("rlkit.replay.CHUNK_BYTES", 8 * 2 * (6 + 12)):  # eight rows
        replay = Replay(rows * 2, 2, (3, 2), n_step=2, seed=seed, path=path)
    for _ in range(count):
        replay.add(*worlds.row())
    return replay, worlds


def same(a, b, n=200):
    one, two = a.sample(n), b.sample(n)
    return all(torch.equal(one[k], two[k]) for k in one)


def test_saves_and_restores_itself_over_many_saves(tmp_path):
    replay, worlds = filled(tmp_path / "ring")
    for _ in range(12):
        for _ in range(17):
            replay.add(*worlds.row())
        state = replay.state_dict()
        other, _ = filled(tmp_path / "ring", count=0)
        assert "128 frames restored" in other.load_state_dict(state) or replay.count < 64
        assert same(replay, other)
    assert (tmp_path / "ring").stat().st_size <= 2 * 8 * replay._file.slot_bytes


def test_an_older_table_survives_a_save_that_was_not_finished(tmp_path):
    """Killed after writing chunks and before the checkpoint: the old checkpoint's chunks are untouched."""
    replay, worlds = filled(tmp_path / "ring")
    state = replay.state_dict()
    control, _ = filled(None)
    for _ in range(30):
        replay.add(*worlds.row())
    replay.state_dict()  # its table is lost with the process
    other, _ = filled(tmp_path / "ring", count=0)
    other.load_state_dict(state)
    assert same(control, other)


def test_damaged_chunks_are_left_out_and_nothing_touches_the_hole(tmp_path):
    replay, worlds = filled(tmp_path / "ring", count=64)
    state = replay.state_dict()
    slot = state["table"][3][0]
    with open(tmp_path / "ring", "r+b") as f:
        f.seek(slot * replay._file.slot_bytes + 5)
        f.write(b"?")
    other, _ = filled(tmp_path / "ring", count=0)
    assert "1 damaged chunk" in other.load_state_dict(state)
    time, env = other.draw_moments(3000)
    assert not np.isin(time, np.arange(24, 32)).any() and {22, 40} <= set(time.tolist())
    for t, e in set(zip(time.tolist(), env.tolist(), strict=True)):
        got = other.batch_at_moments(np.array([t]), np.array([e]))
        s_tm1, _, _, discount, s_t = worlds.expected(t, e, 2, 4)
        np.testing.assert_array_equal(got["s_tm1"][0], s_tm1)
        if t + 2 <= 23 and discount:
            np.testing.assert_array_equal(got["s_t"][0], s_t)
        if t == 22:  # its return stops before the hole
            np.testing.assert_array_equal(got["s_t"][0], worlds.expected(22, e, 1, 4)[4])


def test_a_hole_in_a_short_last_chunk_ends_with_the_ring(tmp_path):
    replay, _ = filled(tmp_path / "ring", rows=65, count=65)
    state = replay.state_dict()
    with open(tmp_path / "ring", "r+b") as f:
        f.seek(state["table"][8][0] * 8 * 2 * (6 + 12))
        f.write(b"???")
    other, _ = filled(tmp_path / "ring", rows=65, count=0)
    assert "1 damaged chunk" in other.load_state_dict(state)
    marked = other.last & ~replay.last
    assert (other.last[[63, 64, 0, 1, 2]]).all() and not marked[3:63].any()  # stacks reach back over three rows


def test_chunks_of_another_version_are_refilled(tmp_path):
    replay, _ = filled(tmp_path / "ring")
    state = replay.state_dict()
    other = Replay(128, 2, (3, 2), n_step=2, path=tmp_path / "ring")  # its chunks hold more rows
    assert "are damaged, it is refilled" in other.load_state_dict(state) and len(other) == 0


def test_without_a_path_only_counters_are_saved():
    replay, _ = filled(None)
    other, _ = filled(None, count=0)
    assert "refilled" in other.load_state_dict(replay.state_dict())
    assert len(other) == 0


def test_other_capacity_is_refused_with_a_remedy(tmp_path):
    replay, _ = filled(tmp_path / "ring")
    with pytest.raises(ValueError, match="same capacity"):
        Replay(200, 2, (3, 2), path=tmp_path / "ring").load_state_dict(replay.state_dict())


def test_a_million_frames_need_less_than_7_3_gigabytes():
    assert 7.0e9 < Replay(1_000_000, 16).nbytes <= 7.3e9  # untouched memory costs nothing here


def test_a_lost_ring_is_refilled(tmp_path):
    replay, _ = filled(tmp_path / "ring")
    state = replay.state_dict()
    (tmp_path / "ring").unlink()
    other, _ = filled(tmp_path / "ring", count=0)
    assert "refilled" in other.load_state_dict(state) and len(other) == 0
