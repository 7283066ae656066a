"""A run in its directory: what it leaves behind, resuming, stopping, falling back."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing import ProcessExitedException

from imagegen_dist import config, load, records
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.run import RunError, outputs
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.storage import StorageError, Store
from imagegen_dist.training.checkpoint import FILES, newest
from tests.runs import Listener, assert_bit_identical, final_tensors, settings, tiny, train_here, train_on
from tests.s3.faults import FaultyProxy
from tests.s3.fixtures import Bucket

CALM = {
    "optim__discriminator__lr": 1e-4,
    "optim__generator__lr": 1e-4,
    "objective__augment_p": 0.2,
    "objective__adaptive_augment": 0.3,
    "objective__adaptive__every": 48,
    "objective__adaptive__rise_images": 1_000,
}
"""At the preset's own learning rate the game of the two networks amplifies what the order of adding changes.
Augmentation follows held-out digits, a state of its own."""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "digits"


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> records.RunSettings:
    where = settings(tmp_path_factory.mktemp("runs"), "undisturbed", data)
    train_here(tiny(), where)
    return where


@pytest.fixture(scope="module")
def undisturbed_on_three(data: Path, tmp_path_factory: pytest.TempPathFactory) -> records.RunSettings:
    folder = tmp_path_factory.mktemp("three")
    where = settings(folder, "shared", data)
    train_on(3, tiny(**CALM), where, folder / "meeting")
    return where


@pytest.fixture(scope="module")
def half(data: Path, tmp_path_factory: pytest.TempPathFactory) -> records.RunSettings:
    where = settings(tmp_path_factory.mktemp("half"), "damaged", data)
    train_here(tiny(training__total_images=240), where)
    return where


def test_a_run_leaves_everything_in_its_directory(undisturbed: records.RunSettings) -> None:
    folder = undisturbed.folder
    result = json.loads(folder.read("result.json"))
    assert result["images"] == 480
    assert set(result["paths"]) == {"run", "picture", "checkpoint", "metrics", "report", "wandb"}
    assert folder.read("report.html").startswith(b"<!doctype html>")
    assert (folder / "samples").names() == ["grid-000000000000.png", "grid-000000000480.png"]
    assert [row["images"] for row in read_rows(folder)] == [96, 192, 288, 384, 480]
    assert len((folder / "checkpoints").names()) == 2


def test_rows_carry_losses_speed_and_waiting(undisturbed: records.RunSettings) -> None:
    row = read_rows(undisturbed.folder)[-1]
    names = ("loss/generator", "loss/discriminator", "penalty/r1", "system/images_per_s", "data/wait_fraction")
    assert set(names) < set(row)
    assert row["data/epoch"] == pytest.approx(480 * 2 / 4000)


@pytest.mark.parametrize("images", [24, 24 * 7, 24 * 12])
def test_stopped_anywhere_and_resumed_equals_the_undisturbed_run_bit_for_bit(
    undisturbed: records.RunSettings, data: Path, tmp_path: Path, images: int
) -> None:
    where = settings(tmp_path, "stopped", data)
    train_here(tiny(training__total_images=images), where)
    resumed = Listener()
    train_here(tiny(), where, resumed)
    assert any("resuming" in message for message in resumed.messages)
    assert_bit_identical(final_tensors(where), final_tensors(undisturbed))


def test_resuming_at_the_edge_of_an_epoch_is_bit_exact(data: Path, tmp_path: Path) -> None:
    edge = {"training__batch_size": 100, "training__microbatch_size": 50, "training__checkpoint_every": 100_000}
    whole, parts = settings(tmp_path, "whole", data), settings(tmp_path, "parts", data)
    train_here(tiny(**edge, training__total_images=2200), whole)
    train_here(tiny(**edge, training__total_images=2000), parts)  # two draws a step: 4,000 samples, one epoch
    train_here(tiny(**edge, training__total_images=2200), parts)
    assert_bit_identical(final_tensors(parts), final_tensors(whole))


def test_a_request_to_stop_writes_a_checkpoint_first(
    undisturbed: records.RunSettings, data: Path, tmp_path: Path
) -> None:
    where = settings(tmp_path, "asked", data)
    outcome = train_here(tiny(), where, Listener(stop_at=200))
    assert not outcome.complete
    found = newest(where.folder, lambda why: None)
    assert found is not None
    assert found.images == outcome.images < 480
    assert not where.folder.exists("result.json")
    train_here(tiny(), where)
    assert_bit_identical(final_tensors(where), final_tensors(undisturbed))
    assert [row["images"] for row in read_rows(where.folder)] == [96, 192, 288, 384, 480]


def test_a_stop_between_two_reports_changes_no_row(
    undisturbed: records.RunSettings, data: Path, tmp_path: Path
) -> None:
    """Asked at 72 images, where a report comes each 96."""

    class ThirdLook(Listener):
        def stop_requested(self) -> bool:
            self.reports += 1
            return self.reports == 3

    where = settings(tmp_path, "between", data)
    often = tiny(training__listen_every=24)
    assert train_here(often, where, ThirdLook()).images == 72
    train_here(often, where)
    for row, other in zip(read_rows(where.folder), read_rows(undisturbed.folder), strict=True):
        assert row["images"] == other["images"]
        assert row["loss/generator"] == pytest.approx(other["loss/generator"], rel=1e-12)


def test_a_stop_within_an_evaluation_is_heard_there_and_changes_no_row(data: Path, tmp_path: Path) -> None:
    """While the classifier is trained, which is not finished then; a checkpoint came before."""
    evaluated = {"evaluation__samples": 50, "evaluation__every": 240, "evaluation__classifier_images": 500}
    whole, where = settings(tmp_path, "whole", data), settings(tmp_path, "cut", data)
    train_here(tiny(**evaluated), whole)
    shutil.rmtree(tmp_path / ".cache")

    train_here(tiny(**evaluated), where, Listener(stop_after="training a classifier"))
    assert not list((tmp_path / ".cache").rglob("facts.json"))
    assert not any(name.startswith("eval/") for row in read_rows(where.folder) for name in row)
    assert not where.folder.exists("result.json")
    found = newest(where.folder, lambda why: None)
    assert found is not None
    assert found.images == 240

    train_here(tiny(**evaluated), where)
    assert where.folder.exists("result.json")
    assert_bit_identical(final_tensors(where), final_tensors(whole))
    figures = [
        [(row["images"], name, row[name]) for row in read_rows(run.folder) for name in row if name.startswith("eval/")]
        for run in (where, whole)
    ]
    assert figures[0] == figures[1]
    assert {images for images, _, _ in figures[0]} == {240, 480}


def test_a_checkpoint_that_cannot_be_written_ends_the_run_at_the_next_look(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not only when the next checkpoint is due."""
    where = settings(tmp_path, "refused", data)
    listener = Listener()

    def full(store: Store, name: str, produce: object) -> None:
        raise StorageError(f"cannot write {store.url}/{name}: No space left on device")

    monkeypatch.setattr(Store, "publish", full)
    intervals = {"training__report_every": 24, "training__listen_every": 24, "training__checkpoint_every": 24 * 15}
    with pytest.raises(StorageError, match="No space left"):
        train_here(tiny(training__total_images=24 * 60, **intervals), where, listener)
    assert 24 * 15 <= listener.rows[-1]["images"] < 24 * 30


def test_a_stop_that_comes_with_the_last_step_ends_a_whole_run(data: Path, tmp_path: Path) -> None:
    where = settings(tmp_path, "late", data)
    assert train_here(tiny(), where, Listener(stop_at=480)).complete
    assert json.loads(where.folder.read("result.json"))["images"] == 480


def test_figures_that_a_crash_prevented_are_taken_on_resuming(data: Path, tmp_path: Path) -> None:
    where = settings(tmp_path, "crashed", data)
    train_here(tiny(), where)
    where.folder.remove("result.json")
    (where.folder / "samples").remove("grid-000000000480.png")
    assert train_here(tiny(), where).complete
    assert "grid-000000000480.png" in (where.folder / "samples").names()
    assert json.loads(where.folder.read("result.json"))["images"] == 480


def test_data_that_end_leave_a_checkpoint_of_the_last_step(
    undisturbed: records.RunSettings, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "data")
    changes = {"data__open_shards": 1, "data__decoded_bytes": 0}
    where = settings(tmp_path, "ended", tmp_path / "data")

    class Removes(Listener):
        def row(self, row: dict[str, float]) -> None:
            super().row(row)
            if row["images"] == 288:
                for shard in Path(where.data).glob("*.tar"):
                    shard.rename(shard.with_suffix(".gone"))

    listener = Removes()
    with pytest.raises(ShardError, match="is missing"):
        train_here(tiny(**changes), where, listener)
    assert "kept a checkpoint at 288 images" in listener.messages
    for shard in Path(where.data).glob("*.gone"):
        shard.rename(shard.with_suffix(".tar"))
    train_here(tiny(**changes), where)
    assert_bit_identical(final_tensors(where), final_tensors(undisturbed))


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    undisturbed: records.RunSettings, half: records.RunSettings, data: Path, tmp_path: Path, damage: str
) -> None:
    where = settings(tmp_path, "damaged", data)
    shutil.copytree(half.folder.local_path() or "", where.folder.local_path() or "")
    found = newest(where.folder, lambda why: None)
    assert found is not None
    assert found.images == 240
    name = "manifest.json" if damage == "manifest" else "state.safetensors"
    content = found.store.read(name)
    if damage == "flip":
        found.store.write(name, content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    elif damage == "delete":
        found.store.remove(name)
    else:
        found.store.write(name, content[: len(content) // 2])
    listener = Listener()
    train_here(tiny(), where, listener)
    assert any(message.startswith("skipped") and name in message for message in listener.messages)
    assert any("resuming at 120 images" in message for message in listener.messages)
    assert_bit_identical(final_tensors(where), final_tensors(undisturbed))


def test_a_run_that_is_complete_is_left_alone(undisturbed: records.RunSettings) -> None:
    before = final_tensors(undisturbed)
    assert train_here(tiny(), undisturbed).complete
    assert_bit_identical(final_tensors(undisturbed), before)


def test_non_finite_steps_in_a_row_stop_the_run_and_keep_the_last_good_checkpoint(data: Path, tmp_path: Path) -> None:
    where = settings(tmp_path, "diverged", data)
    broken = tiny(optim__generator__lr="1e38:1e38:0", training__max_bad_steps=3, training__report_every=24)
    with pytest.raises(RunError, match="3 steps in a row had a non-finite"):
        train_here(broken, where)
    found = newest(where.folder, lambda why: None)
    assert found is None or all(tensor.isfinite().all() for tensor in found.state.values())


def assert_the_same_run(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """But for the order in which floating-point numbers are added."""
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-6)
    weights = [name for name in theirs if name.startswith("weights/")]
    error = torch.cat([(ours[name] - theirs[name]).flatten() for name in weights]).norm()
    assert error / torch.cat([theirs[name].flatten() for name in weights]).norm() < 1e-5


@pytest.fixture(scope="module")
def calm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> records.RunSettings:
    where = settings(tmp_path_factory.mktemp("calm"), "one", data)
    train_here(tiny(**CALM), where)
    return where


def test_several_workers_and_passes_of_any_size_give_the_same_run(
    calm: records.RunSettings, undisturbed_on_three: records.RunSettings, data: Path, tmp_path: Path
) -> None:
    runs = [undisturbed_on_three]
    for workers, images in (1, 8), (1, 24), (2, 4), (2, 8), (2, 12):  # of 6 microbatches, 4 images each
        runs.append(settings(tmp_path, f"passes-{workers}-{images}", data))
        train_on(
            workers, tiny(**CALM, training__pass_images=images), runs[-1], tmp_path / f"meeting-{workers}-{images}"
        )
    for run in runs:
        assert_the_same_run(final_tensors(run), final_tensors(calm))
    assert final_tensors(calm)["weights/augmentation/p"] not in (0, 0.2)


def test_three_workers_stopped_killed_and_resumed_are_bit_identical(
    undisturbed_on_three: records.RunSettings, data: Path, tmp_path: Path
) -> None:
    where = settings(tmp_path, "parts", data)
    train_on(3, tiny(**CALM, training__total_images=24 * 3), where, tmp_path / "a")
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        train_on(3, tiny(**CALM), where, tmp_path / "b", Listener(killed=(1, 4)))
    found = newest(where.folder, lambda why: None)
    assert found is not None
    assert 72 < found.images < 480
    train_on(3, tiny(**CALM), replace(where, attempt="1"), tmp_path / "c")
    assert_bit_identical(final_tensors(where), final_tensors(undisturbed_on_three))


def test_ranks_share_one_download_of_each_file_of_a_checkpoint(
    bucket: Bucket, network: FaultyProxy, data: Path, tmp_path: Path
) -> None:
    where = settings(bucket.url, "run", data)
    train_here(tiny(training__total_images=48), where)
    network.requests.clear()
    train_on(2, tiny(training__total_images=48 + 24), where, tmp_path / "meeting")
    got = [line for line, count in network.requests.items() for _ in range(count) if line.startswith("GET ")]
    for name in FILES:
        assert len([line for line in got if f"step-{48:012d}" in line and name in line]) == 1


def test_training_never_waits_for_the_report(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, made = threading.Event(), list[int]()

    class LastRow(Listener):
        def row(self, row: dict[str, float]) -> None:
            if row["images"] == 480:
                trained.set()

    def slow(*arguments: Any) -> None:
        made.append(arguments[3].images)
        assert trained.wait(60)

    monkeypatch.setattr(outputs, "write_report", slow)
    train_here(tiny(), settings(tmp_path, "run", data), LastRow())
    assert (made[0], made[-1]) == (120, 480)


def test_a_report_that_fails_is_named_and_costs_nothing_else(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, listener = settings(tmp_path, "run", data), Listener()

    def fail(*arguments: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(outputs, "write_report", fail)
    assert train_here(tiny(training__total_images=48), where, listener).complete
    assert "no report.html: OSError: the disk is full; the run continues" in listener.messages
    assert where.folder.exists("result.json")


def test_a_run_of_another_configuration_is_refused_naming_the_difference(data: Path, tmp_path: Path) -> None:
    from imagegen_dist.data.dataset import Dataset

    where = settings(tmp_path, "run", data)
    index = Dataset.open(where.data).index
    records.write_config(where, tiny(), index, {})
    records.write_config(where, tiny(training__total_images=999_999), index, {})
    with pytest.raises(records.ConfigMismatch, match=r"objective\.gamma"):
        records.write_config(where, tiny(objective__gamma=3.0), index, {})
    with pytest.raises(records.ConfigMismatch, match=r"training\.seed"):
        records.write_config(where, tiny(training__seed=9), index, {})


def test_a_run_of_an_earlier_version_lacks_settings_that_were_added_since(data: Path, tmp_path: Path) -> None:
    from imagegen_dist.data.dataset import Dataset

    where = settings(tmp_path, "run", data)
    index = Dataset.open(where.data).index
    records.write_config(where, tiny(), index, {})
    written = json.loads(where.folder.read("config.json"))
    del written["experiment"]["model"]["pixel_channels"], written["experiment"]["objective"]["epsilon"]
    where.folder.write("config.json", json.dumps(written).encode())
    records.write_config(where, tiny(), index, {})
    with pytest.raises(records.ConfigMismatch, match="pixel_channels: 8, not 0"):
        records.check_config(where.folder, records.document(where, tiny(model__pixel_channels=8), index, {}))


def test_load_gives_the_averaged_generator(undisturbed: records.RunSettings) -> None:
    model = load(undisturbed.folder.url)
    samples = model.sample(12, classes=[3, 7], seed=5)
    assert samples.shape == (12, 1, 28, 28)
    assert samples.dtype == torch.uint8
    assert torch.equal(samples[:4], model.sample(4, classes=[3, 7], seed=5))
    assert not torch.equal(samples, model.sample(12, classes=[3, 7], seed=6))


def test_load_takes_a_checkpoint_directory_too(undisturbed: records.RunSettings) -> None:
    result = json.loads(undisturbed.folder.read("result.json"))
    from_run, from_checkpoint = load(undisturbed.folder.url), load(result["paths"]["checkpoint"])
    assert torch.equal(from_run.sample(3), from_checkpoint.sample(3))
    assert from_run.images == 480


@pytest.mark.parametrize(("classes", "message"), [(10, "0 to 9"), ([1, -1], "0 to 9"), ([], "0 to 9")])
def test_classes_that_the_generator_does_not_know_are_refused(
    undisturbed: records.RunSettings, classes: int | list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(undisturbed.folder.url).sample(4, classes=classes)


def test_loading_from_a_place_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no complete checkpoint"):
        load(tmp_path)


def test_a_run_can_live_in_memory(data: Path) -> None:
    where = settings("memory://runs", "volatile", data)
    train_here(tiny(training__total_images=48), where)
    assert load("memory://runs/volatile").images == 48


def test_a_preset_round_trips_through_a_checkpoint(undisturbed: records.RunSettings) -> None:
    found = newest(undisturbed.folder, lambda why: None)
    assert found is not None
    assert found.facts["experiment"] == config.encode(tiny())
