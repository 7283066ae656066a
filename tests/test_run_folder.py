"""What every reader of a run's directory says of it."""

from pathlib import Path

import pytest

from imagegen_dist import Run
from imagegen_dist.cli.run_summary import read_run
from imagegen_dist.cli.train_options import own_configuration
from imagegen_dist.errors import UsageError
from imagegen_dist.storage import Store

READERS = {
    "api": Run,
    "runs": read_run,
    "train": lambda run: own_configuration("train", run),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is no run: it has no config.json"),
        ("{", "config.json cannot be read (JSONDecodeError); restore it, or choose another run"),
        ("[" * 100_000, "config.json cannot be read (ValueError)"),
        ('{"experiment": 5}', "config.json cannot be read (TypeError)"),
        ('{"experiment": {"training": {"total_images": 1}}, "data": {"url": ""}}', "cannot be read (KeyError)"),
    ],
)
def test_a_damaged_run_is_one_line_for_every_reader(text: str | None, said: str, reader: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        READERS[reader](Store(tmp_path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
