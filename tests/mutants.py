"""Which test catches which fault: `python tests/mutants.py [--only N,M] [--no-ray] [--list]`

tests/mutants.txt lists realistic faults of one line, each with the test that has to fail:

    - a part of a line that occurs once in the package
    + what stands there instead
    ? the test: its function's name, with a parameter's id in brackets where it has any, or FILE::NAME

The script makes one fault after another in a copy of the tree, runs the test of each, and prints a Markdown table of
the faults and the first tests that failed. It exits with 1 where a fault was not caught. It is the measure of a shorter
test suite, which has to catch what the longer one caught.

Lines and tests are found by their text and name, so that files can be moved. An entry that fits nothing is an error.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = "imagegen_dist"
LIST = "tests/mutants.txt"
NOT_CAUGHT = "NOT CAUGHT"
TIMEOUT_S = 900
PRELOADED = (
    *("torch", "torch.distributed", "torch.multiprocessing", "torch.utils.data", "safetensors.torch", "numpy"),
    *(
        "fsspec",
        "hypothesis.strategies",
        "jinja2",
        "PIL.Image",
        "psutil",
        "rich.live",
        "simplejpeg",
        "tyro",
        "webdataset",
    ),
)
"""What many tests import: once for all, in the process that each test's own is forked from."""

LEFT_OUT = (".git", "__pycache__", ".*_cache", ".hypothesis", "runs", "*.egg-info")
WITH_RAY = "With Ray"
"""The heading above those whose tests start a Ray."""


class Mutant(NamedTuple):
    """A fault as it is listed. part: the heading above it; number: from 1."""

    number: int
    part: str
    line: str
    fault: str
    test: str


@dataclass(frozen=True)
class Located:
    """A mutant in a tree: the file of its line, that file's text with the fault, and the test as pytest takes it."""

    mutant: Mutant
    file: Path
    mutated: str
    node: str

    @property
    def needs_ray(self) -> bool:
        """True if its test starts a Ray."""
        return self.mutant.part == WITH_RAY


class Outcome(NamedTuple):
    """The first test that failed, "" for none, and the seconds that it took."""

    caught_by: str
    seconds: float


def read_list(text: str) -> list[Mutant]:
    """The mutants of a list. Raises ValueError for an entry that is not whole."""
    found: list[Mutant] = []
    part, entry = "", dict[str, str]()
    for number, line in enumerate(text.splitlines(), 1):
        mark, _, rest = line.partition(" ")
        if mark == "#":
            part = rest
        elif mark in ("-", "+", "?") and rest and len(entry) == "-+?".index(mark):
            entry[mark] = rest
        elif line:
            raise ValueError(f"line {number} of the list does not follow -, + and ?: {line}")
        if len(entry) == 3:
            found.append(Mutant(len(found) + 1, part, *entry.values()))
            entry = {}
    if entry:
        raise ValueError(f"the last entry of the list is not whole: {entry}")
    return found


class Tree:
    """The package and the tests below a root, in which mutants are located."""

    def __init__(self, root: Path) -> None:
        self._sources = {path: path.read_text() for path in sorted((root / PACKAGE).rglob("*.py"))}
        self._root = root
        self._tests: dict[str, list[str]] = {}
        for path in sorted((root / "tests").rglob("test_*.py")):
            for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE):
                self._tests.setdefault(name, []).append(path.relative_to(root).as_posix())

    def locate(self, mutant: Mutant) -> Located:
        """Where the mutant is. Raises ValueError where its line or its test is not found exactly once."""
        places = [(path, text.count(mutant.line)) for path, text in self._sources.items() if mutant.line in text]
        if sum(count for _, count in places) != 1:
            where = ", ".join(path.relative_to(self._root).as_posix() for path, _ in places) or "nowhere"
            raise ValueError(f"{mutant.number}: the line has to occur once, and is in {where}: {mutant.line}")
        file = places[0][0]
        mutated = self._sources[file].replace(mutant.line, mutant.fault)
        return Located(mutant, file.relative_to(self._root), mutated, self._node(mutant))

    def _node(self, mutant: Mutant) -> str:
        ending, _, name = mutant.test.rpartition("::")
        function = name.partition("[")[0]
        files = [file for file in self._tests.get(function, ()) if file.endswith(ending)]
        if len(files) != 1:
            raise ValueError(f"{mutant.number}: the test has to be in one file, and is in {files}: {mutant.test}")
        return f"{files[0]}::{name}"


def locate_all(root: Path, mutants: Sequence[Mutant]) -> list[Located]:
    """All mutants in the tree. Raises ValueError that names each that is not found."""
    tree, located, lost = Tree(root), list[Located](), list[str]()
    for mutant in mutants:
        try:
            located.append(tree.locate(mutant))
        except ValueError as error:
            lost.append(str(error))
    if lost:
        raise ValueError("\n".join(lost))
    return located


def preload() -> None:
    """Import what many tests import, and pytest with its plugins."""
    for name in PRELOADED:
        importlib.import_module(name)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        importlib.import_module("pytest").main(["--version"])


def run_pytest(tree: Path, nodes: Sequence[str]) -> Outcome:
    """Run tests in a tree until the first failure. Raises ValueError where pytest could not run them."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        sys.stdout.flush()
        process = os.fork()
        if process == 0:
            _become_pytest(tree, nodes, output.fileno())
        code = _wait(process, began + TIMEOUT_S)
        output.seek(0)
        printed = output.read()
    seconds = time.monotonic() - began
    if code is None:
        return Outcome(f"{nodes[0]} (no end after {TIMEOUT_S} s)", seconds)
    if code == 0:
        return Outcome("", seconds)
    if code < 0:
        return Outcome(f"{nodes[0]} (ended by signal {-code})", seconds)
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", printed, re.MULTILINE)
    if failed is None:
        raise ValueError(f"pytest could not run {' '.join(nodes)}:\n{printed[-2000:]}")
    return Outcome(failed[1], seconds)


def _become_pytest(tree: Path, nodes: Sequence[str], output: int) -> None:
    """Go on as pytest in the tree. Never returns."""
    try:
        os.setsid()  # so that what the test has started can be ended with it
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree)
        sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT), str(ROOT / "tests")))]
        options = ["-n", "0", "-x", "-q", "-rfE", "--tb=no", "--durations=0", "-p", "no:cacheprovider"]
        options += ["-m", "cluster or not cluster"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins that were imported before
        code = int(importlib.import_module("pytest").main([*options, *nodes]))
        sys.stdout.flush()
        os._exit(code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(70)


def _wait(process: int, deadline: float) -> int | None:
    """The exit code of a process, None at the deadline; what it has started is ended with it."""
    try:
        while time.monotonic() < deadline:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        return None
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process, signal.SIGKILL)


def copy_tree(root: Path, target: Path) -> Path:
    """A copy of a tree without what tests do not read."""
    shutil.copytree(root, target, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    return target


def try_mutant(tree: Path, located: Located) -> Outcome:
    """Make the fault in a copy of the tree, run its test, and restore the file."""
    path = tree / located.file
    original = path.read_text()
    _replace(path, located.mutated)
    try:
        return run_pytest(tree, [located.node])
    finally:
        _replace(path, original)


def _replace(path: Path, text: str) -> None:
    """Write a source. Its compiled form is told from another's by seconds and size, which both may share: it goes."""
    path.write_text(text)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()


def row(located: Located, outcome: Outcome) -> str:
    """One line of the table."""
    mutant = located.mutant
    cells = (f"`{mutant.line}`", f"`{mutant.fault}`")
    line, fault = (cell.replace("|", "\\|") for cell in cells)
    file = located.file.relative_to(PACKAGE).as_posix()
    caught = outcome.caught_by or NOT_CAUGHT
    return f"| {mutant.number} | {file} | {line} | {fault} | {caught} | {outcome.seconds:.0f} |"


HEAD = "| | file | line | fault | caught by | s |\n|---|---|---|---|---|---|"


def run(root: Path, mutants: Sequence[Located]) -> int:
    """Try mutants of the tree at `root` in a copy of it, print the table, and return how many were not caught.

    Raises ValueError where a test fails without any fault.
    """
    preload()
    nodes = list(dict.fromkeys(located.node for located in mutants))
    missed = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = copy_tree(root, Path(folder, "tree"))
        sound = run_pytest(tree, nodes)
        if sound.caught_by:
            raise ValueError(f"{sound.caught_by} fails without any fault")
        print(f"Without a fault all {len(nodes)} tests pass, in {sound.seconds:.0f} s.\n\n{HEAD}", flush=True)
        for located in mutants:
            outcome = try_mutant(tree, located)
            missed += not outcome.caught_by
            print(row(located, outcome), flush=True)
    print(f"\n{len(mutants) - missed} of {len(mutants)} faults are caught.")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="numbers of mutants, as 3,7-9")
    parser.add_argument("--no-ray", action="store_true", help="leave out those whose tests start a Ray")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree; default: this one")
    parser.add_argument("--list", action="store_true", help="show where they are, and run nothing")
    given = parser.parse_args()
    try:
        located = locate_all(given.root, read_list((given.root / LIST).read_text()))
        if given.only:
            chosen = _numbers(given.only)
            located = [each for each in located if each.mutant.number in chosen]
        if given.no_ray:
            located = [each for each in located if not each.needs_ray]
        if given.list:
            for each in located:
                print(f"{each.mutant.number:>3}  {each.mutant.part}  {each.file}  {each.node}")
            return 0
        return 1 if run(given.root, located) else 0
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


if __name__ == "__main__":
    sys.exit(main())
