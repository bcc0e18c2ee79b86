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

import sacrebleu
import tokenizers

from experiments.pictures import show
from experiments.sequences.byte_pairs import LEAST_VOCABULARY, learn_bpe, load_bpe
from experiments.sequences.sentence_pairs import FILES, SPLITS, PairsConfig, read_splits, tokenized
from experiments.sequences.text_pictures import draw_attention
from experiments.sequences.translation_scores import loss_with, nats_per_token, score
from experiments.sequences.translator import FIELDS, Translator, load, network
from rlkit import runtime
from rlkit.config import AtLeast, Divided, Fixed, check_bounds
from rlkit.data import Batches, pairs
from rlkit.data_files import DataFiles, located, named
from rlkit.files import read_bytes, write_atomically
from rlkit.logger import say
from rlkit.run import Run
from rlkit.text_files import decoded
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config(PairsConfig):
    """A translator from sentence pairs. Without files: numbers in words, English and Korean."""

    preset: Annotated[Literal["numbers", "multi30k", "multi30k-cpu"], Fixed] = "numbers"
    """defaults: numbers (minutes on two cores), multi30k (a Transformer of 7.6 M parameters, for a GPU), multi30k-cpu
    (2.8 M parameters, a quarter of an hour on two cores)"""
    translate: tuple[str, ...] = ()
    """run or agent folder, then sentences: translate them, or the lines of stdin, and train nothing"""
    vocabulary: Annotated[int, AtLeast(LEAST_VOCABULARY), Fixed] = 400
    """tokens of both languages together: special ones, bytes and byte pairs"""
    model: Annotated[Literal["rnn", "attention", "transformer"], Fixed] = "transformer"
    """a recurrent encoder-decoder (rnn), the same with attention, or the Transformer"""
    kind: Annotated[Literal["gru", "lstm", "rnn"], Fixed] = "gru"
    """recurrent cells of --model rnn and attention"""
    attention: Annotated[Literal["additive", "dot"], Fixed] = "additive"
    """how --model attention scores each pair of tokens"""
    channels: Annotated[int, AtLeast(1), Fixed] = 128
    """numbers in a token's vector, and units of the recurrent cells"""
    heads: Annotated[int, AtLeast(1), Fixed] = 4
    """attention heads of the Transformer"""
    layers: Annotated[int, AtLeast(1), Fixed] = 2
    """blocks in the encoder of the Transformer, and as many in its decoder"""
    hidden: Annotated[int, AtLeast(0), Fixed] = 0
    """units between the dense layers of a block of the Transformer; 0: four times the channels"""
    dropout: Annotated[float, AtLeast(0), Fixed] = 0.1
    """share of units left out in training"""
    context: Annotated[int, AtLeast(2), Fixed] = 64
    """tokens of a sentence at most, its end counted; pairs with a longer one are left out"""
    smoothing: Annotated[float, AtLeast(0)] = 0.1
    """share of each label that is spread over all tokens"""
    batch_tokens: Annotated[int, AtLeast(1), Fixed, Divided] = 1500
    """tokens in a batch, on its longer side, with padding"""
    eval_every: Annotated[int, AtLeast(1)] = 250
    """updates between evaluations by greedy decoding; the agent's folder is saved then"""
    beam: Annotated[int, AtLeast(1)] = 4
    """beam size of the last test and of --translate; 1: greedy"""
    length_power: Annotated[float, AtLeast(0)] = 1.0
    """beam search compares translations by log-probability / tokens ** length_power"""
    bleu_tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a"
    """how sacrebleu splits sentences into words"""
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=1000, lr=1e-3, lr_warmup=100, lr_decay="cosine", clip=1.0, log_every=50, save_every=500
        )
    )


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


def check(cfg: Config) -> None:
    """Raise ValueError for settings that make no sense."""
    check_bounds(cfg)
    for name in ("dropout", "smoothing"):
        if getattr(cfg, name) >= 1:
            raise ValueError(f"--{name} must be below 1, not {getattr(cfg, name)}")
    if cfg.trainer.mode == "cudagraph":
        raise ValueError("mode cudagraph wants batches of one shape, and sentences differ: use eager or compile")


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    check(cfg)
    if cfg.translate:
        return translate(cfg)
    cfg = located(cfg, *FILES)
    run = Run(cfg, "translation")

    # The sentences, their tokens, and the model.
    splits = read_splits(cfg)
    kept = Path(cfg.resume or "") / "tokenizer.json"
    if cfg.resume and kept.exists():
        tokenizer = load_bpe(read_bytes(kept).decode(errors="replace"), kept)
    else:
        tokenizer = learn_bpe((sentence for pair in splits["train"] for sentence in pair), cfg.vocabulary)
    data = {name: tokenized(name, part, tokenizer, cfg.context) for name, part in splits.items()}
    config = {name: getattr(cfg, name) for name in FIELDS}
    model: Any = network(config, tokenizer.get_vocab_size()).to(run.device)
    folder = run.open(f"{cfg.preset}-{cfg.model}", DataFiles(cfg, named(cfg, *FILES)))
    make = pairs(data["train"][1], run.cfg.batch_tokens, runtime.derive_seed(cfg.seed, 2))
    batches = Batches.for_device(make, run.device)
    trainer = Trainer(
        model, loss_with(cfg.smoothing), run.cfg.trainer, folder, state={"batches": batches}, timer=run.timer,
        deadline=run.deadline,
    )  # fmt: skip
    run.resume(trainer)
    write_atomically(folder / "tokenizer.json", tokenizer.to_str().encode())

    parameters = sum(p.numel() for p in model.parameters())
    model = trainer.averaged
    translator = Translator(model, tokenizer, config)
    sizes = ", ".join(f"{len(part):,} {SPLITS[name]}" for name, (part, _) in data.items())
    say(f"pairs: {sizes}; {tokenizer.get_vocab_size():,} tokens; {parameters:,} parameters")
    example = max((source for source, _ in data["test"][0][:10]), key=len)

    def save(scores: dict[str, Any] | None) -> None:
        trained = {"step": trainer.step, "pairs": len(data["train"][0]), "seed": cfg.seed, "preset": cfg.preset}
        versions = {module.__name__: module.__version__ for module in (tokenizers, sacrebleu)}
        translator.save(folder / "agent", {"trained": trained, "score": scores, "versions": versions})

    def score_with(beam: int, part: list[tuple[str, str]]) -> dict[str, Any]:
        written: list[str] = []
        for begin in run.deadline.in_time(range(0, len(part), 100)):
            written += translator([source for source, _ in part[begin : begin + 100]], beam, cfg.length_power)
        if len(written) < len(part):
            say(f"{len(written):,} of {len(part):,} sentences, as the time is over")
        return score(written, [target for _, target in part[: len(written)]], cfg.bleu_tokenize)

    def evaluate(split: str, *beams: int) -> dict[int, dict[str, Any]]:
        """Score a split with each beam size, draw the attention of an example, and save all."""
        part, rows = data[split]
        with run.timer("evaluate"):
            nats = nats_per_token(model, rows)
            scores = {beam: score_with(beam, part) for beam in beams}
            attention = translator.attention_map(example)
        tag = "eval/" if split == "valid" else f"eval/{split}_"
        trainer.log({f"{tag}loss": nats})
        for beam, one in scores.items():
            end = "" if beam == 1 else f"_beam_{beam}"
            trainer.log({f"{tag}bleu{end}": one["bleu"], f"{tag}exact{end}": one["exact"]})
        if attention:
            show({"attention": draw_attention(attention)}, trainer, folder)
        save({"on": split, "sentences": len(part), "loss": nats, "length_power": cfg.length_power, "beams": scores})
        return scores

    for step, _, _ in trainer.run(batches):
        if run.evaluation_due(cfg.eval_every):
            (one,) = evaluate("valid", 1).values()
            say(f"step {step:,}: BLEU {one['bleu']:.2f}, exact {one['exact']:.3f}")
    if run.stopped:
        save(None)
    else:
        evaluate("valid", 1)
        for beam, one in evaluate("test", *dict.fromkeys((1, cfg.beam))).items():
            how = "greedily" if beam == 1 else f"with a beam of {beam}"
            say(f"test {how}: BLEU {one['bleu']:.2f}, exact {one['exact']:.3f}   {one['signature']}")
        for source, target in data["test"][0][:3]:
            say(f"  {source}\n  -> {translator([source], cfg.beam, cfg.length_power)[0]}\n  =  {target}")
    run.close(translate=("translation", "--translate", folder, example))
    return folder
