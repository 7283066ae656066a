"""What a driver makes of what its workers say, without workers."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.errors import DONE, FAILED
from imagegen_dist.metrics.console import Console
from imagegen_dist.ray.driver import Driver
from imagegen_dist.storage import Store
from tests.runs import settings, tiny, train_here


def test_a_complete_run_without_figures_says_so_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines that a complete run has are there; an exit code of 1 and the reason are added."""
    where, experiment = settings(tmp_path, "run", tmp_path / "data"), tiny(training__total_images=48)
    train_here(experiment, where)
    index = DatasetIndex.load(Store(where.data))
    for missing in ("", "no figures at 48 images: RuntimeError: it broke"):
        written, run = io.StringIO(), Driver(experiment, where, index)
        console = Console(48, "run", written)
        inbox = SimpleNamespace(take=lambda timeout_s, missing=missing: [("ended", (True, missing))])
        monkeypatch.setattr(run, "_wait_for_placement", lambda *_: 1)
        monkeypatch.setattr(run, "_fit", lambda *_, run=run, shown=(console, None, inbox): run._show(*shown))
        code = run.train(console, SimpleNamespace(of=str))  # type: ignore[arg-type]
        assert code == (FAILED if missing else DONE)
        run._close(console, code, tmp_path / "driver.log")
        said = written.getvalue()
        assert "train longer" in said
        assert ("it broke" in said) == bool(missing)
