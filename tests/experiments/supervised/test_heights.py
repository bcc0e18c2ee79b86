"""Regression on heights: both ways to the line, the published figures, and files with something wrong in them."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.supervised import heights
from experiments.supervised.descent_pictures import camel, descend_camel
from experiments.supervised.galton import COUNTS, galton_table
from experiments.supervised.regression import least_squares
from experiments.supervised.tables import read_table
from rlkit.command_line import parse
from rlkit.saved_agents import load_agent_files
from rlkit.trainer import Trainer

DATA = Path(os.environ.get("RLKIT_DATA", Path(__file__).parents[4] / "shared" / "data")) / "ml" / "heights"
NO_DATA = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data in {DATA}; RLKIT_DATA may name another folder")


def config(steps=600, **values):
    return heights.Config(
        trainer=replace(heights.BASE, steps=steps, save_every=10, progress=False, log_every=500), **values
    )


def coefficients(run_dir):
    """What a run has saved, from its weights as they lie on disk."""
    _, weights = load_agent_files(run_dir)
    slopes = (weights["w"] / weights["spread"]).numpy()
    return np.array([weights["b"].item() - slopes @ weights["mean"].numpy(), *slopes])


def write(path, text):
    path.write_text(text)
    return str(path)


# -- the closed form ---------------------------------------------------------------------------------------------------


def test_three_points_by_hand():
    # Means 1 and 8/3, sums of products 3 and 2: slope 3/2, intercept 8/3 - 3/2.
    x, y = np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 4.0])
    np.testing.assert_allclose(least_squares(x, y, np.ones(3)), [7 / 6, 3 / 2], rtol=1e-13)
    # The middle one twice: 11/4 is the mean, the slope stays, by symmetry.
    np.testing.assert_allclose(least_squares(x, y, np.array([1.0, 2, 1])), [11 / 4 - 3 / 2, 3 / 2], rtol=1e-13)
    # The last one not at all: the line through the other two.
    np.testing.assert_allclose(least_squares(x, y, np.array([1.0, 1, 0])), [1, 2], rtol=1e-13)


@pytest.mark.parametrize(
    "x",
    [[[1.0, 2.0]] * 3, [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], [[1.0, 5.0], [2.0, 3.0]]],
    ids=["same", "twice", "few"],
)
def test_what_no_line_is_determined_by_is_refused(x):
    with pytest.raises(ValueError, match="do not determine an intercept and 2 slopes"):
        least_squares(np.array(x), np.arange(len(x)), np.ones(len(x)))


def test_galtons_table_has_the_published_line():
    table = galton_table()
    assert table.x.shape == (928, 1)
    rows = [sum(row) for row in COUNTS.values()]
    assert rows == [14, 23, 66, 78, 211, 219, 183, 68, 43, 19, 4]  # its margins, as printed
    columns = np.array(list(COUNTS.values())).sum(0).tolist()
    assert columns == [5, 7, 32, 59, 48, 117, 138, 120, 167, 99, 64, 41, 17, 14]
    intercept, slope = least_squares(table.x, table.y, table.weight)
    assert round(intercept, 2) == 23.94 and round(slope, 4) == 0.6463


@NO_DATA
def test_galtons_table_is_that_of_the_file():
    table, file = galton_table(), read_table(DATA / "Galton.csv", "child", ["parent"])
    assert sorted(zip(table.x[:, 0], table.y, strict=True)) == sorted(zip(file.x[:, 0], file.y, strict=True))


@NO_DATA
@pytest.mark.parametrize(
    "name, target, predictor, weight, where, line",
    [
        ("PearsonLee.csv", "child", "parent", "frequency", ("par=Father", "chl=Son"), (33.268, 0.5193)),
        ("father_son_1078.csv", "Son", "Father", None, (), (33.893, 0.5140)),
    ],
)
def test_pearsons_published_lines(name, target, predictor, weight, where, line):
    table = read_table(DATA / name, target, [predictor], weight, where)
    intercept, slope = least_squares(table.x, table.y, table.weight)
    assert (round(intercept, 3), round(slope, 4)) == line


# -- gradient descent --------------------------------------------------------------------------------------------------


def families(path, rows=60):
    """A file with two predictors that go together, one of words, and weights; and what their line must be."""
    rng = np.random.default_rng(5)
    father = np.round(rng.normal(69, 2.5, rows), 1)
    mother = np.round(64 + 0.5 * (father - 69) + rng.normal(0, 2, rows), 1)
    boy, count = rng.integers(2, size=rows), rng.integers(1, 4, rows) / 2
    height = np.round(22 + 0.4 * father + 0.3 * mother + 5 * boy + rng.normal(0, 2, rows), 1)
    cells = zip(father, mother, np.array(["girl", "male"])[boy], height, count, strict=True)
    write(path, "father,mother,gender,height,count\n" + "".join(",".join(map(str, row)) + "\n" for row in cells))
    a = np.column_stack([np.ones(rows), father, mother, boy])
    return np.linalg.solve((a.T * count) @ a, (a.T * count) @ height)  # the normal equations


@pytest.mark.slow
def test_descent_on_galtons_table_ends_at_the_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_dir = heights.main(config())
    table = galton_table()
    slope = np.cov(table.x[:, 0], table.y)[0, 1] / table.x[:, 0].var(ddof=1)
    line = [table.y.mean() - slope * table.x.mean(), slope]
    assert np.abs(coefficients(run_dir) - line).max() < 1e-6
    text = capsys.readouterr().err
    assert text.count("child = 23.9415 + 0.6463 parent") == 2 and "not the same yet" not in text
    back = np.cov(table.x[:, 0], table.y)[0, 1] / table.y.var(ddof=1)
    assert f"parent = {table.x.mean() - back * table.y.mean():.4f} + {back:.4f} child" in text
    for name in ("line", "minima"):
        assert (run_dir / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    info = json.loads((run_dir / "agent" / "agent.json").read_text())
    assert info["kind"] == "line" and info["score"]["rows"] == 928 and info["score"]["difference"] < 1e-6
    assert info["score"]["r2"] == pytest.approx(slope * back)

    assert heights.main(heights.Config(predict=str(run_dir), values=(70.0,))) == run_dir
    assert f"{line[0] + 70 * line[1]:.4f} at 70" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--values wants 1, of parent, not 2"):
        heights.predict(str(run_dir), [70, 71])


@pytest.mark.slow
def test_descent_with_several_predictors_words_and_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(heights, "show", lambda *_: None)
    line = families(tmp_path / "families.csv")
    columns = {"target": "height", "predictors": ("father", "mother", "gender"), "weight": "count"}
    run_dir = heights.main(config(data="families.csv", **columns))
    assert np.abs(coefficients(run_dir) - line).max() < 1e-6
    info = json.loads((run_dir / "agent" / "agent.json").read_text())
    assert info["config"]["predictors"] == ["father", "mother", "[gender=male]"]


def test_too_few_steps_are_said_to_be_too_few(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run_dir = heights.main(config(steps=20))
    text = capsys.readouterr().err
    assert "not the same yet" in text and "the extra `plot`" in text
    assert (run_dir / "agent" / "agent.json").exists() and not list(run_dir.glob("*.png"))


@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_where_an_unbroken_one_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(heights, "show", lambda *_: None)
    unbroken = heights.main(config(steps=40))
    update = Trainer.update

    def cut_off(self, batch):
        if self.run_dir and self.step == 25:
            raise InterruptedError
        return update(self, batch)

    monkeypatch.setattr(Trainer, "update", cut_off)
    with pytest.raises(InterruptedError):
        heights.main(config(steps=40))
    monkeypatch.setattr(Trainer, "update", update)
    (cut,) = set((tmp_path / "runs" / "heights").iterdir()) - {tmp_path / unbroken}
    assert not (cut / "agent").exists()
    heights.main(config(steps=40, resume=str(cut)))
    assert coefficients(cut).tolist() == coefficients(unbroken).tolist()
    moving = write(tmp_path / "b.csv", "child,parent\n1,2\n2,4\n4,5\n")
    run_dir = heights.main(config(steps=20, data=moving))
    (tmp_path / "b.csv").rename("c.csv")
    assert heights.main(config(steps=25, data="c.csv", resume=str(run_dir))) == run_dir
    with pytest.raises(ValueError, match="--data cannot change"):
        heights.main(config(resume=str(cut), data=write(tmp_path / "a.csv", "child,parent\n1,2\n2,4\n4,5\n")))


# -- the surface -------------------------------------------------------------------------------------------------------


def test_momentum_passes_the_minimum_where_plain_descent_stays():
    # Where both derivatives vanish: y = -x / 2, and x^4 - 4.2 x^2 + 3.5 = 0 beside x = 0; the smaller root is a saddle.
    x = -np.sqrt((4.2 + np.sqrt(4.2**2 - 4 * 3.5)) / 2)
    plain, rolled = descend_camel(0.0), descend_camel(0.9)
    assert plain[0].tolist() == rolled[0].tolist() == [-2, 0]
    np.testing.assert_allclose(plain[-1], [x, -x / 2], atol=1e-5)
    np.testing.assert_allclose(rolled[-1], [0, 0], atol=1e-5)
    assert camel(*rolled[-1]) < 1e-9 and camel(*plain[-1]) == pytest.approx(0.298638, abs=1e-6)
    assert (np.diff([camel(*at) for at in plain]) < 1e-12).all()  # downhill all the way
    assert max(np.diff([camel(*at) for at in rolled])) > 0.1  # over a ridge


# -- files with something wrong in them --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("child,mother\n1,2\n", "no column 'parent'; its first line says child, mother"),
        ("", "no column 'child'; its first line says nothing"),
        ("child,parent,parent\n1,2,3\n", "two columns 'parent'"),
        ("child,parent\n", "has no rows$"),
        ("child,parent\n1,2\n3,tall\n", r"line 3: parent is 'tall', where a number"),
        ("child,parent\n1,2\n\n3,\n", r"line 4: parent is '', where a number"),
        ("child,parent\n1,nan\n", r"line 2: parent is 'nan'"),
        ("child,parent\nhigh,1\nlow,2\n", r"line 2: child is 'high'"),
        ("child,parent\n1,a\n2,b\n3,c\n", r"line 2: parent is 'a'"),
        ("child,parent\n1,2\n1,2,3\n", r"line 3: 3 values for 2 columns"),
    ],
)
def test_a_bad_file_says_where(tmp_path, text, message):
    path = write(tmp_path / "bad.csv", text)
    with pytest.raises(ValueError, match=message) as error:
        read_table(path, "child", ["parent"])
    assert path in str(error.value)


def test_a_bad_encoding_a_weight_below_zero_and_a_condition_without_rows(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(b"child,parent\n1,2\n1,\xff\n")
    with pytest.raises(ValueError, match=r"line 3: byte 0xff is no UTF-8"):
        read_table(path, "child", ["parent"])
    write(path, "child,parent,n\n1,2,1\n2,3,-1\n")
    with pytest.raises(ValueError, match="line 3: n is a weight, and below 0"):
        read_table(path, "child", ["parent"], "n")
    with pytest.raises(ValueError, match=r"has no rows where n=7$"):
        read_table(path, "child", ["parent"], where=["n=7"])
    with pytest.raises(ValueError, match="takes COLUMN=VALUE, not 'n'"):
        read_table(path, "child", ["parent"], where=["n"])
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_table(tmp_path / "none.csv", "child", ["parent"])
    assert read_table(path, "child", ["parent"], where=["n=-1"]).y.tolist() == [2]


def test_bad_input_leaves_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="name a CSV file by --data"):
        heights.main(config(target="son"))
    with pytest.raises(ValueError, match="do not determine"):
        heights.main(config(data=write(tmp_path / "one.csv", "child,parent\n1,2\n")))
    with pytest.raises(FileNotFoundError, match="holds no agent"):
        heights.main(config(predict=str(tmp_path)))
    assert not (tmp_path / "runs").exists()


def test_the_commands_mean_what_they_say():
    args = "--data a.csv --predictors father mother --weight n --where par=Father chl=Son"
    cfg = parse(heights.PRESETS, args.split())
    assert (
        cfg.predictors == ("father", "mother") and cfg.where == ("par=Father", "chl=Son") and cfg.trainer.steps == 1000
    )
    assert parse(heights.PRESETS, ["--predict", "x", "--values", "70", "1"]).values == (70.0, 1.0)
