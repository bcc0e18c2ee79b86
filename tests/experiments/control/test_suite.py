"""Statistics by hand, the page's tables, and a whole suite on the toy."""

import csv
import dataclasses
import io
import json
import os
import signal
import threading
import time

import numpy as np
import pytest

from envs.atari import reference_scores
from experiments.control import suite as atari_suite
from experiments.control import suite_page
from experiments.control import suite_runs as suite
from experiments.control.suite import Config, companions, time_left
from experiments.control.suite_runs import Run, Suite
from rlkit import processes
from rlkit.command_line import parse
from rlkit.errors import DamagedFile
from rlkit.parallel.actors import ActorConfig
from rlkit.saved_config import load_config


def finished(game, seed, score, preset="fast", protocol="nature"):
    more = {"low": score - 1, "high": score + 1, "episodes": 10, "protocol": protocol}
    return Run(preset, game, seed, "finished", 4_000_000, score, **more, **suite.normalised(game, score))


def arrays(*games):
    return [np.array(scores, float) for scores in games]


# -- statistics ------------------------------------------------------------------------------------------------------


def test_iqm_leaves_out_the_lowest_and_the_highest_quarter_of_all_runs():
    assert suite.iqm(arrays([0, 1, 2, 3], [4, 5, 6, 100])) == 3.5  # of 2, 3, 4, 5
    assert suite.iqm(arrays([1, 2, 9])) == 4  # fewer than four: nothing to leave out
    assert suite.iqm(arrays([100, 0, 1], [2, 3])) == 2  # of five, one at each end: 1, 2, 3; games of unequal runs
    np.testing.assert_array_equal(suite.iqm([np.array([[0.0, 4], [8, 8]]), np.array([[1.0, 3], [0, 9]])]), [2, 8])


@pytest.mark.slow
def test_iqm_is_the_trimmed_mean_that_rliable_takes():
    stats = pytest.importorskip("scipy.stats")
    for n in (1, 4, 7, 15, 26):
        scores = np.random.default_rng(n).normal(size=(n, 3))
        assert suite.iqm(list(scores.T)) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))


def test_median_is_over_games_of_their_means():
    assert suite.median(arrays([0, 2], [10, 30], [4, 4])) == 4  # of 1, 20, 4
    assert suite.median(arrays([0, 2], [10])) == 5.5


def test_profile_is_the_share_of_runs_above():
    shares = suite.profile(arrays([0, 1], [2, 3]), np.array([-1, 0, 0.5, 1, 2.9, 3]))
    np.testing.assert_array_equal(shares, [1, 0.75, 0.75, 0.5, 0.25, 0])


def test_resampling_stays_within_a_game():
    drawn = suite.resample(arrays([0, 1, 2], [10, 11]), 500)
    assert [d.shape for d in drawn] == [(500, 3), (500, 2)]
    assert set(drawn[0].ravel()) == {0, 1, 2} and set(drawn[1].ravel()) == {10, 11}
    assert (drawn[0] == drawn[0][:, :1]).all(1).any(), "with replacement"


def test_intervals():
    # Seeds that agree: a point, however far apart the games are.
    for statistic, value in ((suite.iqm, 3), (suite.median, 3)):
        assert suite.interval(statistic, arrays([1, 1], [5, 5]), resamples=50) == (value, value)
    # Two seeds 0 and 1 of one game: means 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    assert suite.interval(suite.median, arrays([0, 1])) == (0, 1)
    assert suite.interval(suite.median, arrays([0, 1]), level=0.4) == (0.5, 0.5)
    low, high = suite.interval(lambda s: suite.profile(s, np.array([-1.0, 0.5, 2.0])), arrays([0, 1]))
    np.testing.assert_array_equal([low, high], [[1, 0, 0], [1, 1, 0]])


def test_bins_hold_means_and_nothing_where_no_episode_ended():
    edges = np.array([0.0, 10, 20, 30])
    out = suite.binned(np.array([1.0, 10, 11, 30, 31, 0]), np.array([2.0, 4, 5, 7, 100, 100]), edges)
    np.testing.assert_array_equal(out, [3, 5, 7])  # 31 and 0 lie outside
    np.testing.assert_array_equal(suite.binned(np.array([15.0]), np.array([1.0]), edges), [np.nan, 1, np.nan])
    assert np.isnan(suite.binned(np.empty(0), np.empty(0), edges)).all()


# -- published scores ------------------------------------------------------------------------------------------------


def test_normalisation_names_its_column():
    # Breakout: random 1.7, human 31.8 in the 2015 paper and 30.5 in the 57-game suites.
    scores = suite.normalised("breakout", 16.75)
    assert scores == {"human_nature": pytest.approx(15.05 / 30.1), "human_57": pytest.approx(15.05 / 28.8)}
    assert suite.normalised("catch", 1.0) == {"human_nature": None, "human_57": None}


def test_the_published_table_is_whole():
    table = reference_scores()
    assert len(table) == 49
    for row in table.values():
        assert row.keys() == {"random", "human_nature", "human_57", "dqn_nature", "linear", "dopamine"}
        assert row["dopamine"].keys() == suite_page.MARKERS.keys()
        assert all(list(curve) == ["5", "10", "20", "40", "100", "199"] for curve in row["dopamine"].values())
    # Mnih et al. 2015, Extended Data Table 2, and its text: DQN beats the other learners in 43 games.
    assert (table["alien"]["linear"], table["pong"]["linear"], table["zaxxon"]["linear"]) == (939.2, -19, 3365)
    assert sum(row["dqn_nature"] > row["linear"] for row in table.values()) == 43


def test_dopamine_is_read_at_the_nearest_frames_not_above_ours():
    nearest = [suite_page.nearest_millions(int(m * 1e6)) for m in (4.9, 5, 39, 40, 200)]
    assert nearest == [None, 5, 20, 40, 199]
    one = Suite(12_000_000, [finished("pong", 1, 3.0), Run("fast", "catch", 1)])
    text = suite_page.dopamine_scores(one)
    assert "at 10 M frames" in text and "training score, sticky actions" in text
    assert suite_page.number(reference_scores()["pong"]["dopamine"]["Rainbow"]["10"]) in text
    assert "None is published at 4 M" in suite_page.dopamine_scores(dataclasses.replace(one, frames=4_000_000))


# -- what is there and what is missing -------------------------------------------------------------------------------


def folder(tmp_path, name, seed, trained, score=1.0, env="pong", frames=10_000):
    """A run's folder as `dqn` leaves it, without its network."""
    config = {"preset": "fast", "env": env, "seed": seed, "frames": frames, "batch_size": 128, "num_envs": 16}
    config |= {"samples_per_step": 8, "trainer": {"accumulate": 1}}
    path = tmp_path / "runs" / "dqn" / name
    (path / "agent").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    measured = {"mean": score, "low": 0.5, "high": 1.5, "episodes": 10, "protocol": "nature"}
    agent = {"trained": {"frames": trained}, "score": None if score is None else measured}
    (path / "agent" / "agent.json").write_text(json.dumps(agent))


def test_only_runs_with_all_frames_and_a_score_are_finished(tmp_path):
    folder(tmp_path, "a", 1, 10_048)
    folder(tmp_path, "b", 2, 9_990)  # the last update needs no frames of its own
    folder(tmp_path, "c", 3, 5_000)  # an evaluation on the way
    folder(tmp_path, "d", 4, 10_000, score=None)  # stopped in the last evaluation
    folder(tmp_path, "e", 1, 2_000)  # the same run, begun twice
    runs = suite.collect(tmp_path, suite.cells(["fast"], ["pong", "breakout"], [1, 2, 3, 4]))
    assert [r.seed for r in runs if r.state == "finished"] == [1, 2]
    assert [(r.seed, r.score, r.frames) for r in runs if r.state == "unfinished"] == [(3, None, 5000), (4, None, 10000)]
    assert [r.game for r in runs if r.state == "missing"] == ["breakout"] * 4
    assert runs[0].folder == "runs/dqn/a" and runs[0].human_nature == pytest.approx(21.7 / 30)
    assert [(r.game, r.seed) for r in runs[:3]] == [("pong", 1), ("breakout", 1), ("pong", 2)], (
        "all games, seed by seed"
    )


def partly():
    runs = [finished("pong", 1, 15.0), finished("pong", 2, 10.0), Run("fast", "breakout", 1), finished("catch", 1, 0.5)]
    runs += [Run("fast", "breakout", 2, "unfinished", 1_500_000), finished("catch", 2, 0.7)]
    return Suite(4_000_000, runs, ["a machine"], "--num-envs 8")


def test_aggregates_say_what_they_are_over():
    nature, fifty_seven = suite.aggregates(partly())
    assert (nature["games"], nature["games_planned"], nature["runs"], nature["runs_planned"]) == (1, 2, 2, 4)
    assert nature["median"] == pytest.approx(33.2 / 30) and fifty_seven["median"] == pytest.approx(33.2 / 35.3)
    assert nature["iqm_interval"] == pytest.approx([30.7 / 30, 35.7 / 30])
    single = suite.aggregates(Suite(1, [finished("pong", 1, 15.0)]))[0]
    assert single["iqm"] == pytest.approx(35.7 / 30) and single["iqm_interval"] is None
    assert suite.aggregates(Suite(1, [Run("fast", "pong", 1)]))[0]["median"] is None


def test_files_round_trip():
    runs = partly().runs
    for row, before in zip(csv.DictReader(io.StringIO(suite.to_csv(runs))), runs, strict=True):
        assert row["game"] == before.game and row["state"] == before.state
        assert (float(row["score"]) if row["score"] else None) == before.score
    values = json.loads(suite.to_json(partly()))
    assert [Run(**row) for row in values["runs"]] == runs and values["aggregates"] == suite.aggregates(partly())


@pytest.mark.slow
def test_the_page_shows_what_is_missing_and_needs_nothing_else():
    pytest.importorskip("matplotlib", reason="pictures need the extra `plot`")
    x = np.linspace(1, 4_000_000, 50)
    whole = dataclasses.replace(partly(), curves={("fast", "pong", s): (x, x / 1e6 + s) for s in (1, 2)})
    text = suite_page.page(whole)
    assert "4 of 6 runs" in text and "unfinished, at 1.5 M frames" in text and "a machine" in text
    assert text.count("<svg") == 6  # profile, legend, three games, bars
    assert not any(word in text for word in ("<script", "src=", "@import", "url(http", "nan"))
    rows = [line for line in suite_page.raw_scores(whole).splitlines() if line.startswith("<tr><td>breakout")]
    assert len(rows) == 1 and "missing" in rows[0] and "0 of 2" in rows[0] and "401.2" in rows[0]
    assert suite_page.page(whole) == text, "drawn again it is the same"
    assert "no run" in suite_page.page(Suite(4_000_000, [Run("fast", "pong", 1)])), "nothing there, and still a page"


# -- the command -----------------------------------------------------------------------------------------------------

FRAMES = 800
TINY = (
    "--num-envs=8 --batch-size=32 --replay=2000 --learning-starts=300 --target-every=50 --eval-episodes=4 --device=cpu"
    " --threads=1 --width=0.25 --trainer.no-progress --trainer.precision=fp32 --trainer.log-every=10"
    " --trainer.save-every=20"
)


def tiny(**more):
    return Config(**{"envs": ("catch",), "seeds": (1, 2), "frames": FRAMES, "extra": tuple(TINY.split())} | more)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"envs": ("pnog",)}, "did you mean pong"),
        ({"envs": ()}, "--envs is empty"),
        ({"seeds": ()}, "--seeds is empty"),
        ({"preset": ("fats",)}, "no preset 'fats'; choose from fast"),
        ({"extra": ("--seed", "3")}, "--seed cannot follow"),
        ({"extra": ("--trainer.steps=3",)}, "cannot follow `--` in a suite"),
        ({"extra": ("--batch-size", "0")}, "--batch-size must be at least 1"),
        ({"report_only": True}, "--resume"),
    ],
)
def test_what_no_run_would_take_is_refused_before_any_begins(change, message, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="pictures need the extra `plot`")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        atari_suite.main(tiny(**change))
    assert not list(tmp_path.iterdir())


def test_command_line():
    words = ["--envs", "pong", "MsPacman", "--seeds", "1", "2", "--agents", "fast", "nature", "--", "--num-envs", "8"]
    cfg = atari_suite.checked(parse(atari_suite.PRESETS, words))
    assert cfg.envs == ("pong", "ms_pacman") and cfg.preset == ("fast", "nature") and cfg.seeds == (1, 2)
    words = atari_suite.arguments(cfg, Run("nature", "pong", 2))
    assert words == ["--preset=nature", "--env=pong", "--seed=2", "--frames=4000000", "--num-envs", "8"]
    assert parse(atari_suite.PRESETS, ["--preset", "rainbow"]).preset == ("rainbow",)


def test_who_learns_together():
    a, b, c = (Run("fast", "pong", seed) for seed in (1, 2, 4))
    other, begun = Run("fast", "breakout", 2), Run("fast", "pong", 3, folder="runs/dqn/pong__3")
    assert companions([a, other, b, begun, c], 3) == [a, b]  # 3 has begun: it goes on by itself
    assert companions([a, other, b, begun, c], 1) == [a] and companions([begun, c], 3) == [begun]
    assert companions([c, a, b], 3) == [c]
    cfg = parse(atari_suite.PRESETS, ["--together", "2"])
    assert atari_suite.arguments(cfg, a, 2)[-1] == "--together=2"


def test_time_left():
    todo = [Run("fast", "pong", 3, frames=500), Run("nature", "pong", 3)]
    assert time_left({}, todo, 1000) == ""
    # fast: 0.6 s a frame for 500 frames; nature not seen yet, so the same rate for 1000
    assert time_left({"fast": (600.0, 1000.0)}, todo, 1000) == "; about 15 min to the end"
    assert time_left({"fast": (600.0, 1000.0), "nature": (7.2e6, 1000.0)}, todo, 1000) == "; about 2000.1 h to the end"


@pytest.mark.slow
def test_a_suite_stops_goes_on_and_leaves_finished_runs_alone(tmp_path, monkeypatch, capfd):
    pytest.importorskip("matplotlib", reason="pictures need the extra `plot`")
    monkeypatch.chdir(tmp_path)

    def run_command(module, arguments, suite_dir):  # the first run ends at once; then somebody presses Ctrl-C
        if "--seed=2" in arguments:
            raise KeyboardInterrupt
        folder(suite_dir, "catch__1", 1, FRAMES, env="catch", frames=FRAMES)
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(processes, "run_command", run_command)
        suite_dir = atari_suite.main(tiny())
    assert "stopped; go on:" in capfd.readouterr().err and not (suite_dir / "report.html").exists()
    cfg = dataclasses.replace(load_config(Config, suite_dir), resume=str(suite_dir))
    first = suite_dir / "runs" / "dqn" / "catch__1" / "agent" / "agent.json"
    as_it_was = first.read_bytes(), first.stat().st_mtime_ns

    def stop():
        for _ in range(3000):
            if any(suite_dir.glob("runs/dqn/catch*__2__*/checkpoints/*")):
                return os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.02)

    threading.Thread(target=stop, daemon=True).start()
    atari_suite.main(cfg)  # the second one, for real, until its first checkpoint is there
    assert "stopped; go on:" in capfd.readouterr().err
    second = atari_suite.collect(cfg, suite_dir)[1]
    assert second.state == "unfinished" and 0 < second.frames < FRAMES

    atari_suite.main(dataclasses.replace(cfg, report_only=True))
    assert "1 of 2 runs" in (suite_dir / "report.html").read_text()

    assert atari_suite.main(cfg) == suite_dir
    said = capfd.readouterr().err
    assert "run 2 of 2" in said and "run 1 of 2" not in said and "resumed at step" in said
    assert (first.read_bytes(), first.stat().st_mtime_ns) == as_it_was
    assert "2 of 2 runs" in (suite_dir / "report.html").read_text()
    rows = list(csv.DictReader((suite_dir / "scores.csv").open()))
    assert [row["state"] for row in rows] == ["finished"] * 2 and -1 <= float(rows[1]["score"]) <= 1
    assert len(suite.training_curve(suite_dir / rows[1]["folder"])[0]), "its curve is found"
    assert len(list(suite_dir.glob("runs/dqn/*"))) == 2 and not list(suite_dir.rglob("replay.ring"))
    assert json.loads((suite_dir / "scores.json").read_text())["hardware"], "on what it ran"
    with pytest.raises(ValueError, match="--frames cannot change"):
        atari_suite.main(dataclasses.replace(cfg, frames=5000))


@pytest.mark.slow
def test_runs_of_a_suite_over_actors(cluster, tmp_path, monkeypatch, capfd):
    pytest.importorskip("matplotlib", reason="pictures need the extra `plot`")
    monkeypatch.chdir(tmp_path)
    suite_dir = atari_suite.main(tiny(elsewhere=ActorConfig(actors=2, actor_timeout=1)))
    said = capfd.readouterr().err
    assert "2 runs, 2 at once" in said and said.count("finished") == 2
    assert [run.state for run in atari_suite.collect(tiny(), suite_dir)] == ["finished"] * 2
    assert not list(suite_dir.rglob("replay.ring")) and (suite_dir / "report.html").exists()


def test_a_damaged_agent_has_not_finished_and_a_damaged_configuration_is_named(tmp_path, capfd):
    folder(tmp_path, "a", 1, 10_048)
    (tmp_path / "runs" / "dqn" / "a" / "agent" / "agent.json").write_text('{"ki')
    (cell,) = suite.collect(tmp_path, [("fast", "pong", 1)])
    assert cell.state == "unfinished" and cell.folder == "runs/dqn/a"
    assert "a/agent/agent.json is damaged, so its run counts as unfinished" in capfd.readouterr().err
    for text in ("{", '{"preset": "fast", "game": "pong", "seed": [1]}'):
        (tmp_path / "runs" / "dqn" / "a" / "config.json").write_text(text)
        with pytest.raises(DamagedFile, match=r"a/config\.json is no configuration"):
            suite.collect(tmp_path, [("fast", "pong", 1)])


def test_a_finished_run_loses_its_ring_also_if_its_companion_fails(tmp_path, monkeypatch):
    def run_command(module, arguments, suite_dir):
        folder(suite_dir, "catch__1", 1, FRAMES, env="catch", frames=FRAMES)
        ring = suite_dir / "runs" / "dqn" / "catch__1" / "checkpoints" / "replay.ring"
        ring.parent.mkdir()
        ring.write_bytes(b"frames")
        return 1

    monkeypatch.setattr(processes, "run_command", run_command)
    atari_suite.train(atari_suite.checked(tiny(together=2)), tmp_path)
    assert list(tmp_path.glob("runs/dqn/catch__1/checkpoints")) and not list(tmp_path.rglob("replay.ring"))


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others_and_is_shown(tmp_path, monkeypatch, capfd):
    pytest.importorskip("matplotlib", reason="pictures need the extra `plot`")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "run_command", lambda module, arguments, suite_dir: 1)
    with pytest.raises(ValueError, match=r"2 of 2 runs have not finished; --resume"):
        atari_suite.main(tiny())
    assert capfd.readouterr().err.count("failed; its own message stands above") == 2
    (page,) = tmp_path.glob("runs/suite/*/report.html")
    assert "0 of 2 runs" in page.read_text()
