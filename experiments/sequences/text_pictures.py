"""What models of text do at each symbol or token, as pictures [H, W, 3]."""

import unicodedata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from experiments.sequences.texts import Corpus, visible
from rlkit import runtime
from rlkit.nn.language import GPT

Picture = NDArray[np.uint8]
AttentionMap = tuple[list[str], list[str], NDArray[np.float32]]
"""tokens of a translation, tokens of its sentence, and where each of the former looked: [M, N]"""


# -- language models ---------------------------------------------------------------------------------------------------


def draw_inside(model: nn.Module, corpus: Corpus) -> dict[str, Picture]:
    """Over the first symbols of the validation text: for a Transformer its "attention", which of the earlier symbols
    each head of the last layer looks at; for a recurrent model the "states" of 32 units of its last layer.
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
    with runtime.evaluating(model):
        states, _ = model.core(model.embed(x))  # type: ignore[operator]
    return {"states": draw_table((states[0, :, :32].T.float().cpu().numpy() + 1) / 2, line)}


def draw_table(values: NDArray, above: str, left: str = "", cell: int = 12) -> Picture:
    """Values [rows, columns] of 0 (white) to 1 (blue), a symbol above each column and left of each row."""
    rows, columns = values.shape
    blue = np.array([18, 52, 140])
    grid = (255 - np.clip(values, 0, 1)[:, :, None] * (255 - blue)).astype(np.uint8)
    image = Image.new("RGB", ((columns + 3) * cell, (rows + 3) * cell), "white")
    image.paste(Image.fromarray(grid).resize((columns * cell, rows * cell), Image.Resampling.NEAREST), (2 * cell,) * 2)
    draw = ImageDraw.Draw(image)

    def write(x: float, y: float, symbol: str) -> None:
        end = symbol == "\u00b6"  # which the font has not
        draw.text((x * cell, y * cell), "\\n" if end else symbol, "black", ImageFont.load_default(cell - 2 * end), "mm")

    for i, symbol in enumerate(above):
        write(i + 2.5, 1.5, symbol)
    for i, symbol in enumerate(left):
        write(1.5, i + 2.5, symbol)
    return np.asarray(image)


# -- translators -------------------------------------------------------------------------------------------------------

FONTS = ("NotoSansCJK-Regular.ttc", "NanumGothic.ttf", "malgun.ttf", "AppleGothic.ttf")
"""with Hangul, as Linux, Windows and macOS have them"""


def draw_attention(attention: AttentionMap, cell: int = 24) -> Picture:
    """The translation from top to bottom, the sentence from left to right; the darker, the more attention."""
    target, source, weights = attention
    font: Any = None
    for name in FONTS:
        try:
            font = ImageFont.truetype(name, cell * 2 // 3)
            break
        except OSError:
            continue
    if font is None:
        font = ImageFont.load_default(cell * 2 // 3)
        target, source = ([_in_latin_letters(label) for label in labels] for labels in (target, source))
    left, above = (int(max(map(font.getlength, labels))) + 12 for labels in (target, source))
    width, height = cell * len(source), cell * len(target)
    image = Image.new("RGB", (left + width, above + height), "white")
    heat = Image.fromarray((255 - 255 * weights.clip(0, 1)).astype(np.uint8))
    image.paste(heat.resize((width, height), Image.Resampling.NEAREST), (left, above))
    words = ImageDraw.Draw(image)
    for row, label in enumerate(target):
        words.text((left - 6, above + (row + 0.5) * cell), label, "black", font, "rm")
    upright = Image.new("RGB", (above, width), "white")
    words = ImageDraw.Draw(upright)
    for column, label in enumerate(source):
        words.text((6, (column + 0.5) * cell), label, "black", font, "lm")
    image.paste(upright.rotate(90, expand=True), (left, 0))
    return np.asarray(image)


def _in_latin_letters(text: str) -> str:
    """Hangul in Latin letters, for a font that has no other: 사만 -> saman."""
    hangul = "HANGUL SYLLABLE "
    names = ((character, unicodedata.name(character, "")) for character in text)
    return "".join(name.removeprefix(hangul).lower() if name.startswith(hangul) else c for c, name in names)
