"""Several processes that learn one model. torchrun starts them, on one machine or on many:

    torchrun --nproc-per-node 2 -m experiments dqn --env pong

    rank 0   its share of the batch -> gradients --.                     .-> clip -> step
                                                    average over all ranks                  the same weights everywhere
    rank 1   its share of the batch -> gradients --'                     '-> clip -> step

Rank 0 alone logs, saves the weights, evaluates and speaks; the others wait for it at their next average. Each rank
saves what is its own (replay, games, random states) in a folder below the run's.
"""

import atexit
import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rlkit import logger, runtime
from rlkit.checkpoint import checkpoints, load_checkpoint
from rlkit.config import Divided, annotations, flag
from rlkit.errors import DamagedFile
from rlkit.logger import say

C = TypeVar("C")
WEIGHTS = "model", "optimizer", "ema"
"""what rank 0 alone saves"""
FOREVER = timedelta(days=365)
"""to wait for each other: an evaluation of rank 0 may take hours, and torchrun ends all ranks when one has died"""


class Ranks:
    """This process among those that learn one model: `rank` of `count`."""

    def __init__(self) -> None:
        store, self.rank, self.count = next(dist.rendezvous("env://", timeout=FOREVER))
        # torchrun's store outlives ranks that it starts again, which would find their predecessors' addresses there.
        start = store.add(f"starts of {self.rank}", 1)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=dist.PrefixStore(f"start {start}", store),
            rank=self.rank,
            world_size=self.count,
            timeout=FOREVER,
        )
        atexit.register(dist.destroy_process_group)
        if self.rank:
            logger.silent, sys.stdout = True, open(os.devnull, "w")  # noqa: SIM115
        with self._together():
            dist.barrier()

    # -- the run -----------------------------------------------------------------------------------------------------

    def share(self, cfg: C) -> C:
        """What this rank is asked for of a run's settings. Raises ValueError for those that cannot be divided.

        A rank that torchrun has started again goes on with the run that it was part of.
        """
        if self._folder_note.exists() and not cfg.resume:  # type: ignore[attr-defined]
            cfg = dataclasses.replace(cfg, resume=self._folder_note.read_text())  # type: ignore[type-var]
        more: dict[str, Any] = {"resume": self._from_first(cfg.resume)}  # type: ignore[attr-defined]
        if cfg.device in ("auto", "cuda") and torch.cuda.is_available():  # type: ignore[attr-defined]
            more["device"] = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
        if self.rank and hasattr(cfg, "trainer"):
            more["trainer"] = dataclasses.replace(cfg.trainer, progress=False)
        if getattr(cfg, "together", 1) > 1:
            raise ValueError("--together is for one process: start its seeds one by one where torchrun divides a run")
        divided = divide(cfg, self.count)
        if divided == cfg:
            raise ValueError(f"{type(cfg).__module__} has nothing that ranks could share: start it without torchrun")
        return dataclasses.replace(divided, **more)  # type: ignore[type-var]

    def open(self, opened: Callable[[], Path]) -> Path:
        """The run's folder, which rank 0 opens; of the others one of their own below it."""
        folder = Path(self._from_first(str(opened()) if self.rank == 0 else ""))
        if self.rank == 0:
            self._folder_note.parent.mkdir(exist_ok=True)
            self._folder_note.write_text(str(folder))
            return folder
        mine = folder / "ranks" / str(self.rank)
        mine.mkdir(parents=True, exist_ok=True)
        return mine

    def close(self) -> None:
        """The run has ended well: nobody has to find it."""
        if self.rank == 0:
            self._folder_note.unlink(missing_ok=True)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def begin(self, model: nn.Module) -> None:
        """Rank 0's weights for all; from here on each rank has random numbers of its own."""
        self._over = self._wish = False
        with self._together():
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), 0)
        torch.manual_seed(runtime.derive_seed(torch.initial_seed(), 0, self.rank))

    def average(self, model: nn.Module, loss: Tensor, weight: Tensor | float, elapsed: float) -> Tensor:
        """Average gradients and running statistics over all ranks; returns the average loss.

        weight: of this rank's batch, as its number of tokens, where the loss is a mean over those. elapsed: the share
        of the run that has passed for this rank; `elapsed` is rank 0's afterwards, so that learning rates are the same.
        """
        words = torch.tensor([self._wish, elapsed if self.rank == 0 else 0], dtype=torch.float64)
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        tensors = [*grads, *statistics(model), loss]
        with self._together():
            agreeing = dist.all_reduce(words, async_op=True)
            flat = torch.cat([*(x.reshape(-1) for x in tensors), loss.new_ones(1)]) * weight
            dist.all_reduce(flat)
            agreeing.wait()
        flat /= flat[-1].clone()
        averages = flat[:-1].split([x.numel() for x in tensors])
        torch._foreach_copy_(tensors, [new.view_as(old) for new, old in zip(averages, tensors, strict=True)])
        self._over, self.elapsed = bool(words[0]), float(words[1])
        return loss

    def all_end(self, ends: bool) -> bool:
        """Whether all ranks end here. One that asks for it has its way after the next average."""
        self._wish |= ends
        return self._over

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def load(self, trainer: Any) -> bool:
        """`Trainer.load` for all ranks: the newest checkpoint that is whole on each of them.

        Of a run with another number of ranks that of rank 0 is the one.
        """
        mine = {path.name: path for path in checkpoints(trainer._folder)}
        for name in self._from_first(list(mine)):
            state = self._whole(mine.get(name))
            other = self._from_first(state and state["ranks"] != self.count)  # no rank has a share of its own then
            everybodys = state if not state or other else {key: state.get(key) for key in WEIGHTS}
            everybodys = self._from_first(everybodys)
            state = everybodys if other else state
            if all(self._gathered(bool(everybodys and state))):
                notes = trainer.load_state_dict(state | everybodys)
                say("; ".join([f"resumed at step {trainer.step:,} from {trainer._folder / name}", *notes]))
                return True
        if mine:
            raise DamagedFile(f"no checkpoint in {trainer._folder} is whole on all ranks; begin a new run")
        return False

    @staticmethod
    def _whole(path: Path | None) -> dict[str, Any] | None:
        try:
            return load_checkpoint(path) if path else None
        except DamagedFile as error:
            say(f"{error}; trying the one before")
            return None

    # -- all together ------------------------------------------------------------------------------------------------

    @property
    def _folder_note(self) -> Path:
        """Where rank 0 of these processes notes the run's folder for those that replace them."""
        name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
        return Path("runs") / f".torchrun_{name if name != 'none' else os.getppid()}"

    def _from_first(self, value: Any) -> Any:
        held = [value]
        with self._together():
            dist.broadcast_object_list(held, 0, device=torch.device("cpu"))
        return held[0]

    def _gathered(self, value: Any) -> list[Any]:
        values = [None] * self.count
        with self._together():
            dist.all_gather_object(values, value)
        return values

    @contextlib.contextmanager
    def _together(self):
        """Say what has happened where another rank has gone."""
        try:
            yield
        except RuntimeError as error:
            atexit.unregister(dist.destroy_process_group)  # it would wait for the one that has gone
            raise ConnectionError(f"rank {self.rank} of {self.count}: another rank has ended ({error})") from error


def statistics(model: nn.Module) -> list[Tensor]:
    """Running means and variances: what a model saves beside its weights."""
    return [
        buffer
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if buffer.is_floating_point() and name not in module._non_persistent_buffers_set
    ]


def divide(cfg: C, count: int) -> C:
    """The settings with a share of what is `Divided`. Raises ValueError where that leaves a rest."""
    changes: dict[str, Any] = {}
    kind: Any = type(cfg)
    for name, marks in annotations(kind).items():
        value = getattr(cfg, name)
        if dataclasses.is_dataclass(value):
            changes[name] = divide(value, count)
        elif Divided in marks:
            if value % count:
                raise ValueError(
                    f"{flag(name)} {value} cannot be divided among {count} ranks: {value - value % count or count}, say"
                )
            changes[name] = value // count
    return dataclasses.replace(cfg, **changes)  # type: ignore[type-var]


@functools.cache
def this_rank() -> Ranks:
    """This process's, joined at the first call, which waits for all the others."""
    return Ranks()
