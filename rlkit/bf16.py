"""Where numbers of 16 bits (bf16) are fast, and how to learn with them where a library refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

_onednn_bf16: bool | None = None
"""what `onednn_has_bf16` found"""


def onednn_has_bf16() -> bool:
    """Whether oneDNN, which does a CPU's fast convolutions and LSTMs, can learn in bf16 here. Found once, by doing it:
    that depends on more than the processor (ONEDNN_MAX_CPU_ISA), and some have the forward pass alone.
    """
    global _onednn_bf16
    if _onednn_bf16 is None:
        if torch.compiler.is_compiling():  # traced, every attempt seems to succeed: no is what always works
            return False
        with torch.inference_mode(False), torch.enable_grad():
            _onednn_bf16 = _learns_in_bf16()
    return _onednn_bf16


def _learns_in_bf16() -> bool:
    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(shape, requires_grad=True)

    x, w, state = ones(1, 16, 4, 4).to(torch.bfloat16), ones(16, 16, 3, 3).to(torch.bfloat16), torch.ones(1, 1, 16)
    weights = [ones(64, 16), ones(64, 16), ones(64), ones(64)]
    try:  # what calls oneDNN by name; then that before which torch asks it too little, or nothing
        with torch.no_grad():
            torch.ops.mkldnn._convolution_pointwise(x, w, None, [1, 1], [1, 1], [1, 1], 1, "relu", [], "")
        torch.autograd.grad(torch.conv2d(x, w, padding=1).sum(), (x, w))
        with torch.autocast("cpu", torch.bfloat16):
            out, *_ = torch.lstm(ones(1, 2, 16), (state, state), weights, True, 1, 0.0, True, False, True)
        torch.autograd.grad(out.sum(), weights)
    except (AttributeError, RuntimeError):  # AttributeError: a torch without oneDNN
        return False
    return True


@contextmanager
def kernels_for(precision: str, device: torch.device) -> Iterator[None]:
    """Forward and backward passes in this precision work until the end of the block, if need be by torch's own, slower
    kernels: where oneDNN cannot learn in bf16, it is switched off meanwhile, for all threads.
    """
    own = precision == "bf16" and device.type == "cpu" and not onednn_has_bf16()
    before = torch.backends.mkldnn.enabled
    if own:
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def fastest_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """bf16 where the device multiplies it natively (GPUs since 2020, CPUs with AVX512-BF16 or AMX), else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # recent torch has it
    native = able.get("avx512_bf16") or able.get("amx_bf16")
    return "bf16" if native and onednn_has_bf16() else "fp32"
