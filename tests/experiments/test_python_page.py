"""The code of docs/python.md, as it stands there."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.mark.slow
def test_all_of_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="the page draws a picture")
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S):
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["result"]["mean"] > 30, "CartPole without learning scores 20, and falls at 9 with one action"
    assert names["score"] > 9 and len(names["folders"]) == 3 and len(names["table"]) == 3
    assert names["walker"].is_dir() and names["picture"].stat().st_size > 10_000
    assert "scored" in capsys.readouterr().out
