"""Latents as a dataset: statistics, the 8 bits in which they are stored, and a GAN that trains on them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imagegen_dist import config, load
from imagegen_dist.cli.encode import main
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.pack import pack
from imagegen_dist.data.stream import read_samples
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.latents import LatentStatistics, latent_statistics
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from tests.checkpoints import write_checkpoint
from tests.inference.test_extent import LOCAL
from tests.runs import TINY, train_here


def test_statistics_in_parts_are_those_of_the_whole() -> None:
    z = torch.randn(50, 3, 4, 2) * torch.tensor([1.0, 5.0, 0.2]).reshape(3, 1, 1) + 2
    found = latent_statistics(z.split((7, 40, 3)))
    values = z.double().transpose(0, 1).flatten(1)
    assert found.mean == pytest.approx(values.mean(1).tolist())
    assert found.std == pytest.approx(values.std(1, correction=0).tolist())
    farthest = ((values - values.mean(1, keepdim=True)).abs().amax(1) / values.std(1, correction=0)).max()
    assert found.span == pytest.approx(float(farthest))
    assert found.scale_factor == pytest.approx(1 / float(values.std(correction=0)))
    assert found.samples == 50


def test_storing_rounds_to_steps_of_one_255th_of_the_span_and_clamps_no_value_that_was_measured() -> None:
    z = torch.randn(64, 3, 4, 4) * torch.tensor([1.0, 5.0, 0.2]).reshape(3, 1, 1) - 1
    statistics = latent_statistics([z])
    stored = statistics.store(z)
    assert stored.dtype == torch.uint8
    assert (stored == 0).any() or (stored == 255).any()
    for channel, std in enumerate(statistics.std):
        worst = (statistics.restore(stored) - z)[:, channel].abs().max()
        assert worst <= statistics.span * std / 255 * 1.001


def test_a_channel_that_never_changes_and_far_outliers_are_stored() -> None:
    ones = torch.ones(4, 2, 3, 3)
    still = latent_statistics([ones])
    torch.testing.assert_close(still.restore(still.store(ones)), ones, rtol=0, atol=1 / 254)
    outlier = torch.zeros(1000, 1, 2, 2)
    outlier[0, 0, 0, 0] = 1e3
    assert latent_statistics([outlier]).span == 8


def dataset(folder: Path, dims: tuple[int, ...] = (3, 8, 8)) -> str:
    noise = np.random.default_rng(0).integers(0, 256, (40, *dims), dtype=np.uint8)
    pack(((sample, number % 2) for number, sample in enumerate(noise)), Store(folder), class_names=("even", "odd"))
    return str(folder)


def test_an_encoded_dataset_holds_the_latents_of_its_samples_and_a_gan_trains_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data, out = write_checkpoint(tmp_path / "run", "res-vae"), dataset(tmp_path / "data"), tmp_path / "latents"
    command = [run, str(out), "--data", data, "--shard-size", "8kB"]
    assert main(command) == DONE
    advice = capsys.readouterr().out.splitlines()[-1]
    assert advice == f"train on it: python jobs/train_gan.py latent-digits --data {out}"
    before = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main(command) == DONE
    assert {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    index, model = DatasetIndex.load(Store(out)), load(run)
    assert len(index.shards) > 1
    assert (index.shape.dims, index.class_names) == ((3, 4, 4), ("even", "odd"))
    stored, labels = read_samples(index, Store(out), range(40))
    samples, expected = read_samples(DatasetIndex.load(Store(data)), Store(data), range(40))
    assert torch.equal(labels, expected)
    statistics = LatentStatistics.load(Store(out))
    z = model.encode(samples)
    step = statistics.span * torch.tensor(statistics.std).reshape(3, 1, 1) / 127.5
    assert ((statistics.restore(stored) - z).abs() <= step / 2 * 1.001).all()

    small = {path: value for path, value in TINY.items() if not path.startswith("model.")}
    changes = {**small, "model": {"kind": "mlp", "hidden": [16], "z_dim": 8}, "training.total_images": 48}
    where = RunSettings("gan", str(tmp_path), "digits", "train_gan", str(out), wandb_mode="disabled")
    experiment = config.overrides(find_preset("digits").experiment, changes.items())
    assert train_here(experiment, where).complete
    gan = load(where.folder.url)
    assert isinstance(gan, GeneratorModel)
    assert gan.latent is not None
    by_hand = model.decode(statistics.restore(gan.latent.sample(2)))
    assert (by_hand.int() - gan.sample(2).int()).abs().max() <= 8  # of 255: latents are rounded to 8 bits by hand


def test_mirrored_samples_are_encoded_after_the_others(tmp_path: Path) -> None:
    run, data, out = write_checkpoint(tmp_path / "run", "res-vae"), dataset(tmp_path / "data"), Store(tmp_path / "out")
    assert main([run, out.url, "--data", data, "--flip"]) == DONE
    stored, labels = read_samples(DatasetIndex.load(out), out, range(80))
    samples, _ = read_samples(DatasetIndex.load(Store(data)), Store(data), range(40))
    statistics = LatentStatistics.load(out)
    assert statistics.samples == 80
    z = load(run).encode(torch.cat([samples, samples.flip(-1)]))
    assert torch.equal(statistics.store(z), stored)
    assert torch.equal(labels[:40], labels[40:])


def test_codes_are_stored_as_they_are(tmp_path: Path) -> None:
    run, data = write_checkpoint(tmp_path / "run", "fsq"), dataset(tmp_path / "data")
    assert main([run, str(tmp_path / "out"), "--data", data]) == DONE
    statistics = LatentStatistics.load(Store(tmp_path / "out"))
    stored, _ = read_samples(DatasetIndex.load(Store(tmp_path / "out")), Store(tmp_path / "out"), range(3))
    samples, _ = read_samples(DatasetIndex.load(Store(data)), Store(data), range(3))
    assert (statistics.restore(stored) - load(run).encode(samples)).abs().max() <= 1 / 255 * 1.001


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["RES", "out"], "CHECKPOINT, DEST and --data URL are needed"),
        (["RES", "out", "--data", "digits"], "jobs/make_shards.py digits"),
        (["RES", "out", "--data", "nowhere"], "does not exist"),
        (["RES", "out", "--data", "DATA", "--statistics", "1"], "--statistics 1"),
        (["GAN", "out", "--data", "DATA"], "a GAN has no encoder"),
        (["VECTOR", "out", "--data", "DATA"], "its latents are a vector of 4"),
        (["LADDER", "out", "--data", "DATA"], "its latents are of several levels"),
        (["RES", "out", "--data", "OTHER"], "the autoencoder takes 8 × 8 × 3"),
    ],
)
def test_mistakes(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    families = {"RES": "res-vae", "GAN": "mlp", "VECTOR": "mlp-vae", "LADDER": "ladder"}
    places = {word: write_checkpoint(tmp_path / word, families[word]) for word in arguments if word in families}
    places |= {"DATA": dataset(tmp_path / "data"), "OTHER": dataset(tmp_path / "other", (1, 8, 8))}
    assert main([places.get(word, word) for word in arguments]) == MISUSED == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith("encode.py: ")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_statistics_of_something_else_are_named(tmp_path: Path) -> None:
    (tmp_path / "latents.json").write_text(json.dumps({"mean": 3}))
    with pytest.raises(ValueError, match="is corrupt"):
        LatentStatistics.load(Store(tmp_path))


def test_clips_longer_than_trained_are_encoded_and_a_gan_of_their_latents_decodes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, (data, odd) = write_checkpoint(tmp_path / "run", "video-vae"), (tmp_path / "data", tmp_path / "odd")
    for folder, frames in ((data, 10), (odd, 5)):
        noise = np.random.default_rng(0).integers(0, 256, (24, 1, frames, 8, 8), dtype=np.uint8)
        pack(((clip, None) for clip in noise), Store(folder), "video", "npy")
    assert main([run, str(tmp_path / "no"), "--data", str(odd)]) == MISUSED
    assert "takes 4 × 8 × 8 × 1 and others in multiples of 2 × 4 × 4" in capsys.readouterr().err
    out = tmp_path / "latents"
    assert main([run, str(out), "--data", str(data)]) == DONE
    assert DatasetIndex.load(Store(out)).shape.dims == (3, 5, 2, 2)
    changes = {**TINY, "model": {"kind": "mlp", "hidden": [16], "z_dim": 4}, "data.conditional": False}
    small = {path: value for path, value in changes.items() if not path.startswith("model.")}
    experiment = config.overrides(
        find_preset("article-gan").experiment, {**small, "training.total_images": 24, "evaluation.samples": 0}.items()
    )
    where = RunSettings("gan", str(tmp_path), "article-gan", "train_gan", str(out), wandb_mode="disabled")
    assert train_here(experiment, where).complete
    trained = load(where.folder.url)
    assert trained.sample(2).shape == (2, *trained.shape.dims) == (2, 1, 10, 8, 8)


def test_pictures_larger_than_trained_are_encoded_in_tiles_and_a_gan_of_their_latents_decodes_them_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_checkpoint(tmp_path / "run", replace(LOCAL, dims=(1, 8, 8), modality="image"))
    data, out = tmp_path / "data", tmp_path / "latents"
    noise = np.random.default_rng(0).integers(0, 256, (24, 1, 16, 12), dtype=np.uint8)
    pack(((picture, None) for picture in noise), Store(data))
    assert main([run, str(out), "--data", str(data)]) == DONE
    assert "samples of 16 × 12 in tiles of 8 × 8, blended where they meet" in capsys.readouterr().out
    index, autoencoder = DatasetIndex.load(Store(out)), load(run)
    assert index.shape.dims == (2, 8, 6)
    statistics = LatentStatistics.load(Store(out))
    stored, _ = read_samples(index, Store(out), [0])
    z = statistics.restore(stored)
    assert (z - autoencoder.encode_tiled(torch.from_numpy(noise[:1]))).abs().max() < 0.05
    experiment = config.overrides(
        find_preset("article-gan").experiment,
        {
            **{path: value for path, value in TINY.items() if not path.startswith("model.")},
            **{"training.total_images": 24, "evaluation.samples": 0, "data.conditional": False},
        }.items(),
    )
    where = RunSettings("gan", str(tmp_path), "article-gan", "train_gan", str(out), wandb_mode="disabled")
    assert train_here(experiment, where).complete
    trained = load(where.folder.url)
    samples = trained.sample(2, seed=1)
    assert samples.shape == (2, 1, 16, 12)
    latents = trained.sampler.latent.generate(trained.latents(2, seed=1), None)
    mean, scale = statistics.columns(latents.ndim)
    torch.testing.assert_close(samples, autoencoder.decode_tiled(latents * scale + mean), rtol=0, atol=1)
