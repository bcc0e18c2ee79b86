"""The network of AlphaZero's benchmark in several forms, alone with positions of the middle game."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from agents.alphazero.network import BoardNetwork
from envs.go.game import Go
from experiments.bench.go import middle_game
from rlkit.search.inference import Evaluate


def board_network(channels: int, blocks: int, seed: int = 1) -> BoardNetwork:
    """An untrained one, but with heads that do not begin at zero: a search would see no difference between moves."""
    torch.manual_seed(seed)
    network = BoardNetwork(Go.planes, channels, blocks, size=9)
    for head in (network.points, network.board):
        nn.init.normal_(head.weight, std=0.5)  # type: ignore[arg-type]
    return network.eval()


@cache
def boards(rows: int) -> np.ndarray:
    """Planes of the middle game: [rows, C, 9, 9]."""
    planes = Go(9).encode(middle_game(Go(9)))
    return np.resize(planes, (rows, *planes.shape[1:]))


def frozen(network: BoardNetwork, precision: str, form: str, rows: int) -> Evaluate:
    """The network "traced" or "compiled" as it is now, for batches of so many rows: made anew for other weights."""
    weights = copy.deepcopy(network).requires_grad_(False)
    weights.to(torch.bfloat16 if precision == "bf16" else torch.float32)
    model: Any
    if form == "traced":  # its check would run without gradients, where the network calls what cannot be traced
        trace = torch.jit.trace(weights, torch.from_numpy(boards(rows)), strict=False, check_trace=False)
        model = torch.jit.freeze(trace)
    else:
        from torch._inductor import config as inductor

        inductor.freezing = True
        torch._dynamo.reset()
        model = torch.compile(weights)

    def evaluate(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            out = model(torch.from_numpy(planes))
        return out["policy"].numpy(), out["value"].numpy()

    evaluate(boards(rows))
    return evaluate


def alone(evaluate: Evaluate, rows: int, parts: int) -> Callable[[], int]:
    """The network and nothing else, on a thread for each part, with so many rows in all."""
    pool, batches, times = ThreadPoolExecutor(parts), np.array_split(boards(rows), parts), 16

    def work() -> int:
        list(pool.map(lambda batch: [evaluate(batch) for _ in range(times)], batches))
        return times * rows

    return work
