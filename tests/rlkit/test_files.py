import json
import os

import pytest

from rlkit.errors import DamagedFile
from rlkit.files import ChunkFile, read_bytes, read_json, sweep


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(DamagedFile, match=rf"{name} is no regular file"):
            read_bytes(tmp_path / name)
        with pytest.raises(DamagedFile, match=rf"{name} is no regular file"):
            list(ChunkFile(tmp_path / name, 10).read({0: [0, 10, ""]}))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "link")
    (tmp_path / "file").write_bytes(b"content")
    assert read_bytes(tmp_path / "link") == b"content", "a link to a file is one"


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, '{"a": 1' + "0" * 5000 + "}", b"\xff\xfe{}x"])
def test_what_is_no_json_object_is_damaged(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DamagedFile, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_json_of_another_kind_where_it_is_asked_for(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([1, 2]))
    assert read_json(tmp_path / "x.json", list) == [1, 2]


def test_what_a_kill_left_is_swept_and_nothing_else(tmp_path):
    stay = [".lock", "config.json", ".note.txt", "step.7", "agent/weights.safetensors", "runs/a/b/c/.config.json.77"]
    for name in (*stay, ".config.json.123", "agent/.weights.safetensors.9", "masked/agent/.agent.json.10"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(stay)
