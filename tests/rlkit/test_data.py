"""Batches: what comes when, and what resumes."""

import itertools
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from rlkit.augmentations import augment, flipped
from rlkit.data import (
    Batches,
    padded,
    pairs,
    rows,
    windows,
)
from rlkit.trainer import TrainConfig, Trainer


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def drawn(make, count, **options):
    return list(itertools.islice(Batches(make, **options), count))


def noisy(images, rng):
    return images + torch.rand(images.shape, generator=rng)


def table(count=23):
    return {"x": np.arange(count), "y": torch.arange(count) * 10}


MAKERS = {
    "rows": lambda seed: rows(table(), 4, seed),
    "rows changed": lambda seed: rows(
        {"image": torch.zeros(23, 1, 2, 2), "x": np.arange(23)}, 4, seed, change=augment(noisy, noisy)
    ),
    "windows": lambda seed: windows(np.arange(100, dtype=np.uint8), 7, 4, seed),
    "pairs": lambda seed: pairs(sides(30), 40, seed),
}
every_maker = pytest.mark.parametrize("name", MAKERS)


def sides(count, seed=0):
    """Sequences of 1 to 12 tokens, the first of which says the row (from 1 on) on both sides."""
    rng = np.random.default_rng(seed)
    left, right = ([[i + 1] + [99] * int(rng.integers(12)) for i in range(count)] for _ in range(2))
    return {"source": left, "target": right}


# -- the order of batches ----------------------------------------------------------------------------------------------


@every_maker
@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_batches_go_on_where_they_stopped(name, ahead):
    straight = drawn(MAKERS[name](1), 25)
    first = Batches(MAKERS[name](1), ahead=ahead)
    taken = list(itertools.islice(first, 9))
    assert first.state_dict() == {"drawn": 9}
    second = Batches(MAKERS[name](1), ahead=ahead)
    second.load_state_dict(first.state_dict())
    taken += itertools.islice(second, 16)
    assert all(same(a, b) for a, b in zip(taken, straight, strict=True))


@every_maker
def test_seeds_and_numbers_differ(name):
    a, b = drawn(MAKERS[name](1), 6), drawn(MAKERS[name](2), 6)
    assert not any(same(x, y) for x, y in zip(a, b, strict=True))
    assert not any(same(x, y) for x, y in itertools.combinations(a, 2))


def test_batches_can_be_set_back_and_forth_while_some_are_under_way():
    batches = Batches(rows(table(), 4, seed=1), ahead=2)
    straight = drawn(rows(table(), 4, seed=1), 30)
    stream = iter(batches)
    for number in (0, 1, 17, 18, 3, 4, 29, 0):
        batches.load_state_dict({"drawn": number})
        assert same(next(stream), straight[number]) and batches.drawn == number + 1


def test_a_batch_is_counted_once_it_is_handed_out():
    made = []
    stream = Batches(lambda number: made.append(number) or {}, ahead=2)
    assert stream.state_dict() == {"drawn": 0} and not made
    next(iter(stream))
    assert stream.state_dict() == {"drawn": 1}
    next(iter(stream))  # another loop over the same goes on
    assert stream.state_dict() == {"drawn": 2}


def test_a_thread_works_ahead_and_its_errors_arrive():
    done = threading.Event()

    def make(number):
        if number == 2:
            done.set()
        if number == 3:
            raise ValueError("the fourth is broken")
        return {"thread": torch.tensor(threading.current_thread() is threading.main_thread())}

    stream = iter(Batches(make, ahead=2))
    assert not next(stream)["thread"]
    assert done.wait(10)  # the third is made before the second is asked for
    next(stream), next(stream)
    with pytest.raises(ValueError, match="the fourth is broken"):
        next(stream)


@pytest.mark.parametrize("ahead", [0, 2])
def test_training_that_stops_and_goes_on_is_the_same(tmp_path, ahead):
    """Through the trainer: 3 + 4 updates with augmentation are 7, bit for bit."""

    def train(folder, *steps):
        for end in steps:
            torch.manual_seed(5)
            model = nn.Linear(8, 1)
            images = {"image": torch.arange(10 * 8.0).reshape(10, 1, 2, 4) / 80, "y": torch.arange(10.0)}
            batches = Batches(rows(images, 4, seed=3, change=augment(flipped, noisy)), ahead=ahead)

            def loss(model, batch):
                return (model(batch["image"].flatten(1))[:, 0] - batch["y"]).square().mean(), {}

            cfg = TrainConfig(steps=end, progress=False, lr=0.01)
            trainer = Trainer(model, loss, cfg, folder, state={"batches": batches})
            trainer.load()
            for _ in trainer.run(batches):
                pass
            trainer.close()
        return model.weight

    assert torch.equal(train(tmp_path / "a", 7), train(tmp_path / "b", 3, 7))


def test_batches_for_a_cpu_are_made_when_asked_for():
    made = []

    def make(number):
        made.append(number)
        return {"x": torch.tensor(number)}

    batches = Batches.for_device(make, torch.device("cpu"))
    assert next(iter(batches))["x"] == 0 and made == [0]
    ahead = Batches.for_device(make, torch.device("cuda"))
    assert ahead.ahead == 4 and ahead.pin


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4, 11, 12, 22, 23])
def test_rows_come_at_most_once_an_epoch(size):
    in_epoch = 23 // size
    epochs, left_over = [], set()
    stream = drawn(rows(table(), size, seed=7), 30 * in_epoch)
    for e in range(30):
        epoch = torch.cat([batch["x"] for batch in stream[e * in_epoch : (e + 1) * in_epoch]]).tolist()
        assert len(set(epoch)) == len(epoch) == size * in_epoch and set(epoch) <= set(range(23))
        epochs.append(tuple(epoch))
        left_over |= set(range(23)) - set(epoch)
    assert len(set(epochs)) == 30
    over = 23 % size
    assert len(left_over) > 2 * over if over else not left_over  # others from epoch to epoch
    assert {x for epoch in epochs for x in epoch} == set(range(23))
    assert all(torch.equal(batch["y"], batch["x"] * 10) for batch in stream)


def test_rows_keep_dtypes_and_shapes():
    arrays = {"image": np.zeros((5, 3, 2, 2), np.uint8), "label": np.arange(5), "weight": torch.ones(5, 1)}
    (batch,) = drawn(rows(arrays, 3, seed=0), 1)
    assert {name: (tuple(x.shape), x.dtype) for name, x in batch.items()} == {
        "image": ((3, 3, 2, 2), torch.uint8),
        "label": ((3,), torch.int64),
        "weight": ((3, 1), torch.float32),
    }


def test_changes_draw_anew_for_each_batch():
    make = rows({"image": torch.zeros(6, 1, 2, 2)}, 3, seed=1, change=augment(noisy))
    noise = [make(number)["image"] for number in range(6)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(noise, 2))
    assert torch.equal(make(4)["image"], noise[4])


def test_rows_hand_out_copies():
    arrays = {"x": np.arange(6.0)}
    for batch in drawn(rows(arrays, 3, seed=0), 2):
        batch["x"].zero_()
    assert arrays["x"].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("size", [0, -1, 24])
def test_rows_refuse_batches_that_cannot_be_drawn(size):
    with pytest.raises(ValueError, match=f"batches of {size} cannot be drawn from 23 rows: take from 1 to 23"):
        rows(table(), size, seed=0)


def test_rows_refuse_what_is_no_table():
    with pytest.raises(ValueError, match=r"no table: \{'x': 3, 'y': 4\}"):
        rows({"x": np.zeros(3), "y": np.zeros(4)}, 1, seed=0)
    with pytest.raises(ValueError, match="no table"):
        rows({}, 1, seed=0)
    with pytest.raises(ValueError, match="from 0 rows"):
        rows({"x": np.zeros((0, 3))}, 1, seed=0)


# -- windows and pairs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_windows_lie_within_the_text_and_everywhere(dtype):
    text = np.arange(20, dtype=dtype)
    tokens = torch.cat([batch["tokens"] for batch in drawn(windows(text, 6, 8, seed=1), 60)])
    assert tokens.shape == (480, 6) and tokens.dtype == torch.int64
    assert torch.equal(tokens - tokens[:, :1], torch.arange(6).expand(480, 6))
    begins = Counter(tokens[:, 0].tolist())
    assert set(begins) == set(range(15)) and min(begins.values()) > 10


def test_a_window_may_be_the_whole_text_and_no_more():
    assert drawn(windows(np.arange(6), 6, 2, seed=1), 1)[0]["tokens"].tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    with pytest.raises(ValueError, match="text of 6 tokens has no piece of 7"):
        windows(np.arange(6), 7, 2, seed=1)
    for length, size in ((0, 2), (3, 0), (-1, 2)):
        with pytest.raises(ValueError, match="at least one"):
            windows(np.arange(6), length, size, seed=1)


def test_padded_by_hand():
    assert padded([[1, 2, 3], [], [4]]).tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]]
    assert padded([[], []]).shape == (2, 0)


def epochs_of(stream, count):
    """Cuts a stream of batches where all rows have come."""
    epochs, rows_ = [[]], []
    for batch in stream:
        epochs[-1].append(batch)
        rows_ += batch["source"][:, 0].tolist()
        if len(rows_) == count:
            assert sorted(rows_) == list(range(1, count + 1))
            epochs.append([])
            rows_ = []
    return epochs[:-1]


@pytest.mark.parametrize("batch_tokens", [1, 12, 40, 10_000])
def test_pairs_come_once_an_epoch_within_their_tokens(batch_tokens):
    both = sides(60)
    stream = drawn(pairs(both, batch_tokens, seed=4), 400 if batch_tokens < 10_000 else 5)
    epochs = epochs_of(stream, 60)
    assert len(epochs) >= 5
    orders = {tuple(row for batch in epoch for row in batch["source"][:, 0].tolist()) for epoch in epochs}
    assert len(orders) == len(epochs)
    for batch in stream:
        size = max(side.shape[1] for side in batch.values())
        assert len(batch["source"]) == 1 or len(batch["source"]) * size <= batch_tokens
        for name, side in batch.items():
            for row in side.tolist():
                sequence = both[name][row[0] - 1]
                assert row == sequence + [0] * (len(row) - len(sequence))
            assert (side != 0).sum(1).max() == side.shape[1]  # no wider than its longest


def test_pairs_pad_little():
    both = sides(500)
    epoch = epochs_of(drawn(pairs(both, 200, seed=4), 60), 500)[0]
    longest = [max(len(a), len(b)) for a, b in zip(both["source"], both["target"], strict=True)]
    area = sum(len(batch["source"]) * max(side.shape[1] for side in batch.values()) for batch in epoch)
    assert sum(longest) / area > 0.85
    fullness = [len(b["source"]) * max(side.shape[1] for side in b.values()) / 200 for b in epoch]
    assert np.mean(fullness) > 0.8
    widths = [batch["source"].shape[1] for batch in epoch]
    falls = sum(b < a for a, b in itertools.pairwise(widths))
    assert falls > 0.25 * len(widths)  # the short ones do not come first


@pytest.mark.parametrize("number", [0, 1, 37, 118, 5])
def test_pairs_find_any_batch_of_any_epoch(number):
    straight = drawn(pairs(sides(30), 40, seed=2), 120)
    assert same(pairs(sides(30), 40, seed=2)(number), straight[number])
    make = pairs(sides(30), 40, seed=2)
    for there in (100, number, 60, number, 0, number):
        assert same(make(there), straight[there])


def test_pairs_refuse_what_are_no_pairs():
    with pytest.raises(ValueError, match=r"sides of \[1, 2\] sequences"):
        pairs({"a": [[1]], "b": [[1], [2]]}, 10, seed=0)
    with pytest.raises(ValueError, match=r"sides of \[0\] sequences"):
        pairs({"a": [], "b": []}, 10, seed=0)
    with pytest.raises(ValueError, match="no pairs"):
        pairs({}, 10, seed=0)
