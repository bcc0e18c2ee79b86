"""The arrows of the layout: experiments -> agents -> rlkit, experiments -> envs -> rlkit.compiled."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "rlkit": {"rlkit"},
    "envs": {"envs", "rlkit.compiled"},
    "agents": {"agents", "rlkit"},
    "experiments": {"experiments", "agents", "rlkit", "envs"},
}
FILES = [path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py")]
COMPILED = ROOT / "rlkit" / "compiled.py"


def imports(path):
    """The full names that a file imports: package.module, package.module.name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name, packages):
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
@pytest.mark.slow
def test_imports_follow_the_arrows(path):
    allowed = MAY_IMPORT[path.relative_to(ROOT).parts[0]]
    for name in imports(path):
        assert within(name, allowed) or not within(name, MAY_IMPORT), f"{path} imports {name}"


PAPERS = ("uct", "dqn", "alphago", "rainbow", "alphazero", "recurrent", "pqn")
"""by the year of the latest paper in each folder: 2006, 2015, 2016, 2017, 2017, 2018, 2024"""


def test_no_paper_imports_a_later_one():
    folders = {path.parent.name for path in (ROOT / "agents").glob("*/__init__.py")}
    assert folders == set(PAPERS)
    for i, paper in enumerate(PAPERS):
        later = {f"agents.{name}" for name in PAPERS[i + 1 :]}
        for path in (ROOT / "agents" / paper).glob("*.py"):
            assert not [name for name in imports(path) if within(name, later)], path


@pytest.mark.slow
def test_the_worlds_start_without_torch():
    """envs import rlkit.compiled, and Python then imports rlkit itself: neither brings more of rlkit with it."""
    assert not imports(ROOT / "rlkit" / "__init__.py")
    assert not [name for name in imports(COMPILED) if within(name, {*MAY_IMPORT, "torch"})]
    program = "import sys, experiments.go.gtp; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_functions_are_compiled_in_one_place():
    """So that each is kept by the text of all sources, checked when it is loaded, and no reason to end a run."""
    with_numba = {path.name for path in FILES if re.search(r"^\s*(import|from) numba\b", path.read_text(), re.M)}
    assert with_numba == {"compiled.py", "runtime.py"}, "runtime sets the number of threads"


def test_loading_a_file_runs_no_code_from_it():
    sources = {path: path.read_text() for path in FILES}
    loads = r"\bimport (cloud)?pickle|pickle\.load|serialize\.loads|np\.load\(|weights_only=False"
    for path, text in sources.items():
        assert not re.search(loads, text) or path == COMPILED, path  # machine code that this user wrote
        assert len(re.findall(r"\btorch\.load\(", text.replace("safetensors.torch.load", ""))) == text.count(
            "weights_only=True"
        ), path
