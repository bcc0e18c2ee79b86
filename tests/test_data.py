"""Batches: what comes when, and what resumes; augmentations by hand; files, whole and broken."""

import gzip
import itertools
import struct
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rlkit.data import (
    Batches,
    augment,
    cut_out,
    flipped,
    padded,
    pairs,
    read_idx,
    read_image,
    read_images,
    read_pairs,
    read_text,
    rows,
    shifted,
    turned,
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


# -- augmentations -----------------------------------------------------------------------------------------------------

dtypes = pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(count, height, width, dtype=torch.uint8, channels=2):
    """Every pixel another number, from 1 on."""
    return (
        (torch.arange(channels * height * width) + 1)
        .reshape(1, channels, height, width)
        .repeat(count, 1, 1, 1)
        .to(dtype)
    )


@dtypes
def test_flipped_turns_half_of_them(dtype):
    images = numbered(400, 3, 5, dtype)
    out = flipped(images, rng())
    mirror = torch.tensor(images[0].numpy()[:, :, ::-1].copy())
    kinds = Counter("same" if torch.equal(x, images[0]) else "mirror" if torch.equal(x, mirror) else "?" for x in out)
    assert set(kinds) == {"same", "mirror"} and 150 < kinds["mirror"] < 250
    assert out.dtype == dtype and torch.equal(images, numbered(400, 3, 5, dtype))


@dtypes
def test_shifted_moves_by_all_offsets_and_keeps_the_content(dtype):
    images = numbered(1500, 9, 11, dtype, channels=2)
    out = shifted(images, rng())
    assert out.shape == images.shape and out.dtype == dtype
    wide = np.pad(images[0].numpy(), ((0, 0), (4, 4), (4, 4)))
    moves = Counter()
    for image in out.numpy():
        y, x = np.argwhere(image[0] == 50)[0]  # the middle, at 4, 5
        moves[y - 4, x - 5] += 1
        top, left = 8 - y, 9 - x
        assert np.array_equal(image, wide[:, top : top + 9, left : left + 11])
    assert set(moves) == set(itertools.product(range(-4, 5), repeat=2))


def test_shifted_by_a_chosen_number_and_by_none():
    images = numbered(200, 3, 3)
    assert torch.equal(shifted(images, rng(), most=0), images)
    centre = [tuple(np.argwhere(x[0] == 5)[0]) for x in shifted(images, rng(), most=1).numpy()]
    assert set(centre) == set(itertools.product(range(3), repeat=2))


@dtypes
@pytest.mark.parametrize("size", [1, 4, 5])
def test_cut_out_is_a_square_that_may_hang_over_the_edge(dtype, size):
    images = torch.ones(1200, 3, 8, 10, dtype=dtype)
    out = cut_out(images, rng(), size)
    assert out.dtype == dtype and images.all() and torch.equal(out.amin(1), out.amax(1))
    corners = set()
    for image in out[:, 0].numpy():
        ys, xs = np.nonzero(image == 0)
        height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
        assert len(ys) == height * width  # a rectangle, and smaller than the square at an edge only
        assert height == size or (height < size and (ys.min() == 0 or ys.max() == 7))
        assert width == size or (width < size and (xs.min() == 0 or xs.max() == 9))
        assert height >= (size + 1) // 2 and width >= (size + 1) // 2  # its centre is inside
        corners.add((int(ys.min()), int(ys.max()), int(xs.min()), int(xs.max())))
    assert len(corners) == 80  # every pixel has been a centre


def test_turned_gives_all_eight_symmetries():
    images = numbered(800, 3, 3)
    out = turned(images, rng())
    square = images[0].numpy()
    eight = [np.rot90(s, k, (1, 2)).tobytes() for s in (square, square[:, :, ::-1]) for k in range(4)]
    assert len(set(eight)) == 8
    kinds = Counter(x.numpy().tobytes() for x in out)
    assert set(kinds) == set(eight) and min(kinds.values()) > 60
    assert torch.equal(images, numbered(800, 3, 3))
    with pytest.raises(ValueError, match="3 x 4 cannot be turned"):
        turned(numbered(2, 3, 4), rng())


def test_augment_changes_one_name_in_order():
    def plus(images, rng):
        return images + torch.randint(1, 9, (), generator=rng)

    def doubled(images, rng):
        return images * 2

    batch = {"image": torch.zeros(2, 1, 1, 1, dtype=torch.int64), "label": torch.arange(2)}
    out = augment(plus, doubled, plus)(batch, rng(3))
    again = rng(3)
    a, b = torch.randint(1, 9, (), generator=again), torch.randint(1, 9, (), generator=again)
    assert out["image"].flatten().tolist() == [2 * a + b] * 2
    assert out["label"] is batch["label"] and not batch["image"].any()
    assert set(augment(doubled, name="board")({"board": torch.ones(1)}, rng())) == {"board"}


# -- files: idx --------------------------------------------------------------------------------------------------------

IDX_CODES = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


def idx_bytes(array):
    header = bytes([0, 0, IDX_CODES[array.dtype.name], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("dtype", IDX_CODES)
@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (0, 4)])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_round_trip(tmp_path, dtype, shape, packed):
    array = (np.random.default_rng(1).normal(size=shape) * 100).astype(dtype)
    path = tmp_path / ("data-idx.gz" if packed else "data-idx")
    path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    got = read_idx(path)
    assert got.dtype == np.dtype(dtype) and got.dtype.isnative and got.flags.writeable
    assert np.array_equal(got, array)
    torch.from_numpy(got)


def test_idx_bytes_by_hand(tmp_path):
    (tmp_path / "x").write_bytes(b"\0\0\x0b\x02" + b"\0\0\0\x01\0\0\0\x02" + b"\x01\x00\xff\xff")
    assert read_idx(tmp_path / "x").tolist() == [[256, -1]]


GOOD = idx_bytes(np.arange(100, dtype=np.uint8).reshape(10, 10))
BROKEN_IDX = {
    "empty": (b"", "begins with nothing"),
    "another magic": (b"\1\0" + GOOD[2:], "no idx file: it begins with 01 00 08 02"),
    "another type": (b"\0\0\x0a" + GOOD[3:], "no idx file"),
    "an image": (b"\x89PNG\r\n\x1a\n" + GOOD, "no idx file"),
    "half a header": (GOOD[:6], "no idx file"),
    "one byte less": (GOOD[:-1], "says 100 bytes of data and has 99"),
    "one byte more": (GOOD + b"\0", "says 100 bytes of data and has 101"),
    "no data": (GOOD[:12], "has 0"),
    "sizes beyond 64 bits": (
        b"\0\0\x08\x04" + struct.pack(">4I", 2**31, 2**31, 4, 1),
        "says 18,446,744,073,709,551,616",
    ),
}


@pytest.mark.parametrize("name", BROKEN_IDX)
def test_broken_idx_says_so(tmp_path, name):
    data, message = BROKEN_IDX[name]
    (tmp_path / "x-idx").write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(tmp_path / "x-idx")
    assert str(tmp_path / "x-idx") in str(caught.value)


def test_broken_packing_says_so(tmp_path):
    packed, path = gzip.compress(GOOD), tmp_path / "x.gz"
    middle = len(packed) // 2
    changed = packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :]
    wrong_block = packed[:10] + b"\xff" * 20 + packed[30:]
    for data in (packed[:-20], packed[:5], b"plain text", changed, wrong_block, packed[:-8] + b"\0" * 8):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.gz cannot be unpacked: .*get it anew"):
            read_idx(path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_idx(tmp_path / "other.gz")


# -- files: images -----------------------------------------------------------------------------------------------------


def image_folder(folder, **classes):
    """class=[(name, image)]"""
    for name, images in classes.items():
        (folder / name).mkdir(parents=True)
        for file, image in images:
            image.save(folder / name / file)
    return folder


def plain(mode, color, size=(6, 4)):
    return Image.new(mode, size, color)


def test_images_of_all_modes(tmp_path):
    red = (250, 20, 10)
    palette = Image.new("P", (6, 4), 1)
    palette.putpalette([0, 0, 0, *red])
    folder = image_folder(
        tmp_path / "x",
        b=[
            ("1.png", plain("RGB", red)),
            ("2.png", plain("RGBA", (*red, 128))),
            ("3.PNG", palette),
            ("4.bmp", plain("RGB", red)),
        ],
        a=[("grey.png", plain("L", 77)), ("bit.png", plain("1", 1)), ("la.png", plain("LA", (77, 9)))],
        c=[("deep.png", Image.fromarray(np.full((4, 6), 77 * 257, np.uint16)))],
    )
    (folder / "b" / "notes.txt").write_text("not an image")
    (folder / "b" / "._1.png").write_bytes(b"what another system leaves behind")
    (folder / "readme.md").write_text("not a class")
    (folder / ".cache").mkdir()
    arrays, names = read_images(folder, (4, 6))
    assert names == ["a", "b", "c"] and arrays["label"].tolist() == [0, 0, 0, 1, 1, 1, 1, 2]
    images = arrays["image"]
    assert images.shape == (8, 3, 4, 6) and images.dtype == np.uint8 and arrays["label"].dtype == np.int64
    assert (images[3:7] == np.array(red)[:, None, None]).all()
    assert (images[0] == 255).all() and (images[1] == 77).all() and (images[2] == 77).all()  # bit, grey, la
    assert (images[7] == 77).all()
    grey, _ = read_images(folder, (4, 6), channels=1)
    assert grey["image"].shape == (8, 1, 4, 6) and (grey["image"][[1, 2, 7]] == 77).all()
    assert next(iter(Batches(rows(arrays, 8, seed=0))))["image"].shape == (8, 3, 4, 6)


def test_images_fill_the_size_and_are_cut_at_the_middle(tmp_path):
    image = Image.new("L", (30, 10), 0)  # black, white, black
    image.paste(255, (10, 0, 20, 10))
    folder = image_folder(tmp_path / "x", a=[("1.png", image)])
    arrays, _ = read_images(folder, (10, 10), channels=1)
    assert (arrays["image"] == 255).all()
    arrays, _ = read_images(folder, (5, 15), channels=1)  # height, width
    assert arrays["image"].shape == (1, 1, 5, 15)
    assert arrays["image"][0, 0, 2].tolist()[::7] == [0, 255, 0]


def test_an_image_lies_as_its_camera_was_held(tmp_path):
    image = Image.new("L", (20, 10), 0)
    image.paste(255, (0, 0, 10, 10))  # white left, black right
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter: white above
    image.save(tmp_path / "1.png", exif=exif)
    seen = read_image(tmp_path / "1.png", (20, 10), channels=1)[0]
    assert (seen[:10] == 255).all() and (seen[10:] == 0).all()


def test_an_image_whose_notes_are_broken_is_named(tmp_path, monkeypatch):
    from PIL import ImageOps

    plain("L", 7).save(tmp_path / "1.png")
    monkeypatch.setattr(ImageOps, "exif_transpose", lambda image: struct.pack(">d", None))  # as Pillow's writer does
    with pytest.raises(ValueError, match=r"1\.png is no image that can be read"):
        read_image(tmp_path / "1.png", (4, 4))


def test_broken_image_folders_say_where(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_images(tmp_path / "none", (4, 4))
    (tmp_path / "x").mkdir()
    with pytest.raises(ValueError, match="no folders in it"):
        read_images(tmp_path / "x", (4, 4))
    image_folder(tmp_path / "x", a=[("1.png", plain("L", 7))])
    (tmp_path / "x" / "b").mkdir()
    (tmp_path / "x" / "b" / ".hidden.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x/b has no images"):
        read_images(tmp_path / "x", (4, 4))
    with pytest.raises(ValueError, match=r"1 channel .* not 4"):
        read_images(tmp_path / "x", (4, 4), channels=4)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "ppm"])
def test_a_broken_image_is_named(tmp_path, suffix):
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    folder = image_folder(tmp_path / "x", a=[("1.png", plain("L", 7)), (f"2.{suffix}", image)])
    file = folder / "a" / f"2.{suffix}"
    whole = file.read_bytes()
    assert read_images(folder, (4, 4))[0]["image"].shape == (2, 3, 4, 4)
    for data in (b"", b"no image at all", whole[: len(whole) // 2], whole[:30]):
        file.write_bytes(data)
        with pytest.raises(ValueError, match=rf"2\.{suffix} is no image that can be read: .*mend it, or remove it"):
            read_images(folder, (4, 4))
    for _ in range(60):  # whatever is damaged: an image, or an error that names the file
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 300), 3):
            damaged[place] = rng.integers(256)
        file.write_bytes(bytes(damaged))
        try:
            assert read_images(folder, (4, 4))[0]["image"].shape == (2, 3, 4, 4)
        except ValueError as error:
            assert f"2.{suffix} is no image" in str(error)


# -- files: text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_text_with_marks_and_line_ends(tmp_path, packed):
    path = tmp_path / ("a.txt.gz" if packed else "a.txt")
    for data, text in (
        (b"", ""),
        (b"one\ntwo", "one\ntwo"),
        (b"\xef\xbb\xbfone\r\ntwo\rthree\n\r\n", "one\ntwo\nthree\n\n"),
        ("가나다 \u2028 \x0b\n".encode(), "가나다 \u2028 \x0b\n"),
    ):
        path.write_bytes(gzip.compress(data) if packed else data)
        assert read_text(path) == text


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_text_in_another_encoding_says_where(tmp_path, mark, end):
    path = tmp_path / "a.txt"
    for before, line in ((b"", 1), (b"ab", 1), (b"one" + end, 2), (b"one" + end + end + b"four", 3)):
        path.write_bytes(mark + before + b"\xfcber" + end + b"rest")
        with pytest.raises(ValueError, match=rf"a\.txt, line {line}: byte 0xfc is no UTF-8"):
            read_text(path)
    path.write_bytes(mark + b"one" + end + "가".encode()[:2])  # cut in the middle of a letter
    with pytest.raises(ValueError, match=r"line 2: byte 0xea"):
        read_text(path)


def test_text_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*a\.txt"):
        read_text(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_text(tmp_path)


def written(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return [tmp_path / name for name in files]


def test_pairs_of_one_file(tmp_path):
    (path,) = written(tmp_path, both="a b\tc d\n\n e \t f \tCC-BY 1\textra\n \t \ng\th")
    assert read_pairs(path) == [("a b", "c d"), ("e", "f"), ("g", "h")]


@pytest.mark.parametrize("line", ["alone", "alone\t", "\talone", "alone \t ", "alone\t\tCC-BY 1", "\t\tCC-BY 1"])
def test_pairs_of_one_file_say_which_line_has_none(tmp_path, line):
    (path,) = written(tmp_path, both=f"a\tb\n\n{line}\nc\td\n")
    with pytest.raises(ValueError, match="both, line 3: no pair"):
        read_pairs(path)


def test_pairs_of_two_files(tmp_path):
    source, target = written(tmp_path, de="eins \n\nzwei\n\n\n", en="one\n\n two\n")
    assert read_pairs(source, target) == [("eins", "one"), ("zwei", "two")]
    assert read_pairs(str(source), str(target)) == read_pairs(source, target)


def test_pairs_of_two_files_that_do_not_fit(tmp_path):
    source, longer, hole = written(tmp_path, a="1\n2\n3\n", b="1\n2\n3\n4\n", c="1\n\n3\n")
    with pytest.raises(ValueError, match=r"a has 3 lines and .*b has 4: they are no pairs"):
        read_pairs(source, longer)
    with pytest.raises(ValueError, match=r"/c, line 2 is empty"):
        read_pairs(source, hole)
    with pytest.raises(ValueError, match=r"/c, line 2 is empty"):
        read_pairs(hole, source)
    with pytest.raises(FileNotFoundError, match="none"):
        read_pairs(source, tmp_path / "none")


def test_files_without_sentences(tmp_path):
    nothing, blank = written(tmp_path, x="", y=" \n\n \n")
    for source, target in ((nothing, None), (blank, None), (nothing, nothing), (blank, blank)):
        with pytest.raises(ValueError, match="has no sentences"):
            read_pairs(source, target)


def test_batches_for_a_cpu_are_made_when_asked_for():
    made = []

    def make(number):
        made.append(number)
        return {"x": torch.tensor(number)}

    batches = Batches.for_device(make, torch.device("cpu"))
    assert next(iter(batches))["x"] == 0 and made == [0]
    ahead = Batches.for_device(make, torch.device("cuda"))
    assert ahead.ahead == 4 and ahead.pin
