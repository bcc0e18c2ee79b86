"""Forward and backward of a learner as one CUDA graph."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


class Captured:
    """forward_backward as a CUDA graph with static inputs. The first batch fixes shapes; others are copied in.

    Gradients are zeroed in place by the caller, so that the graph always adds to the same memory.
    """

    def __init__(self, model: nn.Module, run: Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]):
        self._model, self._run = model, run
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if self._graph is None:
            self._capture(batch)
        else:
            for name, held in self._inputs.items():
                assert batch[name].shape == held.shape, f"a captured graph takes batches of one shape: {name}"
                held.copy_(batch[name], non_blocking=True)
        assert self._graph is not None
        self._graph.replay()
        return self._outputs

    def _capture(self, batch: Batch) -> None:
        self._inputs = {name: value.clone() for name, value in batch.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # lets cuDNN and cuBLAS choose and allocate outside the capture; moves batch norms
                self._run(self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        for p in self._model.parameters():
            p.grad = torch.zeros_like(p) if p.requires_grad else None
        graph = torch.cuda.CUDAGraph()
        # On a stream of its own: graphs of one stream share cuBLAS's scratch memory, and may not replay at once.
        with torch.cuda.graph(graph, stream=stream):
            self._outputs = self._run(self._inputs)
        self._graph = graph  # capturing ran nothing: the first replay adds this batch's gradients
