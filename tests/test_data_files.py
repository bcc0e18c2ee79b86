"""Files of data, whole and broken: idx, images, text, pairs."""

import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from rlkit.data import (
    Batches,
    read_idx,
    read_image,
    read_images,
    rows,
)
from rlkit.text_files import read_pairs, read_text

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
