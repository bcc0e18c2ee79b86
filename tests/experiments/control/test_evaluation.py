"""How a run is measured now and then: what that may cost, what is said, and that nothing is learned from it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from test_dqn import tiny

from experiments.control import dqn, expectations
from experiments.control.evaluation import Evaluation
from rlkit.logger import Timer


def evaluation(total, took, latest=None, steps=1000, length=0.0):
    """Of a run of `total` seconds, whose evaluations took `took` of them; ten episodes took `latest` the last time."""
    timer = Timer()
    timer.total = lambda: total
    timer.seconds |= {"evaluate": took, "act": 1.0, "env": 1.0}
    timer.latest |= {} if latest is None else {"evaluate": latest}
    made = object.__new__(Evaluation)
    made.run = SimpleNamespace(timer=timer, cfg=SimpleNamespace(eval_episodes=10))
    made.experience = SimpleNamespace(steps=steps, episodes=SimpleNamespace(mean_length=lambda: length))
    made._begun = 0
    return made


@pytest.mark.parametrize(
    "run, episodes",
    [
        ({"total": 1000, "took": 0, "latest": 20}, 10),
        ({"total": 1000, "took": 94, "latest": 20}, 3),  # 6 of 100 seconds are left, two an episode
        ({"total": 1000, "took": 99, "latest": 20}, 0),
        ({"total": 1000, "took": 101, "latest": 20}, 0),
        ({"total": 20, "took": 0}, 1),  # the first, and no episode has ended yet
        ({"total": 20, "took": 0, "length": 100.0}, 6),  # 100 steps of 2 ms, half of it added for safety: .3 s
        ({"total": 20, "took": 0, "length": 1000.0}, 0),
    ],
)
def test_evaluations_take_a_tenth_of_the_run(run, episodes):
    assert evaluation(**run)._affordable() == episodes


@pytest.mark.slow
def test_what_is_learned_and_the_last_score_do_not_depend_on_how_many_episodes_were_affordable(
    tmp_path, monkeypatch, capsys
):
    ends = []
    for episodes in (0, 1, 2, 4):
        (tmp_path / str(episodes)).mkdir()
        monkeypatch.chdir(tmp_path / str(episodes))
        monkeypatch.setattr(Evaluation, "_affordable", lambda self, n=episodes: n)
        folder = dqn.main(tiny(frames=900, eval_every=400, eval_episodes=4))
        said = [line for line in capsys.readouterr().err.splitlines() if "evaluati" in line]
        score = json.loads((folder / "agent" / "agent.json").read_text())["score"]
        ends.append(((folder / "agent" / "weights.safetensors").read_bytes(), score))
        assert said[-2] == "evaluating 4 episodes" and score["episodes"] == 4
        assert said[-1].startswith("last evaluation at 9") and f"{score['mean']:.2f} (" in said[-1]
        if episodes == 0:
            left_out = "left out: an episode takes more than 10% of the run's time so far"
            assert [line.endswith(left_out) for line in said[:-2]] == [True, True]
        else:
            fewer = {1: "evaluating 1 episode, not 4", 2: "evaluating 2 episodes, not 4", 4: "evaluating 4 episodes"}
            assert said[0] == said[2] == fewer[episodes] and "so far" not in said[1] and "best" in said[3]
            assert said[1].endswith(f", {episodes} episode{'s' * (episodes > 1)}")
    assert all(end == ends[0] for end in ends)


def test_when_to_expect_something_is_said_once_and_of_runs_like_those_that_were_measured(monkeypatch, capsys):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(expectations.time, "monotonic", lambda: clock.now)

    def said(cfg):
        expect = expectations.Expectation(cfg)
        for clock.now in (0.0, 9.0, 11.0, 30.0):
            expect(int(20_000 + 2_000 * clock.now))
        return capsys.readouterr().err.splitlines()

    pong = dqn.PRESETS["fast"]
    assert said(replace(pong, seed=5, minutes=30)) == [
        f"in three runs like this one the return {what}"
        for what in (
            "began to rise after 600,000 to 1,300,000 frames: here in 5 to 10 minutes",
            "passed 0 after 1,900,000 to 2,800,000 frames: here in 15 to 23 minutes",
        )
    ]
    for other in ({"env": "breakout"}, {"batch_size": 64}, {"resume": "runs/dqn/one"}, {"preset": "nature"}):
        assert not said(replace(pong, **other))
