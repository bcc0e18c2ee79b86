"""Which word stood in the gap: pieces of a text with a gap in their middle, labelled by the word that was there."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from experiments.sequences.objectives import FIRST, MASK
from rlkit.data import Batch

WORD = re.compile(rb"(?<![\w\x80-\xff])[A-Za-z\x80-\xff]{2,}(?![\w\x80-\xff])")
"""at least two letters, and no part of a longer name"""


def frequent_words(text: bytes, count: int) -> list[bytes]:
    """The most frequent words of a text, most frequent first. Raises ValueError where there are fewer."""
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
