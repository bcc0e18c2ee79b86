"""A benchmark in turns with another checkout: small false checkouts, and work that says itself how fast it was."""

import json

import pytest

from experiments.bench import __main__ as bench
from experiments.bench import against, turns

TURNS = """
from dataclasses import dataclass

@dataclass
class Config:
    what: str
    seconds: float = 6.0
    threads: int = 0

def in_turns(cfg, contestants):
    raise AssertionError("is replaced")

def report(cfg, bench, value, unit="", peer="", peer_value=None):
    print("nor is this printed")
"""
NN = """
from pathlib import Path
from experiments.bench.turns import Config, in_turns, in_process, report

def peer():
    raise AssertionError("is left out")

def counted(name, units):
    def work():
        with Path("{log}").open("a") as f:
            f.write("{me} " + name + "\\n")
        return units
    return work

def main(cfg):
    assert cfg.what == "nn" and cfg.threads == 3
    rates = in_turns(cfg, {{"ours": counted("ours", {first}), "peer": peer(), "sb3": in_process("no module", "")}})
    report(cfg, "play-outs", rates["ours"], "games/s", "a peer", rates["peer"])
    report(cfg, "play-outs, moves", 7 * rates["ours"], "moves/s")
    rates = in_turns(cfg, {{"ours": counted("again", {second}), "{only}": counted("only", 1)}})
    report(cfg, "a move", 1 / rates["ours"], "ms")
{last}
"""


@pytest.fixture
def checkout(tmp_path):
    """A function: a checkout whose two rows do so many units in a piece of work."""

    def make(name, first, second, only="old", last=""):
        folder = tmp_path / name / "experiments" / "bench"
        folder.mkdir(parents=True)
        for package in (folder, folder.parent):
            (package / "__init__.py").touch()
        (folder / "turns.py").write_text(TURNS)
        code = NN.format(log=tmp_path / "log", me=name, first=first, second=second, only=only, last=last)
        (folder / "nn.py").write_text(code)
        return tmp_path / name

    return make


def compared(here, there, capfd, monkeypatch):
    """Exit status, and the printed rows."""
    monkeypatch.setattr(against, "ROOT", here)
    try:
        bench.main(turns.Config("nn", against=there, json=True, seconds=0.01, threads=3))
        status = 0
    except SystemExit as ended:
        status = ended.code
    return status, [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_rows_take_turns_and_a_slower_one_is_found(checkout, tmp_path, capfd, monkeypatch):
    """A piece of work has 10,000 times the units of the other: no machine is so uneven."""
    here, there = checkout("here", 10**4, 1, only="new"), checkout("there", 1, 10**4)
    status, (first, second, new, old) = compared(here, there, capfd, monkeypatch)
    assert status == 1
    assert first["bench"] == "play-outs" and first["not_slower"] and first["low"] > 10
    assert first["low"] <= first["ratio"] <= first["high"]
    assert second["bench"] == "a move: ours" and not second["not_slower"] and second["high"] < 0.1
    assert new == {"bench": "a move: new", "only_in": str(here), "not_slower": None}
    assert old == {"bench": "a move: old", "only_in": str(there), "not_slower": None}

    work = (tmp_path / "log").read_text().splitlines()
    assert work[:2] == ["here ours", "there ours"], "each is warmed up"
    runs = [line for i, line in enumerate(work[2:]) if line != work[i + 1]]
    assert runs.count("here ours") >= 7 and runs.count("there ours") >= 7, "pairs of turns alternate their order"
    assert work.count("here only") == work.count("there only") == 1, "a row that the other lacks takes no turns"


@pytest.mark.slow
def test_a_checkout_is_not_slower_than_itself(checkout, capfd, monkeypatch):
    here = checkout("here", 10**4, 10**4)
    monkeypatch.setattr(against, "REACHED", 1e-3)
    status, rows = compared(here, checkout("there", 1, 1), capfd, monkeypatch)
    assert status == 0 and [row["not_slower"] for row in rows] == [True] * 3


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused(checkout, tmp_path, capfd, monkeypatch):
    here = checkout("here", 1, 1)
    with pytest.raises(ValueError, match=r"nothing to take turns with in .*nowhere/experiments/bench/nn\.py"):
        compared(here, tmp_path / "nowhere", capfd, monkeypatch)
    with pytest.raises(RuntimeError, match=r"the benchmark of .*broken ended with status 1"):
        compared(here, checkout("broken", 1, 1, last="    raise OSError('no such peer')"), capfd, monkeypatch)
    assert "no such peer" in capfd.readouterr().err


def test_the_interval_reaches_or_not():
    low, high = against.interval([0.9, 1.0, 1.1] * 5)
    assert 0.9 <= low < 1.0 < high <= 1.1
    assert against.interval([0.5] * 15) == (0.5, 0.5)
