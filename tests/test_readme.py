"""What the README and docs/write-your-own-learner.md promise, run as it stands there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LEARNER = (ROOT / "docs" / "write-your-own-learner.md").read_text()


@pytest.mark.slow
def test_the_learner_in_thirty_lines_learns(tmp_path, monkeypatch, learning_seed, record_property):
    (code,) = re.findall(r"```python\n(.*?)```", LEARNER, re.S)
    assert len(code.splitlines()) <= 30
    code = code.replace("seed=1", f"seed={1 + learning_seed}")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(code, "write-your-own-learner.md", "exec"), scope)
    record_property("score", scope["aux"]["accuracy"].item())
    assert scope["trainer"].step == 3000 and scope["aux"]["accuracy"] >= 0.95
    assert list((tmp_path / "runs" / "bits").glob("events*"))


def test_the_tree_and_the_files_agree():
    """A line may begin with a folder inside its package, `nn/mlp.py  dense.py`, which holds for the whole line."""
    named, package = [], ""
    for line in README.split("## The tree")[1].split("experiments -> agents")[0].splitlines():
        if top := re.match(r" {4}(\w+)/", line):
            package = top[1]
        files = re.findall(r"[\w/]+\.py\b", line)
        folder = files[0].rpartition("/")[0] if files else ""
        named += [f"{package}/{folder}/{name.rpartition('/')[2]}".replace("//", "/") for name in files]
    packages = "rlkit", "agents", "envs", "experiments"
    ours = [path.relative_to(ROOT) for package in packages for path in (ROOT / package).rglob("*.py")]
    assert sorted(named) == sorted(str(path) for path in ours if path.name != "__init__.py")


def test_the_two_commands_stand_first():
    assert README.index("make train") < README.index("make test") < 1200


def test_it_is_short():
    assert len(README.splitlines()) <= 200
