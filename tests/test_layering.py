"""The arrows of the layout: experiments -> agents -> rlkit, experiments -> envs."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "rlkit": {"rlkit"},
    "envs": {"envs"},
    "agents": {"agents", "rlkit"},
    "experiments": {"experiments", "agents", "rlkit", "envs"},
}
FILES = [path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    package = path.relative_to(ROOT).parts[0]
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names = [node.module or ""]
        ours = {name.split(".")[0] for name in names} & MAY_IMPORT.keys()
        assert ours <= MAY_IMPORT[package], f"{path} imports {ours}"


def test_one_backward_and_no_pickle():
    sources = {path: path.read_text() for path in FILES}
    assert [p.name for p, text in sources.items() for _ in re.findall(r"\.backward\(", text)] == ["trainer.py"]
    for path, text in sources.items():
        assert not re.search(r"\bimport pickle|pickle\.load|np\.load\(|weights_only=False", text), path
        assert len(re.findall(r"\btorch\.load\(", text.replace("safetensors.torch.load", ""))) == text.count(
            "weights_only=True"
        ), path


def test_files_stay_readable():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 400, f"{path} is longer than 400 lines"
