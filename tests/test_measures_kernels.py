"""Measures of the compiled code and of the worlds: few arguments, and no circles among files."""

import ast
import inspect
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

from rlkit import compiled

ROOT = Path(__file__).parent.parent
MOST = 8
"""positional arguments of a compiled function: more of them go into a NamedTuple"""
ALLOWED = {"envs.go.board.reset": 9}


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_compiled_functions_take_few_arguments():
    counts = {}
    for path in compiled.SOURCES:
        if path != Path(compiled.__file__):
            module = module_of(path)
            for name, value in vars(import_module(module)).items():
                if hasattr(value, "py_func") and value.py_func.__module__ == module:
                    counts[f"{module}.{name}"] = len(inspect.signature(value.py_func).parameters)
    assert len(counts) > 100
    assert not {name: n for name, n in counts.items() if n > ALLOWED.get(name, MOST)}


def imported(path, modules):
    """The modules of ours that a file imports anywhere, also within functions and for type checkers only."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else node.module for name in whole}
    return names & modules


def test_no_circles_among_files():
    files = {module_of(path): path for folder in ("envs", "rlkit/search") for path in (ROOT / folder).rglob("*.py")}
    graph = {module: imported(path, files.keys()) for module, path in files.items()}
    assert {"envs.go.chains", "envs.go.board"} <= graph["envs.go.game"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle: {' <- '.join(error.args[1])}") from None
