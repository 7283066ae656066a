"""tests/mutants.py: its list fits the tree, a fault that a test misses is told, and the tree stays as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import LIST, NOT_CAUGHT, ROOT, locate_all, read_list

SOURCE = "def double(x):\n    return 2 * x\n\n\ndef half(x):\n    return x / 2\n"
TEST = """
from imagegen_dist.numbers import double, half

def test_double():
    assert double(3) == 6

def test_half():
    assert half(0) == 0
"""
FAULTS = """# Numbers

- return 2 * x
+ return 3 * x
? test_double

- return x / 2
+ return x / 3
? test_half

- return 2 * x
+ import os; os.kill(os.getpid(), 9)
? test_double
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in {"imagegen_dist/numbers.py": SOURCE, "tests/test_numbers.py": TEST, LIST: FAULTS}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "imagegen_dist/__init__.py").touch()
    return tmp_path


def mutants(tree: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tests/mutants.py"), "--root", str(tree), *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=tree)


def test_every_listed_fault_and_its_test_are_found() -> None:
    located = locate_all(ROOT, read_list((ROOT / LIST).read_text()))
    assert len(located) >= 60
    assert any(each.needs_ray for each in located)


def test_what_is_caught_and_what_is_not_are_told_and_the_tree_is_left_alone(tree: Path) -> None:
    done = mutants(tree)
    assert done.returncode == 1, done.stderr
    caught, missed, killed = [line for line in done.stdout.splitlines() if line.startswith("| ") and "`" in line]
    assert "tests/test_numbers.py::test_double" in caught
    assert NOT_CAUGHT in missed
    assert "tests/test_numbers.py::test_double (ended by signal 9)" in killed
    assert (tree / "imagegen_dist/numbers.py").read_text() == SOURCE


def test_all_that_are_chosen_are_caught(tree: Path) -> None:
    assert mutants(tree, "--only", "1").returncode == 0


def test_a_line_or_a_test_that_is_not_there_once_is_an_error(tree: Path) -> None:
    (tree / LIST).write_text(FAULTS.replace("return 2 * x", "return").replace("test_half", "test_third"))
    done = mutants(tree)
    assert done.returncode == 2
    assert "1: the line has to occur once, and is in imagegen_dist/numbers.py: return" in done.stderr
    assert "2: the test has to be in one file, and is in []: test_third" in done.stderr


def test_a_test_that_fails_without_a_fault_catches_none(tree: Path) -> None:
    (tree / "tests/test_numbers.py").write_text(TEST.replace("== 6", "== 7"))
    done = mutants(tree)
    assert done.returncode == 2
    assert "test_double fails without any fault" in done.stderr


@pytest.mark.parametrize("text", ["- a\n+ b\n", "- a\n? c\n", "+ b\n", "* a\n"])
def test_an_entry_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="of the list"):
        read_list(text)
