"""Every command that the documentation shows names what exists: the real parsers read it, and nothing is trained."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from imagegen_dist import config
from imagegen_dist.cli import (
    clean,
    data,
    encode,
    export,
    make_shards,
    project,
    reproduce,
    runs,
    sample,
    serve,
    sweep_options,
    train_options,
)
from imagegen_dist.cli.command import parse_flags
from imagegen_dist.cli.evaluate import command as evaluate
from imagegen_dist.presets import find_preset
from tests.pages import PAGES, ROOT, code_lines, commands, python_blocks

PARSERS: dict[str, Callable[[Sequence[str]], Any]] = {
    "train_gan": lambda words: train_options.parse("train_gan", words),
    "train_vae": lambda words: train_options.parse("train_vae", words),
    "train": lambda words: train_options.parse("train", words),
    "sweep": sweep_options.parse,
    "evaluate": evaluate.parse,
    "make_shards": lambda words: make_shards.command_of(data.parse(words)),
    "data pack": lambda words: make_shards.command_of(data.parse(words)),
    "data index": lambda words: parse_flags(data.IndexOptions, "data index", words),
    "data check": lambda words: parse_flags(data.CheckOptions, "data check", words),
    "sample": sample.parse,
    "serve": serve.parse,
    "export": export.parse,
    "project": project.parse,
    "encode": encode.parse,
    "reproduce": reproduce.parse,
    "clean": lambda words: parse_flags(clean.Options, "clean", words),
    "runs list": lambda words: parse_flags(runs.ListOptions, "runs list", words),
    "runs show": lambda words: parse_flags(runs.RunsOptions, "runs show", words),
    "runs compare": lambda words: parse_flags(runs.RunsOptions, "runs compare", words),
    "runs clean": lambda words: parse_flags(runs.CleanOptions, "runs clean", words),
}
"""The parser of each script in jobs/ and of each sub-command of imagegen."""

FILES = {"best.json": "digits", "runs/first/best.json": "digits-vae"}
"""Files that commands name: the best configuration of a sweep, by its preset."""

RUN = "runs/digits-1"
"""The run that commands begin from, of the preset digits."""


ALL = sorted({command for page in PAGES for command in commands(page.read_text())})
OWN = [(name, words) for name, words in ALL if any("my_package" in word for word in words)]
"""Commands with a package of the reader's own, whose import registers its objectives for the whole process."""
COMMANDS = [command for command in ALL if command not in OWN]


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=[f"{name} {' '.join(words)}" for name, words in COMMANDS])
def test_a_command_is_understood(
    name: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It exists, and its own parser takes its flags, presets and settings with their values."""
    if "--help" in words:
        assert not words[1:] or train_options.help_text(name, words).startswith("settings of")
        return
    if "..." in words:
        return
    monkeypatch.chdir(tmp_path)
    for file, preset in FILES.items():
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(json.dumps({"preset": preset, "experiment": {"training.seed": 1}}))
    experiment = config.encode(find_preset("digits").experiment)
    Path(RUN).mkdir(parents=True)
    Path(RUN, "config.json").write_text(
        json.dumps({"preset": "digits", "job": "train_gan", "experiment": experiment, "data": {"url": "digits"}})
    )
    some = {"PRESET": "digits", "HASH": "0" * 64, "s3://bucket/runs": "runs"}
    PARSERS[name]([some.get(word, word) for word in words])


def test_commands_with_a_package_of_ones_own_are_understood(tmp_path: Path) -> None:
    assert len(OWN) > 4
    code = "from tests.test_docs import OWN, PARSERS\nfor name, words in OWN:\n    PARSERS[name](words)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "extending")])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1300


def test_pages_are_searched() -> None:
    assert len(COMMANDS) > 60
    assert {"train_gan", "train", "data pack", "runs compare"} < {name for name, _ in COMMANDS}
    assert {script.stem for script in (ROOT / "jobs").glob("*.py")} < PARSERS.keys()


def test_scripts_modules_targets_and_folders_exist() -> None:
    """What pages run besides jobs: benchmarks, modules, make's targets, console scripts, pytest's folders."""
    text = "\n".join(line.strip() for page in PAGES for line in code_lines(page.read_text()))
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
        for block in python_blocks(page.read_text()):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("imagegen_dist"):
                    imports += [(str(node.module), alias.name) for alias in node.names]
    assert len(imports) > 4
    for module, name in imports:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_every_command_of_the_parity_page_names_tests_and_scripts_that_exist() -> None:
    text = (ROOT / "docs" / "parity.md").read_text()
    tests = re.findall(r"(tests/[\w/]+\.py)::(\w+)", text)
    assert len(tests) > 12
    for file, name in tests:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
    for script in re.findall(r"python (benchmarks/\w+\.py)", text):
        assert (ROOT / script).is_file(), script


def test_files_and_names_in_the_text_exist() -> None:
    """Files of the repository or of the package, and dotted names of the package, that the text has as code."""
    current = [page for page in PAGES if page.name != "CHANGELOG.md"]
    inline = {code for page in current for code in re.findall(r"`([^`\n]+)`", page.read_text())}
    files = {code for code in inline if re.fullmatch(r"[\w./-]+/[\w.-]+\.(?:py|yaml|toml|sh)", code)}
    names = {code for code in inline if re.fullmatch(r"imagegen_dist(?:\.\w+)+", code)}
    assert len(files) > 10
    assert names
    for file in files:
        assert (ROOT / file).exists() or (ROOT / "imagegen_dist" / file).exists(), file
    for name in names:
        assert is_importable(name), name


def is_importable(name: str) -> bool:
    """True for a module, and for an attribute of one."""
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(importlib.util.find_spec(name))
    except ModuleNotFoundError:
        return False
