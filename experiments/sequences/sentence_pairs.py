"""Pairs of a sentence and its translation: from files or number words, to train, validate and test on, as tokens."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from tokenizers import Tokenizer

from experiments.sequences import number_words
from experiments.sequences.byte_pairs import BOS, EOS, clean
from rlkit import runtime
from rlkit.config import AtLeast, Fixed, RunConfig
from rlkit.logger import say
from rlkit.text_files import read_pairs


@dataclass
class PairsConfig(RunConfig):
    """Where sentence pairs come from. Without files: numbers in words, English and Korean."""

    source: str | None = None
    """file of sentences to train on, one a line, in UTF-8; .gz is unpacked. Files may have moved when a run goes on"""
    target: str | None = None
    """file of the translations of --source, line by line"""
    pairs: str | None = None
    """file in place of --source and --target: lines of a sentence, a tab and its translation"""
    valid_source: str | None = None
    """file of sentences scored during training; default: --held training sentences, chosen by the seed"""
    valid_target: str | None = None
    """file of the translations of --valid-source"""
    test_source: str | None = None
    """file of sentences scored at the end; default: as many training sentences again"""
    test_target: str | None = None
    """file of the translations of --test-source"""
    reverse: Annotated[bool, Fixed] = False
    """translate from the second language to the first"""
    lowercase: Annotated[bool, Fixed] = False
    """make all sentences lower-case, the translations to compare with too"""
    limit: Annotated[int, AtLeast(0), Fixed] = 0
    """training pairs to use, chosen by the seed; 0: all"""
    held: Annotated[int, AtLeast(1), Fixed] = 500
    """sentences held out of training for each of validation and test"""
    numbers: Annotated[int, AtLeast(1), Fixed] = 20_000
    """numbers in words to train on, where no file is given"""
    seed: Annotated[int, AtLeast(0), Fixed] = 1
    """of all random numbers"""


FILES = ("source", "target", "pairs", "valid_source", "valid_target", "test_source", "test_target")
"""the settings that name files"""
SPLITS = {"train": "for training", "valid": "for validation", "test": "for the test"}
Pairs = list[tuple[str, str]]
Rows = dict[str, list[list[int]]]
"""source: tokens and <eos>; target: <bos>, tokens and <eos>"""


def read_splits(cfg: PairsConfig) -> dict[str, Pairs]:
    """Sentence pairs to "train", "valid" and "test" on. Raises FileNotFoundError, and ValueError with file and line."""
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


def tokenized(name: str, part: Pairs, tokenizer: Tokenizer, context: int) -> tuple[Pairs, Rows]:
    """The pairs that fit the context, and their tokens. Says how many do not; raises ValueError where none does."""
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
