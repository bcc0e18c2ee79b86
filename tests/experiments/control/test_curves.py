"""Runs made by hand: which of them belong together, what they are called, and what is drawn of them."""

import csv
import json
import time

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from experiments.control import curves
from experiments.control.curves import Config, Curve, main, mean_and_range, names, seed, setting, smoothed_curve

BASE = {"preset": "fast", "env": "pong", "seed": 1, "minutes": 0, "batch_size": 32, "trainer": {"lr": 1e-3, "steps": 9}}


def make_run(folder, values, tag="eval/score", **changes):
    """A run folder with one value a minute, at the clocks 100, 200, ..."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(BASE | changes))
    began = time.time()
    writer = EventFileWriter(str(folder))
    for i, value in enumerate(values):
        summary = Summary(value=[{"tag": tag, "simple_value": value}])
        writer.add_event(Event(step=100 * (i + 1), wall_time=began + 60 * i, summary=summary))
    writer.close()
    return folder


def the_names(*changes):
    """By what runs with these changes are called."""
    return names([{"command": "dqn"} | BASE | change for change in changes])


def the_groups(runs):
    called = dict(zip(runs, names([setting(run) for run in runs]), strict=True))
    return curves.grouped([smoothed_curve(run, "eval/score", None) for run in runs], called)


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_setting_is_what_config_says_but_for_the_seed_and_how_it_was_run(tmp_path):
    one = make_run(tmp_path / "dqn" / "a", [], seed=1, minutes=5, threads_in_use=1, resume=None)
    two = make_run(tmp_path / "dqn" / "b", [], seed=2, minutes=0, threads_in_use=2, resume="x")
    other = make_run(tmp_path / "dqn" / "c", [], trainer={"lr": 1e-2, "steps": 9})
    assert setting(one) == setting(two) != setting(other) and (seed(one), seed(two)) == ("1", "2")
    assert setting(one)["command"] == "dqn" and setting(one)["trainer.lr"] == 1e-3
    (tmp_path / "nothing").mkdir()
    assert setting(tmp_path / "nothing") == {"command": "nothing"} and seed(tmp_path / "nothing") == ""


def test_settings_are_called_by_what_differs():
    lr = {"trainer.lr": 1e-2}
    assert the_names({}, {}) == ["pong", "pong"], "nothing: by their world"
    assert the_names({"trainer.lr": 1e-3}, lr) == ["trainer.lr=0.001", "trainer.lr=0.01"]
    assert the_names({"double": True}, {"double": False, "hidden": [64, 32]}) == [
        "double=True",
        "double=False hidden=64,32",
    ]
    assert the_names({}, {"preset": "nature", "batch_size": 128}) == ["fast", "nature"], "its numbers are the preset's"
    assert the_names({}, {"batch_size": 64}, {"env": "qbert"}) == ["pong batch_size=32", "pong batch_size=64", "qbert"]
    assert the_names({}, {"command": "pqn", "preset": "pqn"}) == ["dqn fast", "pqn pqn"]


def test_runs_of_older_versions_are_called_alike(tmp_path):
    new, old = make_run(tmp_path / "dqn" / "a", []), make_run(tmp_path / "dqn" / "b", [])
    config = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({"game": config.pop("env"), **config}))
    assert names([setting(new), setting(old)]) == ["pong", "pong"]


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_a_curve_and_its_running_mean(tmp_path):
    run = make_run(tmp_path / "dqn" / "a", [0, 1, 2, 6])
    one = smoothed_curve(run, "eval/score", None)
    np.testing.assert_array_equal(one.frames, [100, 200, 300, 400])
    np.testing.assert_allclose(one.minutes, [0, 1, 2, 3], atol=0.5)
    np.testing.assert_array_equal(one.smoothed, [0, 1, 2, 6])  # evaluations are as they are
    one = smoothed_curve(run, "eval/score", 3)
    np.testing.assert_allclose(one.smoothed, [1, 3])
    np.testing.assert_array_equal(one.over("frames"), [300, 400])
    with pytest.raises(ValueError, match="no scalars 'eval/scroe'; it has eval/score"):
        smoothed_curve(run, "eval/scroe", None)


def test_mean_and_range_over_seeds_as_far_as_all_go():
    def line(clock, value):
        clock, value = np.array(clock, float), np.array(value, float)
        return Curve(None, "", clock, clock / 100, value, value)

    x, mean, low, high = mean_and_range([line([0, 100], [0, 10]), line([50, 150, 300], [1, 1, 9])], "frames")
    assert (x[0], x[-1], len(x)) == (50, 100, 200)
    np.testing.assert_allclose([mean[0], low[0], high[0]], [3, 1, 5])
    np.testing.assert_allclose([mean[-1], low[-1], high[-1]], [5.5, 1, 10])


def test_settings_are_sorted_by_where_they_ended(tmp_path):
    runs = [
        make_run(tmp_path / "dqn" / "a", [9, 1], seed=1),
        make_run(tmp_path / "dqn" / "b", [0, 5], seed=1, batch_size=64),
        make_run(tmp_path / "dqn" / "c", [0, 3], seed=2),
    ]
    groups = the_groups(runs)
    assert [(name, [one.folder.name for one in group]) for name, group in groups] == [
        ("batch_size=64", ["b"]),
        ("batch_size=32", ["a", "c"]),
    ]
    assert curves.final(groups[1][1]) == 2


# -- the command -------------------------------------------------------------------------------------------------------


def test_picture_and_csv(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="pictures need the extra `plot`")
    runs = (
        make_run(tmp_path / "dqn" / "a", [1, 2], seed=1),
        make_run(tmp_path / "dqn" / "b", [3, 4], seed=2),
        make_run(tmp_path / "dqn" / "c", [5], preset="nature"),
        make_run(tmp_path / "dqn" / "d", [7], tag="losses/loss"),
    )
    cfg = Config(runs, tmp_path / "new" / "out.png", ("eval/score", "losses/loss"), csv=tmp_path / "all" / "points.csv")
    assert main(cfg) == cfg.out and cfg.out.read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "eval/score 5  nature, seed 1\neval/score 3  fast, seed 1, 2\nlosses/loss 7  fast, seed 1\n" in said
    assert "d has no scalars 'eval/score'" in said, "what is left out is named"
    rows = list(csv.DictReader(cfg.csv.open()))
    assert float(rows[0].pop("minutes")) == pytest.approx(0, abs=0.5)
    assert rows[0] == {
        "tag": "eval/score", "setting": "nature", "seed": "1", "run": str(runs[2]), "frames": "100", "value": "5.0",
    }  # fmt: skip
    assert [(row["setting"], row["seed"], row["frames"], row["value"]) for row in rows[1:]] == [
        ("fast", "1", "100", "1.0"), ("fast", "1", "200", "2.0"),
        ("fast", "2", "100", "3.0"), ("fast", "2", "200", "4.0"), ("fast", "1", "100", "7.0"),
    ]  # fmt: skip


def test_worlds_apart_have_a_scale_of_their_own(tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure", reason="pictures need the extra `plot`")
    drawn = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    runs = (
        make_run(tmp_path / "dqn" / "a", [1, 2], env="pong"),
        make_run(tmp_path / "dqn" / "b", [300, 400], env="breakout"),
        make_run(tmp_path / "dqn" / "c", [3, 4], env="pong", seed=2),
    )
    main(Config(runs, tmp_path / "out.png", ("eval/score",), x="frames", apart=True))
    (figure,) = drawn
    assert [axis.get_title() for axis in figure.axes] == ["breakout: 400", "pong (2 seeds): 3"]
    assert figure.axes[0].get_ylim()[0] > 290 and figure.axes[1].get_ylim()[1] < 5


def test_one_colour_a_setting(tmp_path):
    figure = pytest.importorskip("matplotlib.figure", reason="pictures need the extra `plot`").Figure()
    runs = [make_run(tmp_path / "dqn" / str(i), [i, i + 1], seed=i, batch_size=32 << i // 2) for i in range(4)]
    groups = the_groups(runs)
    axis = figure.subplots()
    curves.draw(axis, groups, "minutes", curves.colors([name for name, _ in groups]))
    drawn = [(line.get_label(), line.get_color()) for line in axis.lines if not line.get_label().startswith("_")]
    assert drawn == [("batch_size=64 (2 seeds): 3.5", "C0"), ("batch_size=32 (2 seeds): 1.5", "C1")]
    assert [line.get_color() for line in axis.lines] == ["C0"] * 3 + ["C1"] * 3 and len(axis.collections) == 2
    many = curves.colors([str(i) for i in range(30)])
    assert len(set(many.values())) == 30


def test_what_has_no_such_curve_is_refused(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the extra `plot`")
    run = make_run(tmp_path / "dqn" / "a", [1])
    with pytest.raises(ValueError, match="it has eval/score"):
        main(Config((run,), tmp_path / "out.png", ("eval/scroe",)))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        main(Config((tmp_path / "b",), tmp_path / "out.png"))
    assert not (tmp_path / "out.png").exists()
