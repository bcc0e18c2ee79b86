"""Cores by name: recurrent networks and transformers between a torso and a head."""

from collections.abc import Callable
from functools import partial

from rlkit.nn.recurrent import Recurrent
from rlkit.nn.transformer import TransformerCore

CORES: dict[str, Callable[..., Recurrent | TransformerCore]] = {
    "rnn": partial(Recurrent, "rnn"),
    "lstm": partial(Recurrent, "lstm"),
    "gru": partial(Recurrent, "gru"),
    "transformer": TransformerCore,
}
