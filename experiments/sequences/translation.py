"""Sentences to sentences: an RNN encoder-decoder, the same with attention, and the Transformer.

python -m experiments translation                                  # numbers in words, English to Korean; --reverse
python -m experiments translation --model attention --attention dot
python -m experiments translation --preset multi30k --source train.de.gz --target train.en.gz \
    --valid-source val.de.gz --valid-target val.en.gz --test-source test.de.gz --test-target test.en.gz
python -m experiments translation --preset multi30k --pairs kor.txt    # a tab between a sentence and its translation
python -m experiments translation --translate runs/translation/<run> "forty-eight thousand two hundred thirteen"
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import sacrebleu
import tokenizers
import torch.nn.functional as F
from PIL import Image
from sacrebleu.metrics import BLEU
from tokenizers import Tokenizer
from torch import Tensor, nn

from experiments.sequences import number_words
from experiments.sequences.translator import (
    AT_ONCE,
    BOS,
    EOS,
    FIELDS,
    LEAST_VOCABULARY,
    PAD,
    Translator,
    clean,
    draw,
    learn_bpe,
    load,
    load_bpe,
    network,
)  # fmt: skip
from rlkit import runtime
from rlkit.config import AtLeast, Fixed, RunConfig, check_bounds
from rlkit.data import Batch, Batches, padded, pairs
from rlkit.data_files import DataFiles, located, named
from rlkit.files import read_bytes, write_atomically
from rlkit.logger import say
from rlkit.run import Run
from rlkit.text_files import decoded, read_pairs
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config(RunConfig):
    """A translator from sentence pairs. Without files: numbers in words, English and Korean."""

    preset: Annotated[Literal["numbers", "multi30k", "multi30k-cpu"], Fixed] = "numbers"
    """defaults: numbers (minutes on two cores), multi30k (a Transformer of 7.6 M parameters, for a GPU), multi30k-cpu
    (2.8 M parameters, a quarter of an hour on two cores)"""
    translate: tuple[str, ...] = ()
    """instead of training: folder of a run or agent, then sentences; without them, the lines of stdin"""
    source: str | None = None
    """sentences, one a line, in UTF-8; .gz is unpacked. All files may have moved when a run goes on"""
    target: str | None = None
    """their translations, line by line"""
    pairs: str | None = None
    """in place of the two: lines of a sentence, a tab and its translation"""
    valid_source: str | None = None
    """scored on the way; without a file: --held sentences of those above, chosen by the seed"""
    valid_target: str | None = None
    """their translations"""
    test_source: str | None = None
    """scored at the end; likewise"""
    test_target: str | None = None
    """their translations"""
    reverse: Annotated[bool, Fixed] = False
    """from the second language to the first"""
    lowercase: Annotated[bool, Fixed] = False
    """everything, references too"""
    limit: Annotated[int, AtLeast(0), Fixed] = 0
    """training pairs, chosen by the seed; 0: all"""
    held: Annotated[int, AtLeast(1), Fixed] = 500
    """sentences held out of training for each of validation and test"""
    numbers: Annotated[int, AtLeast(1), Fixed] = 20_000
    """numbers to train on, where no file is given"""
    vocabulary: Annotated[int, AtLeast(LEAST_VOCABULARY), Fixed] = 400
    """byte pairs, bytes and special tokens together, of both languages"""
    model: Annotated[Literal["rnn", "attention", "transformer"], Fixed] = "transformer"
    """encoder-decoder without and with attention, and the Transformer"""
    kind: Annotated[Literal["gru", "lstm", "rnn"], Fixed] = "gru"
    """cells of the first two"""
    attention: Annotated[Literal["additive", "dot"], Fixed] = "additive"
    """of the second"""
    channels: Annotated[int, AtLeast(1), Fixed] = 128
    """of a token's vector, and of the recurrent cells"""
    heads: Annotated[int, AtLeast(1), Fixed] = 4
    """of the Transformer, as the next two"""
    layers: Annotated[int, AtLeast(1), Fixed] = 2
    """in the encoder, and as many in the decoder"""
    hidden: Annotated[int, AtLeast(0), Fixed] = 0
    """units between the dense layers of a block; 0: four times the channels"""
    dropout: Annotated[float, AtLeast(0), Fixed] = 0.1
    """share of units left out in training"""
    context: Annotated[int, AtLeast(2), Fixed] = 64
    """tokens of a sentence, its end counted, at the most; longer ones are not learned from"""
    smoothing: Annotated[float, AtLeast(0)] = 0.1
    """share of each label that is spread over all tokens"""
    batch_tokens: Annotated[int, AtLeast(1), Fixed] = 1500
    """on a batch's longer side, with padding"""
    eval_every: Annotated[int, AtLeast(1)] = 250
    """updates between evaluations by greedy decoding; the agent's folder is saved then"""
    beam: Annotated[int, AtLeast(1)] = 4
    """translations kept at each token in the last test and by --translate; 1: greedy"""
    length_power: Annotated[float, AtLeast(0)] = 1.0
    """the beam goes by log-probability / tokens ** this"""
    bleu_tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a"
    """what sacrebleu takes for words"""
    seed: Annotated[int, AtLeast(0), Fixed] = 1
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=1000, lr=1e-3, lr_warmup=100, lr_decay="cosine", clip=1.0, log_every=50, save_every=500
        )
    )


FILES = ("source", "target", "pairs", "valid_source", "valid_target", "test_source", "test_target")

MULTI30K = Config(
    preset="multi30k",
    lowercase=True,
    vocabulary=8000,
    channels=256,
    heads=8,
    layers=3,
    hidden=1024,
    dropout=0.3,
    context=100,
    batch_tokens=4000,
    eval_every=500,
    trainer=TrainConfig(
        steps=6000, lr=1e-3, lr_warmup=600, lr_decay="cosine", clip=1.0, precision="auto", log_every=50, save_every=1000
    ),
)
PRESETS = {
    "numbers": Config(bleu_tokenize="char"),  # two words, as most Korean numbers have, are too few for BLEU
    "multi30k": MULTI30K,
    "multi30k-cpu": replace(
        MULTI30K,
        preset="multi30k-cpu",
        vocabulary=4000,
        channels=192,
        heads=6,
        layers=2,
        hidden=768,
        dropout=0.2,
        batch_tokens=2000,
        trainer=replace(MULTI30K.trainer, steps=3000, lr=2e-3, lr_warmup=400),
    ),
}

SPLITS = {"train": "for training", "valid": "for validation", "test": "for the test"}
Pairs = list[tuple[str, str]]
Rows = dict[str, list[list[int]]]
"""source: tokens and <eos>; target: <bos>, tokens and <eos>"""


def read(cfg: Config) -> dict[str, Pairs]:
    """Sentences to "train", "valid" and "test" on. Raises FileNotFoundError, and ValueError with file and line."""
    files = {
        "train": (cfg.source, cfg.target),
        "valid": (cfg.valid_source, cfg.valid_target),
        "test": (cfg.test_source, cfg.test_target),
    }
    for name, two in files.items():
        if bool(two[0]) != bool(two[1]):
            prefix = "" if name == "train" else f"{name}-"
            raise ValueError(f"--{prefix}source and --{prefix}target are two files, line by line: give both")
    if cfg.pairs and cfg.source:
        raise ValueError("--pairs stands in place of --source and --target: leave one out")
    seed = runtime.derive_seed(cfg.seed, 1)
    splits = {name: read_pairs(source, target) for name, (source, target) in files.items() if source}
    if cfg.pairs:
        splits["train"] = read_pairs(cfg.pairs)
    if not splits:
        splits = number_words.splits(cfg.numbers, cfg.held, seed)
    if "train" not in splits:
        raise ValueError("there are files to score on and none to learn from: give --source and --target, or --pairs")
    for name, part in splits.items():
        cleaned = [(clean(a, cfg.lowercase), clean(b, cfg.lowercase)) for a, b in part]
        splits[name] = [(b, a) for a, b in cleaned] if cfg.reverse else cleaned
    rng = np.random.default_rng(seed)
    for name in ("valid", "test"):
        if name not in splits:
            splits["train"], splits[name] = _held_out(splits["train"], cfg.held, rng)
    if cfg.limit:
        chosen = sorted(rng.permutation(len(splits["train"]))[: cfg.limit])
        splits["train"] = [splits["train"][i] for i in chosen]
    return splits


def _held_out(part: Pairs, count: int, rng: np.random.Generator) -> tuple[Pairs, Pairs]:
    """(the rest, the pairs of `count` sentences): one that has several translations is not on both sides."""
    sentences = list(dict.fromkeys(source for source, _ in part))
    if len(sentences) <= count:
        raise ValueError(f"of {len(sentences):,} sentences {count:,} cannot be held out: lower --held")
    chosen = {sentences[i] for i in rng.permutation(len(sentences))[:count]}
    return [pair for pair in part if pair[0] not in chosen], [pair for pair in part if pair[0] in chosen]


def fitting(name: str, part: Pairs, tokenizer: Tokenizer, context: int) -> tuple[Pairs, Rows]:
    """The pairs that are within the context, and their tokens. Says how many are not; raises ValueError if none is."""
    sides = [[e.ids for e in tokenizer.encode_batch(list(side))] for side in zip(*part, strict=True)]
    fits = [i for i in range(len(part)) if max(len(side[i]) for side in sides) < context]
    if left_out := len(part) - len(fits):
        say(
            f"{left_out:,} of {len(part):,} pairs {SPLITS[name]} are longer than the context of {context} tokens, and "
            "left out"
        )
    if not fits:
        raise ValueError(f"no pair {SPLITS[name]} is within the context of {context} tokens: raise --context")
    source, target = ([side[i] for i in fits] for side in sides)
    rows = {"source": [[*ids, EOS] for ids in source], "target": [[BOS, *ids, EOS] for ids in target]}
    return [part[i] for i in fits], rows


def loss(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
    """(mean cross-entropy of each token that is no padding from those before it, with a share `smoothing` of its label
    on all tokens alike; {"nats"}, without that). Source: Szegedy et al. 2016, section 7.
    """
    logits, labels = model(batch["source"], batch["target"][:, :-1]).flatten(0, 1), batch["target"][:, 1:].flatten()
    nats = F.cross_entropy(logits, labels, ignore_index=PAD)
    value = F.cross_entropy(logits, labels, ignore_index=PAD, label_smoothing=smoothing) if smoothing else nats
    return value, {"nats": nats.detach()}


def nats_per_token(model: nn.Module, rows: Rows) -> float:
    """Of the given translations, without dropout and smoothing."""
    device = next(model.parameters()).device
    order = sorted(range(len(rows["target"])), key=lambda i: len(rows["target"][i]))
    total, count = 0.0, 0
    for begin in range(0, len(order), AT_ONCE):
        chosen = order[begin : begin + AT_ONCE]
        batch = {name: padded([side[i] for i in chosen]) for name, side in rows.items()}
        real = int((batch["target"][:, 1:] != PAD).sum())
        with runtime.evaluating(model):
            total += real * loss(model, {name: x.to(device) for name, x in batch.items()})[1]["nats"].item()
        count += real
    return total / count


def score(hypotheses: list[str], references: list[str], tokenize: str = "13a") -> dict[str, Any]:
    """BLEU of the whole, 0 to 100, with sacrebleu's signature; exact: share of sentences equal to the reference."""
    bleu = BLEU(tokenize=tokenize)
    value = bleu.corpus_score(hypotheses, [references]).score
    exact = sum(a == b for a, b in zip(hypotheses, references, strict=True)) / len(references)
    return {"bleu": value, "exact": exact, "signature": str(bleu.get_signature())}


def build(cfg: Config, model: nn.Module, rows: Rows, run_dir: Path | None, run: Run | None = None) -> Trainer:
    """The trainer, with its batches in its state."""
    seed, device = runtime.derive_seed(cfg.seed, 2), next(model.parameters()).device
    batches = Batches.for_device(pairs(rows, cfg.batch_tokens, seed), device)

    def smoothed(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return loss(model, batch, cfg.smoothing)

    shared: dict[str, Any] = {"timer": run.timer, "deadline": run.deadline} if run else {}
    return Trainer(model, smoothed, cfg.trainer, run_dir, state={"batches": batches}, **shared)


def translate(cfg: Config) -> Path:
    """Print the translations that --translate asks for; returns the translator's folder."""
    path = Path(cfg.translate[0])
    translator = load(path, runtime.setup(cfg.seed, cfg.device, cfg.threads))
    if len(cfg.translate) > 1:
        lines, where = list(cfg.translate[1:]), "sentence"
    else:
        lines, where = decoded(sys.stdin.buffer.read(), "stdin").rstrip("\n").split("\n"), "stdin, line"
    for number, line in enumerate(lines, 1):
        if line.strip():  # as many lines come out as went in
            try:
                translator.encode(line)
            except ValueError as error:
                raise ValueError(f"{where} {number}: {error}") from error
    written = iter(translator([line for line in lines if line.strip()], cfg.beam, cfg.length_power))
    for line in lines:
        print(next(written) if line.strip() else "")
    return path


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    check_bounds(cfg)
    for name in ("dropout", "smoothing"):
        if getattr(cfg, name) >= 1:
            raise ValueError(f"--{name} must be below 1, not {getattr(cfg, name)}")
    if cfg.trainer.mode == "cudagraph":
        raise ValueError("mode cudagraph wants batches of one shape, and sentences differ: use eager or compile")
    if cfg.translate:
        return translate(cfg)
    cfg = located(cfg, *FILES)
    run = Run(cfg, "translation")
    splits = read(cfg)
    kept = Path(cfg.resume or "") / "tokenizer.json"
    if cfg.resume and kept.exists():
        tokenizer = load_bpe(read_bytes(kept).decode(errors="replace"), kept)
    else:
        tokenizer = learn_bpe((sentence for pair in splits["train"] for sentence in pair), cfg.vocabulary)
    data = {name: fitting(name, part, tokenizer, cfg.context) for name, part in splits.items()}
    config = {name: getattr(cfg, name) for name in FIELDS}
    model: Any = network(config, tokenizer.get_vocab_size()).to(run.device)
    run_dir = run.open(f"{cfg.preset}-{cfg.model}", DataFiles(cfg, named(cfg, *FILES)))
    trainer = build(cfg, model, data["train"][1], run_dir, run)
    run.resume(trainer)
    write_atomically(run_dir / "tokenizer.json", tokenizer.to_str().encode())

    parameters = sum(p.numel() for p in model.parameters())
    model = trainer.averaged
    translator = Translator(model, tokenizer, config)
    sizes = ", ".join(f"{len(part):,} {SPLITS[name]}" for name, (part, _) in data.items())
    say(f"pairs: {sizes}; {tokenizer.get_vocab_size():,} tokens; {parameters:,} parameters")
    shown = max((source for source, _ in data["test"][0][:10]), key=len)

    def save(score: dict[str, Any] | None) -> None:
        trained = {"step": trainer.step, "pairs": len(data["train"][0]), "seed": cfg.seed, "preset": cfg.preset}
        versions = {module.__name__: module.__version__ for module in (tokenizers, sacrebleu)}
        about = {"trained": trained, "score": score, "versions": versions}
        translator.save(run_dir / "agent", about)

    def evaluation(name: str, *beams: int) -> dict[int, dict[str, Any]]:
        """Score a split with each number of beams, draw where the model looks, and save it."""
        part, rows = data[name]
        with run.timer("evaluate"):
            nats = nats_per_token(model, rows)
            scores = {}
            for beam in beams:
                written: list[str] = []
                for begin in run.deadline.in_time(range(0, len(part), 100)):
                    written += translator([s for s, _ in part[begin : begin + 100]], beam, cfg.length_power)
                scores[beam] = score(written, [target for _, target in part[: len(written)]], cfg.bleu_tokenize)
                if len(written) < len(part):
                    say(f"{len(written):,} of {len(part):,} sentences, as the time is over")
            look = translator.look(shown)
        tag = "eval/" if name == "valid" else f"eval/{name}_"
        trainer.log({f"{tag}loss": nats})
        for beam, one in scores.items():
            end = "" if beam == 1 else f"_beam_{beam}"
            trainer.log({f"{tag}bleu{end}": one["bleu"], f"{tag}exact{end}": one["exact"]})
        if look:
            drawn = draw(look)
            trainer.show({"eval/attention": drawn})
            Image.fromarray(drawn).save(run_dir / "attention.png")
        save({"on": name, "sentences": len(part), "loss": nats, "length_power": cfg.length_power, "beams": scores})
        return scores

    for step, _, _ in trainer.run(trainer.state["batches"]):
        if run.evaluation_due(cfg.eval_every):
            (one,) = evaluation("valid", 1).values()
            say(f"step {step:,}: BLEU {one['bleu']:.2f}, exact {one['exact']:.3f}")
    if run.stopped:
        save(None)
    else:
        evaluation("valid", 1)
        for beam, one in evaluation("test", *dict.fromkeys((1, cfg.beam))).items():
            how = "greedily" if beam == 1 else f"with a beam of {beam}"
            say(f"test {how}: BLEU {one['bleu']:.2f}, exact {one['exact']:.3f}   {one['signature']}")
        for source, target in data["test"][0][:3]:
            say(f"  {source}\n  -> {translator([source], cfg.beam, cfg.length_power)[0]}\n  =  {target}")
    run.close(translate=("translation", "--translate", run_dir, shown))
    return run_dir
