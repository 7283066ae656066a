"""Numbers agree with their nouns, and errors of the system lose their numbers."""

import re
import urllib.error
from pathlib import Path

import pytest

from imagegen_dist.wording import counted, described, first_line, one_line, reason

ROOT = Path(__file__).parents[1]
NOUNS = "samples|shards|workers|files|classes|pictures|programs|microbatches|channels|levels|steps|kills|times"


def test_a_number_agrees_with_its_noun() -> None:
    assert [counted(number, "shard") for number in (0, 1, 2, 1000)] == [
        "0 shards",
        "1 shard",
        "2 shards",
        "1,000 shards",
    ]
    assert [counted(number, "class") for number in (1, 10)] == ["1 class", "10 classes"]
    assert counted(2, "entry", "entries") == "2 entries"


def test_an_error_of_the_system_is_said_without_its_number_and_path(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        (tmp_path / "nothing").read_text()
    assert reason(caught.value) == "no such file or directory"
    assert reason(RecursionError()) == "it is nested too deeply"
    assert reason(KeyError()) == "KeyError"


def test_an_error_is_described_without_the_systems_number(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        (tmp_path / "nothing").read_text()
    assert described(caught.value) == f"FileNotFoundError: No such file or directory: '{tmp_path}/nothing'"
    refused = urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))
    assert described(refused) == "URLError: <urlopen error Connection refused>"
    assert described(KeyError()) == "KeyError: no message"
    assert first_line(RuntimeError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


def test_a_word_of_ten_thousand_letters_is_shortened() -> None:
    said = one_line(f"--name {'x' * 10_000}: a name\n has\x1b 128 bytes")
    assert said.startswith("--name xxx")
    assert said.endswith("xxx: a name has? 128 bytes")
    assert len(said) < 300


def test_a_message_counts_in_words_that_agree() -> None:
    """No f-string puts a plural behind a length, which may be 1."""
    plural = re.compile(rf'f".*\{{len\([^{{}}]*\)(:,)?\}} ({NOUNS})\b')
    lines = [
        (path, line)
        for folder in ("imagegen_dist", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text().splitlines()
    ]
    assert len(lines) > 10_000
    assert not [f"{path}: {line.strip()}" for path, line in lines if plural.search(line)]
