"""Masks from the JSON of labelling tools: known polygons and runs, and what may be wrong in them."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.supervised.coco_files import coco, polygon_mask, runs_mask, unpacked_runs
from rlkit.errors import DamagedFile


def grid(text):
    """[H, W] from lines of . and #."""
    return np.array([[letter == "#" for letter in line] for line in text.split()])


L_SHAPE = grid("........ .##..... .##..... .####... ........ ........")
L_POINTS = [1, 1, 3, 1, 3, 3, 5, 3, 5, 4, 1, 4]


def runs_of(mask):
    """Run lengths down the columns, the first of zeros: what an uncompressed RLE holds."""
    flat = np.concatenate([[False], mask.T.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()


def annotation(segmentation, image=7, category=30, **more):
    return {"id": 5, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0} | more


def write(folder, *annotations, image=None, size=(8, 6), **more):
    """A folder of one picture and its JSON."""
    folder.mkdir(exist_ok=True)
    (image or Image.new("RGB", (8, 6), (200, 10, 30))).save(folder / "1.png")
    data = {
        "images": [{"id": 7, "file_name": "1.png", "width": size[0], "height": size[1]}],
        "categories": [{"id": 90, "name": "cat"}, {"id": 30, "name": "dog"}],
        "annotations": list(annotations),
    }
    (folder / "x.json").write_text(json.dumps(data | more))
    return coco(folder, folder / "x.json")


def test_a_json_becomes_pictures_and_masks(tmp_path):
    counts = runs_of(L_SHAPE)
    pictures, names = write(
        tmp_path,
        annotation([L_POINTS]),
        annotation({"size": [6, 8], "counts": counts}, category=90, iscrowd=1),
        annotation([[0, 0, 2, 0, 2, 1, 0, 1], [6, 4, 99, 4, 99, 99, 6, 99]]),  # two parts, one reaches out
    )
    assert names == ["cat", "dog"] and len(pictures) == 1 and pictures.name(0) == "1.png"
    seen = pictures[0]
    assert seen.image.shape == (3, 6, 8) and (seen.image == np.reshape([200, 10, 30], (3, 1, 1))).all()
    assert seen.labels.tolist() == [2, 1, 2] and seen.crowd.tolist() == [False, True, False]
    parts = grid("##...... ........ ........ ........ ......## ......##")
    assert np.array_equal(seen.masks, [L_SHAPE, L_SHAPE, parts])
    assert seen.boxes.tolist() == [[1, 1, 5, 4], [1, 1, 5, 4], [0, 0, 8, 6]]


def test_polygons_cover_the_centres_within():
    triangle = polygon_mask(np.array([[0, 0], [4, 0], [0, 4]], float), (4, 5))
    assert np.array_equal(triangle, grid("###.. ##... #.... ....."))  # a centre on its side is no more within
    bow_tie = polygon_mask(np.array([[0, 0.25], [4, 4.25], [4, 0.25], [0, 4.25]]), (4, 4))
    assert np.array_equal(bow_tie, grid(".... #..# #### #..#"))
    rng = np.random.default_rng(1)
    for _ in range(20):  # stars around a middle, out of the picture too, beside the sign of each pixel's winding
        angles = np.sort(rng.random(9)) * 2 * np.pi
        points = rng.random(2) * [12, 9] + rng.uniform(1, 9, (9, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
        centres = np.stack(np.meshgrid(np.arange(12) + 0.5, np.arange(9) + 0.5), -1)
        spokes = points - centres[..., None, :]
        turns = np.diff(np.unwrap(np.arctan2(spokes[..., 1], spokes[..., 0]), axis=-1)[..., [0, -1]])
        first, last = (np.arctan2(spokes[..., k, 1], spokes[..., k, 0]) for k in (0, -1))
        closing = (first - last + np.pi) % (2 * np.pi) - np.pi
        inside = np.abs(turns[..., 0] + closing) > 1
        assert np.array_equal(polygon_mask(points, (9, 12)), inside)


def test_packed_runs_are_those_of_the_library():
    library = pytest.importorskip("faster_coco_eval.core.mask")
    rng = np.random.default_rng(2)
    for density in (0.01, 0.3, 0.9, 1):
        mask = np.kron(rng.random((30, 41)) < density, np.ones((7, 5))).astype(np.uint8)
        packed = library.encode(np.asfortranarray(mask))
        ours = runs_mask(unpacked_runs(packed["counts"].decode()), (210, 205))
        assert np.array_equal(ours, library.decode(packed).astype(bool)) and np.array_equal(ours, mask)
    with pytest.raises(ValueError, match="no digit"):
        unpacked_runs("0~")
    with pytest.raises(ValueError, match="end within a number"):
        unpacked_runs("0o")


SQUARE = [[1, 1, 3, 1, 3, 3, 1, 3]]


@pytest.mark.parametrize(
    "bad, said",
    [
        (annotation([[1, 1, 2, 2]]), "1 with fewer than three points"),
        (annotation([[1, 1, 2, 2, 3, 3]]), "1 without area"),
        (annotation([[1, 1, 1, 1, 1, 1]]), "1 without area"),
        (annotation({"size": [6, 8], "counts": [48]}), "1 without area"),
        (annotation([[9, 1, 12, 1, 12, 3]]), "1 outside their picture"),
        (annotation([[-9, 1, -2, 1, -2, 3]]), "1 outside their picture"),
        (annotation([], bbox=[1, 1, 2, 2]), "1 without a mask"),
        (annotation(None), "1 without a mask"),
    ],
)
def test_things_that_show_nothing_are_skipped_and_counted(tmp_path, capsys, bad, said):
    pictures, _ = write(tmp_path, annotation(SQUARE), bad)
    assert len(pictures[0].labels) == 1
    assert f"1 entries are skipped: {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "bad, said",
    [
        (annotation({"size": [8, 6], "counts": [48]}), r"annotation 5, on 1\.png: its runs are for 6 x 8"),
        (annotation({"size": [6, 8], "counts": [4, 2]}), r"annotation 5, on 1\.png: its runs cover 6 pixels"),
        (annotation({"size": [6, 8], "counts": [50, -2]}), "its runs cover 48"),
        (annotation({"size": [6, 8], "counts": "~"}), "no digit"),
        (annotation({"counts": "~"}), "annotation 5, on 1.png lacks 'size'"),
        (annotation([[1, 1, 2, 2, 3]]), "no list of pairs of numbers"),
        (annotation([[1, 1, 2, float("nan"), 3, 3]]), "no list of pairs of numbers"),
        (annotation([["a", 1, 2, 2, 3, 3]]), "annotation 5"),
        (annotation(7), "annotation 5"),
        (annotation(SQUARE, image=8), "names an image or a category that is not listed"),
        (annotation(SQUARE, category=1), "names an image or a category that is not listed"),
        (annotation(SQUARE, image=[]), "annotation 5"),
        ("text", "annotation 1"),
    ],
)
def test_things_that_contradict_themselves_are_refused(tmp_path, bad, said):
    with pytest.raises(ValueError, match=said):
        write(tmp_path, annotation(SQUARE), bad)


def test_whole_files_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not one mask"):
        write(tmp_path, annotation([]))
    with pytest.raises(ValueError, match="2 categories with 1 different ids"):
        write(tmp_path, categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}])
    for data in ('{"images": []}', '{"images": [{"id": 1}], "annotations": [], "categories": []}'):
        (tmp_path / "x.json").write_text(data)
        with pytest.raises(ValueError, match=r"x\.json is no JSON"):
            coco(tmp_path, tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DamagedFile, match=r"x\.json is no JSON"):
        coco(tmp_path, tmp_path / "x.json")
    for folder, name in ((tmp_path / "none", "x.json"), (tmp_path, "y.json")):
        with pytest.raises(FileNotFoundError, match="there is no"):
            coco(folder, tmp_path / name)
    with pytest.raises(FileNotFoundError, match="none of the 1 pictures"):
        write(tmp_path, images=[{"id": 7, "file_name": "2.png"}])


def test_missing_pictures_are_counted_and_those_without_things_stay(tmp_path, capsys):
    images = [{"id": n, "file_name": f"{n}.png"} for n in (3, 1, 7)]
    Image.new("L", (8, 6), 9).save(tmp_path / "7.png")
    pictures, _ = write(tmp_path, annotation(SQUARE), annotation(SQUARE, image=3), images=images)
    assert [pictures.name(i) for i in range(len(pictures))] == ["1.png", "7.png"]
    assert f"1 pictures that are not in {tmp_path}, as 3.png" in capsys.readouterr().err
    assert pictures[0].masks.shape == (0, 6, 8) and pictures[1].masks.shape == (1, 6, 8)
    assert (pictures[1].image == 9).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "I;16", "1", "CMYK"])
def test_pictures_of_every_kind_are_colours(tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((6, 8), 300, np.uint16))
    else:
        image = Image.new("RGB", (8, 6), "white").convert(mode)
    if mode == "CMYK":
        image = image.convert("RGB")
    pictures, _ = write(tmp_path, annotation(SQUARE), image=image)
    assert pictures[0].image.shape == (3, 6, 8) and pictures[0].image.dtype == np.uint8


def test_annotations_lie_on_the_picture_as_it_is_seen(tmp_path):
    """A picture that lies on its side, with the left half white."""
    lying = Image.new("L", (8, 6), 0)
    lying.paste(255, (0, 0, 4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter: white above
    (tmp_path / "1.png").parent.mkdir(exist_ok=True)
    write(tmp_path, annotation([[0, 0, 6, 0, 6, 4, 0, 4]]), size=(6, 8))
    lying.save(tmp_path / "1.png", exif=exif)
    seen = coco(tmp_path, tmp_path / "x.json")[0][0]
    assert seen.image.shape == (3, 8, 6) and np.array_equal(seen.masks[0], seen.image[0] == 255)
    pictures, _ = write(tmp_path, annotation(SQUARE), size=(8, 6))
    lying.save(tmp_path / "1.png", exif=exif)
    with pytest.raises(ValueError, match=r"1\.png has 6 x 8 pixels, upright, and .* says 8 x 6; it is turned"):
        pictures[0]
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1\.png is no image that can be read"):
        pictures[0]


def test_wide_pictures_are_scaled_down_with_their_masks(tmp_path):
    wide = Image.new("L", (10_000, 40), 0)
    wide.paste(255, (5_000, 0, 7_500, 40))
    mask = np.asarray(wide) > 0
    write(
        tmp_path,
        annotation([[5000, 0, 7500, 0, 7500, 40, 5000, 40]]),
        annotation({"size": [40, 10_000], "counts": runs_of(mask)}),
        annotation([[1, 1, 3, 1, 3, 3, 1, 3]]),  # less than a pixel is left of it
        image=wide,
        size=(10_000, 40),
    )
    seen = coco(tmp_path, tmp_path / "x.json", max_side=1000)[0][0]
    assert seen.image.shape == (3, 4, 1000) and seen.labels.tolist() == [2, 2]
    assert seen.boxes.tolist() == [[500, 0, 750, 4]] * 2 and seen.masks.sum() == 2000
    assert (seen.image[0][seen.masks[0]] > 100).all() and seen.image[0, :, :498].max() == 0
