import errno
import hashlib
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from rlkit import checkpoint, command_line
from rlkit.errors import DamagedFile, NonFiniteLoss, SaveFailed
from rlkit.schedule import Schedule
from rlkit.trainer import TrainConfig, Trainer


class Data:
    """Noisy lines, with its generator as its state."""

    def __init__(self, batch=16):
        self.rng, self.batch = torch.Generator().manual_seed(7), batch

    def __iter__(self):
        return self

    def __next__(self):
        x = torch.randn(self.batch, 4, generator=self.rng)
        return {"x": x, "y": x.sum(1, keepdim=True)}

    def state_dict(self):
        return {"rng": self.rng.get_state()}

    def load_state_dict(self, state):
        self.rng.set_state(state["rng"])


def squared_error(model, batch):
    loss = (model(batch["x"]) - batch["y"]).square().mean()
    return loss, {"two": torch.tensor(2.0)}


def make(run_dir=None, data=None, seed=0, **cfg):
    torch.manual_seed(3 + seed)
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 1))
    data = data or Data()
    cfg = {"steps": 40, "lr": 1e-2, "log_every": 10, "save_every": 10, "progress": False} | cfg
    return Trainer(model, squared_error, TrainConfig(**cfg), run_dir, state={"data": data}), data


def losses_of(trainer, data):
    return [aux["loss"].item() for _, _, aux in trainer.run(data)]


def test_it_learns_and_draws_no_batch_too_many(learning_seed, record_property):
    trainer, data = make(steps=300, seed=learning_seed)
    losses = losses_of(trainer, data)
    record_property("score", losses[0] / losses[-1])
    assert trainer.step == len(losses) == 300 and losses[-1] < 0.1 * losses[0]
    fresh = Data()
    for _ in range(300):
        next(fresh)
    assert torch.equal(fresh.rng.get_state(), data.rng.get_state())


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_half_and_resume_equals_the_whole_bit_for_bit(tmp_path, optimizer):
    kind = {"optimizer": optimizer, "lr": 1e-3, "ema": 0.9, "lr_decay": "cosine", "lr_warmup": 5, "eps": 1e-4}
    whole, data = make(tmp_path / "whole", **kind)
    expected = losses_of(whole, data)
    first, data = make(tmp_path / "halves", **kind)
    got = []
    for step, _, aux in first.run(data):
        got.append(aux["loss"].item())
        if step == 20:
            first.save()
            break
    torch.manual_seed(99)  # another process would stand elsewhere
    second, data = make(tmp_path / "halves", **kind)
    assert second.load() and second.step == 20
    assert got + losses_of(second, data) == expected
    for a, b in ((whole.model, second.model), (whole.ema, second.ema)):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_load_then_save_again(tmp_path):
    trainer, data = make(tmp_path)
    losses_of(trainer, data)
    again, _ = make(tmp_path)
    again.load()
    again.save()
    third, _ = make(tmp_path)
    assert third.load() and third.step == 40


def test_accumulation_skips_empty_batches_and_ends_with_its_iterator():
    data = Data()
    batches = [next(data), {}, {}, next(data), next(data), {}, next(data), next(data)]
    trainer, _ = make(accumulate=2)
    assert len(losses_of(trainer, batches)) == 2


def test_accumulated_batches_equal_one_large_batch():
    class Halves(Data):
        def __next__(self):
            if not getattr(self, "rest", None):
                whole = super().__next__()
                self.rest = [{k: v[i : i + 8] for k, v in whole.items()} for i in (0, 8)]
            return self.rest.pop(0)

    one, data = make(steps=5)
    two, halves = make(steps=5, accumulate=2, data=Halves())
    for m in (*one.model, *two.model):
        m.eval()  # dropout draws differ
    losses_of(one, data)
    losses_of(two, halves)
    torch.testing.assert_close(one.model.state_dict(), two.model.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("warmup", [False, True])
def test_ema_is_the_moving_average(warmup):
    trainer, data = make(steps=12, ema=0.5, ema_warmup=warmup)
    expected = None
    for step, _, _ in trainer.run(data):
        now = trainer.model[0].weight.detach().clone()
        decay = min(0.5, step / (9 + step)) if warmup else 0.5
        expected = now if expected is None else decay * expected + (1 - decay) * now
    torch.testing.assert_close(trainer.ema.module[0].weight.detach(), expected)


def test_the_average_has_statistics_of_its_own():
    model = nn.Sequential(nn.BatchNorm1d(1, affine=False), nn.Linear(1, 1))
    cfg = TrainConfig(steps=3, ema=0.5, progress=False)
    trainer = Trainer(model, lambda m, b: (m(b["x"]).square().mean(), {}), cfg)
    expected = None
    for _ in trainer.run([{"x": torch.randn(8, 1) + 10 * i} for i in range(3)]):
        now = model[0].running_mean.clone()
        expected = now if expected is None else 0.5 * expected + 0.5 * now
    torch.testing.assert_close(trainer.ema.module[0].running_mean, expected)


def test_clipping_bounds_the_step():
    trainer, data = make(steps=1, optimizer="sgd", momentum=0.0, lr=1.0, clip=1e-3)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    losses_of(trainer, data)
    moved = torch.stack([(p - b).norm() for p, b in zip(trainer.model.parameters(), before, strict=True)]).norm()
    assert moved.item() == pytest.approx(1e-3, rel=1e-3)


def test_learning_rate_schedule():
    trainer, data = make(steps=10, lr=1.0, lr_warmup=4, lr_decay="linear", lr_final=0.4, optimizer="sgd", clip=1e-9)
    rates = [trainer.optimizer.param_groups[0]["lr"] for _ in trainer.run(data)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.88, 0.76, 0.64, 0.52, 0.4])


def test_learning_rate_may_go_by_another_clock():
    shares = iter([0.0, 0.25, 0.5, 1.0, 1.25])
    cfg = TrainConfig(steps=5, optimizer="sgd", lr=1.0, lr_decay="linear", lr_final=0.2, progress=False)
    model = torch.nn.Linear(1, 1)
    trainer = Trainer(model, lambda m, b: (m(b["x"]).sum(), {}), cfg, elapsed=lambda: next(shares))
    data = [{"x": torch.ones(1, 1)}] * 5
    assert [trainer.optimizer.param_groups[0]["lr"] for _ in trainer.run(data)] == pytest.approx(
        [1.0, 0.8, 0.6, 0.2, 0.2]
    )


def test_schedule():
    epsilon = Schedule(1.0, 0.1, begin=100, duration=100)
    assert [epsilon(t) for t in (0, 100, 150, 200, 10**9)] == pytest.approx([1.0, 1.0, 0.55, 0.1, 0.1])
    assert Schedule(1.0, 0.0, duration=4, shape="cosine")(1) == pytest.approx(0.853553)


class Poisoned(Data):
    """One batch of nans, the sixth."""

    count = 0

    def __next__(self):
        self.count += 1
        batch = super().__next__()
        return {k: v * float("nan") for k, v in batch.items()} if self.count == 6 else batch


def test_what_an_unfinished_accumulation_left_is_not_in_the_next_update():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.zero_()
    cfg = TrainConfig(steps=9, optimizer="sgd", lr=1.0, momentum=0.0, clip=0, accumulate=2, progress=False)
    trainer = Trainer(model, lambda m, b: (-(b["x"] * m.weight).sum(), {}), cfg)  # its gradient is -x
    for xs, expected in (((1, 1, 100), 1.0), ((3, 1), 3.0)):
        list(trainer.run({"x": torch.tensor([float(x)])} for x in xs))
        assert model.weight.item() == expected


def test_a_non_finite_loss_is_masked_and_stops_the_run_with_its_step(tmp_path):
    trainer, data = make(tmp_path, data=Poisoned(), save_every=5)
    weights = {}
    with pytest.raises(NonFiniteLoss, match=r"step 6;.*The last good checkpoint is .*step_000000000005") as raised:
        for step, _, _ in trainer.run(data):
            weights[step] = [p.detach().clone() for p in trainer.model.parameters()]
    assert "Lower the learning rate" in str(raised.value)
    assert max(weights) == 10, "noticed at the next log, not by waiting for the device"
    for later in range(6, 11):
        assert all(torch.equal(a, b) for a, b in zip(weights[5], weights[later], strict=True))
    again, data = make(tmp_path)
    assert again.load() and again.step == 5


def test_weights_that_overflowed_are_never_saved(tmp_path):
    trainer, data = make(tmp_path, optimizer="sgd", lr=1e40, clip=0.0, save_every=1)
    with pytest.raises(NonFiniteLoss, match="weights were not finite at step 1"):
        losses_of(trainer, data)
    assert not checkpoint.checkpoints(tmp_path / "checkpoints")


def test_a_moving_average_or_a_running_mean_that_is_not_finite_is_never_saved(tmp_path):
    trainer, data = make(tmp_path, ema=float("nan"), save_every=1)
    with pytest.raises(NonFiniteLoss, match="weights were not finite at step 2"):
        losses_of(trainer, data)
    model = nn.Sequential(nn.BatchNorm1d(1, affine=False), nn.Linear(1, 1))
    model[0].running_mean.fill_(float("inf"))
    with pytest.raises(NonFiniteLoss, match="weights were not finite"):
        Trainer(model, squared_error, trainer.cfg, tmp_path).save()


def test_resumed_curves_neither_overlap_nor_lose_a_point(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first, data = make(tmp_path, steps=20)
    for step, _, _ in first.run(data):
        first.log({"eval/x": step})
    first.close()
    checkpoint.checkpoints(tmp_path / "checkpoints")[0].unlink()  # as if it had been killed before the last save
    second, data = make(tmp_path, steps=30)
    assert second.load() and second.step == 10
    for step, _, _ in second.run(data):
        second.log({"eval/x": step})
    second.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [p.step for p in events.Scalars("eval/x")] == list(range(1, 31))


def test_falls_back_to_the_checkpoint_before_and_says_so(tmp_path, capsys):
    trainer, data = make(tmp_path)
    losses_of(trainer, data)
    newest = checkpoint.checkpoints(tmp_path / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:-7])
    again, _ = make(tmp_path)
    assert again.load() and again.step == 30
    assert "truncated or altered" in (said := capsys.readouterr().err) and "resumed at step 30" in said


def garbage(path):
    data = b"no archive"
    path.write_bytes(data + hashlib.sha256(data).digest() + checkpoint.MAGIC)


@pytest.mark.parametrize("put", [Path.mkdir, lambda path: path.symlink_to("nowhere"), os.mkfifo, garbage])
def test_what_stands_in_a_checkpoints_place_is_passed_over(tmp_path, capsys, put):
    trainer, data = make(tmp_path)
    losses_of(trainer, data)
    newest = checkpoint.checkpoints(tmp_path / "checkpoints")[0]
    newest.unlink()
    put(newest)
    again, data = make(tmp_path)
    assert again.load() and again.step == 30
    assert f"{newest} " in (said := capsys.readouterr().err) and "trying the one before" in said
    losses_of(again, data)  # saves step 40 in its place
    assert [make(tmp_path)[0].load(), trainer.step] == [True, 40]
    names = [f"step_{step:012d}.ckpt" for step in (20, 30, 40)]
    kept = [*names, "step_000000000040.folder"] if put is Path.mkdir else names
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == kept


def test_a_checkpoint_of_something_else_is_an_error(tmp_path):
    checkpoint.save_checkpoint(tmp_path / "checkpoints", 1, {"step": [], "model": 3})
    with pytest.raises(DamagedFile, match="belongs to another configuration"):
        make(tmp_path)[0].load()


def test_a_folder_that_was_removed_is_not_made_again(tmp_path):
    trainer, data = make(tmp_path / "run", steps=10)
    (tmp_path / "run").mkdir()
    losses_of(trainer, data)
    trainer.close()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(SaveFailed, match=r"could not write step 10: .*Its folder is gone"):
        trainer.save()
    assert not (tmp_path / "run").exists()


def test_no_whole_checkpoint_is_an_error_and_another_model_too(tmp_path):
    trainer, data = make(tmp_path, steps=10)
    losses_of(trainer, data)
    other = Trainer(nn.Linear(3, 1), squared_error, trainer.cfg, tmp_path)
    with pytest.raises(DamagedFile, match="belongs to another configuration"):
        other.load()
    for path in checkpoint.checkpoints(tmp_path / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(DamagedFile, match=r"no checkpoint in .* is whole"):
        make(tmp_path)[0].load()


def test_a_moving_average_that_begins_late_begins_with_the_weights(tmp_path):
    trainer, data = make(tmp_path, steps=10)
    losses_of(trainer, data)
    again, _ = make(tmp_path, ema=0.9)
    again.load()
    for ours, theirs in zip(again.ema.module.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_full_disk_ends_the_run_clearly_and_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    trainer, data = make(tmp_path)
    real = os.fsync

    def full(fd):
        if trainer.step > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveFailed, match=r"step 20: .*No space left.*last good checkpoint is .*step_000000000010"):
        losses_of(trainer, data)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_000000000010.ckpt"]


def test_a_disk_that_is_full_for_the_events_is_told_once_in_one_line(tmp_path, monkeypatch, capfd):
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    def main(cfg):
        trainer, data = make(tmp_path, steps=20, log_every=1)
        losses_of(trainer, data)
        trainer.close()

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # to be put back
    monkeypatch.setattr(RecordWriter, "write", full)
    with pytest.raises(
        SystemExit, match=r"error: could not write step \d+: .*No space left.* Free some space, then resume"
    ):
        command_line.cli(main, lambda: None)
    assert "Traceback" not in capfd.readouterr().err


def test_no_checkpoint_no_resume(tmp_path):
    trainer, _ = make(tmp_path)
    assert trainer.load() is False


def test_empty_batches_are_skipped():
    class Slow(Data):
        turn = 0

        def __next__(self):
            self.turn += 1
            return super().__next__() if self.turn % 3 == 0 else {}

    expected = losses_of(*make())
    assert losses_of(*make(data=Slow())) == expected


def test_sigint_saves_and_ends_and_gives_the_handlers_back(tmp_path):
    trainer, data = make(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    for step, _, _ in trainer.run(data):
        if step == 13:
            os.kill(os.getpid(), signal.SIGINT)
    assert trainer.stopped and trainer.step == 13 and signal.getsignal(signal.SIGINT) is before
    again, _ = make(tmp_path)
    assert again.load() and again.step == 13


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("wait", [0, 0.7])
def test_a_second_signal_ends_at_once_if_it_is_not_the_echo_of_the_first(number, wait):
    def batches():
        """Empty ones: a process that was forked can have no backward pass."""
        yield {}
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(wait)
        os.kill(os.getpid(), number)
        os._exit(8)

    trainer, _ = make()
    if not (child := os.fork()):
        try:
            list(trainer.run(batches()))
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (-number if wait else 8)


def test_cudagraph_without_a_gpu_says_what_to_use():
    with pytest.raises(ValueError, match="use eager or compile"):
        make(mode="cudagraph")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; test_dqn.py compiles on a CPU")
@pytest.mark.slow
def test_eager_equals_compile_equals_cudagraph():
    expected = None
    for mode in ("eager", "compile", "cudagraph"):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1)).cuda()
        trainer = Trainer(model, squared_error, TrainConfig(steps=20, lr=1e-2, mode=mode))
        losses = losses_of(trainer, Data())
        expected = expected or losses
        assert losses == pytest.approx(expected, rel=1e-4)


def test_bf16_keeps_weights_and_optimiser_in_fp32(learning_seed, record_property):
    trainer, data = make(precision="bf16", steps=200, seed=learning_seed)
    losses = losses_of(trainer, data)
    record_property("score", losses[0] / losses[-1])
    assert losses[-1] < 0.2 * losses[0]
    tensors = [t for state in trainer.optimizer.state.values() for t in state.values()]
    assert {t.dtype for t in (*trainer.model.parameters(), *tensors)} == {torch.float32}
