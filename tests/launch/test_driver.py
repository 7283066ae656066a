"""What a driver makes of what its workers say, without workers."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.launch import driver
from imagegen_dist.launch.driver import Driver
from imagegen_dist.launch.train import DONE, FAILED
from imagegen_dist.metrics.console import Console
from imagegen_dist.storage import Store
from tests.runs import settings, tiny, train_here


@pytest.mark.parametrize("missing", ["", "no figures at 48 images: RuntimeError: it broke"])
def test_a_complete_run_without_figures_says_so_and_fails(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All lines that a complete run has are there; an exit code of 1 and the reason are added."""
    where, experiment = settings(tmp_path, "run", tmp_path / "data"), tiny(training__total_images=48)
    train_here(experiment, where)
    monkeypatch.setattr(driver, "ray", SimpleNamespace(get=lambda events: events))
    relay = SimpleNamespace(take=SimpleNamespace(remote=lambda: [("ended", (True, missing))]))
    written = io.StringIO()
    console = Console(48, "run", written)
    run = Driver(experiment, where, DatasetIndex.load(Store(where.data)))

    def ends(*_: Any) -> None:
        run._show(console, relay)

    monkeypatch.setattr(run, "_room", lambda *_: 1)
    monkeypatch.setattr(run, "_fit", ends)
    code = run.train(console, SimpleNamespace(of=str))  # type: ignore[arg-type]
    assert code == (FAILED if missing else DONE)
    run._close(console, code, tmp_path / "driver.log")
    said = written.getvalue()
    assert "train longer" in said
    assert ("it broke" in said) == bool(missing)
