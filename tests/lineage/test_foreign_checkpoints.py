"""A checkpoint that was copied by hand into the folder of another run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from imagegen_dist import config, records
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.inference.loading import read_trained
from imagegen_dist.run_folder import CheckpointError, attempts, identity_of
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import newest
from tests.runs import Listener, settings, tiny, train_here


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a run of 240 images, "first", and another one of 48, "second"."""
    storage = tmp_path_factory.mktemp("runs")
    for name, images in (("first", 240), ("second", 48)):
        where = records.identified(settings(storage, name, storage / "data"))
        experiment = tiny(training__total_images=images, training__seed=images)
        records.write_config(where, experiment, DatasetIndex.load(Store(where.data)), {})
        train_here(experiment, where)
    return storage


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> tuple[records.RunSettings, records.RunSettings]:
    """Copies of both runs; the second one also holds a copy of the first one's newest checkpoint."""
    shutil.copytree(trained, tmp_path / "runs")
    newest_one = f"checkpoints/step-{240:012d}"
    shutil.copytree(tmp_path / "runs" / "first" / newest_one, tmp_path / "runs" / "second" / newest_one)
    first, second = (
        records.identified(settings(tmp_path / "runs", name, tmp_path / "runs" / "data"))
        for name in ("first", "second")
    )
    return first, second


def test_training_refuses_it_and_leaves_it_where_it_is(runs: tuple[records.RunSettings, records.RunSettings]) -> None:
    _, second = runs
    before = [store.url for store in attempts(second.folder)]
    listener = Listener()
    with pytest.raises(CheckpointError, match=r"step-0+240/0 was copied here from another run: remove it"):
        train_here(tiny(training__total_images=96, training__seed=48), second, listener)
    assert [store.url for store in attempts(second.folder)] == before
    assert not listener.messages


def test_using_the_run_skips_it(runs: tuple[records.RunSettings, records.RunSettings]) -> None:
    first, second = runs
    skipped: list[str] = []
    found = newest(second.folder, skipped.append)
    assert found is not None
    assert found.images == read_trained(second.folder.url).facts["images"] == 48
    assert len(skipped) == 1
    assert "was copied here from another run" in skipped[0]
    assert newest(first.folder, pytest.fail) is not None


def test_a_run_that_is_moved_keeps_its_checkpoints(runs: tuple[records.RunSettings, records.RunSettings]) -> None:
    first, _ = runs
    local = Path(first.folder.local_path() or "")
    shutil.move(local, local.with_name("moved"))
    moved = records.identified(settings(local.parent, "moved", local.parent / "data"))
    assert moved.id == first.id != records.identified(settings(local.parent, "new", local.parent / "data")).id
    listener = Listener()
    train_here(tiny(training__total_images=264, training__seed=240), moved, listener)
    assert any("resuming at 240 images" in message for message in listener.messages)


def test_checkpoints_of_earlier_versions_do_not_say_and_load(
    runs: tuple[records.RunSettings, records.RunSettings],
) -> None:
    first, _ = runs
    for store in attempts(first.folder):
        manifest = json.loads(store.read("manifest.json"))
        assert manifest.pop("run") == first.id == identity_of(first.folder)
        manifest.pop("sha256")
        store.write("manifest.json", json.dumps({**manifest, "sha256": config.fingerprint(manifest)}).encode())
    found = newest(first.folder, pytest.fail)
    assert found is not None
    assert found.images == 240
    listener = Listener()
    train_here(tiny(training__total_images=264, training__seed=240), first, listener)
    assert any("resuming at 240 images" in message for message in listener.messages)
    assert Store(first.folder.url).exists("result.json")
