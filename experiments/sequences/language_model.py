"""Language models of characters or bytes: RNN, LSTM, GRU and Transformer.

python -m experiments language_model                                    # a Transformer on Python's standard library
python -m experiments language_model --preset hello                     # the four-letter first example: a second
python -m experiments language_model --model lstm --text shakespeare.txt
python -m experiments language_model --sample runs/language_model/<run> --prompt "def " --temperature 0.8
python -m experiments language_model --resume runs/language_model/<run> # goes on where the run was stopped
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from experiments.pictures import show
from experiments.sequences.sampling import encode_prompt, generate, predictions
from experiments.sequences.text_model import build, load_model, loss_fn, nats_per_symbol
from experiments.sequences.text_pictures import draw_inside
from experiments.sequences.texts import decode, ngram_floor, read_corpus
from rlkit import runtime
from rlkit.checkpoint import save_agent
from rlkit.config import AtLeast, Between, Divided, Fixed, RunConfig, check_bounds
from rlkit.data import Batches, windows
from rlkit.data_files import DataFiles, located, named
from rlkit.logger import say
from rlkit.run import Run
from rlkit.trainer import TrainConfig, Trainer

BASE = TrainConfig(
    steps=0, optimizer="adamw", lr=0.0, weight_decay=0.01, lr_warmup=100, lr_decay="cosine", clip=1.0,
    precision="auto", log_every=50, save_every=1000,
)  # fmt: skip


@dataclass
class Config(RunConfig):
    """Train a language model on a text, or write with one."""

    preset: Annotated[Literal["cpu", "hello"], Fixed] = "cpu"
    """defaults: cpu (minutes on two cores), hello (learns h -> e, e -> l, l -> l, l -> o)"""
    text: str | None = None
    """file of UTF-8 text, which may have moved when a run goes on; default: the source of Python's standard library"""
    literal: Annotated[str, Fixed] = ""
    """a short text itself in place of a file; all of it is both trained and validated on"""
    symbols: Annotated[Literal["characters", "bytes"], Fixed] = "characters"
    """what the model reads and predicts: the characters that the text has, or bytes"""
    model: Annotated[Literal["transformer", "lstm", "gru", "rnn"], Fixed] = "transformer"
    """a decoder-only Transformer like GPT-2, with rotary positions, or recurrent cells"""
    layers: Annotated[int, AtLeast(0), Fixed] = 0
    """blocks of a Transformer, or recurrent layers; 0: what suits the model"""
    width: Annotated[int, AtLeast(0), Fixed] = 0
    """channels of a Transformer, or units of a recurrent layer; 0: what suits the model"""
    heads: Annotated[int, AtLeast(1), Fixed] = 4
    """attention heads of a Transformer"""
    context: Annotated[int, AtLeast(1), Fixed] = 128
    """symbols in a training example; a Transformer sees no further back"""
    dropout: Annotated[float, Between(0, 0.99)] = 0.0
    """share of units left out in training"""
    batch_size: Annotated[int, AtLeast(0), Fixed, Divided] = 0
    """examples in an update; 0: what suits the model"""
    eval_every: Annotated[int, AtLeast(1)] = 500
    """updates between evaluations; the agent's folder is saved then"""
    eval_symbols: Annotated[int, AtLeast(0)] = 200_000
    """symbols to predict in an evaluation, from the beginning of the validation text; 0: all of it"""
    sample: str | None = None
    """run or agent folder: write text with its model, and train none"""
    prompt: str = ""
    """text that a sample continues"""
    tokens: Annotated[int, AtLeast(1)] = 300
    """symbols to write in a sample"""
    temperature: Annotated[float, AtLeast(0)] = 0.8
    """logits are divided by it; 0: always the most probable symbol"""
    top_k: Annotated[int, AtLeast(0)] = 0
    """draw only from this number of most probable symbols; 0: from all"""
    trainer: TrainConfig = field(default_factory=lambda: replace(BASE))
    """of the training; steps 0 and lr 0: what suits the model"""


PRESETS = {
    "cpu": Config(),
    "hello": Config(
        preset="hello",
        literal="hello",
        model="rnn",
        layers=1,
        width=16,
        context=4,
        batch_size=1,
        eval_every=100,
        prompt="h",
        tokens=4,
        temperature=0,
        threads=1,
        trainer=replace(BASE, steps=100, lr=0.02, lr_warmup=0, precision="fp32", log_every=10),
    ),
}
SUITABLE = {
    "transformer": (4, 128, 16, 2400, 2e-3),
    "lstm": (2, 256, 32, 1500, 3e-3),
    "gru": (2, 256, 32, 1500, 2e-3),
    "rnn": (2, 256, 32, 1500, 1e-3),
}
"""layers, width, batch_size, steps and lr that suit: five minutes on two cores"""


def with_defaults(cfg: Config) -> Config:
    """With what suits the model in place of 0. Raises ValueError for settings that make no sense."""
    check_bounds(cfg)
    layers, width, batch_size, steps, lr = SUITABLE[cfg.model]
    cfg = replace(
        cfg,
        layers=cfg.layers or layers,
        width=cfg.width or width,
        batch_size=cfg.batch_size or batch_size,
        trainer=replace(cfg.trainer, steps=cfg.trainer.steps or steps, lr=cfg.trainer.lr or lr),
    )
    if cfg.model == "transformer" and cfg.width % (2 * cfg.heads):
        raise ValueError(f"--width {cfg.width} is no multiple of {2 * cfg.heads}, which --heads {cfg.heads} asks for")
    if cfg.eval_symbols == 1:
        raise ValueError("--eval-symbols 1 predicts nothing: the first one is what it begins with; take 2 or more")
    if cfg.text and cfg.literal:
        raise ValueError("--text names a file and --literal is a text: give one of the two")
    return cfg


def sample(cfg: Config) -> Path:
    """Print what the model of --sample writes after the prompt."""
    device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
    folder = Path(str(cfg.sample))
    model, config = load_model(folder, device)
    prompt = encode_prompt(cfg.prompt, config["vocabulary"])
    written = generate(model, prompt, cfg.tokens, cfg.temperature, cfg.top_k, cfg.seed)
    print(cfg.prompt + decode(written, config["vocabulary"]))
    return folder


def main(cfg: Config) -> Path:
    """Train, or write with a trained model; returns the run's folder."""
    cfg = with_defaults(cfg)
    if cfg.sample:
        return sample(cfg)
    cfg = located(cfg, "text")
    run = Run(cfg, "language_model")

    # The text and the model.
    corpus = read_corpus(cfg.text, cfg.literal, cfg.symbols, cfg.context + 1, cfg.eval_symbols)
    prompt = encode_prompt(cfg.prompt, corpus.vocabulary)
    config = {name: getattr(cfg, name) for name in ("model", "layers", "width", "heads", "context", "dropout")}
    config["vocabulary"] = corpus.vocabulary
    model = build(config).to(run.device)
    make = windows(corpus.train, cfg.context + 1, run.cfg.batch_size, runtime.derive_seed(cfg.seed, 1))
    batches = Batches.for_device(make, run.device)
    folder = run.open(f"{corpus.name}_{cfg.model}", DataFiles(cfg, named(cfg, "text")))
    trainer = Trainer(
        model, loss_fn, run.cfg.trainer, folder, state={"batches": batches}, timer=run.timer, deadline=run.deadline
    )
    run.resume(trainer)

    names = {1: "unigram", 2: "bigram", 3: "trigram"}
    floors = {name: ngram_floor(corpus.train, corpus.valid, order, corpus.size) for order, name in names.items()}
    say(
        f"{corpus.name}: {len(corpus.train):,} {cfg.symbols} to learn from and {len(corpus.valid):,} to predict, of "
        f"{corpus.size}; {sum(p.numel() for p in model.parameters()):,} weights; nats by counting: "
        + ", ".join(f"{name} {nats:.3f}" for name, nats in floors.items())
    )

    def save(score: dict[str, float] | None) -> None:
        info = {
            "kind": "language_model",
            "config": config,
            "trained": {"text": corpus.name, "steps": trainer.step, "seed": cfg.seed, "preset": cfg.preset},
            "score": score and score | {"symbols": len(corpus.valid) - 1, "of": cfg.symbols, **floors},
        }
        save_agent(folder / "agent", info, trainer.averaged.state_dict())

    def evaluate() -> None:
        with run.timer("evaluate"):
            nats = nats_per_symbol(trainer.averaged, corpus.valid, cfg.context)
            pictures = draw_inside(trainer.averaged, corpus)
            written = generate(trainer.averaged, prompt, cfg.tokens, cfg.temperature, cfg.top_k, trainer.step)
        trainer.log({"eval/nats": nats, "eval/bits": nats / math.log(2)})
        say(f"--- step {trainer.step:,}: {nats:.3f} nats, {nats / math.log(2):.3f} bits each of the {cfg.symbols}")
        say(decode(prompt + written, corpus.vocabulary).strip("\n"))
        show(pictures, trainer, folder)
        save({"nats": nats})

    for _ in trainer.run(batches):
        if run.evaluation_due(cfg.eval_every):
            evaluate()
    if run.stopped:
        save(None)
    else:
        evaluate()
        if cfg.literal:
            say("\n".join(predictions(trainer.averaged, cfg.literal, corpus.vocabulary)))
    run.close(write=("language_model", "--sample", folder, "--prompt", cfg.prompt))
    return folder
