"""Image files, whole, odd and broken, and folders of them."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from rlkit.data import Batches, _on_white, eight_bits, read_image, read_images, read_whole_image, rows
from rlkit.errors import DamagedFile


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
            ("2.png", plain("RGBA", (*red, 255))),
            ("3.PNG", palette),
            ("4.bmp", plain("RGB", red)),
        ],
        a=[("grey.png", plain("L", 77)), ("bit.png", plain("1", 1)), ("la.png", plain("LA", (77, 255)))],
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


def test_whole_images_are_scaled_down_and_never_up(tmp_path):
    Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)).save(tmp_path / "1.png")
    whole, size = read_whole_image(tmp_path / "1.png", max_side=99)
    assert size == (10, 20) and np.array_equal(whole, np.broadcast_to(np.arange(200).reshape(10, 20), (3, 10, 20)))
    for max_side, shape in ((7, (3, 4, 7)), (1, (3, 1, 1))):
        small, size = read_whole_image(tmp_path / "1.png", max_side)
        assert small.shape == shape and size == (10, 20) and 85 < small.mean() < 115


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
    (tmp_path / "x" / "b").rename(tmp_path / "x" / ".b")
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


# -- notes of cameras --------------------------------------------------------------------------------------------------

CORNER = np.zeros((6, 4, 3), np.uint8)
CORNER[:3] = 255  # white above


def with_exif(exif, pixels=CORNER):
    """The bytes of a JPEG with this block of notes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=100)
    raw = file.getvalue()
    return raw[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + raw[2:]


def exif_block(*entries):
    """Of (tag, type, count, four bytes)."""
    packed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + packed + b"\0\0\0\0"


ORIENTATION_6 = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
ODD_RESOLUTION = (0x011A, 2, 4, b"72\0\0")  # a text where a number belongs


def test_an_image_with_odd_notes_is_read_and_turned_where_they_say_how(tmp_path):
    path = tmp_path / "1.jpg"
    path.write_bytes(with_exif(exif_block(ORIENTATION_6, ODD_RESOLUTION)))
    seen = read_image(path, (4, 6))[0]
    assert (seen[:, 3:] > 240).all() and (seen[:, :3] < 15).all()  # a quarter clockwise: white on the right
    path.write_bytes(with_exif(exif_block(ODD_RESOLUTION, (0x0112, 2, 2, b"6\0\0\0"))))
    as_it_lies = read_image(path, (6, 4))[0]
    assert (as_it_lies[:3] > 240).all() and (as_it_lies[3:] < 15).all()


def test_notes_with_damaged_bytes_refuse_no_image_and_say_nothing(tmp_path):
    """3,000 of 3,000 are read with range(3000) in place of range(100)."""
    rng, path = np.random.default_rng(1), tmp_path / "1.jpg"
    whole = exif_block(
        (0x010F, 2, 4, b"Me\0\0"), ORIENTATION_6, (0x011A, 5, 1, b"\x4a\0\0\0"), (0x0128, 3, 1, b"\2\0\0\0")
    )
    for _ in range(100):
        exif = bytearray(whole + struct.pack("<II", 72, 1))
        for place in rng.integers(len(exif), size=rng.integers(1, 5)):
            exif[place] = rng.integers(256)
        path.write_bytes(with_exif(bytes(exif)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(path, (5, 5)).shape == (3, 5, 5)


# -- what is transparent -----------------------------------------------------------------------------------------------


def png(width, height, bits, colour, rows, clear):
    """The bytes of a PNG with a colour that stands for nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"tRNS", clear) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def seen(path, channels=1):
    """The pixels of a picture of one row."""
    with Image.open(path) as image:
        size = image.size[::-1]
    return read_image(path, size, channels)[:, 0].T.squeeze().tolist()


def test_what_is_transparent_is_white(tmp_path):
    path = tmp_path / "1.png"
    Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [9, 9, 9, 51]]], np.uint8)).save(path)
    assert seen(path) == [255, 0, 206]  # 9 * .2 + 255 * .8 = 205.8
    assert seen(path, 3) == [[255] * 3, [0] * 3, [206] * 3]
    Image.merge("LA", [Image.new("L", (2, 1)), Image.fromarray(np.array([[0, 255]], np.uint8))]).save(path)
    assert seen(path) == [255, 0]
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    palette.putpalette([10, 10, 10, 20, 20, 20, 30, 30, 30])
    palette.save(path, transparency=1)
    assert seen(path) == [10, 255, 30]
    palette.save(path, transparency=bytes([255, 255, 0]))
    assert seen(path) == [10, 20, 255]
    palette.save(tmp_path / "1.gif", transparency=0)
    assert seen(tmp_path / "1.gif") == [255, 20, 30]


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_every_mode_with_transparency_is_laid_on_white(mode):
    mask = np.array([[0, 255]], np.uint8)
    image = Image.merge("LA", [Image.new("L", (2, 1), 40), Image.fromarray(mask)])
    if mode == "PA":
        image = image.convert("L").convert("P").convert("PA")
        image.putalpha(Image.fromarray(mask))
    elif mode == "La":
        image = image.convert(mode)
    elif mode != "LA":
        image = image.convert("RGBA").convert(mode)
    assert image.mode == mode
    assert np.asarray(_on_white(image, raw="").convert("L")).tolist() == [[255, 40]]


@pytest.mark.parametrize(
    "bits, colour, rows, clear, expected",
    [
        (8, 0, bytes([0, 7, 8]), struct.pack(">H", 7), [255, 8]),
        (1, 0, bytes([0, 0b01000000]), struct.pack(">H", 0), [255, 255]),
        (2, 0, bytes([0, 0b00010000]), struct.pack(">H", 1), [0, 255]),  # of 0 to 3
        (4, 0, bytes([0, 0x3C]), struct.pack(">H", 3), [255, 12 * 17]),
        (16, 0, b"\0" + struct.pack(">2H", 300, 65535), struct.pack(">H", 300), [255, 255]),
        (16, 0, b"\0" + struct.pack(">2H", 300, 65535), struct.pack(">H", 65535), [1, 255]),  # 300 / 257
        (8, 2, bytes([0, 9, 9, 9, 8, 8, 8]), struct.pack(">3H", 9, 9, 9), [255, 8]),
        (
            16,
            2,
            b"\0" + struct.pack(">6H", *[0x1234] * 3, *[0x2200] * 3),
            struct.pack(">3H", *[0x1234] * 3),
            [255, 0x22],
        ),
    ],
)
def test_a_colour_that_stands_for_nothing_is_white_at_every_depth(tmp_path, bits, colour, rows, clear, expected):
    (tmp_path / "1.png").write_bytes(png(2, 1, bits, colour, rows, clear))
    assert seen(tmp_path / "1.png") == expected


# -- more than 8 bits --------------------------------------------------------------------------------------------------


def test_more_bits_become_eight_by_hand():
    def grey(values, dtype, **options):
        return eight_bits(np.array(values, dtype), **options).tolist()

    assert grey([0, 128, 129, 65535], np.uint16) == [0, 0, 1, 255]  # 128 / 257 = .498
    assert grey([0, 2000, 4095], np.uint16) == [0, 125, 255]  # 12 bits: 2000 * 255 / 4095 = 124.54
    assert grey([0, 1000], np.uint16) == [0, 249] and grey([0, 16383], np.int32) == [0, 255]
    assert grey([3, 255], np.uint16) == [3, 255]
    assert grey([0, 3205], np.int32, full=65535) == [0, 12]  # which a dark picture of 12 bits is scaled to
    assert grey([-100, 0, 100], np.int32) == [0, 128, 255] and grey([0, 100_000], np.int32) == [0, 255]
    assert grey([0, 0.5, 1], np.float32) == [0, 128, 255] and grey([0, 0.2], np.float32) == [0, 51]
    assert grey([2, 3, 7], np.float32) == [0, 51, 255]
    assert grey([np.nan, 2, 7, np.inf, -np.inf], np.float32) == [0, 0, 255, 0, 0]
    assert grey([5.5, 5.5], np.float32) == [0, 0] and grey([np.nan], np.float32) == [0] and grey([0], np.uint16) == [0]


def test_deep_images_of_all_kinds_of_files(tmp_path):
    deep = np.array([[0, 2000, 4095]], np.uint16)
    for name in ("1.png", "1.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        assert seen(tmp_path / name) == [0, 125, 255], name
    big = Image.frombytes("I;16B", (3, 1), deep.astype(">u2").tobytes())
    big.save(tmp_path / "2.tif")
    assert seen(tmp_path / "2.tif") == [0, 125, 255]
    Image.fromarray(np.array([[-100, 0, 100]], np.int32)).save(tmp_path / "3.tif")
    assert seen(tmp_path / "3.tif", 3) == [[0] * 3, [128] * 3, [255] * 3]
    Image.fromarray(np.array([[2, 3, 7]], np.float32)).save(tmp_path / "4.tif")
    assert seen(tmp_path / "4.tif") == [0, 51, 255]
    (tmp_path / "5.pgm").write_bytes(b"P5 2 1 4095\n" + struct.pack(">2H", 200, 0))  # which says its white
    assert seen(tmp_path / "5.pgm") == [12, 0]


# -- which files are images --------------------------------------------------------------------------------------------


def test_all_formats_are_read_in_folders_of_a_class_too(tmp_path, capsys):
    kinds = {"0.png": "PNG", "1.tif": "TIFF", "2.TIFF": "TIFF", "3.jfif": "JPEG", "4.jpe": "JPEG", "5.tga": "TGA"}
    for label, name in enumerate("ab"):
        (tmp_path / name / "more" / "yet").mkdir(parents=True)
        for file, kind in (kinds | {"more/6.png": "PNG", "more/yet/7.bmp": "BMP"}).items():
            plain("RGB", (9 + label,) * 3).save(tmp_path / name / file, kind)
    for junk in (
        "__MACOSX/a/._0.png",
        "@eaDir/0.png",
        ".thumbnails/0.png",
        "a/Thumbs.db",
        "b/.DS_Store",
        "a/@eaDir/x.png",
    ):
        (tmp_path / junk).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / junk).write_bytes(b"what systems leave behind")
    table, names = read_images(tmp_path, (4, 6))
    assert names == ["a", "b"] and table["label"].tolist() == [0] * 8 + [1] * 8
    assert table["image"].reshape(16, -1).mean(1).tolist() == [9] * 8 + [10] * 8
    assert capsys.readouterr().err == ""
    for other in ("a/film.mpg", "a/more/notes.txt", "b/page.PS", "b/nothing", "beside.png", "beside.txt"):
        (tmp_path / other).write_bytes(b"")
    assert len(read_images(tmp_path, (4, 6))[0]["label"]) == 16
    said = "5 files are left out, being no images or in no class: 1 without a suffix, 1 .mpg, 1 .png, 1 .ps, 1 .txt"
    assert capsys.readouterr().err.strip() == f"{tmp_path}: {said}"


def test_a_program_is_no_image_and_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(ValueError, match=r"1\.png is no image that can be read"):
        read_image(tmp_path / "1.png", (4, 4))
    os.mkfifo(tmp_path / "2.png")
    with pytest.raises(DamagedFile, match=r"2\.png is no regular file"):
        read_image(tmp_path / "2.png", (4, 4))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_image(tmp_path / "3.png", (4, 4))
