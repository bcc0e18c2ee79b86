"""The tree of sums, and prioritised replay on it, against plain lists."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_replay import GAMMA, Worlds, filled

from rlkit.replay import Replay
from rlkit.sum_tree import FAN, SumTree


@settings(max_examples=50, deadline=None)
@given(leaves=st.sampled_from([1, 5, FAN, FAN + 1, 5000]), seed=st.integers(0, 2**32 - 1))
def test_random_operations_against_a_list(leaves, seed):
    rng, tree, plain = np.random.default_rng(seed), SumTree(leaves), np.zeros(leaves)
    for _ in range(5):
        index = rng.choice(leaves, rng.integers(1, min(leaves, 40) + 1), replace=False)
        value = rng.random(len(index)) * rng.integers(0, 2, len(index))
        tree.set(torch.from_numpy(index), torch.from_numpy(value))
        plain[index] = value
        np.testing.assert_array_equal(tree.leaves[:leaves], plain)
        assert float(tree.levels[-1].sum()) == pytest.approx(plain.sum())
        if plain.any():
            share = np.append(rng.random(30), [0.0, np.nextafter(1, 0)])
            found, probability = tree.find(torch.from_numpy(share))
            running = plain.cumsum() / plain.sum()
            for leaf, s, p in zip(found.tolist(), share, probability.tolist(), strict=True):
                assert plain[leaf] > 0 and p == pytest.approx(plain[leaf] / plain.sum())
                assert running[leaf] >= s - 1e-9 and (leaf == 0 or running[leaf - 1] <= s + 1e-9)
    again = SumTree(leaves)
    again.fill(torch.from_numpy(plain))
    assert all(torch.equal(a, b) for a, b in zip(again.levels, tree.levels, strict=True))


def test_a_share_that_rounding_pushes_past_the_end_finds_the_last_leaf_that_is_not_empty():
    tree = SumTree(200)
    tree.set(torch.tensor([3, 70, 71]), torch.tensor([0.1, 0.2, 0.3]))
    leaf, probability = tree.find(torch.tensor([1.0], dtype=torch.float64))
    assert leaf.tolist() == [71] and probability.item() == pytest.approx(0.5)


@pytest.mark.slow
def test_drawn_in_proportion_to_priorities():
    priorities = np.random.default_rng(0).random(300) ** 3
    tree = SumTree(300)
    tree.fill(torch.from_numpy(priorities))
    draws = 200_000
    leaf, _ = tree.find(torch.from_numpy(np.random.default_rng(1).random(draws)))
    expected = priorities / priorities.sum() * draws
    seen = np.bincount(leaf.numpy(), minlength=300)
    keep = expected >= 5
    chi_square, dof = ((seen - expected)[keep] ** 2 / expected[keep]).sum(), keep.sum() - 1
    assert dof > 200 and abs(chi_square - dof) < 5 * np.sqrt(2 * dof)  # mean and five standard deviations


# -- the replay --------------------------------------------------------------------------------------------------------


def startable(worlds, count, rows, n, stack):
    low, high = (count - rows + stack - 1 if count > rows else 0), count - n
    return {(t, e) for t in range(low, high) for e in range(worlds.num_envs) if not worlds.rows[t][5][e]}


@settings(max_examples=30, deadline=None)
@given(
    num_envs=st.integers(1, 3),
    n=st.integers(1, 4),
    stack=st.sampled_from([1, 4]),
    rows=st.integers(16, 30),
    length=st.integers(1, 60),
    ends=st.lists(st.sampled_from(["", "", "", "terminal", "truncation", "life"]), min_size=1, max_size=40),
)
@pytest.mark.slow
def test_the_tree_holds_exactly_what_can_be_drawn(num_envs, n, stack, rows, length, ends):
    worlds = Worlds(num_envs, ends)
    replay = Replay(rows * num_envs, num_envs, (3, 2), stack=stack, n_step=n, gamma=GAMMA, priority=0.5)
    for count in range(1, length + 1):
        replay.add(*worlds.row())
        possible = startable(worlds, count, rows, n, stack)
        leaves = replay.tree.leaves[: rows * num_envs].reshape(rows, num_envs).numpy()
        assert {(t % rows, e) for t, e in possible} == set(zip(*map(np.ndarray.tolist, leaves.nonzero()), strict=True))
        if possible:
            batch = replay.sample(8)
            replay.prioritise(batch["index"], torch.rand(8) + 0.1)
    if possible:
        batch = replay.sample(64)
        row, env = np.divmod(batch["index"].numpy(), num_envs)
        time = {t % rows: t for t, _ in possible}
        for i in range(64):
            s_tm1, a, r, discount, _ = worlds.expected(time[row[i]], env[i], n, stack)
            np.testing.assert_array_equal(batch["s_tm1"][i], s_tm1)
            assert (batch["a_tm1"][i], batch["r_t"][i]) == (a, pytest.approx(r, abs=1e-5))
            assert batch["discount_t"][i] == pytest.approx(discount, abs=1e-6)
    else:
        with pytest.raises(ValueError, match="no transition"):
            replay.sample(8)


def test_new_ones_get_the_highest_priority_seen_and_weights_make_up_for_the_rest():
    worlds = Worlds(1, [""])
    replay = Replay(40, 1, (3, 2), stack=1, priority=0.5)
    for _ in range(4):
        replay.add(*worlds.row())  # three transitions, of priority 1
    replay.prioritise(torch.tensor([0, 1, 2]), torch.tensor([16.0, 4.0, 1.0]))
    replay.add(*worlds.row())
    torch.testing.assert_close(
        replay.tree.leaves[:4], torch.tensor([4.0, 2, 1, 4], dtype=torch.float64), rtol=1e-5, atol=0
    )
    batch = replay.sample(11, importance=0.5)  # one from each eleventh
    assert batch["index"].tolist() == [0] * 4 + [1] * 2 + [2] + [3] * 4
    expected = {0: 0.5, 1: 2**-0.5, 2: 1.0, 3: 0.5}  # (P / least P)^-.5
    torch.testing.assert_close(batch["weight"], torch.tensor([expected[i] for i in batch["index"].tolist()]))
    assert (replay.sample(11, importance=0.0)["weight"] == 1).all()


def test_priorities_are_saved_with_the_frames_and_lost_with_them(tmp_path):
    def prioritised(path):
        replay, worlds = filled(path)
        again = Replay(128, 2, (3, 2), n_step=2, path=path, priority=0.7)
        again._chunk_rows, again._dirty, again._file = replay._chunk_rows, replay._dirty, replay._file
        return again, worlds

    replay, _ = prioritised(tmp_path / "ring")
    worlds = Worlds(2, ["", "", "", "terminal", "", "truncation", ""])
    for _ in range(50):
        replay.add(*worlds.row())
        if replay.count > 10:
            batch = replay.sample(16)
            replay.prioritise(batch["index"], torch.rand(16))
    state = replay.state_dict()
    other, _ = prioritised(tmp_path / "ring")
    assert "restored" in other.load_state_dict(state)
    one, two = (r.sample(64, 0.5) for r in (replay, other))
    assert all(torch.equal(one[k], two[k]) for k in one) and one["weight"].unique().numel() > 10
    for _ in range(20):
        row = worlds.row()
        replay.add(*row), other.add(*row)
    assert torch.equal(replay.tree.leaves, other.tree.leaves)

    slot = state["table"][3][0]
    with open(tmp_path / "ring", "r+b") as f:
        f.seek(slot * replay._file.slot_bytes + 5)
        f.write(b"?")
    damaged, _ = prioritised(tmp_path / "ring")
    assert "1 damaged chunk" in damaged.load_state_dict(state)
    rows = np.unique(damaged.sample(1000)["index"].numpy() // 2)
    assert not np.isin(rows, np.arange(23, 35)).any() and len(rows) > 15

    assert "refilled" in replay.load_state_dict(state | {"table": None})
    assert not any(level.any() for level in replay.tree.levels)
    with pytest.raises(ValueError, match="no transition"):
        replay.sample(4)


def test_a_run_begun_without_priorities_goes_on_with_equal_ones(tmp_path):
    plain, _ = filled(tmp_path / "ring")
    indexed, _ = filled(tmp_path / "ring", count=0)
    again = Replay(128, 2, (3, 2), n_step=2, path=tmp_path / "ring", indexed=True)
    again._chunk_rows, again._dirty, again._file = indexed._chunk_rows, indexed._dirty, indexed._file
    again.load_state_dict(plain.state_dict())
    time, env = plain.draw_moments(5000)
    drawn = again.sample(500)["index"].numpy()
    assert set((time * 2 + env).tolist()) == set(drawn.tolist())
