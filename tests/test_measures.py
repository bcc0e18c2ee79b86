"""How much has to be read: the measures of elegance, each with what fails it."""

import ast
import inspect
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from rlkit import compiled

ROOT = Path(__file__).parents[1]
PACKAGES = ("rlkit", "agents", "envs", "experiments")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
DQN, WORLD = "experiments.control.dqn", {"env": "catch"}
"""the module of DQN's main, and how its configuration names the world"""
UPDATES = 100
MODULES, LINES = 27, 3796
"""that a reader of DQN meets, at the most; the aim is 24 and 3,000"""
ARGUMENTS, ALLOWED = 8, {"envs.go.board.reset": 9}
"""of a compiled function, by position: more of them go into a NamedTuple"""

# Tells our frames at each update, outermost first, and our modules at the end.
READER = """
import dataclasses, importlib, json, sys
from pathlib import Path
from torch.optim.optimizer import register_optimizer_step_pre_hook

root, dqn, world, packages = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
stacks = []

def ours(file):
    path = Path(file or "/")
    return path.is_relative_to(root) and path.relative_to(root).parts[0] in packages

def step(*_):
    frame, stack = sys._getframe(), []
    while frame:
        if ours(frame.f_code.co_filename):
            stack.insert(0, (str(Path(frame.f_code.co_filename).relative_to(root)), frame.f_code.co_name))
        frame = frame.f_back
    stacks.append(stack)

register_optimizer_step_pre_hook(step)
experiment = importlib.import_module(dqn)
small = {"frames": 600, "learning_starts": 200, "replay": 600, "num_envs": 8, "batch_size": 32, "samples_per_step": 8}
cfg = experiment.Config(**world, **small, eval_episodes=2, device="cpu", threads=1)
trainer = dataclasses.replace(cfg.trainer, progress=False, precision="fp32")
experiment.main(dataclasses.replace(cfg, trainer=trainer))
files = {Path(module.__file__) for module in list(sys.modules.values()) if ours(getattr(module, "__file__", None))}
print(json.dumps([stacks, sorted(str(path.relative_to(root)) for path in files)]))
"""


def lines(path):
    return len(path.read_text().splitlines())


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    """Of DQN's main on catch: the stack of our frames (file, function) at every optimiser's step; our files loaded."""
    arguments = [str(ROOT), *map(json.dumps, (DQN, WORLD, PACKAGES))]
    ended = subprocess.run(
        [sys.executable, "-c", READER, *arguments],
        cwd=tmp_path_factory.mktemp("dqn"),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    stacks, files = json.loads(ended.stdout.splitlines()[-1])
    assert len(stacks) == UPDATES
    return stacks, [ROOT / file for file in files]


@pytest.mark.slow
def test_few_frames_lie_between_the_loop_and_the_step(reading):
    """Its function is the one that Trainer.run yields to."""
    for stack in {tuple(map(tuple, stack)) for stack in reading[0]}:
        loop = stack.index(("rlkit/trainer.py", "run")) - 1
        shown = "\n".join(f"{'loop ->' if i == loop else '':8}{file} {name}" for i, (file, name) in enumerate(stack))
        assert len(stack) - loop <= 3, f"our frames from the function with the loop to the step, it included\n{shown}"
        assert loop <= 2, f"our frames above the function with the loop\n{shown}"


@pytest.mark.slow
def test_dqn_is_read_in_few_files(reading):
    sizes = {str(path.relative_to(ROOT)): lines(path) for path in reading[1] if path.name != "__init__.py"}
    shown = "\n".join(f"{count:5} {name}" for name, count in sizes.items())
    assert len(sizes) <= MODULES and sum(sizes.values()) <= LINES, (
        f"{len(sizes)} modules, {sum(sizes.values())} lines\n{shown}"
    )


def imported(path, modules):
    """Our modules that a file imports, wherever in it the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & modules.keys()


def circles(graph):
    """The groups of nodes that all lead to each other."""

    def reached(start):
        seen, left = set(), [start]
        while left:
            left += (new := graph[left.pop()] - seen)
            seen |= new
        return seen

    leads_to = {node: reached(node) for node in graph}
    return {frozenset(b for b in leads_to[a] if a in leads_to[b]) for a in graph if a in leads_to[a]}


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == {frozenset("bc"), frozenset("d")}


def test_no_imports_in_circles():
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES}
    found = circles({name: imported(path, modules) for name, path in modules.items()})
    assert not found, "\n".join(" ".join(sorted(circle)) for circle in found)


def has_main(path):
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in ast.parse(path.read_text()).body)


def test_files_are_short():
    most = {path: 250 if path.is_relative_to(ROOT / "experiments") and has_main(path) else 400 for path in FILES}
    long = [
        f"{lines(path)} of {most[path]} lines: {path.relative_to(ROOT)}" for path in FILES if lines(path) > most[path]
    ]
    assert not long, "\n".join(long)


def test_one_backward_in_the_tree():
    found = [str(path.relative_to(ROOT)) for path in FILES for _ in range(path.read_text().count(".backward("))]
    assert found == ["rlkit/trainer.py"]


def test_folders_are_named_by_their_topic():
    files = [*FILES, *(ROOT / "tests").rglob("*.py")]
    folders = {path.parent.relative_to(ROOT) for path in files}
    assert not [str(folder) for folder in folders if {"parts", "utils", "common", "misc"} & {*folder.parts}]


def test_lines_of_tests_to_lines_of_code_are_reported(record_property):
    """0.8 to 1.0 is what we want; nothing is asserted."""
    ratio = sum(map(lines, (ROOT / "tests").rglob("*.py"))) / sum(map(lines, FILES))
    record_property("lines of tests to lines of code", ratio)
    print(f"lines of tests to lines of code: {ratio:.2f}")


def test_compiled_functions_take_few_arguments():
    counts = {}
    for path in compiled.SOURCES:
        if path != Path(compiled.__file__):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for name, value in vars(import_module(module)).items():
                if hasattr(value, "py_func") and value.py_func.__module__ == module:
                    counts[f"{module}.{name}"] = len(inspect.signature(value.py_func).parameters)
    assert len(counts) > 100
    assert not {name: n for name, n in counts.items() if n > ALLOWED.get(name, ARGUMENTS)}
