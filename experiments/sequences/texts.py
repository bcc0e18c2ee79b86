"""Texts that need no download, texts as numbers, and how well counting predicts them."""

import math
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlkit.text_files import read_text

Numbers = NDArray[np.int64]


# -- Python's standard library -----------------------------------------------------------------------------------------


def standard_library(characters: int = 1_100_000) -> str:
    """Source of those public modules of Python's standard library that are single files, in the order of their names,
    cut to this number of characters. It differs between versions of Python. Raises FileNotFoundError where there is no
    source.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    text = ""
    for path in sorted(folder.glob("[a-z]*.py")):
        if len(text) >= characters:
            break
        text += read_text(path) + "\n"
    if not text:
        raise FileNotFoundError(f"{folder} holds no source of the standard library: name a file by --text")
    return text[:characters]


# -- texts as numbers --------------------------------------------------------------------------------------------------


def encode(text: str, vocabulary: str = "", where: str = "the prompt") -> Numbers:
    """Numbers of a text's characters in a sorted vocabulary, or its bytes where that is empty.

    Raises ValueError that names the characters which are not in it.
    """
    if not vocabulary:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    known, codes = (np.frombuffer(s.encode("utf-32-le"), np.uint32) for s in (vocabulary, text))
    places = np.searchsorted(known, codes).clip(max=len(known) - 1)
    if unknown := sorted({chr(code) for code in codes[known[places] != codes]}):
        names, whole = ", ".join(map(repr, unknown)), repr(vocabulary) if len(known) <= 100 else f"{len(known)} others"
        raise ValueError(f"{where} has characters that the model has never seen: {names}; it knows {whole}")
    return places.astype(np.int64)


def decode(numbers: NDArray | list[int], vocabulary: str = "") -> str:
    """The text of such numbers; bytes that are no UTF-8 become the replacement character."""
    if not vocabulary:
        return bytes(int(i) for i in numbers).decode(errors="replace")
    return "".join(vocabulary[i] for i in numbers)


def visible(numbers: NDArray | list[int], vocabulary: str = "") -> str:
    """One sign for each number: a pilcrow for the end of a line, a dot for what cannot be shown."""
    signs = [decode([i], vocabulary) for i in numbers]
    return "".join("\u00b6" if s == "\n" else s if s.isprintable() and s != "\ufffd" else "\u00b7" for s in signs)


@dataclass
class Corpus:
    """A text as numbers: nine tenths to learn from, and the last one to validate on, as nanoGPT splits it."""

    name: str
    vocabulary: str
    """sorted characters; empty: the numbers are bytes"""
    train: Numbers
    valid: Numbers

    @property
    def size(self) -> int:
        """Symbols that it may be made of."""
        return len(self.vocabulary) or 256


def read_corpus(path: str | None, literal: str, symbols: str, shortest: int, valid: int = 0) -> Corpus:
    """A file's text, a text itself, which is all of it learned from and validated on, or the standard library's.

    shortest: symbols that the training part needs; valid: that are kept of the validation part, 0: all. Raises
    FileNotFoundError, and ValueError for a broken file and a text that is too short.
    """
    if literal:
        name, text = "literal", literal
    else:
        name, text = (Path(path).stem, read_text(path)) if path else ("stdlib", standard_library())
    vocabulary = "" if symbols == "bytes" else "".join(sorted(set(text)))
    numbers = encode(text, vocabulary)
    cut = len(numbers) * 9 // 10
    first, last = (numbers, numbers) if literal else (numbers[:cut], numbers[cut:])
    if len(first) < shortest or len(last) < 2:
        raise ValueError(
            f"{path or name} has {len(numbers):,} {symbols}, {len(first):,} of them to learn from, where an example "
            f"alone takes {shortest:,}: shorten --context, or name a longer text"
        )
    return Corpus(name, vocabulary, first, last[: valid or None])


def ngram_floor(train: Numbers, valid: Numbers, order: int, size: int, add: float = 0.1) -> float:
    """Nats a symbol of `valid`, each predicted from the `order` - 1 before it by what followed these in `train`:
    p = (count + add) / (count of all that followed + add size). Its first `order` - 1 are not predicted.
    """

    def grams(x: Numbers) -> Numbers:
        """Each `order` symbols on end as one number."""
        assert size**order < 2**63, (size, order)
        places = size ** np.arange(order)[::-1]
        return np.lib.stride_tricks.sliding_window_view(x, order) @ places

    def counts(known: Numbers, wanted: Numbers) -> Numbers:
        """How often each of `wanted` is among `known`."""
        known, number = np.unique(known, return_counts=True)
        at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        return np.where(known[at] == wanted, number[at], 0)

    if min(len(train), len(valid)) < order:
        return math.log(size)
    known, wanted = grams(train), grams(valid)
    p = (counts(known, wanted) + add) / (counts(known // size, wanted // size) + add * size)
    return float(-np.log(p).mean())
