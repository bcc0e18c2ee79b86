"""Photographs of roads: their drives, cracks and potholes, and litter in the test that is the same each time."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.supervised.road_data import CLASSES, cracks, drives, photographs, potholes

DATA = Path(os.environ.get("RLKIT_DATA", Path(__file__).parents[4] / "shared" / "data")) / "ml"
NO_DATA = pytest.mark.skipif(
    not (DATA / "road_cracks_potholes").is_dir(), reason=f"no data in {DATA}; RLKIT_DATA may name another folder"
)


def test_specks_of_a_crack_become_a_place():
    label = np.zeros((60, 120), bool)
    label[20:50:3, 20:30] = True  # ten short lines with gaps of two: 100 pixels
    label[20:30, 80:83] = True  # 30 pixels
    (place,) = cracks(label)
    assert place[16:52, 20:30].all() and not place[:16].any() and not place[:, :16].any() and not place[:, 34:].any()
    assert len(cracks(label, least=30)) == 2 and cracks(np.zeros((9, 9), bool)) == []
    label[:, 30:80] |= np.arange(60)[:, None] == 35  # what joins them
    (place,) = cracks(label)
    assert place[label].all()
    ring = np.ones((40, 40), bool)
    ring[10:30, 10:30] = False
    assert not cracks(ring)[0][15:25, 15:25].all()  # what is closed are gaps of up to twice the reach


def test_potholes_are_single_and_no_specks():
    label = np.zeros((20, 20), bool)
    label[2:6, 2:6] = label[10:14, 10:13] = label[17, 2:13] = True  # 16, 12 and 11 pixels
    assert [mask.sum() for mask in potholes(label)] == [16, 12]


def write(folder):
    """Photographs of a drive to learn from and one to test on, without any thing."""
    roads = folder / "road_cracks_potholes"
    for part in ("images", "labels"):
        (roads / part).mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (32, 20), (90, 90, 90)).save(roads / f"images/{number:04d}.jpg")
        Image.fromarray(np.zeros((20, 32), np.uint8)).save(roads / f"labels/{number:04d}.png")
    names = "0000 1_RS_386_386RS169832_1\n0001 2_DF_080_080BDF0070_2\n0002 3_RS_386_386RS169832_3\n"
    (roads / "source_names.txt").write_text(names)
    return roads


def test_whole_drives_are_held_out(tmp_path, monkeypatch):
    roads = write(tmp_path / "ml")
    assert drives(roads) == ["386RS169832", "080BDF0070", "386RS169832"]
    train, test = (photographs(split, tmp_path / "ml") for split in ("train", "test"))
    assert [train.name(i) for i in range(len(train))] == ["0000.jpg", "0002.jpg"] and len(test) == 1
    assert train[0].image.shape == (3, 20, 32) and train[0].masks.shape == (0, 20, 32)
    with pytest.raises(FileNotFoundError, match="litter of things"):
        test[0]
    monkeypatch.setenv("RLKIT_DATA", str(tmp_path))
    assert len(photographs("train")) == 2
    monkeypatch.delenv("RLKIT_DATA")
    with pytest.raises(FileNotFoundError, match="where are the photographs"):
        photographs("train")
    (roads / "source_names.txt").write_text("0000 1_RS_386_386RS169832_1\n0001 2_DF\n")
    with pytest.raises(ValueError, match=r"source_names\.txt does not name each photograph"):
        photographs("train", tmp_path / "ml")
    (roads / "source_names.txt").unlink()
    with pytest.raises(FileNotFoundError, match="tells from what drive"):
        photographs("train", tmp_path / "ml")


@NO_DATA
@pytest.mark.slow
def test_the_photographs_themselves():
    train, test = (photographs(split, DATA) for split in ("train", "test"))
    assert (len(train), len(test)) == (610, 154)
    assert not {train.name(i) for i in range(610)} & {test.name(i) for i in range(154)}
    seen, again = test[5], test[5]
    assert all(np.array_equal(a, b) for a, b in zip(seen, again, strict=True))
    test.seed = 1
    assert not np.array_equal(test[5].image, seen.image)
    assert seen.image.shape == (3, 200, 320) and set(seen.labels) <= {2, 3, 4} and CLASSES[3] == "litter"
    assert set(test.without_litter(5).labels) <= {2, 3}
