"""A search over a toy: a command that reports scores without learning anything, in processes of its own."""

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments import __main__ as experiments
from experiments import tune, tune_actors, tune_trials
from experiments.control import dqn
from experiments.tune import Config, arranged, checked
from experiments.tune_actors import CommandActor
from experiments.tune_search import read_search
from rlkit.command_line import parse
from rlkit.parallel.actors import ActorConfig
from rlkit.saved_config import load_config

optuna = pytest.importorskip("optuna", reason="tune needs the extra `tune`")
pytest.importorskip("plotly", reason="tune needs the extra `tune`")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
ROOT = Path(__file__).parents[2]

# Four evaluations that end at 1 - |log10(lr) + 3| + seed / 100: best at a rate of 1e-3. A batch of 13 fails, 14 reports
# something else, 15 waits to be told to end, 16 waits in trials 2 and 3 until a file is there. Without TensorBoard,
# whose import takes ten times as long as all of this.
TOY = """
import math, os, pathlib, signal, struct, sys, time

def masked_crc(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

def event(step, tag, value):
    def message(number, data):
        return bytes([number << 3 | 2, len(data)]) + data

    one = message(1, tag.encode()) + b"\\x15" + struct.pack("<f", value)
    data = b"\\x09" + struct.pack("<d", time.time()) + b"\\x10" + bytes([step]) + message(5, message(1, one))
    length = struct.pack("<Q", len(data))
    return length + masked_crc(length) + data + masked_crc(data)

def save(number, frame):
    pathlib.Path("stopped").write_text(signal.Signals(number).name)
    sys.exit(0)

pathlib.Path("parent").write_text(str(os.getppid()))
signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGTERM, save)
values = dict(word.split("=") for word in sys.argv[2:])
lr, batch, seed = (float(values[name]) for name in ("--trainer.lr", "--batch-size", "--seed"))
folder = pathlib.Path(f"runs/{sys.argv[1]}/toy__{seed:.0f}__now")
(folder / "checkpoints").mkdir(parents=True)
(folder / "checkpoints" / "replay.ring").write_bytes(b"gigabytes")
if batch == 13:
    sys.exit("error: no batch has 13\\n(TRACEBACK=1 shows where this was raised)")
with open(folder / "events.out.tfevents.1", "wb") as file:
    for i in range(4):
        score = 1 - abs(math.log10(lr) + 3) - 0.1 * (3 - i) + 0.01 * seed
        file.write(event(i, "eval/length" if batch == 14 else "eval/score", score))
        file.flush()
        here = pathlib.Path.cwd()
        while batch == 15 or (batch == 16 and here.name in "23" and not (here.parents[1] / "go").exists()):
            time.sleep(0.01)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy stands for every command."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune_trials, "MODULE", "toy")
    monkeypatch.setattr(tune, "POLL", 0.05)


def study_in(folder):
    return optuna.load_study(study_name="tune", storage=f"sqlite:///{folder / 'study.db'}")


def states(folder):
    return [tune_trials.state_of(trial) for trial in study_in(folder).trials]


def small(**more):
    values = {"command": "dqn", "search": ("trainer.lr=log:1e-5:1e-1", "batch_size=64,128"), "trials": 5}
    return Config(**values | more)


# -- what is searched --------------------------------------------------------------------------------------------------


def searched(*texts, extra=()):
    return read_search(texts, lambda words: parse(dqn.PRESETS, words), extra)


def test_a_field_and_its_values():
    lr, batch, steps, double, mode, gamma = searched(
        "trainer.lr=log:1e-5:1e-2", "batch-size=32,64,128", "n_step=1:5", "double=true,false",
        "trainer.optimizer=adam,rmsprop", "gamma=0.9:0.95",
    )  # fmt: skip
    assert (lr.kind, lr.low, lr.high, lr.log, lr.default) == (float, 1e-5, 1e-2, True, 2e-4)
    assert (batch.name, batch.choices, batch.default) == ("batch_size", ("32", "64", "128"), "128")
    assert (steps.kind, steps.low, steps.high, steps.log, steps.default) == (int, 1, 5, False, 3)
    assert double.default == "true" and mode.choices == ("adam", "rmsprop")
    assert gamma.default is None, "0.99 is not within"
    trial = optuna.trial.FixedTrial({"trainer.lr": 3e-4, "batch_size": "64", "n_step": 2, "double": "false"})
    words = [word for one in (lr, batch, steps, double) for word in one.words(one.suggest(trial))]
    assert words == ["--trainer.lr=0.0003", "--batch-size=64", "--n-step=2", "--no-double"]
    cfg = parse(dqn.PRESETS, words)
    assert (cfg.trainer.lr, cfg.batch_size, cfg.agent.n_step, cfg.agent.double) == (3e-4, 64, 2, False)


def test_a_field_of_several_words():
    images = experiments.load("images")
    (one,) = read_search(("hidden=256 128,64",), lambda words: experiments.parse(images, words), ())
    assert one.default == "256 128" and one.words("64") == ["--hidden", "64"]
    assert experiments.parse(images, one.words("256 128")).hidden == (256, 128)


@pytest.mark.parametrize(
    "text, message",
    [
        ("batch_sise=32,64", r"there is no batch_sise; batch_size\?"),
        ("lr=1e-5:1e-2", r"there is no lr; trainer\.lr\?"),
        ("batch_size", "write NAME=A,B,C"),
        ("batch_size=0:64", "refuses --batch-size=0 .*at least 1, not 0"),
        ("batch_size=32,0", "refuses --batch-size=0"),
        ("batch_size=1.5:64", "refuses --batch-size=1.5"),
        ("priority=0:2", "between 0 and 1, not 2"),
        ("batch_size=64:32", "a range goes up"),
        ("trainer.lr=log:0:1", "begins above 0"),
        ("trainer.optimizer=adam:sgd", "is no number"),
        ("double=yes,no", "is true or false"),
        ("seed=1,2", "the same in all trials"),
        ("eval_every=10:20", "the same in all trials"),
    ],
)
def test_what_cannot_be_searched_is_refused_at_the_start(text, message, capsys):
    with pytest.raises(ValueError, match=message):
        searched(text)


def test_a_search_says_each_thing_once():
    with pytest.raises(ValueError, match="names batch_size twice"):
        searched("batch_size=32,64", "batch_size=1:2")
    with pytest.raises(ValueError, match="--batch-size is searched: leave it out"):
        searched("batch_size=32,64", extra=["--batch_size", "32"])
    with pytest.raises(ValueError, match="--search is empty"):
        searched()


# -- the command line --------------------------------------------------------------------------------------------------


def test_words_for_the_command_are_handed_on():
    line = "dqn --env CartPole-v1 --trials 50 --search trainer.lr=log:1e-5:1e-2 batch_size=32,64,128"
    cfg = experiments.parse(tune, line.split())
    assert (cfg.command, cfg.extra, cfg.trials) == ("dqn", ("--env", "CartPole-v1"), 50)
    assert cfg.search == ("trainer.lr=log:1e-5:1e-2", "batch_size=32,64,128")
    assert shlex.join(arranged(shlex.split("dqn --double --no-prune --preset=fast --jobs 2 -- --seed 3"))) == (
        "dqn --no-prune --jobs 2 -- --double --preset=fast --seed 3"
    )
    assert arranged(["images", "--help"]) == ["images", "--help"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"command": "dnq"}, "name a command first whose runs are measured, not 'dnq': dqn"),
        ({"command": "gtp"}, "not 'gtp'"),
        ({"command": "pretraining", "search": ("width=64,128",)}, "what is pretraining measured by"),
        ({"extra": ("--resume", "x")}, "--resume cannot be given to every trial"),
        ({"seeds": (1, 1)}, "--seeds names one at the least, and none twice"),
        ({"trials": 0}, "--trials must be at least 1"),
        ({"extra": ("--frames", "0")}, "--frames must be at least 1"),
        ({"elsewhere": ActorConfig(actors=3), "seeds": (1, 2)}, "--actors 3: .* ask for a multiple of 2"),
        ({"elsewhere": ActorConfig(actors=3), "jobs": 2}, "--actors 3 have 3 trials at once: leave --jobs at 1"),
        ({"elsewhere": ActorConfig(actors=1), "command": "apex", "tag": "eval/score", "goal": "max"}, "of its own"),
    ],
)
def test_what_no_trial_would_take_leaves_nothing_behind(change, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        tune.main(small(**change))
    assert not list(tmp_path.iterdir())


def test_who_lacks_the_extra_is_told_its_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(ModuleNotFoundError, match=r"extra `tune`: pip install -e '\.\[tune\]'"):
        tune.main(small())


def test_paths_hold_in_the_folder_of_a_trial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").touch()
    (tmp_path / "fast").mkdir()
    extra = ("--preset", "fast", "--torso-from=./fast", "--env", "rows.csv")
    assert checked(small(extra=extra))[0].extra == (
        "--preset", "fast", f"--torso-from={tmp_path / 'fast'}", "--env", str(tmp_path / "rows.csv"),
    )  # fmt: skip


# -- searching ---------------------------------------------------------------------------------------------------------


def wait_until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_it_finds_better_settings_and_shows_them(toy, capfd):
    cfg = small(trials=12, jobs=2, seeds=(1, 3), prune=False, search=("trainer.lr=log:1e-5:1e-1", "batch_size=13,128"))
    folder = tune.main(cfg)
    trials, said = study_in(folder).trials, capfd.readouterr().err
    assert states(folder).count("complete") == 12 and set(states(folder)) == {"complete", "failed"}
    assert states(folder).count("failed") < 12, "what fails is not drawn again and again"
    assert trials[0].params == {"trainer.lr": 2e-4, "batch_size": "128"}, "first what there is"
    assert trials[0].value == pytest.approx(0.301 + 0.02, abs=1e-3), "the mean over seeds of the last evaluations"
    best = study_in(folder).best_trial
    assert best.value > 0.7 and len(best.intermediate_values) == 4
    again = rf"experiments dqn --trainer.lr={best.params['trainer.lr']} --batch-size=128\n"
    assert re.search(rf"best: trial {best.number}, .*; by default 0.32\d+\n\S+ -m {again}", said)
    failed = trials[states(folder).index("failed")]
    assert failed.user_attrs["error"] == "no batch has 13" and "failed: no batch has 13" in said
    assert not list(folder.rglob("replay.ring"))

    page = (folder / "report.html").read_text()
    assert all(f"<h2>{name}</h2>" in page for name in ("How the best one grew", "What matters", "All complete trials"))
    assert "It takes" not in page and "failed: no batch has 13" in page and page.count("Plotly.newPlot(") >= 3
    assert not re.search(r"<(script|img|iframe|link)\b[^>]*\b(src|href)\s*=|@import|url\(\s*[\"']?http", page)

    assert tune.main(dataclasses.replace(load_config(Config, folder), resume=str(folder), trials=1)) == folder
    assert len(study_in(folder).trials) == len(trials), "it had enough: it is drawn again"
    with pytest.raises(ValueError, match="--search cannot change"):
        tune.main(dataclasses.replace(cfg, resume=str(folder), search=("batch_size=32,64",)))


def one_trial(folder, batch, pruner=None, lr=1e-5):
    """A trial of the toy, when it has ended."""
    study = tune_trials.open_study(folder / "study.db", "max", pruner)
    for _ in range(5):
        study.add_trial(optuna.create_trial(value=0.9, intermediate_values={0: 0.5, 1: 0.6, 2: 0.7, 3: 0.9}))
    with tune_trials.quietly():
        trial = tune_trials.OpenTrial(study, study.ask(), folder / "5", "eval/score")
    trial.start("dqn", [f"--trainer.lr={lr}", f"--batch-size={batch}"], [1, 2])
    ended = []
    wait_until(lambda: ended.append(trial.poll()) or ended[-1])
    return ended[-1], study.trials[-1]


@pytest.mark.slow
def test_a_trial_that_is_worse_than_half_of_the_others_is_interrupted(toy, tmp_path):
    ended, trial = one_trial(tmp_path, 15, optuna.pruners.MedianPruner())
    assert ended.state == trial.state.name == "PRUNED" and trial.intermediate_values == {0: pytest.approx(-1.285)}
    assert (tmp_path / "5" / "stopped").read_text() == "SIGTERM", "which lets it save"


@pytest.mark.slow
def test_a_trial_without_a_score_says_what_it_has(toy, tmp_path):
    ended, trial = one_trial(tmp_path, 14)
    assert ended.state == "FAIL" and tune_trials.state_of(trial) == "failed"
    assert ended.error == "it reports no 'eval/score', but eval/length" == trial.user_attrs["error"]


@pytest.mark.slow
def test_a_search_in_which_nothing_works_ends(toy):
    with pytest.raises(ValueError, match=r"5 trials in a row failed, the last with: no batch has 13"):
        tune.main(small(search=("trainer.lr=log:1e-5:1e-1", "batch_size=13")))


@pytest.mark.slow
def test_what_ctrl_c_interrupts_is_tried_again(toy, tmp_path, capfd):
    def press():
        wait_until(lambda: len(list(tmp_path.glob("runs/tune/*/trials/[23]/runs/dqn/*/events*"))) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    folder = tune.main(small(search=("trainer.lr=log:1e-5:1e-1", "batch_size=16"), jobs=2, prune=False))
    said = capfd.readouterr().err
    assert "stopped; go on:" in said and "best: trial" in said and (folder / "report.html").exists()
    assert states(folder) == ["complete", "complete", "lost", "lost", "waiting", "waiting"]
    lost = [trial.params for trial in study_in(folder).trials[2:4]]
    (folder / "go").touch()
    tune.main(dataclasses.replace(load_config(Config, folder), resume=str(folder), jobs=1))
    assert states(folder) == ["complete", "complete", "lost", "lost", "complete", "complete", "complete"]
    assert [trial.params for trial in study_in(folder).trials[4:6]] == lost


OTHER = """
import sys
from experiments import tune, tune_trials

tune_trials.MODULE, tune_trials.HEARTBEAT, tune.POLL = "toy", 1, 0.2
search = ("trainer.lr=log:1e-5:1e-1", "batch_size=16")
tune.main(tune.Config("dqn", search=search, trials=5, jobs=2, prune=False))
"""


@pytest.mark.slow
def test_another_process_joins_and_takes_over_what_kill_9_has_left(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(tune_trials, "HEARTBEAT", 1)
    monkeypatch.setattr(tune, "HEARTBEAT", 1)
    monkeypatch.setattr(tune_trials, "GRACE", 6)
    monkeypatch.setattr(tune, "POLL", 0.2)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen([sys.executable, "-c", OTHER], env=os.environ | {"PYTHONPATH": path}) as other:
        wait_until(lambda: len(list(tmp_path.glob("runs/tune/*/trials/[23]/runs/dqn/*/events*"))) == 2)
        (folder,) = tmp_path.glob("runs/tune/*")

        def kill():
            wait_until(lambda: states(folder)[4:] == ["complete"])  # which is ours
            other.kill()
            wait_until(lambda: all((folder / "trials" / number / "stopped").exists() for number in "23"))
            (folder / "go").touch()

        threading.Thread(target=kill, daemon=True).start()
        tune.main(dataclasses.replace(load_config(Config, folder), resume=str(folder)))
    assert states(folder) == ["complete", "complete", "lost", "lost", "complete", "complete", "complete"]
    trials = study_in(folder).trials
    assert [trial.params for trial in trials[5:]] == [trial.params for trial in trials[2:4]]
    assert [(folder / "trials" / number / "stopped").read_text() for number in "23"] == ["SIGTERM", "SIGTERM"]


# -- on actors ---------------------------------------------------------------------------------------------------------


class ToyActor(CommandActor):
    """On a machine where the toy is installed."""

    def start(self, module, arguments, folder, output):
        os.environ["PYTHONPATH"] = str(folder.parents[4])
        super().start(module, arguments, folder, output)


@pytest.mark.slow
def test_trials_on_actors_are_those_of_this_machine_and_go_on_without_one(cluster, toy, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tune_actors, "CommandActor", ToyActor)
    monkeypatch.setattr(tune_actors, "LOOK", 0.05)
    cfg = small(search=("trainer.lr=log:1e-5:1e-1", "batch_size=16"), prune=False)

    def kill_one_then_press():
        """That of trial 2, while it and trial 3 wait; then Ctrl-C, once another has done what it had."""
        wait_until(lambda: len(list(tmp_path.glob("runs/tune/*/trials/[23]/runs/dqn/*/events*"))) == 2, 600)
        (folder,) = tmp_path.glob("runs/tune/*")
        os.kill(int((folder / "trials" / "2" / "parent").read_text()), signal.SIGKILL)
        wait_until(lambda: states(folder)[4:] == ["complete", "complete"], 600)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=kill_one_then_press, daemon=True).start()
    folder = tune.main(dataclasses.replace(cfg, elsewhere=ActorConfig(actors=2)))
    said = capfd.readouterr().err
    assert "failed: its actor was lost" in said and "stopped; go on:" in said
    assert states(folder) == ["complete", "complete", "lost", "lost", "complete", "complete", "waiting"]
    wait_until((folder / "trials" / "2" / "stopped").exists)
    stopped = [(folder / "trials" / number / "stopped").read_text() for number in "23"]
    assert stopped == ["SIGTERM", "SIGTERM"], "both may save"

    alone = study_in(tune.main(dataclasses.replace(cfg, trials=2))).trials
    trials = study_in(folder).trials
    assert trials[4].params == trials[2].params, "the same settings again"
    assert [(one.params, one.value) for one in alone] == [(one.params, one.value) for one in trials[:2]]


def test_an_actor_needs_the_folder_of_the_search(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no_disk is not there on .* under the same path on all machines"):
        CommandActor(0, 0).start("toy", [], tmp_path / "no_disk", tmp_path / "output")
