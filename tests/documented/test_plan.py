"""What tests/documented runs: every command that the pages show, and which it leaves out."""

from __future__ import annotations

import re
import shlex

from tests.documented import python
from tests.documented.plan import begun_anew, budget_of, plan, step_of
from tests.pages import PAGES, commands
from tests.test_docs import PARSERS


def test_each_command_of_a_page_is_run_or_has_a_reason() -> None:
    steps = plan()
    shown = {command for page in PAGES for command in commands(page.read_text())}
    planned = {command for step in steps for command in commands(f"    {step.printed}\n")}
    assert planned == shown
    assert all(bool(step.run) != bool(step.by_hand) for step in steps)


def test_what_is_run_in_place_of_a_command_is_understood_as_well() -> None:
    """The flags that make it small belong to it. Other tests' runs, packages and configurations are not there."""
    elsewhere = re.compile(r"--help|--init-from|--fork-from|--run \S+ --tr|--config|--resume|my_package")
    for step in plan():
        if step.run and not elsewhere.search(step.run):
            for name, words in commands(f"    {re.sub(r'[$][(].*?[)]', 'HASH', step.run)}\n"):
                PARSERS[name](words)


def test_trainings_and_sweeps_get_small_budgets() -> None:
    assert "--training.total-images" in budget_of("imagegen train digits")
    assert "--trials" in budget_of("imagegen sweep gan-lr")
    assert budget_of("imagegen train digits --dry-run") == ""


def test_places_that_do_not_exist_here_are_replaced() -> None:
    line = "imagegen train r3gan-ffhq64 --data /data/faces --storage s3://bucket/runs --run faces-1"
    step = step_of("README.md", "Use", line)
    assert "--data data/faces " in step.run
    assert begun_anew(step.run) == ["s3://bucket/runs/faces-1"]


def test_every_section_with_python_has_a_step() -> None:
    assert len(python.python_steps()) > 8
    assert all(step.by_hand or shlex.split(step.run)[0] in ("python", "printf") for step in python.python_steps())
