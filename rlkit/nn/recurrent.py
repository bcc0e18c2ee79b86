"""Recurrent networks: Elman's, LSTM and GRU as cores, and the encoder-decoder with attention.

The equations stand here one step at a time; torch's fused kernels, whose weights these are, run whole sequences.
"""

import itertools
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.bf16 import onednn_has_bf16

State = tuple[Tensor, ...]
"""[B, layers, features] each: (h,), of an LSTM (h, c)"""
Weights = tuple[Tensor, Tensor, Tensor, Tensor]
"""of one layer, as torch has them: W_x, W_h, b_x, b_h"""


def rnn_step(x: Tensor, state: State, weights: Weights) -> State:
    """h' = tanh(W_x x + W_h h + b): x [B, D], h [B, features] (Elman 1990)."""
    (h,), (w_x, w_h, b_x, b_h) = state, weights
    return (torch.tanh(F.linear(x, w_x, b_x) + F.linear(h, w_h, b_h)),)


def lstm_step(x: Tensor, state: State, weights: Weights) -> State:
    """c' = f c + i g, h' = o tanh(c'): a memory cell behind gates (Hochreiter and Schmidhuber 1997; f: Gers et al.
    2000). In the rows of the weights the gates stand in the order i, f, g, o.
    """
    (h, c), (w_x, w_h, b_x, b_h) = state, weights
    i, f, g, o = (F.linear(x, w_x, b_x) + F.linear(h, w_h, b_h)).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_step(x: Tensor, state: State, weights: Weights) -> State:
    """h' = (1 - z) n + z h (Cho et al. 2014). The reset gate r acts after the product W_h h, as in torch, where it
    can be run fused; and z keeps the old state. Rows: r, z, n.
    """
    (h,), (w_x, w_h, b_x, b_h) = state, weights
    (r_x, z_x, n_x), (r_h, z_h, n_h) = F.linear(x, w_x, b_x).chunk(3, 1), F.linear(h, w_h, b_h).chunk(3, 1)
    r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return ((1 - z) * n + z * h,)


STEPS: dict[str, Callable[[Tensor, State, Weights], State]] = {"rnn": rnn_step, "lstm": lstm_step, "gru": gru_step}
FUSED: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """A recurrent core: ([B, T, D], state, reset [B, T] or None) -> ([B, T, features], state).

    Where reset is True, the state begins anew before that step. One step at a time and an unroll give the same
    numbers. First weights are torch's, but orthogonal from state to state; and the gate that keeps what is there, an
    LSTM's forget and a GRU's update gate, begins at a bias of 1 (for the LSTM: Jozefowicz et al. 2015).

    Args:
        kind: rnn, lstm or gru. dropout: between the layers.
        bidirectional: for encoders: what reads backwards can neither go step by step nor be reset.
    """

    def __init__(
        self,
        kind: Literal["rnn", "lstm", "gru"],
        in_features: int,
        features: int,
        layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ):
        super().__init__()
        self.kind, self.features, self.layers = kind, features, layers
        self.directions = 2 if bidirectional else 1
        self.out_features = features * self.directions
        dropout = dropout if layers > 1 else 0.0
        self.cells = FUSED[kind](
            in_features, features, layers, batch_first=True, dropout=dropout, bidirectional=bidirectional
        )
        for name, parameter in self.cells.named_parameters():
            if name.startswith("weight_hh"):
                for gate in parameter.data.chunk(len(parameter) // features):
                    nn.init.orthogonal_(gate)
            elif kind != "rnn" and name.startswith("bias_hh"):
                parameter.data[features : 2 * features] = 1.0

    def initial_state(self, batch: int) -> State:
        """Zeros."""
        zeros = next(self.parameters()).new_zeros(batch, self.layers * self.directions, self.features)
        return (zeros, zeros.clone()) if self.kind == "lstm" else (zeros,)

    def forward(self, x: Tensor, state: State | None = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        state = self.initial_state(len(x)) if state is None else state
        if reset is None:
            return self._unroll(x, state)
        # The kernels know no resets: cut where any sequence has one (waits for the device).
        cuts = [0, *(t for t in reset.any(0).nonzero().flatten().tolist() if t), x.shape[1]]
        outs = []
        for begin, end in itertools.pairwise(cuts):
            forget = reset[:, begin, None, None]
            out, state = self._unroll(x[:, begin:end], tuple(part.masked_fill(forget, 0) for part in state))
            outs.append(out)
        return torch.cat(outs, 1), state

    def run(self, x: Any, inner: Any = None) -> tuple[Any, Any]:
        """torch's kernels, on a tensor or a packed sequence. Under autocast some of them cannot do what they would get,
        and get fp32. cuDNN's know fp16 and fp32, and torch takes fp16 whatever the dtype that was asked for, whose
        range gradients leave; and on a CPU it takes an LSTM to oneDNN, whether that has bf16 or not.
        """
        device = "cuda" if x.is_cuda else "cpu"
        if not torch.is_autocast_enabled(device) or (device == "cpu" and onednn_has_bf16()):
            return self.cells(x, inner)
        with torch.autocast(device, enabled=False):
            inner = tuple(part.float() for part in inner) if isinstance(inner, tuple) else inner
            return self.cells(x.to(torch.float32), inner.float() if isinstance(inner, Tensor) else inner)

    def _unroll(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        inner = tuple(part.transpose(0, 1).contiguous() for part in state)
        out, inner = self.run(x, inner if self.kind == "lstm" else inner[0])
        return out, tuple(part.transpose(0, 1) for part in (inner if self.kind == "lstm" else (inner,)))

    def weights(self, layer: int = 0) -> Weights:
        """Of a layer, for the equations."""
        of = self.cells
        return tuple(getattr(of, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))  # type: ignore[return-value]


# -- encoder and decoder -----------------------------------------------------------------------------------------------


class AdditiveAttention(nn.Module):
    """What a query [B, Q] sees in memory [B, N, M], by v' tanh(W q + U m): (their mixture [B, M], weights [B, N]).

    mask [B, N]: True where it may look. Source: Bahdanau et al. 2015, appendix A.1.2.
    """

    def __init__(self, query: int, memory: int, features: int):
        super().__init__()
        self.w, self.u = nn.Linear(query, features), nn.Linear(memory, features, bias=False)
        self.v = nn.Linear(features, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """What of the memory does not depend on the query."""
        return self.u(memory)

    def forward(self, query: Tensor, memory: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.v(torch.tanh(self.w(query)[:, None] + keys)).squeeze(2)
        return _mixture(logits, memory, mask)


class DotAttention(nn.Module):
    """The same by q' W m, as memory and query differ in size (Luong et al. 2015, section 3.1, "general")."""

    def __init__(self, query: int, memory: int, features: int):
        super().__init__()
        self.w = nn.Linear(memory, query, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        return self.w(memory)

    def forward(self, query: Tensor, memory: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return _mixture((keys @ query[:, :, None]).squeeze(2), memory, mask)


def _mixture(logits: Tensor, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    weights = logits.float().masked_fill(~mask, -torch.inf).softmax(1).nan_to_num(0.0)  # nowhere to look: zeros
    return (weights.to(memory.dtype)[:, None] @ memory).squeeze(1), weights


ATTENTIONS: dict[str, type[AdditiveAttention] | type[DotAttention]] = {
    "additive": AdditiveAttention,
    "dot": DotAttention,
}


class RecurrentTranslator(nn.Module):
    """Source tokens [B, N] and target tokens so far [B, M] -> logits [B, M, vocabulary] of what follows each.

    A bidirectional encoder, and a decoder that begins with what the encoder ends with. With an attention each of its
    steps, by the state before it, looks back at all of the encoder's (Bahdanau et al. 2015); with None it has the one
    vector alone, as in Sutskever et al. 2014 and Cho et al. 2014, which it sees at each step. Token 0 is padding, at
    the end.

    Args:
        kind: of the cells: rnn, lstm or gru. attention: additive, dot or None.
    """

    def __init__(
        self,
        vocabulary: tuple[int, int],
        channels: int,
        kind: Literal["rnn", "lstm", "gru"] = "gru",
        attention: Literal["additive", "dot"] | None = "additive",
        dropout: float = 0.0,
    ):
        super().__init__()
        source, target = vocabulary
        self.embed_source = nn.Embedding(source, channels, padding_idx=0)
        self.embed_target = nn.Embedding(target, channels, padding_idx=0)
        self.encoder = Recurrent(kind, channels, channels, bidirectional=True)
        self.bridge = nn.Linear(2 * channels, channels)
        self.attention = ATTENTIONS[attention](channels, 2 * channels, channels) if attention else None
        self.decoder = Recurrent(kind, 3 * channels, channels)
        self.join = nn.Linear(4 * channels, channels)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(channels, target)

    def encode(self, source: Tensor) -> tuple[Tensor, ...]:
        """What the decoder needs of the source: (memory [B, N, 2 C], keys, mask [B, N], summary [B, 2 C])."""
        mask = source != 0
        lengths = mask.sum(1).clamp(min=1).cpu()  # waits for the device
        x = nn.utils.rnn.pack_padded_sequence(
            self.dropout(self.embed_source(source)), lengths, batch_first=True, enforce_sorted=False
        )
        memory, last = self.encoder.run(x)
        memory, _ = nn.utils.rnn.pad_packed_sequence(memory, batch_first=True, total_length=source.shape[1])
        h = last[0] if self.encoder.kind == "lstm" else last
        summary = h.transpose(0, 1).flatten(1)
        keys = memory if self.attention is None else self.attention.keys(memory)
        return memory, keys, mask, summary

    def begin(self, encoded: tuple[Tensor, ...]) -> State:
        """The decoder's first state."""
        h = torch.tanh(self.bridge(encoded[3]))[:, None]
        return (h, torch.zeros_like(h)) if self.decoder.kind == "lstm" else (h,)

    def step(self, token: Tensor, state: State, encoded: tuple[Tensor, ...]) -> tuple[Tensor, State, Tensor | None]:
        """(logits [B, vocabulary] of what follows token [B], state, where it looked [B, N])."""
        out, state, seen = self._step(self.embed_target(token), state, encoded)
        return self.out(out).float(), state, seen

    def _step(self, x: Tensor, state: State, encoded: tuple[Tensor, ...]) -> tuple[Tensor, State, Tensor | None]:
        memory, keys, mask, summary = encoded
        context, seen = summary, None
        if self.attention is not None:  # by the state before this step, as in Bahdanau et al.
            context, seen = self.attention(state[0][:, -1], memory, keys, mask)
        out, state = self.decoder(torch.cat([x, context], 1)[:, None], state)
        joined = torch.tanh(self.join(torch.cat([out[:, 0], context, x], 1)))
        return self.dropout(joined), state, seen

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        encoded = self.encode(source)
        state, x = self.begin(encoded), self.dropout(self.embed_target(target))
        if self.attention is None:  # no step has to wait for the one before: the whole sequence in one call
            context = encoded[3][:, None].expand(-1, x.shape[1], -1)
            out, _ = self.decoder(torch.cat([x, context], 2), state)
            return self.out(self.dropout(torch.tanh(self.join(torch.cat([out, context, x], 2))))).float()
        outs = []
        for t in range(target.shape[1]):
            out, state, _ = self._step(x[:, t], state, encoded)
            outs.append(out)
        return self.out(torch.stack(outs, 1)).float()
