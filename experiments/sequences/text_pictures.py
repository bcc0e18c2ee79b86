"""What a language model does at each symbol of a text, as pictures."""

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
