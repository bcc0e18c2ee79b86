"""Compiled functions on disk: an edit of any source takes effect, and there is always a place to keep them."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from envs import compiled

ENVS = Path(compiled.__file__).parent
# `is_suicide_for` stands in board.py and calls chains.py, which calls `in_atari` there.
PROGRAM = """
import numba, numpy as np
from envs import compiled
from envs.go import board, position
at = position.Position.parse(".X.\\nX..\\n...")
kernel = board.is_suicide_for
print(compiled.FOLDER)
print(kernel(at._row, at._words, board.to_point.py_func(at._row, 0), 2))
print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the package without anything compiled."""
    shutil.copytree(ENVS, tmp_path / "envs", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "envs"


def run(package, program=PROGRAM, **environment):
    """The lines that a program prints in a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "XDG", "PYTHON"))}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=package.parent, env=env | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_an_edit_in_another_file_takes_effect(package):
    folder, answer, cache = run(package)
    assert Path(folder).parent == package / "__pycache__" and (answer, cache) == ("True", "0 1")
    assert run(package) == [folder, "True", "1 0"], "the second start compiles nothing"

    source = package / "go" / "chains.py"
    before = source.read_text()
    assert before.count("return (colour == me) != in_atari(") == 1
    source.write_text(before.replace("return (colour == me) != in_atari(", "return (colour == me) == in_atari("))
    edited, answer, cache = run(package)
    assert edited != folder and (answer, cache) == ("False", "0 1")

    source.write_text(before)
    assert run(package)[:2] == [folder, "True"], "back again"


def test_there_is_always_a_place(package, tmp_path):
    """Where the package's folder cannot be written, the user's cache is taken; NUMBA_CACHE_DIR goes before both."""
    (package / "__pycache__").write_text("in the way, as a folder without permissions would be")
    program = "from envs import compiled; print(compiled.FOLDER)"
    for environment, base in (
        ({"XDG_CACHE_HOME": str(tmp_path / "xdg")}, tmp_path / "xdg" / "lecture-rl"),
        ({"HOME": str(tmp_path / "home")}, tmp_path / "home" / ".cache" / "lecture-rl"),
        ({"NUMBA_CACHE_DIR": str(tmp_path / "numba")}, tmp_path / "numba"),
    ):
        (folder,) = run(package, program, **environment)
        assert Path(folder).parent == base and Path(folder).is_dir()


def test_old_folders_go(package):
    base = package / "__pycache__"
    for name, age in (("compiled-old", 90_000), ("compiled-new", 80_000), ("other-old", 90_000)):
        (base / name).mkdir(parents=True)
        os.utime(base / name, (time.time() - age,) * 2)
    run(package, "import envs.compiled")
    assert not (base / "compiled-old").exists()
    assert (base / "compiled-new").exists() and (base / "other-old").exists()


def test_shares_cover_every_game_once():
    """Each share has a slot of its own, and what a share raises is not lost."""
    before = compiled._threads
    try:
        for threads in (1, 2, 5):
            compiled.set_threads(threads)
            for games in (0, 1, 7, 8, 64, 1001):
                counts, slots = np.zeros(games, int), []

                def work(slot, begin, end, counts=counts, slots=slots):
                    slots.append(slot)
                    counts[begin:end] += 1

                compiled.over(work, games, least=4)
                assert (counts == 1).all() and sorted(slots) == list(range(max(1, min(threads, games // 4))))
        assert compiled.scratch(12).shape == (5, 4, 12)

        def broken(slot, begin, end):
            if slot == 1:
                raise KeyError("no such game")

        with pytest.raises(KeyError, match="no such game"):
            compiled.over(broken, 100, least=1)
    finally:
        compiled.set_threads(before)


def test_compiled_files_take_nothing_from_files_outside_the_hash():
    root = Path(compiled.__file__).parent
    inside = {p for p in root.rglob("*.py") if "envs.compiled import" in p.read_text()} | {root / "compiled.py"}
    for path in inside:
        for package, names in re.findall(r"^from (envs[.\w]*) import (.*)", path.read_text(), re.M):
            folder = root.parent / package.replace(".", "/")
            sources = {folder.with_suffix(".py"), *(folder / f"{name.strip()}.py" for name in names.split(","))}
            assert {source for source in sources if source.exists()} <= inside, f"{path} uses what the hash leaves out"
