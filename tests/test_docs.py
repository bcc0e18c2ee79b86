"""The pages: each command line of README, docs/ and the commands' own files is one that the command understands."""

import re
import shlex
from pathlib import Path

import pytest

from experiments import __main__ as experiments
from rlkit import command_line, config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = r"(?:python -m experiments|lecture-rl) +([a-z]\w*(?: [^`\n]*)?)"
MAKE = r'make (train|bench)((?: \w+=(?:"[^"]*"|[^\s`]+))+)'


def command_lines(text):
    """[name, flag, ...] of each command in a text; `NAME` stands for any command, and `#` begins a comment."""
    lines = [shlex.split(line, comments=True) for line in re.findall(COMMAND, text.replace("\\\n", " "))]
    for target, settings in re.findall(MAKE, text):
        values = dict(word.split("=", 1) for word in shlex.split(settings))
        name = ["dqn"] if target == "train" else ["bench", values.get("WHAT", "dqn")]
        lines.append(name + shlex.split(values.get("ARGS", "")))
    return lines


WRITTEN = {
    (str(path.relative_to(ROOT)), shlex.join(line)): line
    for path in [*PAGES, *sorted((ROOT / "experiments").rglob("*.py"))]
    for line in command_lines(path.read_text() if path.suffix == ".md" else path.read_text().split('"""')[1])
}


@pytest.fixture(scope="module")
def commands():
    return {name: experiments.load(name) for name in experiments.MODULES}


@pytest.mark.slow
def test_command_lines_are_understood(commands, monkeypatch):
    # The runs that they name are not there.
    monkeypatch.setattr(command_line, "load_config", lambda kind, run_dir: kind())
    assert len(WRITTEN) > 50
    wrong = []
    for (path, text), (name, *flags) in WRITTEN.items():
        try:
            assert name in commands, "no such command"
            if "--help" not in flags:
                config.check_bounds(experiments.parse(commands[name], flags))
        except (AssertionError, SystemExit, ValueError) as error:
            wrong.append(f"{path}: {text}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_flags_and_presets_exist(commands):
    """Those that a page names without a command."""
    flags, presets = {"--help"}, set()
    for command in commands.values():
        flags |= {config.flag(name) for name in command.Config.__dataclass_fields__}
        for name, cfg in getattr(command, "PRESETS", {}).items():
            presets.add(name)
            flags |= {field.flag for field in config.fields(cfg)}
    for path in PAGES:
        for code in re.findall(r"`(--[^`]*)`", path.read_text()):
            for flag in re.findall(r"--[\w.-]*\w(?=\s|$)", code):
                assert {flag, flag.replace("--no-", "--")} & flags, f"{path.name}: {flag}"
            for preset in re.findall(r"--preset (\w+)", code):
                assert preset in presets, f"{path.name}: {preset}"


def test_pages_point_at_what_is_there():
    """Links of the pages, to headings too; and each page can be reached from the README."""
    for path in PAGES:
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
            name, _, heading = target.partition("#")
            page = (path.parent / name).resolve() if name else path
            assert page.exists(), f"{path.name}: {target}"
            if heading:
                titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
                assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, target
    linked = set(re.findall(r"\]\(docs/(\w[\w-]*\.md)", PAGES[0].read_text()))
    assert linked == {path.name for path in PAGES[1:]}


def test_files_that_pages_name_are_there():
    for path in PAGES:
        for name in re.findall(r"`((?:rlkit|agents|envs|experiments|tests)/[\w/]+(?:\.\w+)?)`", path.read_text()):
            assert (ROOT / name).exists(), f"{path.name}: {name}"
