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
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from experiments.sequences.texts import Corpus, decode, draw_table, encode, ngram_floor, read_corpus, visible
from rlkit import runtime
from rlkit.checkpoint import described, load_agent_files, rebuild, save_agent
from rlkit.config import AtLeast, Between, Fixed, RunConfig, check_bounds
from rlkit.data import Batches, windows
from rlkit.data_files import DataFiles, located, named
from rlkit.logger import say
from rlkit.nn.language import GPT, CoreLanguageModel
from rlkit.nn.recurrent import Recurrent
from rlkit.nn.transformer import Past, Shape
from rlkit.run import Run
from rlkit.trainer import Batch, TrainConfig, Trainer

BASE = TrainConfig(
    steps=0, optimizer="adamw", lr=0.0, weight_decay=0.01, lr_warmup=100, lr_decay="cosine", clip=1.0,
    precision="auto", log_every=50, save_every=1000,
)  # fmt: skip


@dataclass
class Config(RunConfig):
    """Train a language model on a text, or write with one. Numbers of 0 stand for what suits the model."""

    preset: Annotated[Literal["cpu", "hello"], Fixed] = "cpu"
    """defaults: cpu (minutes on two cores), hello (learns h -> e, e -> l, l -> l, l -> o)"""
    text: str | None = None
    """file of UTF-8 text, which may have moved when a run goes on; None: the source of Python's own standard library"""
    literal: Annotated[str, Fixed] = ""
    """a text itself, in place of a file: too short to hold any of it back, it is validated on as well"""
    symbols: Annotated[Literal["characters", "bytes"], Fixed] = "characters"
    """what is predicted, one at a time: the text's characters, or any of 256 bytes"""
    model: Annotated[Literal["transformer", "lstm", "gru", "rnn"], Fixed] = "transformer"
    """decoder-only as GPT-2, with rotary positions; or recurrent cells"""
    layers: Annotated[int, AtLeast(0), Fixed] = 0
    """blocks of a Transformer, or recurrent layers on end"""
    width: Annotated[int, AtLeast(0), Fixed] = 0
    """channels of a Transformer, units of a recurrent layer"""
    heads: Annotated[int, AtLeast(1), Fixed] = 4
    """of a Transformer's attentions"""
    context: Annotated[int, AtLeast(1), Fixed] = 128
    """symbols in a training example; a Transformer sees no further back"""
    dropout: Annotated[float, Between(0, 0.99)] = 0.0
    """share of units left out in training"""
    batch_size: Annotated[int, AtLeast(0), Fixed] = 0
    """examples in an update"""
    eval_every: Annotated[int, AtLeast(1)] = 500
    """updates between evaluations; the agent's folder is saved then"""
    eval_symbols: Annotated[int, AtLeast(0)] = 200_000
    """of the validation text's beginning that are predicted in an evaluation; 0: all of it"""
    sample: str | None = None
    """run or agent folder: write with that model, and train none"""
    prompt: str = ""
    """what the sample begins with"""
    tokens: Annotated[int, AtLeast(1)] = 300
    """symbols in a sample"""
    temperature: Annotated[float, AtLeast(0)] = 0.8
    """logits are divided by it; 0: always the most probable symbol"""
    top_k: Annotated[int, AtLeast(0)] = 0
    """only so many of the most probable symbols are drawn from; 0: all"""
    trainer: TrainConfig = field(default_factory=lambda: replace(BASE))


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
BY_MODEL = {
    "transformer": (4, 128, 16, 2400, 2e-3),
    "lstm": (2, 256, 32, 1500, 3e-3),
    "gru": (2, 256, 32, 1500, 2e-3),
    "rnn": (2, 256, 32, 1500, 1e-3),
}
"""layers, width, batch_size, steps and lr that suit: five minutes on two cores"""


def settled(cfg: Config) -> Config:
    """With the numbers that suit the model. Raises ValueError for those that make no sense."""
    check_bounds(cfg)
    layers, width, batch_size, steps, lr = BY_MODEL[cfg.model]
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


# -- models ------------------------------------------------------------------------------------------------------------


def build(config: dict[str, Any]) -> nn.Module:
    """The model that an agent.json describes."""
    size, width, layers = len(config["vocabulary"]) or 256, config["width"], config["layers"]
    if config["model"] == "transformer":
        shape = Shape(width, config["heads"], layers, dropout=config["dropout"])
        return GPT(size, config["context"], shape, places="rotary")
    core = Recurrent(config["model"], width, width, layers, dropout=config["dropout"])
    return CoreLanguageModel(size, core, width, config["dropout"])


def load_model(path: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """(model, its config) of a run or agent folder. Raises FileNotFoundError, DamagedFile, and ValueError for an agent
    of another kind.
    """
    info, weights = load_agent_files(Path(path), "language_model", "and no language model")
    with described(path, "a model with these weights"):
        model = rebuild(lambda: build(info["config"]), weights)
    return model.to(device).eval(), info["config"]


def predict(model: nn.Module, tokens: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """(logits [B, N, vocabulary] of what follows each of tokens [B, N], memory of all so far): a Past or a state."""
    if isinstance(model, GPT):
        return model(tokens, memory), memory
    return model(tokens, memory)


def loss_fn(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy in nats of each next symbol. Recurrent models begin each example with an empty state too."""
    tokens = batch["tokens"]
    logits, _ = predict(model, tokens[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    return loss, {"bits": loss.detach() / math.log(2)}


def evaluate(model: nn.Module, tokens: NDArray[np.int64], context: int) -> float:
    """Nats a symbol over a text, all but its first one predicted once: in windows of `context` that do not overlap,
    each read from nothing.
    """
    device, x = next(model.parameters()).device, torch.from_numpy(tokens)
    whole = (len(x) - 1) // context * context
    inputs, targets = (x[i : whole + i].view(-1, context).split(64) for i in (0, 1))
    parts = [*zip(inputs, targets, strict=True), (x[None, whole:-1], x[None, whole + 1 :])]
    nats = 0.0
    with runtime.evaluating(model):
        for now, following in parts:
            runtime.share_cores()
            if now.numel():
                logits, _ = predict(model, now.to(device))
                nats += F.cross_entropy(logits.flatten(0, 1), following.flatten().to(device), reduction="sum").item()
    return nats / (len(x) - 1)


def write(
    model: nn.Module, prompt: list[int], count: int, temperature: float, top_k: int, seed: int, cached: bool = True
) -> list[int]:
    """`count` symbols that follow a prompt of one or more. Not cached, all is read anew for each, for tests.

    A Transformer whose context is full forgets the earlier half of it, and reads the later one anew.
    """
    device = next(model.parameters()).device
    rng, out, begin, read, memory = torch.Generator().manual_seed(seed), list(prompt), 0, 0, None
    with runtime.evaluating(model):
        for _ in range(count):
            if isinstance(model, GPT):
                if len(out) - begin > (context := model.places.context):
                    begin = read = len(out) - (context + 1) // 2
                    memory = None
                memory = memory or Past()
            if not cached:
                read, memory = begin, Past() if isinstance(model, GPT) else None
            logits, memory = predict(model, torch.tensor([out[read:]], device=device), memory)
            read, z = len(out), logits[0, -1].cpu()
            if top_k and top_k < len(z):
                z = z.masked_fill(z < z.topk(top_k).values[-1], -torch.inf)
            p = ((z - z.max()) / temperature).softmax(0) if temperature else F.one_hot(z.argmax(), len(z)).float()
            out.append(int(torch.multinomial(p, 1, generator=rng)))
    return out[len(prompt) :]


def opening(prompt: str, vocabulary: str) -> list[int]:
    """The prompt's numbers; for an empty one that of a line's end, or the first that there is."""
    if not prompt:
        prompt = "\n" if not vocabulary or "\n" in vocabulary else vocabulary[0]
    return encode(prompt, vocabulary).tolist()


def guesses(model: nn.Module, text: str, vocabulary: str) -> list[str]:
    """What the model expects after each beginning of a text, as far as its context goes, in lines."""
    text = text[: model.places.context + 1] if isinstance(model, GPT) else text
    x = torch.from_numpy(encode(text, vocabulary)).to(next(model.parameters()).device)
    with runtime.evaluating(model):
        p, best = predict(model, x[None, :-1])[0][0].softmax(-1).max(-1)
    return [f"{text[: i + 1]} -> {decode([k], vocabulary)}  ({p[i]:.2f})" for i, k in enumerate(best.tolist())]


# -- what it looks at --------------------------------------------------------------------------------------------------


def picture(model: nn.Module, corpus: Corpus) -> dict[str, NDArray[np.uint8]]:
    """Of the validation text's first symbols: which of those before it each looks at, by every head of a Transformer's
    last layer; or what 32 units of a recurrent model's last layer do.
    """
    device, tokens = next(model.parameters()).device, corpus.valid[:48]
    x = torch.from_numpy(tokens).to(device)[None]
    line = visible(tokens, corpus.vocabulary)
    if isinstance(model, GPT):
        x, line = x[:, : model.places.context], line[: model.places.context]
        attention: Any = model.stack.blocks[-1].attention
        attention.watch = True
        with runtime.evaluating(model):
            model(x)
        attention.watch, seen, attention.seen = False, attention.seen[0].float().cpu().numpy(), None
        return {"attention": np.hstack([draw_table(head, line, line) for head in seen])}
    else:
        with runtime.evaluating(model):
            states, _ = model.core(model.embed(x))  # type: ignore[operator]
        return {"states": draw_table((states[0, :, :32].T.float().cpu().numpy() + 1) / 2, line)}


# -- a run -------------------------------------------------------------------------------------------------------------


def sample(cfg: Config) -> Path:
    """Print what a saved model writes after cfg.prompt."""
    device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
    model, config = load_model(str(cfg.sample), device)
    prompt = opening(cfg.prompt, config["vocabulary"])
    out = write(model, prompt, cfg.tokens, cfg.temperature, cfg.top_k, cfg.seed)
    print(cfg.prompt + decode(out, config["vocabulary"]))
    return Path(str(cfg.sample))


def main(cfg: Config) -> Path:
    """Train, or write with a trained model; returns the run's folder."""
    cfg = settled(cfg)
    if cfg.sample:
        return sample(cfg)
    cfg = located(cfg, "text")
    run = Run(cfg, "language_model")
    corpus = read_corpus(cfg.text, cfg.literal, cfg.symbols, cfg.context + 1, cfg.eval_symbols)
    prompt = opening(cfg.prompt, corpus.vocabulary)
    config = {name: getattr(cfg, name) for name in ("model", "layers", "width", "heads", "context", "dropout")}
    config["vocabulary"] = corpus.vocabulary
    model = build(config).to(run.device)
    make = windows(corpus.train, cfg.context + 1, cfg.batch_size, runtime.derive_seed(cfg.seed, 1))
    batches = Batches.for_device(make, run.device)
    run_dir = run.open(f"{corpus.name}_{cfg.model}", DataFiles(cfg, named(cfg, "text")))
    trainer = Trainer(
        model, loss_fn, cfg.trainer, run_dir, state={"batches": batches}, timer=run.timer, deadline=run.deadline
    )
    run.resume(trainer)

    names = {1: "unigram", 2: "bigram", 3: "trigram"}
    floors = {name: ngram_floor(corpus.train, corpus.valid, order, corpus.size) for order, name in names.items()}
    say(
        f"{corpus.name}: {len(corpus.train):,} {cfg.symbols} to learn from and {len(corpus.valid):,} to predict, of "
        f"{corpus.size}; {sum(p.numel() for p in model.parameters()):,} weights; nats by counting: "
        + ", ".join(f"{name} {nats:.3f}" for name, nats in floors.items())
    )

    player = trainer.averaged

    def save(score: dict[str, float] | None) -> None:
        info = {
            "kind": "language_model",
            "config": config,
            "trained": {"text": corpus.name, "steps": trainer.step, "seed": cfg.seed, "preset": cfg.preset},
            "score": score and score | {"symbols": len(corpus.valid) - 1, "of": cfg.symbols, **floors},
        }
        save_agent(run_dir / "agent", info, player.state_dict())

    def evaluation() -> None:
        with run.timer("evaluate"):
            nats, pictures = evaluate(player, corpus.valid, cfg.context), picture(player, corpus)
            out = write(player, prompt, cfg.tokens, cfg.temperature, cfg.top_k, trainer.step)
        trainer.log({"eval/nats": nats, "eval/bits": nats / math.log(2)})
        trainer.show({f"eval/{name}": image for name, image in pictures.items()})
        say(f"--- step {trainer.step:,}: {nats:.3f} nats, {nats / math.log(2):.3f} bits each of the {cfg.symbols}")
        say(decode(prompt + out, corpus.vocabulary).strip("\n"))
        for name, image in pictures.items():
            Image.fromarray(image).save(run_dir / f"{name}.png")
        save({"nats": nats})

    for _ in trainer.run(batches):
        if run.evaluation_due(cfg.eval_every):
            evaluation()
    if run.stopped:
        save(None)
    else:
        evaluation()
        if cfg.literal:
            say("\n".join(guesses(player, cfg.literal, corpus.vocabulary)))
    run.close(write=("language_model", "--sample", run_dir, "--prompt", cfg.prompt))
    return run_dir
