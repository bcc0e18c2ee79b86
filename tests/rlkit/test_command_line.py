"""What a user can mend: one line, and no run is left that never began."""

import weakref
from dataclasses import dataclass

import pytest

from rlkit import command_line, run


@dataclass
class Config:
    resume: str | None = None
    seed: int = 1
    batch_size: int = 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 1 TiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...\nand more lines"),
        TypeError("empty(): Overflow when unpacking long long\nand more"),
    ],
)
def test_too_little_memory_names_the_flags_that_take_it(tmp_path, monkeypatch, error):
    monkeypatch.chdir(tmp_path)

    def main(cfg):
        run.open_run(cfg, "toy", "toy")
        raise error

    with pytest.raises(SystemExit, match=r"error: there is not enough memory: lower --batch-size \(.*") as raised:
        command_line.cli(main, Config)
    assert str(raised.value).count("\n") == 1, "one line, and how to see more"
    assert not any((tmp_path / "runs" / "toy").iterdir()), "a run that never began"


def test_what_filled_the_memory_is_let_go_before_the_run_is_taken_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    held, take_back = [], command_line._take_back

    class Layers(list):
        pass

    def main(cfg):
        run.open_run(cfg, "toy", "toy")
        layers = Layers()
        held.append(weakref.ref(layers))
        raise MemoryError

    monkeypatch.setattr(command_line, "_take_back", lambda: (held.append(held[0]()), take_back()))
    with pytest.raises(SystemExit, match="not enough memory"):
        command_line.cli(main, Config)
    assert held[1] is None and not any((tmp_path / "runs" / "toy").iterdir())


def test_other_errors_of_torch_are_shown_whole():
    def main(cfg):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        command_line.cli(main, Config)
