"""The one trainer of all learners: (model, loss_fn, iterator of batches) -> a better model.

    trainer = Trainer(model, loss_fn, TrainConfig(steps=1000), run_dir, state={"experience": experience})
    trainer.load()                                     # goes on where the newest whole checkpoint stands
    for step, batch, aux in trainer.run(experience):
        if step % 100 == 0:
            trainer.log({"eval/accuracy": accuracy(model)})

It knows nothing of reinforcement learning: acting happens inside the iterator, periodic work in the caller's loop.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rlkit import checkpoint, optim, runtime
from rlkit.config import AtLeast, Between, Fixed
from rlkit.errors import DamagedFile, ExperienceFailed, NonFiniteLoss, SaveFailed
from rlkit.logger import Logger, Timer, say, to_numbers
from rlkit.loop_signals import stopped_by_signals
from rlkit.parallel import all_ranks
from rlkit.schedule import Deadline, Schedule

Batch = dict[str, Tensor]
LossFn = Callable[[nn.Module, Batch], tuple[Tensor, dict[str, Tensor]]]


@dataclass
class TrainConfig:
    """How to turn batches into updates. One update (`step`) is one move of the optimiser."""

    steps: Annotated[int, AtLeast(0)] = 100_000
    """updates in all (where an experiment ends by frames or by the clock, 0 stands for what they allow)"""
    optimizer: Annotated[Literal["adam", "adamw", "radam", "sgd", "rmsprop"], Fixed] = "adam"
    """update rule; rmsprop is the centred one of the 2015 DQN paper"""
    lr: Annotated[float, AtLeast(0)] = 1e-4
    """learning rate after the warm-up"""
    eps: Annotated[float, AtLeast(0)] = 1e-8
    """added to the denominator by adam, adamw, radam and rmsprop (there inside the root)"""
    momentum: Annotated[float, Between(0, 1)] = 0.95
    """decay of sgd's velocity, and of rmsprop's two running means"""
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    """share of the weights taken off in each update, times the learning rate in adamw"""
    lr_warmup: Annotated[int, AtLeast(0)] = 0
    """updates over which the learning rate rises from 0 to lr"""
    lr_decay: Literal["constant", "linear", "cosine"] = "constant"
    """how the learning rate goes from lr to lr_final by the end of the run"""
    lr_final: Annotated[float, AtLeast(0)] = 0.0
    """learning rate at the end, where lr_decay is not constant"""
    clip: Annotated[float, AtLeast(0)] = 10.0
    """largest norm of the gradients; 0: not clipped"""
    accumulate: Annotated[int, AtLeast(1), Fixed] = 1
    """batches whose gradients are averaged into one update"""
    ema: Annotated[float, Between(0, 1)] = 0.0
    """decay of the weights' moving average per update, in trainer.ema; 0: none is kept"""
    ema_warmup: bool = False
    """average over a tenth of the updates so far, while ema would look further back"""
    mode: Literal["eager", "compile", "cudagraph"] = "eager"
    """how forward and backward run"""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """numbers of the forward pass (autocast); loss and optimiser are always fp32. auto: bf16 where the device has it"""
    log_every: Annotated[int, AtLeast(1)] = 100
    """updates between points in TensorBoard (each waits for the device once)"""
    save_every: Annotated[int, AtLeast(1)] = 10_000
    """updates between checkpoints: a crash loses at most these"""
    progress: bool = True
    """draw a progress bar"""


class Trainer:
    """Runs updates, logs, saves and resumes.

    Args:
        model: stays the raw module in `trainer.model`; compiled or captured callables are private.
        loss_fn: (model, batch) -> (scalar loss, dict of tensors). Aux tensors are valid until the next step; with
            "tokens" among them, ranks weigh by it.
        run_dir: of checkpoints and TensorBoard events; None keeps everything in memory.
        state: what is saved beside model and optimiser: name -> object with state_dict and load_state_dict.
        clock: (name, function, end) of the x-axis in TensorBoard and of the bar; the default counts updates.
        timer: shared with all that measure parts of the loop.
        elapsed: returns the share of the run that has passed, 0 .. 1, for lr_decay; the default counts updates. For a
            run that ends by the clock; no two such runs are quite equal.
        deadline: ends the loop early enough for the last evaluation and save.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        cfg: TrainConfig,
        run_dir: Path | None = None,
        *,
        state: Mapping[str, Any] | None = None,
        clock: tuple[str, Callable[[], float], float] | None = None,
        timer: Timer | None = None,
        elapsed: Callable[[], float] | None = None,
        deadline: Deadline | None = None,
    ):
        if cfg.steps < 1:
            raise ValueError(f"--trainer.steps must be at least 1, not {cfg.steps}")
        self.model, self.cfg, self.run_dir = model, cfg, run_dir
        self.step, self.state = 0, dict(state or {})
        self.clock = clock or ("step", lambda: self.step, cfg.steps)
        self.timer = timer or Timer()
        self.deadline = deadline or Deadline(0)
        self.device = next(model.parameters()).device
        self.precision = runtime.precision(cfg.precision, self.device)
        self.optimizer = optim.build(cfg.optimizer, model.parameters(), cfg.lr, cfg.eps, cfg.weight_decay, cfg.momentum)
        self.ranks = all_ranks()  # of several processes that learn one model
        if self.ranks:
            self.ranks.begin(model)
        # Buffers too: the running statistics of the latest weights would not fit the averaged ones.
        self.ema = AveragedModel(model, multi_avg_fn=self._average, use_buffers=True) if cfg.ema else None
        self.averaged: nn.Module = self.ema.module if self.ema else model  # to be measured and saved
        decay = "linear" if cfg.lr_decay == "constant" else cfg.lr_decay
        final = cfg.lr if cfg.lr_decay == "constant" else cfg.lr_final
        self._lr = Schedule(cfg.lr, final, shape=decay)
        self._elapsed = elapsed or (lambda: (self.step - cfg.lr_warmup) / max(1, cfg.steps - 1 - cfg.lr_warmup))
        # Both live on the device, so that an update can be masked without waiting for it.
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=self.device)
        self._masked = torch.zeros((), device=self.device)
        self._forward_backward = self._build(loss_fn)
        self._logger: Logger | None = None
        self.stopped = False  # by a signal
        self._ends = False  # for good, once `goes_on` has said so: the evaluation after the loop was counted on

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[int, Batch, dict[str, Tensor]]]:
        """Yield (step, batch, aux) after each update until `cfg.steps`; saves and logs on the way.

        An empty batch means: nothing to learn from yet, ask again. SIGINT and SIGTERM end the loop after the step
        in hand, with everything saved; a second SIGINT ends at once. Raises NonFiniteLoss, SaveFailed,
        ExperienceFailed.
        """
        source = iter(batches)
        if self.step >= self.cfg.steps:
            say(f"nothing to do: step {self.step:,} of {self.cfg.steps:,}; ask for more, or begin in a new folder")
        self.optimizer.zero_grad(self.cfg.mode != "cudagraph")  # an earlier iterator may have ended in an accumulation
        with stopped_by_signals(self):
            waiting = 0  # batches accumulated for the next update
            # `for batch in source` would draw one batch too many at the end, and resume would not be exact.
            while self.step < self.cfg.steps and (waiting or self.goes_on()):
                runtime.share_cores()
                try:
                    batch = next(source, None)
                except ExperienceFailed as error:
                    raise self.saved_after(error) from error.__cause__
                if batch is None:  # a finite iterator has ended
                    break
                self.logger.advance(self.clock[1]())
                if not batch:
                    continue
                waiting = (waiting + 1) % self.cfg.accumulate
                if waiting:
                    self._accumulate(batch)
                    continue
                aux = self.update(batch)
                yield self.step, batch, aux
                # After the yield, so that the caller's work for this step is in the checkpoint.
                if self.step % self.cfg.log_every == 0:
                    self.log({f"losses/{k}": v for k, v in to_numbers(aux).items()} | self._vitals())
                if self.run_dir and self.step % self.cfg.save_every == 0:
                    self.save()
            if self.run_dir:
                path = self.save()
                if self.stopped:
                    say(f"stopped at step {self.step:,}, saved {path}")

    def goes_on(self, evaluations: int = 1) -> bool:
        """Whether the loop goes on: steps are left, no signal came, and there is time for this many evaluations.

        Asked with evaluations=2 before an evaluation inside the loop: if there is time for only one more, the loop ends
        at once, and the one after it is made.
        """
        ends = self.stopped or self.deadline.reached(self.timer.latest, evaluations)
        self._ends |= self.ranks.ask_to_end(ends) if self.ranks else ends
        return self.step < self.cfg.steps and not (self._ends or (ends and evaluations > 1))

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One optimiser step on one batch (and on those accumulated before it). Never waits for the device."""
        loss, aux = self._accumulate(batch)
        if self.ranks:
            with self.timer("average"):
                loss = self.ranks.average(self.model, loss, aux.get("tokens", 1.0), self._elapsed())
        with self.timer("update"):
            self._set_learning_rate()
            norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
            if self.cfg.clip:
                nn.utils.clip_grads_with_norm_(self.model.parameters(), self.cfg.clip, norm)
            bad = ~(torch.isfinite(loss) & torch.isfinite(norm)) & (self._first_bad < 0)
            self._first_bad.masked_fill_(bad, self.step + 1)
            self._masked.copy_(self._first_bad >= 0)
            self.optimizer.found_inf = self._masked
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=self.cfg.mode != "cudagraph")
            if self.ema:
                self.ema.update_parameters(self.model)
        self.step += 1
        return {**aux, "loss": loss, "grad_norm": norm}

    def _average(self, averages: Any, weights: Any, updates: Any) -> None:
        early = (1 + self.step) / (10 + self.step) if self.cfg.ema_warmup else 1.0
        get_ema_multi_avg_fn(min(self.cfg.ema, early))(averages, weights, updates)

    def _accumulate(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with self.timer("copy"):
            batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
        with self.timer("update"):
            return self._forward_backward(batch)

    def _set_learning_rate(self) -> None:
        lr = self._lr(self.ranks.elapsed if self.ranks else self._elapsed())
        if self.step < self.cfg.lr_warmup:
            lr = self.cfg.lr * (self.step + 1) / self.cfg.lr_warmup
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    # -- forward and backward in the three modes -----------------------------------------------------------------

    def _build(self, loss_fn: LossFn) -> Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]:
        if self.cfg.mode == "cudagraph" and self.device.type != "cuda":
            raise ValueError(f"mode cudagraph needs a GPU, the model is on {self.device}: use eager or compile")
        run = loss_fn
        if self.cfg.mode == "compile":
            run = torch.compile(loss_fn)
            runtime.keep_threads()
        kernels: Callable[[], AbstractContextManager] = nullcontext
        if self.precision == "bf16":
            from rlkit.bf16 import kernels_for

            kernels = partial(kernels_for, "bf16", self.device)

        def forward_backward(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            # A captured graph must not hold weights cast once and cached: the cache is off there.
            autocast = torch.autocast(
                self.device.type,
                torch.bfloat16,
                enabled=self.precision == "bf16",
                cache_enabled=self.cfg.mode != "cudagraph",
            )
            with kernels():
                with autocast:
                    loss, aux = run(self.model, batch)
                (loss / self.cfg.accumulate if self.cfg.accumulate > 1 else loss).backward()
            return loss.detach(), aux

        if self.cfg.mode == "cudagraph":
            from rlkit.cudagraph import Captured

            return Captured(self.model, forward_backward)
        return forward_backward

    # -- saving and loading --------------------------------------------------------------------------------------

    @property
    def _folder(self) -> Path:
        if self.run_dir is None:
            raise ValueError("this trainer has no run_dir to save to or load from")
        return self.run_dir / "checkpoints"

    def save(self) -> Path:
        """Write a checkpoint and remove all but the newest three. Raises NonFiniteLoss, SaveFailed."""
        self._check_finite(weights=True)
        with self.timer("save"), self._disk():
            return checkpoint.save_checkpoint(self._folder, self.step, self.state_dict())

    def saved_after(self, error: Exception) -> ExperienceFailed:
        """Save, so that an environment's error costs nothing else; returns an error that says how to go on."""
        saved = "it happened on one of several ranks, go on from the last checkpoint of all"
        if not self.ranks:
            saved = f"{self.save().name} is saved, go on with --resume {self.run_dir}" if self.run_dir else ""
        return ExperienceFailed(f"{error}; {saved or 'nothing is saved'}")

    def load(self) -> bool:
        """Go on from the newest whole checkpoint of `run_dir`; False where there is none. Says what it did.

        Raises DamagedFile where there are checkpoints, but none that is whole or fits.
        """
        if self.ranks:
            return self.ranks.load(self)
        for path in checkpoint.checkpoints(self._folder):
            try:
                state = checkpoint.load_checkpoint(path)
            except DamagedFile as error:
                say(f"{error}; trying the one before")
                continue
            try:
                notes = self.load_state_dict(state)
            except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                raise DamagedFile(f"{path} belongs to another configuration: {error}") from error
            say("; ".join([f"resumed at step {self.step:,} from {path}", *notes]))
            return True
        if checkpoint.checkpoints(self._folder):
            raise DamagedFile(f"no checkpoint in {self._folder} is whole; remove them to begin again in this folder")
        return False

    def state_dict(self) -> dict[str, Any]:
        """All that the next update depends on; of several ranks the first alone has the weights."""
        weights: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
        }
        return (weights if runtime.rank() == 0 else {}) | {
            "step": self.step,
            "ranks": self.ranks.count if self.ranks else 1,
            "state": {name: thing.state_dict() for name, thing in self.state.items()},
            "rng": runtime.random_state(self.device),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> list[str]:
        """Restore `state_dict`; returns the lines that the state objects' load_state_dict returned."""
        self.step = saved["step"]
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.ema and saved["ema"]:
            self.ema.load_state_dict(saved["ema"])
        elif self.ema:  # it was off before
            self.ema.module.load_state_dict(saved["model"])
        times, notes = saved.get("ranks", 1) / (self.ranks.count if self.ranks else 1), []
        anew = times != 1 or "anew" in saved  # the experience is another number of ranks'
        for name, thing in self.state.items():
            new, part = anew and hasattr(thing, "begin_anew"), saved["state"][name]
            notes.append(thing.begin_anew(part, times) if new else thing.load_state_dict(part))
        if not anew or not runtime.rank():
            runtime.set_random_state(saved["rng"], self.device)
        self._first_bad.fill_(-1)
        return [note for note in notes if isinstance(note, str)]

    def _check_finite(self, weights: bool = False) -> None:
        bad, what = int(self._first_bad), "the loss or its gradient was"  # waits for the device
        saved = [w for part in {self.model, self.averaged} for w in part.state_dict().values()] if weights else []
        if bad < 0 and not all(bool(w.isfinite().all()) for w in saved):
            bad, what = self.step, "the weights were"
        if bad >= 0:
            self.close()
            raise NonFiniteLoss(
                f"{what} not finite at step {bad:,}; nothing was learned from there on. {self._last_checkpoint()}. "
                "Lower the learning rate, clip harder or use fp32, then resume"
            )

    def _last_checkpoint(self) -> str:
        whole = [path for path in checkpoint.checkpoints(self._folder) if path.is_file()] if self.run_dir else []
        return f"The last good checkpoint is {whole[0]}" if whole else "No checkpoint was saved before"

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Raise the disk's errors inside the block as SaveFailed."""
        try:
            yield
        except OSError as error:
            gone = self.run_dir and not self.run_dir.is_dir()
            hint = "Its folder is gone" if gone else f"{self._last_checkpoint()}. Free some space, then resume"
            raise SaveFailed(f"could not write step {self.step:,}: {error}. {hint}") from error

    # -- what a person sees --------------------------------------------------------------------------------------

    @property
    def logger(self) -> Logger:
        """Opened on first use, so that a resumed run's begins where it goes on."""
        if self._logger is None:
            name, now, end = self.clock
            with self._disk():
                left = partial(self.deadline.left_for_loop, self.timer.latest)
                folder = None if runtime.rank() else self.run_dir  # rank 0 alone logs
                self._logger = Logger(folder, end, f" {name}", now(), self.cfg.progress, left)
        return self._logger

    def log(self, values: Mapping[str, Any]) -> None:
        """Write scalars under their tags at the present clock. Raises NonFiniteLoss, SaveFailed."""
        self._check_finite()
        with self.timer("log"), self._disk():
            self.logger.scalars(values, self.clock[1]())

    def show(self, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Write pictures [H, W, 3] under their tags at the present clock. Raises SaveFailed."""
        with self.timer("log"), self._disk():
            self.logger.images(images, self.clock[1]())

    def close(self) -> None:
        """Close bar and event files. Raises SaveFailed."""
        logger, self._logger = self._logger, None
        if logger:
            with self._disk():
                logger.close()

    def _vitals(self) -> dict[str, float]:
        times = {f"time/{name}": seconds for name, seconds in self.timer.seconds.items()}
        rate, threads = self.optimizer.param_groups[0]["lr"], runtime.threads()
        return {"charts/learning_rate": rate, "charts/updates": self.step, "charts/threads": threads, **times}
