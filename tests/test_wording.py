"""Numbers agree with their nouns, and errors of the system lose their numbers."""

import re
from pathlib import Path

import pytest

import imagegen_dist
from imagegen_dist.wording import counted, reason

NOUNS = "samples|shards|workers|files|classes|pictures|programs|microbatches"


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


@pytest.mark.parametrize("room", ["launch", "data", "inference"])
def test_a_message_counts_in_words_that_agree(room: str) -> None:
    """No f-string puts a plural behind a length, which may be 1."""
    plural = re.compile(rf'f".*\{{len\([^{{}}]*\)(:,)?\}} ({NOUNS})\b')
    for path in (Path(imagegen_dist.__file__).parent / room).rglob("*.py"):
        for line in path.read_text().splitlines():
            assert not plural.search(line), f"{path}: {line.strip()}"
