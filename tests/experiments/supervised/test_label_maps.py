"""Things from label maps of a few pixels."""

import numpy as np
import pytest
from PIL import Image

from experiments.supervised.label_maps import components, label_maps

LABELS = np.array([[int(n) for n in line] for line in ["1100002", "0010020", "0000200", "1000000"]], np.uint8)


def write(folder, labels=LABELS, names="hole\ncrack\n", size=None):
    for part in ("images/a", "labels/a"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "names.txt").write_text(names)
    Image.new("RGB", size or labels.shape[1::-1], (9, 8, 7)).save(folder / "images/a/1.jpg")
    Image.fromarray(labels).save(folder / "labels/a/1.png")
    return folder


def test_what_hangs_together_by_corners_too_is_a_thing(tmp_path):
    pictures, names = label_maps(write(tmp_path), least=1)
    assert names == ["hole", "crack"] and len(pictures) == 1 and pictures.name(0) == "a/1.jpg"
    seen = pictures[0]
    assert seen.image.shape == (3, 4, 7) and seen.labels.tolist() == [1, 1, 2] and not seen.crowd.any()
    assert seen.boxes.tolist() == [[0, 0, 3, 2], [0, 3, 1, 4], [4, 0, 7, 3]] and seen.masks.sum() == 7
    assert label_maps(tmp_path, least=2)[0][0].labels.tolist() == [1, 2]
    assert label_maps(tmp_path, least=9)[0][0].masks.shape == (0, 4, 7)
    assert components(np.zeros((2, 2), bool)) == []


def test_maps_of_other_kinds_and_sizes(tmp_path):
    void = LABELS.copy()
    void[LABELS == 2] = 255
    assert label_maps(write(tmp_path, void), least=1)[0][0].labels.tolist() == [1, 1]
    palette = Image.fromarray(LABELS).convert("P")
    palette.putpalette([200] * 768)
    write(tmp_path)
    palette.save(tmp_path / "labels/a/1.png")
    assert len(label_maps(tmp_path, least=1)[0][0].labels) == 3
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "labels/a/1.png")
    assert len(label_maps(tmp_path, least=1)[0][0].labels) == 3
    write(tmp_path, np.kron(LABELS, np.ones((4, 4), np.uint8)))
    seen = label_maps(tmp_path, max_side=7)[0][0]
    assert seen.image.shape == (3, 4, 7) and np.array_equal(seen.masks.any(0), LABELS > 0)


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(labels=LABELS + 2), r"a/1\.png: 7 pixels have values that no class has, the first 3 in row 0, column 0"),
        (dict(size=(9, 4)), r"a/1\.png has 7 x 4 pixels, its picture 9 x 4"),
        (dict(labels=np.stack([LABELS] * 3, 2)), "has 3 channels"),
        (dict(names="\n"), "has 0 classes"),
    ],
)
def test_maps_that_do_not_fit_are_refused(tmp_path, change, said):
    write(tmp_path, **change)
    with pytest.raises(ValueError, match=said):
        label_maps(tmp_path)[0][0]


def test_folders_that_lack_something_say_what(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        label_maps(tmp_path)
    write(tmp_path)
    (tmp_path / "labels/a/1.png").write_bytes(b"no map")
    with pytest.raises(ValueError, match="no label map that can be read"):
        label_maps(tmp_path)[0][0]
    (tmp_path / "labels/a/1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 pictures have no label map, as .*images/a/1\.jpg"):
        label_maps(tmp_path)
    (tmp_path / "images/a/1.jpg").unlink()
    with pytest.raises(ValueError, match="has no pictures"):
        label_maps(tmp_path)
    (tmp_path / "names.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"names\.txt: its line n"):
        label_maps(tmp_path)
