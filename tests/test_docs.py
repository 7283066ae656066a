"""Every command that the documentation shows names what exists: the real parsers read it, and nothing is trained."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from imagegen_dist.cli import clean, data, encode, export, make_shards, runs, sample, sweep_options, train_options
from imagegen_dist.cli.command import parse_flags
from imagegen_dist.cli.evaluate import command as evaluate

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "cluster" / "README.md"])
PARSERS: dict[str, Callable[[Sequence[str]], Any]] = {
    "train_gan": lambda words: train_options.parse("train_gan", words),
    "train_vae": lambda words: train_options.parse("train_vae", words),
    "sweep": sweep_options.parse,
    "evaluate": evaluate.parse,
    "make_shards": lambda words: make_shards.command_of(data.parse(words)),
    "sample": sample.parse,
    "export": export.parse,
    "encode": encode.parse,
    "clean": lambda words: parse_flags(clean.Options, "clean", words),
}
"""The parser of each script in jobs/."""

FILES = {"best.json": "digits", "runs/first/best.json": "digits-vae"}
"""Files that commands name: the best configuration of a sweep, by its preset."""


def code_lines(page: Path) -> Iterator[str]:
    """The lines of a page's indented and fenced blocks; a continued line is one line."""
    fenced = re.compile(r"^```.*\n((?:.*\n)*?)```$", re.MULTILINE)
    text = fenced.sub(lambda block: re.sub(r"^", "    ", block[1], flags=re.MULTILINE), page.read_text())
    for block in re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE):
        yield from re.sub(r"\\\n\s*", " ", block).splitlines()


def python_blocks(page: Path) -> list[str]:
    """The fenced Python of a page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def jobs(page: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(script, arguments) of each `python jobs/...` in the code of a page."""
    for line in code_lines(page):
        if match := re.search(r"python jobs/(\w+)\.py(.*)", line):
            words = shlex.split(match[2].split(" && ")[0], comments=True)
            yield match[1], tuple(word for word in words if word != "&")


SUBCOMMANDS: dict[str, Callable[[Sequence[str]], Any]] = {
    "train": lambda words: train_options.parse("train", words),
    "runs list": lambda words: parse_flags(runs.ListOptions, "runs list", words),
    "runs show": lambda words: parse_flags(runs.RunsOptions, "runs show", words),
    "runs compare": lambda words: parse_flags(runs.RunsOptions, "runs compare", words),
    "runs clean": lambda words: parse_flags(runs.CleanOptions, "runs clean", words),
}


def test_sub_commands_of_imagegen_are_understood() -> None:
    """The parsers of those that pages show take their words; after --help come groups of settings."""
    lines = [line for page in PAGES for line in code_lines(page) if line.strip().startswith("imagegen ")]
    assert len(lines) > 5
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        if words[0].startswith("--"):
            continue
        name = words[0] if words[0] != "runs" else " ".join(words[:2])
        rest = words[len(name.split()) :]
        if "--help" in rest:
            assert train_options.help_text(name, rest).startswith("settings of")
        else:
            SUBCOMMANDS[name](rest)


COMMANDS = sorted({(job, words) for page in PAGES for job, words in jobs(page)})


@pytest.mark.parametrize(("job", "words"), COMMANDS, ids=[f"{job} {' '.join(words)}" for job, words in COMMANDS])
def test_a_job_is_understood(job: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its script exists, and its own parser takes its flags, presets and settings with their values."""
    assert (ROOT / "jobs" / f"{job}.py").is_file()
    if "..." in words or words == ("--help",):
        return
    monkeypatch.chdir(tmp_path)
    for name, preset in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(json.dumps({"preset": preset, "experiment": {"training.seed": 1}}))
    some = {"PRESET": "digits-vae" if job == "train_vae" else "digits", "HASH": "0" * 64, "s3://bucket/runs": "runs"}
    PARSERS[job]([some.get(word, word) for word in words])


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1300


def test_pages_are_searched() -> None:
    assert len(COMMANDS) > 60
    assert {job for job, _ in COMMANDS} == {script.stem for script in (ROOT / "jobs").glob("*.py")}


def test_scripts_modules_targets_and_folders_exist() -> None:
    """What pages run besides jobs: benchmarks, modules, make's targets, console scripts, pytest's folders."""
    text = "\n".join(line.strip() for page in PAGES for line in code_lines(page))
    for script in re.findall(r"python ([\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module), module
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for named in re.findall(r"^make ([a-z -]+)", text, re.MULTILINE):
        assert set(named.split()) <= targets, named
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name in re.findall(r"^(imagegen-\S+)", text, re.MULTILINE):
        assert name in scripts, name
    for folder in re.findall(r"^pytest (?:-n 0 )?(tests/\S+)", text, re.MULTILINE):
        assert (ROOT / folder).exists(), folder


def test_python_of_pages_is_valid_and_imports_what_exists() -> None:
    imports = []
    for page in PAGES:
        for block in python_blocks(page):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("imagegen_dist"):
                    imports += [(str(node.module), alias.name) for alias in node.names]
    assert len(imports) > 4
    for module, name in imports:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
