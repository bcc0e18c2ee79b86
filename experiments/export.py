"""Write an agent's networks as ONNX files, or as programs of torch.export.

python -m experiments export runs/dqn/<run>                            # dqn.onnx
python -m experiments export runs/images/<run> --out digits.onnx
python -m experiments export alphazero:9x9 --format torch              # alphazero.pt2
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch.export import ExportedProgram

from experiments.networks import BATCH, Array, Network, networks
from rlkit.files import write_atomically

ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-4
"""of what a file gives against what the network gives, as a share of the largest number where that is above 1"""


@dataclass
class Config:
    """Write the networks of an agent to files that other programs run, each once it gives the same numbers."""

    path: Annotated[str, tyro.conf.Positional]
    """run or agent folder, or alphazero:NAME, one that ships"""
    out: Path | None = None
    """file to write, of several networks FILE_<name>; default: the agent's kind, as dqn.onnx, in the present folder"""
    format: Literal["onnx", "torch"] = "onnx"
    """onnx (needs the extra `export`), or torch, a program of torch.export that torch alone runs"""


def main(cfg: Config) -> list[Path]:
    """Export, check and write; returns the files' paths."""
    if cfg.format == "onnx":
        check_extra()
    if cfg.out and cfg.out.suffix != ENDINGS[cfg.format]:
        raise ValueError(f"--out {cfg.out} does not end in {ENDINGS[cfg.format]}, as files of --format {cfg.format} do")
    if cfg.out and not cfg.out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {cfg.out.parent} to write {cfg.out.name} to")
    info, found = networks(cfg.path)
    out, paths = cfg.out or Path(info["kind"] + ENDINGS[cfg.format]), []
    for name, network in found.items():
        about = {key: x if isinstance(x, str) else json.dumps(x) for key, x in (info | network.about).items()}
        data, run = (onnx_file if cfg.format == "onnx" else torch_file)(network, about)
        difference, shapes = compare(network, run)
        path = out.with_stem(f"{out.stem}_{name}") if name else out
        if not difference <= TOLERANCE:
            raise ValueError(f"{path} was not written: its numbers differ from the network's by {difference:.2g}")
        write_atomically(path, data)
        paths.append(path)
        said = f"wrote {path}, whose numbers differ from the network's by {difference:.1g} at most"
        print("\n  ".join([said, *usage(path, network, shapes)]))
    return paths


def check_extra() -> None:
    """Raise ModuleNotFoundError where a package of the extra is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModuleNotFoundError(
            f"ONNX needs the extra `export`, whose {error.name} is missing: pip install -e '.[export]'"
        ) from error


# -- the files ---------------------------------------------------------------------------------------------------------


class Run(Protocol):
    """(arrays) -> what a file's program gives for them."""

    def __call__(self, arrays: list[NDArray], /) -> Sequence[NDArray]: ...


def traced(network: Network) -> tuple[ExportedProgram, Any]:
    """(the network as one graph of torch's operators, which of its inputs' sizes may vary)."""
    varies = (tuple({i: s for i, s in enumerate(a.sizes) if not isinstance(s, int)} for a in network.inputs),)
    example = tuple(torch.from_numpy(x) for x in draw(network.inputs, 0))
    return torch.export.export(network, example, dynamic_shapes=varies), varies


def onnx_file(network: Network, about: dict[str, str]) -> tuple[bytes, Run]:
    """(an ONNX file with this metadata, onnxruntime's function of it)."""
    import onnx
    import onnxruntime

    names = [array.name for array in network.inputs]
    with quiet():
        program, varies = traced(network)
        made: Any = torch.onnx.export(
            program, input_names=names, output_names=network.outputs, dynamic_shapes=varies, dynamo=True, verbose=False
        )
    model = made.model_proto
    onnx.helper.set_model_props(model, about)
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return data, lambda arrays: session.run(network.outputs, dict(zip(names, arrays, strict=True)))


def torch_file(network: Network, about: dict[str, str]) -> tuple[bytes, Run]:
    """(a .pt2 file with this as its metadata.json, the function that torch.export.load gives of it)."""
    file = io.BytesIO()
    with quiet():
        torch.export.save(traced(network)[0], file, extra_files={"metadata.json": json.dumps(about)})
        program = torch.export.load(io.BytesIO(file.getvalue())).module()
    return file.getvalue(), lambda arrays: [y.numpy() for y in program(*map(torch.from_numpy, arrays))]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch says of its own state while it exports."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


# -- the same numbers --------------------------------------------------------------------------------------------------

BATCHES = (3, 1, 5)
OTHERS = (4, 7, 2)
"""what vary: sizes of the batch, and of all else, for each check; the first is that of the example to trace by"""


def draw(inputs: list[Array], check: int) -> list[NDArray]:
    """Random inputs of the sizes of a check."""
    rng, others = np.random.default_rng(check), iter(range(OTHERS[check], 100))
    sizes: dict[Any, int] = {BATCH: BATCHES[check]}
    arrays = []
    for array in inputs:
        for size in array.sizes:
            if not isinstance(size, int) and size not in sizes:
                sizes[size] = min(next(others), size.max)
        shape, name = [sizes.get(size, size) for size in array.sizes], str(array.dtype).removeprefix("torch.")
        x: Any = rng.integers(2 if name == "bool" else array.high, size=shape)
        if array.dtype.is_floating_point:
            x = rng.standard_normal(shape)
        elif name in ("bool", "int64") and len(shape) > 1:
            x[..., 0] |= 1  # no row has no token, nor one that may look nowhere: such a row has no numbers to compare
        arrays.append(x.astype(name))
    return arrays


def compare(network: Network, run: Run) -> tuple[float, list[list[tuple[int, ...]]]]:
    """(the largest difference of what a file gives to what the network gives, the shapes in each check of all that goes
    in and comes out).
    """
    largest, shapes = 0.0, []
    for check in range(len(BATCHES)):
        arrays = draw(network.inputs, check)
        with torch.no_grad():
            wanted = [y.numpy() for y in network(*map(torch.from_numpy, arrays))]
        largest = max(largest, *(distance(x, y) for x, y in zip(wanted, run(arrays), strict=True)))
        shapes.append([x.shape for x in (*arrays, *wanted)])
    return largest, shapes


def distance(x: NDArray, y: NDArray) -> float:
    """The largest difference of two arrays, as a share of the largest finite number of x where that is above 1; inf for
    different shapes or dtypes, and where only one is finite.
    """
    if x.shape != y.shape or x.dtype != y.dtype:
        return np.inf
    x, y = x.astype(np.float64), y.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where(x == y, 0, np.abs(x - y))
    apart[np.isnan(apart)] = np.inf
    return float(apart.max(initial=0) / max(1.0, np.abs(x[np.isfinite(x)]).max(initial=0)))


# -- how to call it ----------------------------------------------------------------------------------------------------


def usage(path: Path, network: Network, shapes: list[list[tuple[int, ...]]]) -> list[str]:
    """What goes in, what comes out, and a line of Python that calls it."""
    names, index = [array.name for array in network.inputs], "[0]" if len(network.outputs) == 1 else ""
    by_array = [
        list(zip(*each, strict=True)) for each in zip(*shapes, strict=True)
    ]  # array -> axis -> size in each check
    axes = {
        seen: size.__name__
        for array, sizes in zip(network.inputs, by_array, strict=False)
        for size, seen in zip(array.sizes, sizes, strict=True)
        if not isinstance(size, int)
    }

    def sizes_of(sizes: list[tuple[int, ...]]) -> str:
        """A number for what is always the same, ? for what follows from several."""
        return f"[{', '.join(str(seen[0]) if len({*seen}) == 1 else axes.get(seen, '?') for seen in sizes)}]"

    into = [f"{a.name} {str(a.dtype)[6:]} {sizes_of(s)}" for a, s in zip(network.inputs, by_array, strict=False)]
    out = [f"{name} {sizes_of(s)}" for name, s in zip(network.outputs, by_array[len(names) :], strict=True)]
    if path.suffix == ".onnx":
        feed = ", ".join(f'"{name}": {name}' for name in names)
        call = f'onnxruntime.InferenceSession("{path}").run(None, {{{feed}}}){index}'
    else:
        call = f'torch.export.load("{path}").module()({", ".join(names)}){index}'
    said = [f"{name}: {value}" for name, value in network.about.items()]
    return [f"{', '.join(into)} -> {', '.join(out)}", *said, f"{', '.join(network.outputs)} = {call}"]
