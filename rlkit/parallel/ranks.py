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
import json
import os
import sys
import time
import uuid
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
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=dist.PrefixStore(meeting(store, self.rank, self.count), store),
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
        more: dict[str, Any] = {"resume": self._from_first(cfg.resume or self._noted())}  # type: ignore[attr-defined]
        if cfg.device in ("auto", "cuda") and torch.cuda.is_available():  # type: ignore[attr-defined]
            local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if local >= gpus:
                raise ValueError(f"there are {gpus} GPUs for more ranks: lower --nproc-per-node, or take --device cpu")
            more["device"] = f"cuda:{local}"
        if self.rank and hasattr(cfg, "trainer"):
            more["trainer"] = dataclasses.replace(cfg.trainer, progress=False)
        return dataclasses.replace(divide(cfg, self.count), **more)  # type: ignore[type-var]

    def open(self, opened: Callable[[], Path]) -> Path:
        """The run's folder, which rank 0 opens; of the others one of their own below it."""
        folder = Path(self._from_first(str(opened()) if self.rank == 0 else ""))
        if self.rank == 0:
            self._folder_note.parent.mkdir(exist_ok=True)
            self._folder_note.write_text(json.dumps([str(folder), sys.argv[1:]]))
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
        self._ends = self._asked = False
        with self._together():
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), 0)
        torch.manual_seed(runtime.derive_seed(torch.initial_seed(), 0, self.rank))

    def average(self, model: nn.Module, loss: Tensor, weight: Tensor | float, elapsed: float) -> Tensor:
        """Average gradients and running statistics over all ranks; returns the average loss.

        weight: of this rank's batch, as its number of tokens, where the loss is a mean over those. elapsed: the share
        of the run that has passed for this rank; `elapsed` is rank 0's afterwards, so that learning rates are the same.
        """
        words = torch.tensor([self._asked, elapsed if self.rank == 0 else 0], dtype=torch.float64)
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
        self._ends, self.elapsed = bool(words[0]), float(words[1])
        return loss

    def ask_to_end(self, ends: bool) -> bool:
        """Ask all ranks to end, if `ends`; returns whether a rank had asked when they averaged last."""
        self._asked |= ends
        return self._ends

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def load(self, trainer: Any) -> bool:
        """`Trainer.load` for all ranks: the newest checkpoint that is whole on each of them.

        Where there is none, or the run had another number of ranks, rank 0's is for all: experience begins anew.
        """
        own = {path.name: path for path in checkpoints(trainer._folder)}
        names = self._from_first(list(own))
        for name, torn in [*((name, False) for name in names), *((name, True) for name in names)]:
            part = self._whole(own.get(name))
            ranks = self._from_first(part and part.get("ranks", 1))
            anew = torn or ranks != self.count
            shared = self._from_first(
                part and (part | {"anew": True} if anew else {key: part.get(key) for key in WEIGHTS})
            )
            if not shared or not all(self._gathered(anew or part is not None)):
                continue
            try:
                notes = trainer.load_state_dict(shared if anew else part | shared)
            except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                raise DamagedFile(f"{trainer._folder / name} belongs to another configuration: {error}") from error
            say("; ".join([f"resumed at step {trainer.step:,} from {trainer._folder / name}", *notes]))
            return True
        if names:
            raise DamagedFile(f"no checkpoint in {trainer._folder} is whole; begin a new run")
        return False

    @staticmethod
    def _whole(path: Path | None) -> dict[str, Any] | None:
        try:
            return load_checkpoint(path) if path else None
        except DamagedFile as error:
            say(f"{error}; trying the one before")
            return None

    # -- all together ------------------------------------------------------------------------------------------------

    def _noted(self) -> str | None:
        """The folder of the run that an earlier start of this command line began."""
        with contextlib.suppress(OSError, ValueError):
            folder, words = json.loads(self._folder_note.read_text())
            if words == sys.argv[1:] and Path(folder, "config.json").exists():
                return folder
        return None

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


def meeting(store: dist.Store, rank: int, count: int) -> str:
    """A name that only the ranks of this start have. torchrun's store outlives ranks that it starts again, which would
    find the addresses of their predecessors there, or the half of them that came so far.
    """
    me = uuid.uuid4().hex
    if rank == 0:
        store.set("meeting", me)
        store.set(f"{me} has", " ".join(store.get(f"{me} {other}").decode() for other in range(1, count)))
        return me
    while True:
        name = store.get("meeting").decode()  # perhaps that of an earlier start, whose list has not this process
        store.set(f"{name} {rank}", me)
        if store.check([f"{name} has"]) and me in store.get(f"{name} has").decode():
            return name
        time.sleep(0.05)


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
