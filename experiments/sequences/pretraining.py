"""Four ways to learn from a text without labels, and what each is worth where labels are few.

python -m experiments pretraining                                  # all four, on Python's standard library: minutes
python -m experiments pretraining --objective masked --text FILE
python -m experiments pretraining --start-from runs/pretraining/<run>/masked --labels 64

One Transformer over bytes reads for all. The forms differ in what goes in, what must come out, and which row may look
at which: in what the four functions of experiments/parts/objectives.py make of a piece of text. Then the reader becomes
a classifier, and meets one that begins with random weights.

The task, with few labels: which of the text's eight most frequent words stood in the gap in the middle of 64 bytes.
Labelled pieces come from the part of the text that the reader has seen, without their labels and gaps; those of the
test come from its last tenth, which nothing is learned from.
"""

import copy
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from experiments.sequences.objectives import (
    FIRST,
    MASK,
    OBJECTIVES,
    QUERY,
    Reader,
    Tokens,
    filled,
    load_reader,
    loss_fn,
)
from experiments.sequences.texts import Corpus, read_corpus
from rlkit import runtime
from rlkit.checkpoint import save_agent
from rlkit.config import AtLeast, Fixed, RunConfig, check_bounds
from rlkit.data import Batches, rows, windows
from rlkit.data_files import DataFiles, agent_files, located, named
from rlkit.logger import say
from rlkit.nn.heads import LinearHead
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
    """what is learned without labels: as BERT, GPT, BART or XLNet, or by one after the other"""
    text: str | None = None
    """file of UTF-8 text, which may have moved when a run goes on; None: the source of Python's own standard library"""
    start_from: str | None = None
    """agent folder of an earlier run, or that run's if it had one objective: no pre-training, its weights are
    fine-tuned"""
    window: Annotated[int, AtLeast(4), Fixed] = 64
    """bytes in a piece of text"""
    layers: Annotated[int, AtLeast(1), Fixed] = 2
    """blocks of the Transformer"""
    width: Annotated[int, AtLeast(1), Fixed] = 64
    """its channels"""
    heads: Annotated[int, AtLeast(1), Fixed] = 4
    """of its attentions"""
    batch_size: Annotated[int, AtLeast(1), Fixed] = 32
    """pieces in an update of the pre-training"""
    labels: Annotated[int, AtLeast(8)] = 256
    """labelled gaps to learn from, equally many of each word"""
    tests: Annotated[int, AtLeast(8)] = 800
    """gaps that the accuracy is measured on"""
    tune_steps: Annotated[int, AtLeast(1)] = 100
    """updates of each fine-tuning and of each training from scratch"""
    tune_batch: Annotated[int, AtLeast(1)] = 32
    """gaps in such an update"""
    tune_lr: Annotated[float, AtLeast(0)] = 3e-3
    """its learning rate at most"""
    repeats: Annotated[int, AtLeast(2)] = 5
    """fine-tunings of each, with other labelled gaps; as many from scratch with the same ones"""
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


# -- the task ----------------------------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """Tokens [B, N] with a mask in their middle -> logits [B, classes], from the row where a copy of a reader learned
    to guess: the mask's own; permutation, one that asks about the gap and that no other sees; causal, the one before
    the gap, which sees nothing later; denoising, the source's mask, by which all that is written there was told.
    """

    def __init__(self, reader: Reader, classes: int, objective: str):
        super().__init__()
        self.reader, self.objective = copy.deepcopy(reader).train(), objective
        self.out = LinearHead(reader.embed.embedding_dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        n = tokens.shape[1]
        gap, places = n // 2, torch.arange(n, device=tokens.device)
        causal, mask = self.objective == "causal", None
        if self.objective == "permutation":
            tokens = tokens.where(tokens != MASK, QUERY)
            mask = (places != gap).repeat(n, 1)
            mask[gap, gap] = True
        return self.out(self.reader.features(tokens, places, mask, causal)[:, gap - causal])


def class_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    return F.cross_entropy(model(batch["tokens"]), batch["label"]), {}


WORD = re.compile(rb"(?<![\w\x80-\xff])[A-Za-z\x80-\xff]{2,}(?![\w\x80-\xff])")
"""two letters or more on end, and no part of a longer name"""


def frequent_words(text: bytes, count: int) -> list[bytes]:
    """Most frequent first. Raises ValueError where there are fewer."""
    found = sorted(Counter(WORD.findall(text)).items(), key=lambda item: (-item[1], item[0]))
    if len(found) < count:
        raise ValueError(f"the text has {len(found)} different words, and {count} are to be told apart: name another")
    return [word for word, _ in found[:count]]


def gaps(text: bytes, words: Sequence[bytes], count: int, window: int, seed: int) -> Batch:
    """Pieces of a text from random places, as many for each word, with one mask in their middle in place of it:
    {"tokens": [count, window], "label": [count]}, `count` rounded down. Raises ValueError where a word comes too
    seldom.
    """
    tokens, rng = np.frombuffer(text, np.uint8).astype(np.int64) + FIRST, np.random.default_rng(seed)
    before, each = window // 2, count // len(words)
    after = window - before - 1
    places: dict[bytes, list[int]] = {word: [] for word in words}
    for match in WORD.finditer(text):
        if match.group() in places and match.start() >= before and match.end() + after <= len(text):
            places[match.group()].append(match.start())
    pieces = []
    for word, starts in places.items():
        if len(starts) < each:
            raise ValueError(
                f"{word.decode(errors='replace')!r} stands {len(starts)} times in {len(text):,} bytes, where {each} "
                "pieces with it are wanted: lower --labels or --tests, or name a longer text"
            )
        for i in rng.choice(starts, each, replace=False):
            end = i + len(word)
            pieces.append(np.concatenate([tokens[i - before : i], [MASK], tokens[end : end + after]]))
    labels = torch.arange(len(words)).repeat_interleave(each)
    return {"tokens": torch.from_numpy(np.stack(pieces)), "label": labels}


def tuned(reader: Reader, objective: str, examples: Batch, tests: Batch, cfg: Config, seed: int) -> float:
    """The share of `tests` that a classifier names rightly, which begins with `reader` and learns from `examples`.

    Raises KeyboardInterrupt where a signal ends it.
    """
    device = reader.embed.weight.device
    model = Classifier(reader, int(examples["label"].max()) + 1, objective).to(device)
    how = replace(
        cfg.trainer, steps=cfg.tune_steps, lr=cfg.tune_lr, lr_warmup=cfg.tune_steps // 10, progress=False,
        log_every=cfg.tune_steps + 1, accumulate=1, mode="eager",
    )  # fmt: skip
    trainer = Trainer(model, class_loss, how)
    for _ in trainer.run(Batches(rows(examples, min(cfg.tune_batch, len(examples["label"])), seed))):
        pass
    trainer.close()
    if trainer.stopped:
        raise KeyboardInterrupt
    with runtime.evaluating(model):
        right = [
            (model(tokens.to(device)).argmax(1).cpu() == label).float()
            for tokens, label in zip(tests["tokens"].split(256), tests["label"].split(256), strict=True)
        ]
    return float(torch.cat(right).mean())


STUDENT = (math.inf, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t of 95 % for 1, 2, ... values"""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """(mean, what is added and taken away for its 95 % interval) by Student's t."""
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), STUDENT[min(len(values), len(STUDENT)) - 1] * spread


# -- what is shown -----------------------------------------------------------------------------------------------------


Result = dict[str, tuple[float, float]]
"""(mean, half of the interval) of accuracies: tuned, scratch, gain"""


def table(losses: dict[str, float], results: dict[str, Result]) -> str:
    """One line an objective."""
    lines = [f"{'objective':14}{'nats':>6}{'fine-tuned':>18}{'from scratch':>18}{'gain':>18}   accuracy in %"]
    for name, result in results.items():
        cells = "".join(f"{100 * mean:>11.1f} +-{100 * half:4.1f}" for mean, half in result.values())
        lines.append(f"{name:14}{losses[name]:6.3f}{cells}")
    return "\n".join(lines)


def draw_bars(results: dict[str, Result], chance: float) -> NDArray[np.uint8]:
    """Accuracy of each fine-tuned and from scratch, with intervals; a line where guessing lies."""
    height, bar, left, top = 300, 44, 50, 40
    image = Image.new("RGB", (max(450, left + 150 * len(results) + 20), height + top + 40), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    for percent in range(0, 101, 20):
        y = top + height * (1 - percent / 100)
        draw.line((left, y, image.width - 10, y), (225, 225, 225))
        draw.text((left - 8, y), f"{percent} %", "black", font, "rm")
    for i, (name, result) in enumerate(results.items()):
        for j, (kind, colour) in enumerate({"tuned": (18, 52, 140), "scratch": (170, 170, 170)}.items()):
            mean, half = result[kind]
            x, y = left + 25 + 150 * i + j * (bar + 8), top + height * (1 - mean)
            draw.rectangle((x, y, x + bar, top + height), colour)
            draw.line((x + bar / 2, y - height * half, x + bar / 2, y + height * half), "black", 2)
            draw.text((x + bar / 2, y - height * half - 4), f"{100 * mean:.1f}", "black", font, "md")
        draw.text((left + 70 + 150 * i, top + height + 8), name, "black", font, "mt")
    y = top + height * (1 - chance)
    draw.line((left, y, image.width - 10, y), (200, 60, 40))
    draw.text((left, 8), "accuracy: blue fine-tuned, grey from scratch, red line guessing", "black", font)
    return np.asarray(image)


# -- a run -------------------------------------------------------------------------------------------------------------


def pretrained(
    name: str, cfg: Config, corpus: Corpus, folder: Path, device: torch.device, deadline: Deadline
) -> tuple[Trainer, float]:
    """(a trainer that has done its work, nats a predicted token on the text's last tenth)."""
    # From the seed and the objective alone: it comes out the same by itself and among all.
    stream = 10 * (1 + list(OBJECTIVES).index(name))
    runtime.seed_everything(runtime.derive_seed(cfg.seed, stream))
    reader = Reader(Shape(cfg.width, cfg.heads, cfg.layers)).to(device)

    def drawn(text: Tokens, size: int, seed: int) -> Callable[[int], Batch]:
        make = windows(text + FIRST, cfg.window, size, seed)
        return lambda number: OBJECTIVES[name](make(number)["tokens"].numpy(), np.random.default_rng([seed, number]))

    batches = Batches.for_device(drawn(corpus.train, cfg.batch_size, runtime.derive_seed(cfg.seed, stream + 1)), device)
    trainer = Trainer(reader, loss_fn, cfg.trainer, folder, state={"batches": batches}, deadline=deadline)
    if cfg.resume:
        trainer.load()
    if cfg.start_from:
        reader.load_state_dict(load_reader(cfg.start_from)[0].state_dict())
    elif trainer.step < cfg.trainer.steps:
        for _ in trainer.run(batches):
            pass
    held_out, learned = drawn(corpus.valid, 64, 0), trainer.averaged
    with runtime.evaluating(learned):
        losses = [loss_fn(learned, {k: v.to(device) for k, v in held_out(i).items()})[0].item() for i in range(10)]
    return trainer, float(np.mean(losses))


def save_reader(folder: Path, name: str, reader: nn.Module, cfg: Config, score: dict[str, Any]) -> None:
    """Write the agent's folder."""
    config = {key: getattr(cfg, key) for key in ("window", "layers", "width", "heads")}
    info = {
        "kind": "pretraining",
        "config": {"objective": name, **config},
        "trained": {"text": cfg.text or "stdlib", "seed": cfg.seed, "preset": cfg.preset},
        "score": score,
    }
    save_agent(folder, info, reader.state_dict())


def reader_folder(path: str) -> Path:
    """Of an agent folder, or of a run of one objective. Raises ValueError for a run of several."""
    inside = sorted(Path(path) / name for name in OBJECTIVES if (Path(path) / name / "agent").is_dir())
    if len(inside) > 1:
        raise ValueError(f"{path} has several: take one of {', '.join(map(str, inside))}")
    return inside[0] if inside else Path(path)


def settled(cfg: Config) -> Config:
    """With the shape of the reader that it starts from. Raises ValueError for numbers that make no sense."""
    check_bounds(cfg)
    if cfg.trainer.mode == "cudagraph":
        raise ValueError("mode cudagraph wants batches of one shape, and texts with holes differ: use eager or compile")
    if cfg.start_from:
        folder = reader_folder(cfg.start_from)
        cfg = replace(cfg, start_from=str(folder), **load_reader(folder)[1])
    if cfg.width % (2 * cfg.heads):
        raise ValueError(f"--width {cfg.width} is no multiple of {2 * cfg.heads}, which --heads {cfg.heads} asks for")
    return cfg


def main(cfg: Config) -> Path:
    """Pre-train, fine-tune, compare; returns the run's folder."""
    cfg = settled(located(cfg, "text", "start_from"))
    run = Run(cfg, "pretraining")
    corpus = read_corpus(cfg.text, "", "bytes", cfg.window + 1)
    text, last = (part.astype(np.uint8).tobytes() for part in (corpus.train, corpus.valid))
    words = frequent_words(text, CLASSES)
    tests = gaps(last, words, cfg.tests, cfg.window, 0)
    examples = [gaps(text, words, cfg.labels, cfg.window, runtime.derive_seed(cfg.seed, i)) for i in range(cfg.repeats)]
    data = DataFiles(cfg, {**named(cfg, "text"), "start_from": agent_files(cfg.start_from)})
    run_dir = run.open(f"{corpus.name}_{cfg.objective}", data)
    say(
        f"{corpus.name}: {len(text):,} bytes to learn from; then {len(examples[0]['label'])} gaps with their words "
        f"({b', '.join(words).decode(errors='replace')}), {cfg.tune_steps} updates, {cfg.repeats} times"
    )
    names = list(OBJECTIVES) if cfg.objective == "all" else [cfg.objective]
    losses: dict[str, float] = {}
    results: dict[str, Result] = {}

    def accuracies(reader: Reader, objective: str, deadline: Deadline) -> tuple[list[float], list[float]]:
        """Of `cfg.repeats` classifiers, time allowing, that begin with a reader, and of as many with random weights."""
        after: list[float] = []
        scratch: list[float] = []
        for i, chosen in enumerate(examples):
            left = deadline.left()
            for found, start in ((after, reader), (scratch, None)):
                runtime.seed_everything(runtime.derive_seed(cfg.seed, 1000 + i))
                begun = start or Reader(Shape(cfg.width, cfg.heads, cfg.layers)).to(run.device)
                found.append(tuned(begun, objective, chosen, tests, cfg, runtime.derive_seed(cfg.seed, 2000 + i)))
            if 0 < i < len(examples) - 1 and deadline.left() < left - deadline.left():
                say(f"{i + 1} of {len(examples)} fine-tunings, as the time is over")
                break
        return after, scratch

    try:
        for number, name in enumerate(names):
            share = run.deadline.share(len(names) - number)
            (run_dir / name).mkdir(exist_ok=True)
            trainer, losses[name] = pretrained(name, cfg, corpus, run_dir / name, run.device, share.share(2))
            reader: Any = trainer.averaged
            save_reader(run_dir / name / "agent", name, reader, cfg, {"nats": losses[name]})
            if trainer.stopped:
                raise KeyboardInterrupt
            seen, made = filled(reader, name, corpus.valid[None, : cfg.window] + FIRST, np.random.default_rng(cfg.seed))
            say(f"{name}: {losses[name]:.3f} nats\n  reads  {seen}\n  writes {made}")
            after, scratch = accuracies(reader, name, share)
            gain = [a - b for a, b in zip(after, scratch, strict=True)]
            results[name] = {"tuned": interval(after), "scratch": interval(scratch), "gain": interval(gain)}
            score = {"nats": losses[name], "labels": len(examples[0]["label"]), **results[name]}
            save_reader(run_dir / name / "agent", name, reader, cfg, score)
            trainer.log({"eval/nats": losses[name]} | {f"eval/{key}": mean for key, (mean, _) in results[name].items()})
            bars = draw_bars(results, 1 / CLASSES)
            trainer.show({"eval/accuracy": bars})
            Image.fromarray(bars).save(run_dir / "accuracy.png")
            trainer.close()
    except KeyboardInterrupt:
        say(f"stopped; go on: {command('pretraining', '--resume', run_dir)}")
        return run_dir
    print(table(losses, results))
    again = command("pretraining", "--start-from", run_dir / name, "--labels", 64)
    say(f"with fewer labels: {again}")
    return run_dir
