"""Models of latents are whole models: a run, its checkpoints and what is exported generate decoded samples."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from imagegen_dist import config, load
from imagegen_dist.cli.encode import main as encode
from imagegen_dist.cli.evaluate.command import main as evaluate
from imagegen_dist.cli.export import main as export
from imagegen_dist.cli.sample import main as sample
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import modality, to_uint8
from imagegen_dist.decoding.document import read_origin
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.evaluation.grid import Grid
from imagegen_dist.evaluation.reference import is_kept, reference_store
from imagegen_dist.exported import read_exported
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.latents import LatentStatistics
from imagegen_dist.inference.programs import programs
from imagegen_dist.metrics.sinks import read_pictures
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.run.latents import measured_index
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.storage import Store
from tests.checkpoints import write_checkpoint
from tests.inference.test_latent_datasets import dataset
from tests.runs import CPU, TINY, Listener, final_tensors, train_here, train_on

CHANGES = {path: value for path, value in TINY.items() if not path.startswith("model.")} | {
    "model": {"kind": "mlp", "hidden": [16], "z_dim": 8},
    "training.total_images": 48,
    "evaluation": {"every": 48, "samples": 60, "classifier_images": 128, "searched": 40},
}


EXPERIMENT = config.overrides(find_preset("digits").experiment, CHANGES.items())


@dataclass
class Place:
    folder: Path

    @property
    def autoencoder(self) -> str:
        return str(self.folder / "autoencoder")

    @property
    def latents(self) -> Store:
        return Store(self.folder / "latents")

    def train(self, name: str = "gan", listener: Listener | None = None, validation: str = "") -> RunSettings:
        storage = str(self.folder / "runs")
        where = RunSettings(
            name, storage, "digits", "train_gan", self.latents.url, validation=validation, wandb_mode="disabled"
        )
        assert train_here(EXPERIMENT, where, listener).complete
        return where


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A small autoencoder, latents of noise, and a run on them that nothing changes."""
    return _trained(tmp_path_factory.mktemp("latent"))


def _trained(folder: Path) -> Place:
    place = Place(folder)
    write_checkpoint(Path(place.autoencoder), "res-vae")
    for name in ("pictures", "others"):
        dataset(folder / name)
    assert encode([place.autoencoder, place.latents.url, "--data", str(folder / "pictures")]) == DONE
    place.train()
    return place


def model_of(where: str | Path) -> tuple[GeneratorModel, GeneratorModel]:
    """The model, and the same one without its decoder."""
    model = load(where)
    assert isinstance(model, GeneratorModel)
    assert model.latent is not None
    return model, model.latent


def test_samples_are_the_decoded_latents(trained: Place) -> None:
    model, latent = model_of(trained.folder / "runs" / "gan")
    assert (model.shape.dims, latent.shape.dims) == ((3, 8, 8), (3, 4, 4))
    drawn, label = model.latents(5, seed=3), model.labels(5)
    statistics = LatentStatistics.load(trained.latents)
    scale = statistics.span * torch.tensor(statistics.std).reshape(3, 1, 1)
    z = latent(drawn, label) * scale + torch.tensor(statistics.mean).reshape(3, 1, 1)
    expected = load(trained.autoencoder).autoencoder.decode(z)
    torch.testing.assert_close(model(drawn, label), expected, rtol=0, atol=1e-6)
    assert torch.equal(model.sample(5, seed=3), to_uint8(model(drawn, label)))
    assert latent.sample(2).shape == (2, 3, 4, 4)


def test_a_checkpoint_needs_neither_the_latents_nor_the_autoencoder(trained: Place, tmp_path: Path) -> None:
    shutil.copytree(trained.folder / "runs" / "gan", tmp_path / "gan")
    before = model_of(trained.folder / "runs" / "gan")[0].sample(4)
    assert torch.equal(model_of(tmp_path / "gan")[0].sample(4), before)
    assert export([str(tmp_path / "gan"), str(tmp_path / "exported"), "--to", "hf"]) == DONE
    assert torch.equal(model_of(tmp_path / "exported")[0].sample(4), before)
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "# GAN (mlp), 8 × 8 × 3" in card
    assert "latents of 8 × 8 × 3" in card
    assert str(trained.folder) not in (tmp_path / "exported" / "config.json").read_text()
    assert sample([str(tmp_path / "exported"), "--grid", str(tmp_path / "grid.png"), "--scale", "1"]) == DONE
    assert sample([str(tmp_path / "exported"), "--folder", str(tmp_path / "files"), "--seeds", "3"]) == DONE
    [file] = (tmp_path / "files").iterdir()
    with Image.open(file) as picture:
        assert picture.size == (8, 8)


def test_generator_and_decoder_are_one_program(trained: Place) -> None:
    model = load(trained.folder / "runs" / "gan", discriminator=True)
    parts = programs(model)
    assert set(parts) == {"generator", "discriminator"}
    assert parts["generator"].output.dims == (3, 8, 8)
    assert parts["discriminator"].inputs[0].dims == (3, 4, 4)
    inputs = parts["generator"].examples(3)
    torch.testing.assert_close(parts["generator"].module(*inputs), model(*inputs), rtol=0, atol=1e-5)
    assert parts["discriminator"].module(*parts["discriminator"].examples(3)).shape == (3,)


def test_grids_copies_and_figures_of_a_run_are_of_decoded_samples(trained: Place) -> None:
    run = Store(trained.folder / "runs" / "gan")
    model, _ = model_of(run.url)
    pictures = Dataset.open(str(trained.folder / "pictures"))
    grid = Grid(pictures.index, 2)
    drawn = to_uint8(grid.samples(model.sampler, 0, CPU)).numpy()
    assert read_pictures(run, "grid")[-1][1] == modality("image").preview(drawn, grid.columns)[0]
    assert read_pictures(run, "neighbours")
    assert json.loads(run.read("result.json"))["frechet"] > 0
    assert is_kept(reference_store(Store(trained.folder / "runs" / ".cache"), pictures, None, 128))


def test_where_the_pictures_are_gone_figures_are_of_latents_and_this_is_said(trained: Place, tmp_path: Path) -> None:
    place = Place(tmp_path)
    shutil.copytree(trained.folder / "latents", tmp_path / "latents")
    document = json.loads((tmp_path / "latents" / "latents.json").read_text())
    document["origin"]["pictures"] = str(tmp_path / "gone")
    (tmp_path / "latents" / "latents.json").write_text(json.dumps(document))
    listener = Listener()
    where = place.train(listener=listener)
    [told] = [line for line in listener.messages if line.startswith("metrics are of latents")]
    assert str(tmp_path / "gone") in told
    assert model_of(where.folder.url)[0].shape.dims == (3, 8, 8)


def test_an_autoencoder_that_did_not_make_the_latents_is_refused(trained: Place, tmp_path: Path) -> None:
    for name in ("latents", "runs"):
        shutil.copytree(trained.folder / name, tmp_path / name)
    other = write_checkpoint(tmp_path / "other", "fsq")
    assert encode([other, str(tmp_path / "codes"), "--data", str(trained.folder / "pictures")]) == DONE
    shutil.rmtree(tmp_path / "latents" / "autoencoder")
    with pytest.raises(CheckpointError, match="autoencoder is missing"):
        Place(tmp_path).train()
    shutil.copytree(tmp_path / "codes" / "autoencoder", tmp_path / "latents" / "autoencoder")
    with pytest.raises(CheckpointError, match="is not the autoencoder that made these latents"):
        Place(tmp_path).train()


def test_the_decoder_changes_nothing_in_training(trained: Place, tmp_path: Path) -> None:
    shutil.copytree(trained.folder / "latents", tmp_path / "latents")
    LatentStatistics.load(trained.latents).save(Store(tmp_path / "latents"))  # as older versions wrote it
    where = Place(tmp_path).train()
    ours, theirs = final_tensors(where), final_tensors(replaced(where, trained))
    assert {name for name in theirs if name not in ours} == {
        name for name in theirs if name.startswith("averaged/latent_decoder/")
    }
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    plain = load(where.folder.url)
    assert isinstance(plain, GeneratorModel)
    assert plain.latent is None
    assert plain.sample(2).shape == (2, 3, 4, 4)


def replaced(where: RunSettings, place: Place) -> RunSettings:
    return RunSettings(where.name, str(place.folder / "runs"), where.preset, where.job, where.data)


def test_held_out_latents_take_the_statistics_of_others(
    trained: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    like = ["--like", trained.latents.url, "--data", str(trained.folder / "others")]
    assert encode([trained.autoencoder, str(tmp_path / "val"), *like]) == DONE
    held_out, latents = Store(tmp_path / "val"), trained.latents
    assert LatentStatistics.load(held_out) == LatentStatistics.load(latents)
    assert read_origin(held_out) != read_origin(latents)
    other = write_checkpoint(tmp_path / "fsq", "fsq")
    assert encode([other, str(tmp_path / "codes"), *like]) == MISUSED
    assert "has latents of another autoencoder" in capsys.readouterr().err


def test_the_autoencoder_below_the_latents_is_a_model(trained: Place) -> None:
    found, before = load(trained.folder / "latents" / "autoencoder"), load(trained.autoencoder)
    samples = before.sample(3)
    assert torch.equal(found.encode(samples), before.encode(samples))
    facts, _ = read_exported(trained.latents / "autoencoder")
    origin = read_origin(trained.latents)
    assert origin is not None
    assert facts["weights"]["sha256"] == origin.autoencoder


def test_an_evaluation_compares_with_the_pictures_that_were_encoded(trained: Place, tmp_path: Path) -> None:
    run = shutil.copytree(trained.folder / "runs" / "gan", tmp_path / "gan")
    (run / "config.json").write_text(json.dumps({"data": {"url": trained.latents.url}}))
    words = [
        "--samples",
        "60",
        "--metrics",
        "fid",
        "--workers",
        "0",
        "--cache",
        str(trained.folder / "runs" / ".cache"),
    ]
    assert evaluate([str(run), *words, "--out", str(tmp_path / "figures.json")]) == DONE
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert figures["frechet"] == pytest.approx(json.loads((run / "result.json").read_text())["frechet"], rel=1e-9)


def test_two_workers_train_and_measure_what_one_does(trained: Place, tmp_path: Path) -> None:
    where = RunSettings(
        "gan", str(tmp_path / "runs"), "digits", "train_gan", trained.latents.url, wandb_mode="disabled"
    )
    train_on(2, EXPERIMENT, where, tmp_path / "meeting")
    found, alone = (json.loads((folder / "runs/gan/result.json").read_text()) for folder in (tmp_path, trained.folder))
    assert found["frechet"] == pytest.approx(alone["frechet"], rel=1e-3)


def test_a_user_is_told_what_metrics_will_be_of(trained: Place, tmp_path: Path) -> None:
    index = DatasetIndex.load(trained.latents)
    pictures = Dataset.open(str(trained.folder / "pictures")).index
    assert measured_index(EXPERIMENT, index, trained.latents.url) == (pictures, [])
    assert measured_index(EXPERIMENT, pictures, str(trained.folder / "pictures")) == (pictures, ())
    shutil.copytree(trained.folder / "latents", tmp_path / "latents")
    document = json.loads((tmp_path / "latents" / "latents.json").read_text())
    document["origin"]["fingerprint"] = "0" * 64
    (tmp_path / "latents" / "latents.json").write_text(json.dumps(document))
    _, [told, mirrored] = measured_index(
        config.overrides(EXPERIMENT, [("data.flip", True)]), index, str(tmp_path / "latents")
    )
    assert "--data.flip mirrors latents" in mirrored
    assert "has changed since it was encoded" in told
    del document["origin"]
    (tmp_path / "latents" / "latents.json").write_text(json.dumps(document))
    _, [told] = measured_index(EXPERIMENT, index, str(tmp_path / "latents"))
    assert "encode it again" in told
