"""What the README promises, run as it stands there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_learner_in_thirty_lines_learns(tmp_path, monkeypatch, learning_seed, record_property):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(code.splitlines()) <= 30
    code = code.replace("seed=1", f"seed={1 + learning_seed}")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    record_property("score", scope["aux"]["accuracy"].item())
    assert scope["trainer"].step == 3000 and scope["aux"]["accuracy"] >= 0.95
    assert list((tmp_path / "runs" / "bits").glob("events*"))


def test_the_tree_and_the_files_agree():
    tree = README.split("## The tree")[1].split("experiments -> agents")[0]
    ours = {p.name for folder in ("rlkit", "agents", "envs", "experiments") for p in (ROOT / folder).rglob("[a-z]*.py")}
    for name in ours:
        assert re.search(rf"\b{name.removesuffix('.py')}\b", tree), f"the tree does not name {name}"
    assert set(re.findall(r"\b\w+\.py\b", tree)) <= ours


def test_the_two_commands_stand_first():
    assert README.index("make train") < README.index("make test") < 1200
