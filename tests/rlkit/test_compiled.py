"""Compiled functions on disk: an edit of any source takes effect, and no state of the disk or the files ends a run."""

import ast
import errno
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numba import types

from rlkit import compiled

ROOT = Path(compiled.__file__).parent.parent
SOURCES = {  # of a small tree: each package has compiled functions that call into another
    "rlkit/sums.py": """
        from rlkit.compiled import kernel, parallel_kernel, prange
        STEP = 2

        @kernel
        def total(numbers):
            out = 0
            for i in range(len(numbers)):
                out += STEP * numbers[i]
            return out

        @parallel_kernel
        def double(numbers, out):
            for i in prange(len(numbers)):
                out[i] = STEP * numbers[i]
        """,
    "envs/world.py": """
        from rlkit.compiled import kernel
        from rlkit.sums import total

        @kernel
        def reward(numbers):
            return total(numbers) + 1
        """,
    "agents/player.py": """
        from envs.world import reward
        from rlkit.compiled import kernel

        @kernel
        def best(numbers):
            return 10 * reward(numbers)
        """,
}
PROGRAM = """
import numpy as np
from rlkit import compiled, sums
from agents.player import best
print(compiled.FOLDER)
print(best(np.arange(4)))
print(sum(best.stats.cache_hits.values()), sum(best.stats.cache_misses.values()))
"""
PARALLEL = PROGRAM.replace("best(np.arange(4))", "sums.double(np.arange(3), out := np.empty(3, int)) or out").replace(
    "best.stats", "sums.double.stats"
)


@pytest.fixture
def tree(tmp_path):
    """The small tree, with nothing compiled in it."""
    for name, source in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text("\n".join(line[8:] for line in source.splitlines()))
    shutil.copy(compiled.__file__, tmp_path / "rlkit")
    return tmp_path


def start(tree, program=PROGRAM, **environment):
    """A program in a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "XDG", "PYTHON"))}
    env |= {"NUMBA_NUM_THREADS": "1"} | environment
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", program], cwd=tree, env=env, stdout=pipe, stderr=pipe, text=True)


def run(tree, program=PROGRAM, **environment):
    """The lines that a program prints, and those of its standard error."""
    process = start(tree, program, **environment)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.splitlines(), err.splitlines()


@pytest.mark.slow
def test_an_edit_in_another_file_takes_effect(tree):
    (folder, answer, cache), _ = run(tree)
    assert Path(folder).parent == tree / "rlkit" / "__pycache__" and (answer, cache) == ("130", "0 1")
    source = tree / "rlkit" / "sums.py"
    before = source.read_text()
    source.write_text(before.replace("STEP = 2", "STEP = 3"))
    (edited, answer, cache), _ = run(tree)
    assert edited != folder and (answer, cache) == ("190", "0 1")

    source.write_text(before)
    assert run(tree) == ([folder, "130", "1 0"], []), "back again, and nothing is compiled"


@pytest.mark.slow
def test_parallel_loops_are_kept_too(tree):
    assert run(tree, PARALLEL)[0][1:] == ["[0 2 4]", "0 1"]
    assert run(tree, PARALLEL)[0][1:] == ["[0 2 4]", "1 0"]
    source = tree / "rlkit" / "sums.py"
    source.write_text(source.read_text().replace("STEP = 2", "STEP = 3"))
    assert run(tree, PARALLEL)[0][1:] == ["[0 3 6]", "0 1"]


@pytest.mark.slow
def test_an_edit_of_a_bundle_takes_effect(tree):
    """A NamedTuple is known by its fields, also where its file has no compiled functions; the same one is found."""
    source = tree / "rlkit" / "pairs.py"
    source.write_text("from typing import NamedTuple\nclass Pair(NamedTuple):\n    own: int\n    other: int\n")
    (tree / "rlkit" / "take.py").write_text(
        "from rlkit.compiled import kernel\n@kernel\ndef own(pairs):\n    return pairs[1].own\n"
    )
    program = """
from rlkit.pairs import Pair
from rlkit.take import own
print(own((0, Pair(3, 4))))
print(sum(own.stats.cache_hits.values()), sum(own.stats.cache_misses.values()))
"""
    assert run(tree, program)[0] == ["3", "0 1"]
    assert run(tree, program)[0] == ["3", "1 0"]
    source.write_text(source.read_text().replace("own", "x").replace("other", "own").replace("x", "other"))
    assert run(tree, program)[0] == ["4", "0 1"]
    assert run(tree, program)[0] == ["4", "1 0"]


@pytest.mark.slow
def test_processes_that_compile_at_the_same_time(tree):
    processes = [start(tree) for _ in range(2)]
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0 and out.splitlines()[1] == "130", err
    assert run(tree)[0][1:] == ["130", "1 0"]


@pytest.mark.slow
def test_without_a_place_it_goes_on_and_says_so_in_one_line(tree):
    (tree / "rlkit" / "__pycache__").write_text("in the way, as a folder without permissions would be")
    (folder, answer, cache), (line,) = run(tree, HOME="/dev/null")
    assert (folder, answer, cache) == ("None", "130", "0 1")
    assert "at every start" in line and "NUMBA_CACHE_DIR" in line


@pytest.mark.skipif(not hasattr(os, "fork"), reason="files have no largest size here")
@pytest.mark.slow
def test_a_full_disk_stops_the_keeping_and_not_the_run(tree):
    """No file may be longer than 4 kB, so that compiled functions are cut off while they are written."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    (folder, answer, _), (compiling, line) = run(tree, limit + PROGRAM, PYTHONDONTWRITEBYTECODE="1")
    assert answer == "130" and compiling.startswith("compiling ")
    assert os.strerror(errno.EFBIG) in line and folder in line and "NUMBA_CACHE_DIR" in line
    assert list(Path(folder).iterdir()) == []


def triple(number):
    return 3 * number


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of its own for this process, where the functions of this file are kept too."""
    monkeypatch.setattr(compiled, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr(compiled, "SOURCES", {Path(__file__): b""})
    monkeypatch.setattr(compiled._Cache, "saves", True)
    return tmp_path / "kept"


def loaded(function=triple, argument=2, answer=6):
    """Whether a function came from the disk; its answer is right in any case."""
    dispatcher = compiled.kernel(function)
    assert dispatcher(argument) == answer
    return sum(dispatcher.stats.cache_hits.values()) == 1


def test_damaged_files_are_made_anew(folder):
    assert not loaded() and loaded()
    (path,) = folder.iterdir()
    whole, rng = path.read_bytes(), random.Random(1)
    damages = [whole[:0], whole[:31], whole[:32], whole[: len(whole) // 2], whole[:-1], whole + b"\0"]
    for bit in (0, 8 * 32, *(rng.randrange(8 * len(whole)) for _ in range(100))):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        damages.append(bytes(flipped))
    dispatcher = compiled.kernel(triple)
    for damaged in damages:
        path.write_bytes(damaged)
        assert dispatcher._cache.load_overload((types.int64,), dispatcher.targetctx) is None
    assert not loaded() and loaded(), "compiled again, and kept"
    path.unlink()
    path.mkdir()
    assert not loaded(), "a folder in its place"


def test_a_file_is_only_what_its_name_says(folder):
    assert not loaded() and not loaded(argument=2.0)
    a, b = folder.iterdir()
    a.rename(folder / "c"), b.rename(a), (folder / "c").rename(b)
    assert not loaded() and not loaded(argument=2.0)
    assert loaded() and loaded(argument=2.0)


def test_another_kind_of_cpu_has_files_of_its_own(folder, monkeypatch):
    """As where two machines share a home."""
    assert not loaded() and loaded()
    codegen = compiled.kernel(triple).targetctx.codegen()
    monkeypatch.setattr(type(codegen), "magic_tuple", lambda _: ("x86_64", "another", "+avx"))
    assert not loaded() and loaded() and len(list(folder.iterdir())) == 2


def test_functions_of_other_files_are_not_kept(folder, monkeypatch):
    monkeypatch.setattr(compiled, "SOURCES", {})
    assert not loaded() and not loaded() and not folder.exists()


@pytest.mark.parametrize("broken", ["mkstemp", "replace"])
def test_a_disk_that_is_full_while_it_saves(folder, broken, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    monkeypatch.setattr(compiled.tempfile if broken == "mkstemp" else compiled.os, broken, full)
    assert not loaded() and not loaded() and list(folder.iterdir()) == []
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "NUMBA_CACHE_DIR" in line]
    assert os.strerror(errno.ENOSPC) in line


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owner here")
def test_nothing_is_loaded_that_others_can_have_written(folder, monkeypatch):
    assert not loaded() and loaded()
    (path,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700 and path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o620)
    assert not loaded() and loaded(), "replaced by one of this user"
    monkeypatch.setattr(compiled.os, "geteuid", lambda: path.stat().st_uid + 1)
    assert not loaded()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A function: the folder that is found now, with a cache of numba's and a cache of the user's to choose from."""
    monkeypatch.setattr(compiled.config, "CACHE_DIR", str(tmp_path / "numba"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return lambda sources=compiled.SOURCES: compiled._find_folder(sources)


def test_places_go_by_rank(place, tmp_path, monkeypatch):
    """NUMBA_CACHE_DIR, else beside the source; where that cannot be had, the user's cache, else none."""
    assert place().parent == tmp_path / "numba"
    monkeypatch.setattr(compiled.config, "CACHE_DIR", "")
    assert place().parent == Path(compiled.__file__).parent / "__pycache__"
    monkeypatch.setattr(compiled.config, "CACHE_DIR", "/dev/null/no")
    assert place().parent == tmp_path / "xdg" / "lecture-rl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert place().parent == tmp_path / "home" / ".cache" / "lecture-rl"
    monkeypatch.setenv("HOME", "/dev/null")
    assert place() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert place() is None and not Path("relative").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owner here")
def test_a_folder_that_others_can_write_to_is_left_alone(place, tmp_path, monkeypatch):
    folder = place()
    folder.chmod(0o770)
    assert place().parent == tmp_path / "xdg" / "lecture-rl"
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert place().parent == tmp_path / "xdg" / "lecture-rl", "a link can be led elsewhere"
    monkeypatch.setattr(compiled.os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert place() is None


def test_what_no_start_used_for_a_day_goes(place):
    folder = place()
    old, new, other = (
        folder.parent / name for name in ("compiled-" + "0" * 16, "compiled-" + "1" * 16, "compiled-old")
    )
    for path, age in ((old, 90_000), (new, 80_000), (other, 90_000)):
        path.mkdir()
        os.utime(path, (time.time() - age,) * 2)
    unfinished = folder / "tmp1.new"
    unfinished.write_text("of a process that was killed")
    os.utime(unfinished, (0, 0))
    assert place() == folder
    assert not old.exists() and not unfinished.exists() and new.exists() and other.exists()


def test_the_folder_changes_with_every_source_and_with_no_other_file(place):
    base = {path: path.read_bytes() for path in compiled.SOURCES}
    names = {path.relative_to(ROOT).as_posix() for path in base}
    assert {"agents/alphago/trees.py", "envs/go/board.py", "rlkit/compiled.py", "rlkit/replay.py"} <= names
    assert "rlkit/trainer.py" not in names
    folders = {place(base | {path: text + b"#"}).name for path, text in base.items()} | {place(base).name}
    assert len(folders) == len(base) + 1


KERNELS = {"kernel", "inline_kernel", "parallel_kernel"}


def of_ours(tree):
    """name -> file that it was imported from, for what a file imports of this project."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in compiled.PACKAGES:
            folder = ROOT / node.module.replace(".", "/")
            for alias in node.names:
                module = folder / f"{alias.name}.py"
                names[alias.asname or alias.name] = module if module.exists() else folder.with_suffix(".py")
    return names


@pytest.mark.parametrize("path", compiled.SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_compiled_functions_take_nothing_from_files_outside_the_hash(path):
    """Their names come from other such files, and so do the names that the file's constants are made of."""
    tree = ast.parse(path.read_text())
    parts = [n for n in tree.body if isinstance(n, ast.Assign | ast.AnnAssign)]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            kinds = {ast.unparse(decorator) for decorator in node.decorator_list}
            assert not any("kernel" in kind for kind in kinds - KERNELS), "imported by name"
            parts += [node] if kinds & KERNELS else []
    used = {n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name)}
    outside = {name for name, source in of_ours(tree).items() if name in used and source not in compiled.SOURCES}
    assert not outside, f"{path} uses what the hash leaves out: {outside}"


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

                compiled.parallel_for(work, games, least=4)
                assert (counts == 1).all() and sorted(slots) == list(range(max(1, min(threads, games // 4))))
        assert compiled.scratch(12).shape == (5, 4, 12)

        def broken(slot, begin, end):
            if slot == 1:
                raise KeyError("no such game")

        with pytest.raises(KeyError, match="no such game"):
            compiled.parallel_for(broken, 100, least=1)
    finally:
        compiled.set_threads(before)
