"""A run that begins with the weights of another one: same run on any number of workers, exact resume, class tables."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.multiprocessing import ProcessExitedException

from imagegen_dist import config, records
from imagegen_dist.conditions.part import Conditions, Part
from imagegen_dist.conditions.rows import encode_rows
from imagegen_dist.data.index import DatasetIndex, ShardInfo
from imagegen_dist.errors import UsageError
from imagegen_dist.experiment import Experiment, build_networks
from imagegen_dist.inference.folder import card_of, write_folder
from imagegen_dist.inference.loading import build_model, read_trained
from imagegen_dist.lineage import beginning
from imagegen_dist.lineage.source import configuration, read_source
from imagegen_dist.records import RunSettings
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from tests.checkpoints import write_checkpoint
from tests.runs import Listener, assert_bit_identical, final_tensors, settings, tiny, train_here, train_on

CALM = {"optim__discriminator__lr": 1e-4, "optim__generator__lr": 1e-4}
SHORT = {**CALM, "training__total_images": 24 * 10, "training__freeze_d": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "digits"


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    where = settings(tmp_path_factory.mktemp("trained"), "trained", data)
    train_here(tiny(training__total_images=120), where)
    return where


def beginning_with(place: str, experiment: Experiment, storage: Path, data: Path) -> RunSettings:
    """The settings of a run that begins with the weights at `place`, as a command prepares them."""
    where = records.identified(settings(storage, "new", data))
    index = DatasetIndex.load(Store(where.data))
    networks = build_networks(experiment, index.shape, index.labels)
    lineage = beginning.plan(place, read_source(place), experiment, index, networks)
    where = replace(where, lineage=lineage)
    records.write_config(where, experiment, index, {})
    return where


def test_a_run_begins_with_averaged_weights_and_the_discriminator_and_a_clock_of_0(
    trained: RunSettings, data: Path, tmp_path: Path
) -> None:
    where = beginning_with(trained.folder.url, tiny(**SHORT), tmp_path, data)

    class AtOnce(Listener):
        def row(self, row: dict[str, float]) -> None:
            raise KeyboardInterrupt

    listener = AtOnce()
    with pytest.raises(KeyboardInterrupt):
        train_here(tiny(**SHORT), where, listener)
    begun, source = final_tensors(where), final_tensors(trained)
    for name, tensor in begun.items():
        kind, _, rest = name.partition("/")
        from_average = kind == "averaged" or rest.startswith("generator/")
        theirs = f"averaged/{rest}" if from_average else name
        assert torch.equal(tensor, source[theirs]), name
    assert not any(name.startswith("optimizers/") for name in begun)
    assert listener.messages[0] == f"begins with the weights of {read_source(trained.folder.url).url} (120 images)"
    assert listener.messages[1].startswith("taken: generator ")


def test_workers_and_interruptions_do_not_change_a_run_that_begins_elsewhere(
    trained: RunSettings, data: Path, tmp_path: Path
) -> None:
    """With a frozen stage; the source is gone when the run resumes."""
    shutil.copytree(trained.folder.local_path() or "", tmp_path / "source")
    place = str(tmp_path / "source")
    alone, parts, on_three = (
        beginning_with(place, tiny(**SHORT), tmp_path / name, data) for name in ("alone", "parts", "three")
    )
    train_here(tiny(**SHORT), alone)
    train_on(3, tiny(**SHORT), on_three, tmp_path / "meeting")
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        train_on(1, tiny(**SHORT), parts, tmp_path / "killed", Listener(killed=(0, 2)))
    shutil.rmtree(tmp_path / "source")
    train_here(tiny(**SHORT), replace(records.identified(parts), attempt="1"))
    ours, source = final_tensors(alone), final_tensors(trained)
    assert_bit_identical(final_tensors(parts), ours)
    for name, tensor in final_tensors(on_three).items():
        torch.testing.assert_close(tensor, ours[name], rtol=1e-4, atol=1e-6)
    frozen = {
        name for name in ours if name.startswith("weights/discriminator/") and torch.equal(ours[name], source[name])
    }
    assert {name.split("/")[2].split(".")[0] for name in frozen} == {"from_pixels", "stages"}
    assert json.loads(parts.folder.read("result.json"))["lineage"]["given"] == place


def test_an_exported_folder_gives_what_it_has(trained: RunSettings, data: Path, tmp_path: Path) -> None:
    for discriminator in (False, True):
        model = build_model(read_trained(trained.folder.url, discriminator))
        place = tmp_path / f"exported-{discriminator}"
        write_folder(model, card_of(model), Store(place))
        lineage = beginning_with(str(place), tiny(**SHORT), tmp_path / f"runs-{discriminator}", data).lineage
        assert lineage is not None
        assert lineage.images == 120
        assert len(lineage.taken) == (2 if discriminator else 1)
        assert lineage.new == (() if discriminator else ("discriminator: the source has none that fits",))


def test_class_tables_are_drawn_anew_where_the_number_of_classes_or_their_names_differ(tmp_path: Path) -> None:
    place = write_checkpoint(tmp_path / "run", "r3gan")
    source = read_source(place)
    experiment = config.decode(Experiment, source.experiment)

    def plan(classes: int, names: tuple[str, ...] | None) -> tuple[str, ...]:
        shards = (ShardInfo("0.tar", 1, 40, 0, "0" * 64),)
        index = DatasetIndex("image", SampleShape(1, (12, 12)), shards, classes, names)
        networks = build_networks(experiment, index.shape, index.labels)
        return beginning.plan(place, source, experiment, index, networks).new

    assert source.class_names is not None
    assert plan(5, source.class_names) == plan(5, None) == ()
    classifier = "discriminator/classifier.weight, discriminator/classifier.bias"
    tables = f"generator/embed.weight, discriminator/embed.weight, {classifier}"
    assert plan(5, ("a", "b", "c", "d", "e")) == (f"{tables}: their classes have other names",)
    assert plan(7, None) == (f"{tables}: 5 classes there, 7 classes here",)
    digit = Part("digit", "class", 5, source.class_names, (8,) * 5)
    index = DatasetIndex("image", SampleShape(1, (12, 12)), (ShardInfo("0.tar", 1, 40, 0, "0" * 64),))
    index = replace(index, conditions=Conditions((digit,)), condition_rows=encode_rows(np.eye(5, dtype=np.float32)))
    networks = build_networks(experiment, index.shape, index.labels)
    told = beginning.plan(place, source, experiment, index, networks).new
    assert told == (f"{tables}: 5 classes there, digit (5 classes) here",)
    same = replace(source, labels=Conditions((replace(digit, counts=(1,) * 5),)))
    assert beginning.plan(place, same, experiment, index, networks).new == ()


def test_another_family_and_weights_of_which_none_fits_are_refused(
    trained: RunSettings, data: Path, tmp_path: Path
) -> None:
    place = write_checkpoint(tmp_path / "run", "mlp-vae")
    with pytest.raises(UsageError, match=r"is a mlpvae, and this run trains a r3gan"):
        beginning_with(place, tiny(), tmp_path / "runs", data)
    place = write_checkpoint(tmp_path / "video", "video")
    with pytest.raises(UsageError, match="none of its weights fits"):
        beginning_with(place, tiny(model__widths=(24,)), tmp_path / "runs", data)
    with pytest.raises(UsageError, match="this is no run, checkpoint, exported folder"):
        read_source(str(tmp_path / "nothing"))


def test_a_source_that_changes_before_the_run_begins_is_refused(
    trained: RunSettings, data: Path, tmp_path: Path
) -> None:
    where = beginning_with(trained.folder.url, tiny(), tmp_path, data)
    assert where.lineage is not None
    other = replace(where, lineage=replace(where.lineage, fingerprint="0" * 64))
    with pytest.raises(CheckpointError, match="has changed since the run was started"):
        train_here(tiny(), other)


def test_without_a_preset_the_settings_are_the_sources(trained: RunSettings) -> None:
    preset, experiment = configuration(trained.folder.url)
    assert preset == "digits"
    assert experiment == tiny(training__total_images=120)
