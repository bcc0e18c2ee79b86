"""Files of data, whole and broken: idx, text, pairs; and known again where a run goes on."""

import gzip
import struct
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from rlkit.data import read_idx
from rlkit.data_files import DataFiles, files_below, fingerprint, located, named
from rlkit.errors import DamagedFile
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
    with pytest.raises(DamagedFile, match="is no regular file"):
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


# -- the same data, wherever they lie ----------------------------------------------------------------------------------


def test_files_below_leave_out_what_systems_leave_behind_and_follow_links_once(tmp_path):
    for name in (
        "b.txt",
        "a/c.txt",
        "a/.DS_Store",
        "a/Thumbs.db",
        "__MACOSX/._b.txt",
        "@eaDir/b.txt",
        ".git/x",
        "desktop.ini",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert files_below(tmp_path) == [tmp_path / "a" / "c.txt", tmp_path / "b.txt"]
    (tmp_path.parent / f"{tmp_path.name}-elsewhere").mkdir()
    other = tmp_path.parent / f"{tmp_path.name}-elsewhere" / "d.txt"
    other.write_text("d")
    (tmp_path / "linked").symlink_to(other.parent)
    assert files_below(tmp_path)[-1] == tmp_path / "linked" / "d.txt"


def test_a_fingerprint_is_that_of_contents_and_of_names_in_a_folder(tmp_path):
    import hashlib

    one, two = (tmp_path / name for name in ("one", "two"))
    for folder in (one, two):
        (folder / "in").mkdir(parents=True)
        (folder / "a").write_bytes(b"1")
        (folder / "in" / "b").write_bytes(b"2")
    assert fingerprint([one / "a"]) == hashlib.sha256(b"1").hexdigest()
    both = [one / "a", one / "in" / "b"]
    assert fingerprint(both) == fingerprint(both[::-1]) == fingerprint([two / "a", two / "in" / "b"])
    (two / "in" / "b").rename(two / "in" / "c")
    assert fingerprint(both) != fingerprint([two / "a", two / "in" / "c"])
    (two / "in" / "c").rename(two / "in" / "b")
    (two / "a").write_bytes(b"2")
    (two / "in" / "b").write_bytes(b"1")
    assert fingerprint(both) != fingerprint([two / "a", two / "in" / "b"])


@dataclass
class Learns:
    """A configuration, of which only this counts here."""

    text: str | None = None
    resume: str | None = None


def test_a_run_knows_its_data_wherever_they_lie(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_dir, old, new = tmp_path / "run", tmp_path / "old.txt", tmp_path / "new.txt"
    run_dir.mkdir()
    old.write_text("same")
    cfg = located(Learns("old.txt"), "text")
    assert cfg.text == str(old) and located(Learns("nothing.txt"), "text").text == "nothing.txt"

    def data(cfg):
        return DataFiles(cfg, named(cfg, "text"))

    data(cfg).check(run_dir, cfg)  # a run from before its data were recorded
    data(cfg).save(run_dir)
    old.rename(new)
    with pytest.raises(FileNotFoundError, match=r"there is no .*old\.txt, which run learns from: .* by --text PATH"):
        located(replace(cfg, resume="run"), "text")
    moved = located(replace(cfg, text="new.txt", resume="run"), "text")
    data(moved).check(run_dir, cfg)
    new.write_text("other")
    with pytest.raises(
        ValueError, match=r"--text .*new\.txt holds other data than .*old\.txt, which .*run learns from"
    ):
        data(moved).check(run_dir, cfg)
    new.rename(old)
    with pytest.raises(ValueError, match=r"old\.txt has changed since .*run began"):
        data(cfg).check(run_dir, cfg)
    with pytest.raises(ValueError, match=r"--text cannot change .* has .*old\.txt; begin a new run"):
        data(Learns(None)).check(run_dir, cfg)
    (run_dir / "data.json").unlink()
    old.rename(new)
    capsys.readouterr()
    data(moved).check(run_dir, cfg)  # nothing to compare, and the old one is gone
    assert "has no checksum of" in capsys.readouterr().err
    old.write_text("same")
    with pytest.raises(ValueError, match="--text cannot change"):
        data(moved).check(run_dir, cfg)
    with pytest.raises(ValueError, match=r"--text cannot change .* has None"):
        data(moved).check(run_dir, Learns(None))


@pytest.mark.parametrize("text", ["{", "[1]", '{"text": 1}', '{"text": {"path": "x"}}'])
def test_a_broken_record_says_so(tmp_path, text):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(DamagedFile, match=r"data\.json (is no JSON|holds no dict|is no record of data)"):
        DataFiles(Learns(), {"text": []}).check(tmp_path, Learns())
