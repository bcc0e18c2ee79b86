"""The trials of a search: runs of a command in processes of their own, and the study that knows them all.

    ask --> processes, one a seed --> evaluations as they come --> tell: complete, pruned or failed
                                            `--> the pruner: interrupt them?

The study is a SQLite file, which several processes may search at once. Each says now and then that it is alive; the
open trials of one that has not for GRACE seconds count as failed, and are tried again by whoever asks next.
"""

import contextlib
import math
import re
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.tune_search import Searched
from rlkit.parallel.actors import LOST
from rlkit.processes import start_command
from rlkit.runtime import derive_seed

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

MODULE = "experiments"
"""that trials run a command of"""
HEARTBEAT, GRACE = 5, 60
"""seconds between signs of life; without any for so long, a process counts as gone"""


def need_optuna() -> Any:
    """The package optuna. Raises ModuleNotFoundError that names the extra."""
    try:
        import optuna
        import plotly as plotly  # whoever cannot draw should know before the search
    except ImportError as error:
        raise ModuleNotFoundError("tune needs the extra `tune`: pip install -e '.[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(path: Path, goal: str, pruner: Any) -> "Study":
    """The study in a SQLite file, a new one where there is none."""
    optuna = need_optuna()
    with quietly():
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path.absolute()}",
            engine_kwargs={"connect_args": {"timeout": 60}},
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=retry,
        )
    direction = {"max": "maximize", "min": "minimize"}[goal]
    return optuna.create_study(
        storage=storage, study_name="tune", direction=direction, pruner=pruner, load_if_exists=True
    )


def retry(study: "Study", trial: "FrozenTrial") -> None:
    """Have the settings of a trial that was lost tried again."""
    study.enqueue_trial(trial.params)


def counts(study: "Study") -> tuple[int, int]:
    """Trials that are complete or pruned; trials that run."""
    states = [state_of(trial) for trial in study.get_trials(deepcopy=False)]
    return states.count("complete") + states.count("pruned"), states.count("running")


def state_of(trial: "FrozenTrial") -> str:
    """complete, pruned, running, waiting, lost (which is tried again) or failed."""
    if trial.state.name == "FAIL":
        return "lost"
    return "failed" if trial.state.name == "PRUNED" and trial.user_attrs["error"] else trial.state.name.lower()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what optuna says about heartbeats: that they are new, and that its own loop would see to them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Heartbeat of storage|.*experimental")
        yield


def fail_lost_trials(study: "Study") -> None:
    """Have the open trials of processes that are gone tried again."""
    optuna = need_optuna()
    with quietly():
        optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        # Killed between the birth of a trial and its first sign of life, which optuna would take for alive for ever.
        old = trial.datetime_start and datetime.now() - trial.datetime_start > timedelta(seconds=GRACE)
        if "folder" not in trial.user_attrs and old:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            retry(study, trial)


class Evaluations:
    """The values of a tag in the events of a run, as they come.

    Args:
        folder: that its command was started in; seed: of the run, by which it is found there.
    """

    def __init__(self, folder: Path, seed: int, tag: str):
        self.folder, self.seed, self.tag = folder, seed, tag
        self._readers: dict[Path, Any] = {}

    def __call__(self) -> list[float]:
        """All of them so far, in the order in which they were written."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        for file in self.folder.glob(f"runs/*/*__{self.seed}__*/**/events.*"):
            if file.parent not in self._readers:
                self._readers[file.parent] = EventAccumulator(str(file.parent), {"scalars": 0})
        points = []
        for reader in self._readers.values():
            reader.Reload()
            if self.tag in reader.Tags()["scalars"]:
                points += reader.Scalars(self.tag)
        return [point.value for point in sorted(points, key=lambda point: point.wall_time)]

    def tags(self) -> list[str]:
        """Those that there are, but for those of the training itself."""
        names = {name for reader in self._readers.values() for name in reader.Tags()["scalars"]}
        return sorted(name for name in names if name.startswith("eval/"))


@dataclass(frozen=True)
class Ended:
    """How a trial has ended: COMPLETE, PRUNED, FAIL or LOST; its value as far as it has one; its error."""

    state: str
    value: float | None
    error: str


class OpenTrial:
    """A trial that runs: a process a seed, all at once, in a folder of its own.

    Its value is the mean over the seeds of their last evaluations.
    """

    def __init__(self, study: "Study", trial: "Trial", folder: Path, tag: str):
        self.study, self.trial, self.folder = study, trial, folder
        self._began = time.monotonic()
        self._tag, self._reported, self._ending, self._error, self._beaten = tag, 0, "", "", -math.inf
        self._until_they_end = contextlib.ExitStack()
        self.processes: dict[int, Any] = {}
        self._evaluations: dict[int, Evaluations] = {}

    def start(
        self,
        command: str,
        words: Sequence[str],
        seeds: Sequence[int],
        start: Callable[..., Any] = start_command,
    ) -> None:
        """Start the command with these flags, once a seed. start: as `start_command`, of which a Popen may be LOST."""
        self.sign_of_life()
        self.trial.set_user_attr("folder", self.folder.name)
        self.folder.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            output = self.folder / f"seed_{seed}.txt"
            flags = [command, *words, f"--seed={seed}"]
            self.processes[seed] = start(MODULE, flags, self.folder, self._until_they_end, output)
            self._evaluations[seed] = Evaluations(self.folder, seed, self._tag)

    def sign_of_life(self) -> None:
        """Tell the other processes that this trial is not lost."""
        if time.monotonic() > self._beaten + HEARTBEAT:
            self.trial.storage.record_heartbeat(self.trial._trial_id)  # type: ignore[attr-defined]
            self._beaten = time.monotonic()

    def poll(self) -> Ended | None:
        """Report new evaluations, interrupt what is not worth going on with; how the trial has ended, once it has."""
        from optuna.exceptions import UpdateFinishedTrialError

        codes = {seed: process.poll() for seed, process in self.processes.items()}
        if None not in codes.values():  # what another machine has written is sure to be seen by who opens it anew
            self._evaluations = {seed: Evaluations(self.folder, seed, self._tag) for seed in codes}
        values = [evaluations() for evaluations in self._evaluations.values()]
        try:
            self.sign_of_life()
            for number in range(self._reported, min(map(len, values), default=0)):
                # By their number, as trials of other batch sizes are not evaluated at the very same frame.
                self.trial.report(float(np.mean([one[number] for one in values])), number)
                self._reported = number + 1
                if not self._ending and None in codes.values() and self.trial.should_prune():
                    self.interrupt("PRUNED")
        except UpdateFinishedTrialError:  # this process slept, and another has taken it for gone
            self.interrupt("FAIL")
        if not self._ending and LOST in codes.values():
            self._error = "its actor was lost"
            self.interrupt("LOST")
        if not self._ending and (failed := [seed for seed, code in codes.items() if code]):
            self._error = self._last_words(failed[0])
            self.interrupt("FAIL")  # what one seed cannot do is no setting to go on with
        return None if None in codes.values() else self._tell(values)

    def interrupt(self, state: str) -> None:
        """Have its processes save and end; the trial will end as PRUNED or FAIL, or is LOST: to be tried again."""
        if not self._ending:
            self._ending = state
            self.signal(signal.SIGTERM)  # under Ray, or in the background of a script, they do not hear SIGINT

    def signal(self, number: int) -> None:
        """To all processes that run."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(number)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def wait(self) -> None:
        """Until all its processes have ended."""
        for process in self.processes.values():
            process.wait()

    def _tell(self, values: list[list[float]]) -> Ended:
        """Tell the study how the trial has ended."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        self._until_they_end.close()
        for ring in self.folder.rglob("replay.ring"):  # gigabytes, which only going on with a run needs
            ring.unlink()
        state, error = self._ending or "COMPLETE", self._error
        value = float(np.mean([one[-1] for one in values])) if all(values) else None
        if state == "COMPLETE" and (value is None or not np.isfinite(value)):
            tags = sorted({tag for one in self._evaluations.values() for tag in one.tags()})
            error = f"it reports no {self._tag!r}, but {', '.join(tags) or 'nothing'}"
            state, error = "FAIL", error if value is None else f"{self._tag} is {value}"
        lost = state == "LOST"
        with contextlib.suppress(UpdateFinishedTrialError):  # see poll
            self.trial.set_user_attr("error", error)
            # The sampler takes no notice of failed trials: it drew a batch size that always failed in 103 of 118, as
            # nothing spoke against it. Pruned before the first value is, to it, the worst that there is.
            told = TrialState["FAIL" if lost else "PRUNED" if state == "FAIL" else state]
            frozen = self.study.tell(self.trial, value if state == "COMPLETE" else None, state=told)
            if lost:
                retry(self.study, frozen)
        return Ended(state, value, error)

    def _last_words(self, seed: int) -> str:
        """The line in which a process says why it failed."""
        if (code := self.processes[seed].returncode) < 0:
            return f"ended by {signal.Signals(-code).name}"
        text = (self.folder / f"seed_{seed}.txt").read_bytes()[-4000:].decode(errors="replace")
        lines = [line.strip() for line in re.split("[\r\n]", text) if line.strip(" │╰╯─")]
        said = [line for line in lines if line.startswith("error: ")] or lines or [f"exit status {code}"]
        return said[-1].removeprefix("error: ")


def new_trial(study: "Study", search: Sequence[Searched], seed: int) -> tuple["Trial", list[str]]:
    """The next trial, and the flags that it gives the command.

    seed: of the search; each trial draws by its own number too, so that a search that goes on, or is shared, repeats
    none.
    """
    optuna = need_optuna()
    with quietly():
        trial = study.ask()
    study.sampler = optuna.samplers.TPESampler(seed=derive_seed(seed, trial.number))
    return trial, [word for one in search for word in one.words(one.suggest(trial))]
