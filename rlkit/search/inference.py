"""A network as the one function that a search calls: evaluate(planes) -> (logits, value)."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlkit.bf16 import fastest_precision
from rlkit.errors import NonFiniteLoss
from rlkit.nn.board import pack_
from rlkit.search.game import Game, States
from rlkit.search.trees import Edges, Trees

Evaluate = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]


class NetworkFunction:
    """A network as a function of planes uint8 [B, C, H, W], for callers that do not train it.

    It works on a copy of the weights, so that a learner may change the network meanwhile; `refresh` takes the present
    ones. Their precision is the one that the device multiplies fastest: bf16, where it is native, does 1.9 times fp32
    on a CPU with AVX512-BF16 (compiled and frozen 8 % more, but after a second for each new weights). Several threads
    may call it. On a GPU each has a stream and graphs of its own, captured for batches of 8, 16, 32, ... rows.
    """

    def __init__(self, network: nn.Module, precision: str = "auto"):
        self.network = network
        self.device = next(network.parameters()).device
        precision = fastest_precision(self.device) if precision == "auto" else precision
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._copy = copy.deepcopy(network).eval().requires_grad_(False).to(dtype)
        pack_(self._copy)
        self._own = threading.local()

    def refresh(self) -> None:
        """Take the network's present weights, in place: captured graphs read them from where they lie."""
        ours = self._copy.state_dict()
        for name, tensor in self.network.state_dict().items():
            ours[name].copy_(tensor)
        pack_(self._copy)
        if self.device.type == "cuda":  # the streams of other threads do not wait for this one
            torch.cuda.current_stream(self.device).synchronize()

    def read(self, out: Any) -> tuple[Tensor, ...]:
        """The outputs to return, of all that the network has: here the only one."""
        return (out,)

    def outputs(self, planes: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """The network's outputs at these positions, those that `read` takes: float32 arrays."""
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):  # a thread begins with the first
                return self._captured(planes)
        with torch.inference_mode():
            out = self.read(self._copy(torch.from_numpy(planes)))
        return tuple(tensor.numpy() for tensor in out)

    def _captured(self, planes: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        rows = len(planes)
        size = max(8, 1 << (rows - 1).bit_length())
        own = self._own
        if not hasattr(own, "graphs"):
            own.graphs, own.stream = {}, torch.cuda.Stream(self.device)  # torch has 32 streams to give
        key = size, *planes.shape[1:]
        if key not in own.graphs:
            with _CAPTURING:
                own.graphs[key] = _Graph(self._copy, self.read, key, own.stream)
        return own.graphs[key](planes, rows)


class Inference(NetworkFunction):
    """A network of the heads "policy" and "value", and perhaps others: planes -> (logits [B, A], value [B])."""

    def __call__(self, planes: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(logits [B, A], value [B]) of the sides to move."""
        logits, value = self.outputs(planes)
        return logits, value

    def read(self, out: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return out["policy"], out["value"]

    def heads(self, planes: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """All outputs of the network at these positions, by head."""
        with torch.inference_mode():
            out = self._copy(torch.from_numpy(planes).to(self.device))
        return {name: tensor.cpu().numpy() for name, tensor in out.items()}


_CAPTURING = threading.Lock()
"""only one capture may be under way in a process"""


class _Graph:
    """One forward pass of a fixed shape, with its input and outputs in pinned memory."""

    def __init__(
        self,
        network: nn.Module,
        read: Callable[[Any], tuple[Tensor, ...]],
        shape: tuple[int, ...],
        stream: torch.cuda.Stream,
    ):
        self.stream = stream
        self.host = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        self.input = self.host.to(stream.device)
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            for _ in range(3):  # cuDNN chooses its kernels before the capture
                network(self.input)
            self.stream.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                self.out = read(network(self.input))
        self.hosts = [torch.empty_like(tensor, device="cpu").pin_memory() for tensor in self.out]

    def __call__(self, planes: NDArray[np.uint8], rows: int) -> tuple[NDArray[np.float32], ...]:
        self.host[:rows].copy_(torch.from_numpy(planes))
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            self.input.copy_(self.host, non_blocking=True)
            self.graph.replay()
            for host, tensor in zip(self.hosts, self.out, strict=True):
                host.copy_(tensor, non_blocking=True)
        self.stream.synchronize()
        return tuple(host[:rows].numpy().copy() for host in self.hosts)


def priors_of(logits: NDArray[np.float32], legal: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Softmax over the legal actions, -1 at the others: [B, A]. Rows without a legal action are all -1."""
    shifted = np.where(legal, logits, -np.inf)
    top = np.where(legal.any(1), shifted.max(1, initial=-np.inf), 0)
    weights = np.exp(shifted - top[:, None])
    total = np.maximum(weights.sum(1, keepdims=True), 1e-30)
    return np.where(legal, weights / total, -1).astype(np.float32)


def open_edges(
    trees: Trees, game: Game, games: States, edges: Edges, evaluate: Evaluate, more: States | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
    """Play the edges, evaluate what is not the end of a game, and expand.

    The states `more` [M, game_size] go through the network in the same call. Returns their (priors [M, A], value [M]),
    and how many states the network saw. Raises NonFiniteLoss where its values are not finite.
    """
    states = game.states_after(games, trees, edges.tree, edges.node, edges.action)
    over, value = game.outcome(states)
    live = np.flatnonzero(~over)
    going = states[live] if more is None else np.concatenate([more, states[live]])
    first = len(going) - len(live)
    priors = np.full((len(states), game.num_actions), -1, np.float32)
    opened, worth = np.empty((0, game.num_actions), np.float32), np.empty(0, np.float32)
    if len(going):
        logits, worth = evaluate(game.encode(going))
        if not np.isfinite(worth).all():
            raise NonFiniteLoss("the network's values are not finite: go back to a checkpoint before that")
        opened = priors_of(logits, game.legal(going))
        priors[live], value[live] = opened[first:], worth[first:]
    trees.expand(edges, states, priors, value, over)
    return opened[:first], worth[:first], len(going)
