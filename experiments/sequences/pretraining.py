"""Four ways to learn from a text without labels, and what each is worth where labels are few.

python -m experiments pretraining                                  # all four, on Python's standard library: minutes
python -m experiments pretraining --objective masked --text FILE
python -m experiments pretraining --start-from runs/pretraining/<run>/masked --labels 64

One Transformer over bytes, the reader, is the same for all. The objectives differ in what goes in, what must come out,
and which row may look at which: in what the four functions of objectives.py make of a piece of text. Then the reader
becomes a classifier, and is compared with one that begins with random weights.

The task, with few labels: which of the text's eight most frequent words stood in the gap in the middle of 64 bytes.
Labelled pieces come from the part of the text that the reader has seen, without their labels and gaps; those of the
test come from its last tenth, which nothing is learned from.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import nn

from experiments.pictures import show
from experiments.sequences.accuracies import Result, draw_bars, interval, table
from experiments.sequences.fine_tuning import fine_tuned_accuracy
from experiments.sequences.objectives import FIRST, OBJECTIVES, Tokens
from experiments.sequences.reader import Reader, fill_in, load_reader, loss_fn, reader_folder
from experiments.sequences.texts import Corpus, read_corpus
from experiments.sequences.word_gaps import frequent_words, gaps
from rlkit import runtime
from rlkit.checkpoint import save_agent
from rlkit.config import AtLeast, Fixed, RunConfig, check_bounds
from rlkit.data import Batches, windows
from rlkit.data_files import DataFiles, agent_files, located, named
from rlkit.logger import say
from rlkit.nn.transformer import Shape
from rlkit.run import Run, command
from rlkit.schedule import Deadline
from rlkit.trainer import Batch, TrainConfig, Trainer


@dataclass
class Config(RunConfig):
    """Learn from a text without labels, then from few labels."""

    preset: Annotated[Literal["cpu"], Fixed] = "cpu"
    """defaults: cpu (all four objectives in minutes on two cores)"""
    objective: Annotated[Literal["all", "masked", "causal", "denoising", "permutation"], Fixed] = "all"
    """what to learn without labels: masked as BERT, causal as GPT, denoising as BART, permutation as XLNet; or all"""
    text: str | None = None
    """file of UTF-8 text, which may have moved when a run goes on; default: the source of Python's standard library"""
    start_from: str | None = None
    """agent folder of an earlier run, or the run's own if it had one objective: fine-tune its weights, without
    pre-training"""
    window: Annotated[int, AtLeast(4), Fixed] = 64
    """bytes in a piece of text"""
    layers: Annotated[int, AtLeast(1), Fixed] = 2
    """blocks of the Transformer"""
    width: Annotated[int, AtLeast(1), Fixed] = 64
    """channels of the Transformer"""
    heads: Annotated[int, AtLeast(1), Fixed] = 4
    """attention heads of the Transformer"""
    batch_size: Annotated[int, AtLeast(1), Fixed] = 32
    """pieces in an update of the pre-training"""
    labels: Annotated[int, AtLeast(8)] = 256
    """labelled gaps to learn from, the same number for each word"""
    tests: Annotated[int, AtLeast(8)] = 800
    """gaps to measure the accuracy on"""
    tune_steps: Annotated[int, AtLeast(1)] = 100
    """updates of each fine-tuning and of each training from scratch"""
    tune_batch: Annotated[int, AtLeast(1)] = 32
    """gaps in an update of a fine-tuning"""
    tune_lr: Annotated[float, AtLeast(0)] = 3e-3
    """highest learning rate of a fine-tuning"""
    repeats: Annotated[int, AtLeast(2)] = 5
    """fine-tunings of each objective, each with other labelled gaps; as many from scratch with the same gaps"""
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=1200, optimizer="adamw", lr=3e-3, weight_decay=0.01, lr_warmup=50, lr_decay="cosine", clip=1.0,
            log_every=50, save_every=500,
        )
    )  # fmt: skip
    """of the pre-training"""


PRESETS = {"cpu": Config()}
CLASSES = 8
"""words to tell apart"""


def with_defaults(cfg: Config) -> Config:
    """With the shape of the reader that --start-from names. Raises ValueError for settings that make no sense."""
    check_bounds(cfg)
    if cfg.trainer.mode == "cudagraph":
        raise ValueError("mode cudagraph wants batches of one shape, and texts with holes differ: use eager or compile")
    if cfg.start_from:
        folder = reader_folder(cfg.start_from)
        cfg = replace(cfg, start_from=str(folder), **load_reader(folder)[1])
    if cfg.width % (2 * cfg.heads):
        raise ValueError(f"--width {cfg.width} is no multiple of {2 * cfg.heads}, which --heads {cfg.heads} asks for")
    return cfg


def pretrain(
    name: str, cfg: Config, corpus: Corpus, folder: Path, device: torch.device, deadline: Deadline
) -> tuple[Trainer, float]:
    """(a trainer that has ended, nats per predicted token on the text's last tenth)."""
    # From the seed and the objective alone: it comes out the same by itself and among all.
    stream = 10 * (1 + list(OBJECTIVES).index(name))
    runtime.seed_everything(runtime.derive_seed(cfg.seed, stream))
    reader = Reader(Shape(cfg.width, cfg.heads, cfg.layers)).to(device)

    def pieces(text: Tokens, size: int, seed: int) -> Callable[[int], Batch]:
        make = windows(text + FIRST, cfg.window, size, seed)
        return lambda number: OBJECTIVES[name](make(number)["tokens"].numpy(), np.random.default_rng([seed, number]))

    make_batch = pieces(corpus.train, cfg.batch_size, runtime.derive_seed(cfg.seed, stream + 1))
    batches = Batches.for_device(make_batch, device)
    trainer = Trainer(reader, loss_fn, cfg.trainer, folder, state={"batches": batches}, deadline=deadline)
    if cfg.resume:
        trainer.load()
    if cfg.start_from:
        reader.load_state_dict(load_reader(cfg.start_from)[0].state_dict())
    elif trainer.step < cfg.trainer.steps:
        for _ in trainer.run(batches):
            pass
    held_out, averaged = pieces(corpus.valid, 64, 0), trainer.averaged
    with runtime.evaluating(averaged):
        losses = [loss_fn(averaged, {k: v.to(device) for k, v in held_out(i).items()})[0].item() for i in range(10)]
    return trainer, float(np.mean(losses))


def fine_tune(
    reader: Reader, objective: str, examples: list[Batch], tests: Batch, cfg: Config, deadline: Deadline
) -> tuple[list[float], list[float]]:
    """Accuracies on `tests` of classifiers that begin with a reader, and of as many that begin with random weights: one
    for each of the `examples`, time allowing. Raises KeyboardInterrupt where a signal ends it.
    """
    tuning = replace(
        cfg.trainer, steps=cfg.tune_steps, lr=cfg.tune_lr, lr_warmup=cfg.tune_steps // 10, progress=False,
        log_every=cfg.tune_steps + 1, accumulate=1, mode="eager",
    )  # fmt: skip
    tuned: list[float] = []
    scratch: list[float] = []
    for i, chosen in enumerate(examples):
        left = deadline.left()
        for accuracies, start in ((tuned, reader), (scratch, None)):
            runtime.seed_everything(runtime.derive_seed(cfg.seed, 1000 + i))
            start = start or Reader(Shape(cfg.width, cfg.heads, cfg.layers)).to(reader.embed.weight.device)
            seed = runtime.derive_seed(cfg.seed, 2000 + i)
            accuracies.append(fine_tuned_accuracy(start, objective, chosen, tests, tuning, cfg.tune_batch, seed))
        if 0 < i < len(examples) - 1 and deadline.left() < left - deadline.left():
            say(f"{i + 1} of {len(examples)} fine-tunings, as the time is over")
            break
    return tuned, scratch


def main(cfg: Config) -> Path:
    """Pre-train, fine-tune, compare; returns the run's folder."""
    cfg = with_defaults(located(cfg, "text", "start_from"))
    run = Run(cfg, "pretraining")

    # The text, and gaps in it.
    corpus = read_corpus(cfg.text, "", "bytes", cfg.window + 1)
    text, last = (part.astype(np.uint8).tobytes() for part in (corpus.train, corpus.valid))
    words = frequent_words(text, CLASSES)
    tests = gaps(last, words, cfg.tests, cfg.window, 0)
    examples = [gaps(text, words, cfg.labels, cfg.window, runtime.derive_seed(cfg.seed, i)) for i in range(cfg.repeats)]
    labels = len(examples[0]["label"])
    data = DataFiles(cfg, {**named(cfg, "text"), "start_from": agent_files(cfg.start_from)})
    folder = run.open(f"{corpus.name}_{cfg.objective}", data)
    say(
        f"{corpus.name}: {len(text):,} bytes to learn from; then {labels} gaps with their words "
        f"({b', '.join(words).decode(errors='replace')}), {cfg.tune_steps} updates, {cfg.repeats} times"
    )

    def save(name: str, reader: nn.Module, score: dict[str, Any]) -> None:
        config = {key: getattr(cfg, key) for key in ("window", "layers", "width", "heads")}
        info = {
            "kind": "pretraining",
            "config": {"objective": name, **config},
            "trained": {"text": cfg.text or "stdlib", "seed": cfg.seed, "preset": cfg.preset},
            "score": score,
        }
        save_agent(folder / name / "agent", info, reader.state_dict())

    names = list(OBJECTIVES) if cfg.objective == "all" else [cfg.objective]
    losses: dict[str, float] = {}
    results: dict[str, Result] = {}
    try:
        for number, name in enumerate(names):
            share = run.deadline.share(len(names) - number)
            (folder / name).mkdir(exist_ok=True)
            trainer, losses[name] = pretrain(name, cfg, corpus, folder / name, run.device, share.share(2))
            reader: Any = trainer.averaged
            save(name, reader, {"nats": losses[name]})
            if trainer.stopped:
                raise KeyboardInterrupt
            piece = corpus.valid[None, : cfg.window] + FIRST
            seen, made = fill_in(reader, name, piece, np.random.default_rng(cfg.seed))
            say(f"{name}: {losses[name]:.3f} nats\n  reads  {seen}\n  writes {made}")
            tuned, scratch = fine_tune(reader, name, examples, tests, cfg, share)
            gain = [a - b for a, b in zip(tuned, scratch, strict=True)]
            results[name] = {"tuned": interval(tuned), "scratch": interval(scratch), "gain": interval(gain)}
            save(name, reader, {"nats": losses[name], "labels": labels, **results[name]})
            trainer.log({"eval/nats": losses[name]} | {f"eval/{key}": mean for key, (mean, _) in results[name].items()})
            show({"accuracy": draw_bars(results, 1 / CLASSES)}, trainer, folder)
            trainer.close()
    except KeyboardInterrupt:
        say(f"stopped; go on: {command('pretraining', '--resume', folder)}")
        return folder
    print(table(losses, results))
    again = command("pretraining", "--start-from", folder / name, "--labels", 64)
    say(f"with fewer labels: {again}")
    return folder
