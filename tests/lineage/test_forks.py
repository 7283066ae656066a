"""A run that goes on from another one's checkpoint, with other settings or the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from torch.multiprocessing import ProcessExitedException

from imagegen_dist import config, records
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.errors import UsageError
from imagegen_dist.experiment import Experiment
from imagegen_dist.lineage import forking
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import newest_images
from tests.runs import Listener, assert_bit_identical, final_tensors, settings, tiny, train_here, train_on

CALM = {"optim__discriminator__lr": 1e-4, "optim__generator__lr": 1e-4}
OTHER = {**CALM, "objective__gamma": 0.3, "training__ema_half_life": 500, "training__batch_size": 36}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "digits"


@pytest.fixture(scope="module")
def half(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    """A run with checkpoints at 120 and 240 images."""
    where = settings(tmp_path_factory.mktemp("half"), "half", data)
    train_here(tiny(**CALM, training__total_images=240), where)
    return where


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    """The same run to its end at 480 images."""
    where = settings(tmp_path_factory.mktemp("whole"), "whole", data)
    train_here(tiny(**CALM), where)
    return where


def fork(source: RunSettings, experiment: Experiment, storage: Path, data: Path, at: int | None = None) -> RunSettings:
    """The settings of a fork named "fork" below `storage`, as a command prepares them."""
    where = settings(storage, "fork", data)
    index = DatasetIndex.load(Store(where.data))
    lineage = forking.plan(source.folder.url, forking.choose(source.folder, at), experiment, index)
    where = records.identified(replace(where, lineage=lineage))
    records.write_config(replace(where, lineage=lineage), experiment, index, {})
    return replace(where, lineage=lineage)


@pytest.mark.parametrize("at", [None, 120])
def test_a_fork_with_the_same_settings_is_the_run_going_on(
    half: RunSettings, whole: RunSettings, data: Path, tmp_path: Path, at: int | None
) -> None:
    where = fork(half, tiny(**CALM), tmp_path, data, at)
    listener = Listener()
    train_here(tiny(**CALM), where, listener)
    assert_bit_identical(final_tensors(where), final_tensors(whole))
    begun = at or 240
    assert listener.messages[0].startswith("goes on from ")
    assert listener.messages[0].endswith(f"({begun} images)")
    assert [row["images"] for row in read_rows(where.folder)] == [each for each in (192, 288, 384, 480) if each > begun]
    entry = json.loads(where.folder.read("result.json"))["lineage"]
    assert (entry["given"], entry["images"]) == (half.folder.url, begun)
    assert "fork from" in where.folder.read("report.html").decode()


def test_a_fork_on_three_workers_is_the_same_run(
    half: RunSettings, whole: RunSettings, data: Path, tmp_path: Path
) -> None:
    where = fork(half, tiny(**CALM), tmp_path, data)
    train_on(3, tiny(**CALM), where, tmp_path / "meeting")
    ours, theirs = final_tensors(where), final_tensors(whole)
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).abs().max() <= 1e-6 + 1e-4 * tensor.abs().max(), name


def test_a_fork_whose_process_is_killed_changes_no_bit(
    half: RunSettings, whole: RunSettings, data: Path, tmp_path: Path
) -> None:
    where = fork(half, tiny(**CALM), tmp_path, data)
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        train_on(1, tiny(**CALM), where, tmp_path / "meeting", Listener(killed=(0, 3)))
    assert 240 <= newest_images(where.folder) < 480
    train_here(tiny(**CALM), replace(where, attempt="1"))
    assert_bit_identical(final_tensors(where), final_tensors(whole))


def test_a_fork_with_other_settings_resumes_bit_for_bit_and_without_its_source(
    half: RunSettings, data: Path, tmp_path: Path
) -> None:
    """Learning rate, gamma, EMA and batch; 240 images are no whole number of its batches."""
    shutil.copytree(half.storage, tmp_path / "half")
    source = replace(half, storage=str(tmp_path / "half"))
    undisturbed = fork(source, tiny(**OTHER), tmp_path / "a", data)
    train_here(tiny(**OTHER), undisturbed)
    parts = fork(source, tiny(**OTHER), tmp_path / "b", data)

    class AtOnce(Listener):
        def stop_requested(self) -> bool:
            return True

    train_here(tiny(**OTHER), parts, AtOnce())
    shutil.rmtree(tmp_path / "half")
    resumed = records.identified(settings(tmp_path / "b", "fork", data))
    assert resumed.lineage == parts.lineage
    train_here(tiny(**OTHER), resumed)
    assert_bit_identical(final_tensors(parts), final_tensors(undisturbed))
    assert parts.lineage is not None
    assert "--training.batch-size 24 -> 36" in parts.lineage.changed
    assert any(line.endswith("-> 0.3") for line in parts.lineage.changed)


def test_a_fork_that_ends_before_its_first_step_has_the_checkpoint(
    half: RunSettings, data: Path, tmp_path: Path
) -> None:
    where = fork(half, tiny(**CALM), tmp_path, data)

    class Ends(Listener):
        def row(self, row: dict[str, float]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_here(tiny(**CALM), where, Ends())
    assert_bit_identical(final_tensors(where), final_tensors(half))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model__widths": (32,)}, "--model.widths cannot change from [16] to [32]"),
        ({"model": {"kind": "dcgan", "widths": [8], "z_dim": 8}}, "--model cannot change from r3gan to dcgan"),
        ({"data__conditional": False}, "--data.conditional cannot change from true to false"),
        ({"training__total_images": 240}, "the fork would end at 240"),
    ],
)
def test_what_cannot_change_is_refused_by_name(
    half: RunSettings, data: Path, tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(UsageError) as refused:
        fork(half, tiny(**CALM, **changes), tmp_path, data)
    assert named in str(refused.value)


def test_stages_can_be_frozen_but_not_thawed(data: Path, half: RunSettings, tmp_path: Path) -> None:
    frozen = tiny(**CALM, training__freeze_d=1)
    where = fork(half, frozen, tmp_path, data)
    train_here(config.override(frozen, "training.total_images", 288), where)
    again = config.override(tiny(**CALM), "training.total_images", 960)
    with pytest.raises(UsageError, match=r"--training.freeze-d cannot change from 1 to 0"):
        fork(where, again, tmp_path / "again", data)


def test_other_data_are_refused(half: RunSettings, tmp_path: Path, data: Path) -> None:
    where = settings(tmp_path, "fork", data)
    others = DatasetIndex.load(Store(where.validation))
    with pytest.raises(UsageError, match="begin on them with --init-from"):
        forking.plan("half", forking.choose(half.folder, None), tiny(**CALM), others)


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(half: RunSettings) -> None:
    with pytest.raises(UsageError, match=r"--at 121: there are checkpoints at 120, 240 images"):
        forking.choose(half.folder, 121)
