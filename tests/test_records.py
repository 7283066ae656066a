"""What the last table of a run says of its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imagegen_dist.records import RunSettings, by_group, closing_table, commands
from imagegen_dist.run_folder import RESULT

GAN = {"frechet": 4.645, "label_agreement": 0.976, "frechet_real": 2.149, "classifier_accuracy": 0.978}
VAE = {"elbo": -111.94, "distortion": 88.75, "rate": 23.19, "frechet": 36.78, "frechet_reconstruction": 5.23}


def figures(folder: Path, result: dict[str, Any]) -> dict[str, str]:
    """The lines of the first table, by their names."""
    settings = RunSettings("run", str(folder), "digits", "train_gan", data="")
    paths = {"run": settings.folder.url, "wandb": None}
    whole = {"images": 190_016, "seconds": 221.3, "images_per_s": 933.2, "paths": paths, **result}
    settings.folder.write(RESULT, json.dumps(whole).encode())
    [(title, lines), *_] = closing_table(settings, "driver.log")
    assert title == "Figures"
    return dict(lines)


def test_figures_of_a_gan_stand_beside_what_they_are_held_against(tmp_path: Path) -> None:
    said = figures(tmp_path, GAN)
    assert said["Fréchet distance"] == "4.645 (held-out real samples: 2.149)"
    assert said["label agreement"] == "97.6% (held-out real samples: 97.8%)"


def test_a_frechet_distance_is_said_in_the_features_that_were_used(tmp_path: Path) -> None:
    said = figures(tmp_path, GAN | {"evaluation": {"samples": 100, "features": "inception"}})
    assert said["measured on"] == "100 samples, features of inception"


def test_data_without_labels_have_no_classifier_whose_features_could_be_named(tmp_path: Path) -> None:
    settings = {"samples": 64, "classes": None, "features": "classifier"}
    assert figures(tmp_path, {"authenticity": 0.94, "evaluation": settings})["measured on"] == "64 samples"
    assert "own classifier" in figures(tmp_path, GAN | {"evaluation": settings})["measured on"]


def test_figures_of_a_vae_too(tmp_path: Path) -> None:
    said = figures(tmp_path, VAE)
    assert (said["ELBO"], said["rate"]) == ("-111.9 nats per sample", "23.19 nats per sample")
    assert said["reconstruction Fréchet distance"] == "5.230"


@pytest.mark.parametrize("left_out", GAN)
def test_any_figure_may_be_missing(left_out: str, tmp_path: Path) -> None:
    assert figures(tmp_path, {name: value for name, value in GAN.items() if name != left_out})["images"]


def test_modes_stand_beside_a_perfect_samplers_with_their_number_of_samples(tmp_path: Path) -> None:
    settings = {"samples": 26_000, "classes": 1000, "features": "classifier"}
    said = figures(tmp_path, {"modes": 998.0, "modes_kl": 0.0812, "evaluation": settings})
    assert said["modes"] == "998 (classes of the data: 1,000)"
    assert said["KL of modes"] == "0.0812 nats (a perfect sampler: 0.0192)"


def test_authenticity_stands_beside_held_out_samples_and_its_verdict(tmp_path: Path) -> None:
    found = {"authenticity": 0.02, "authenticity_real": 0.55, "copied_z": 31.4, "farther": 0.1}
    assert figures(tmp_path, found)["authenticity"] == "2.0% (held-out real samples: 55.0%)"
    assert figures(tmp_path, found)["verdict"] == "copies"
    assert figures(tmp_path, found | {"copied_z": 1.2})["verdict"] == "no sign of copying"
    assert figures(tmp_path, found | {"copied_z": 1.2, "farther": 0.97})["verdict"] == "off the data"
    alone = figures(tmp_path, {"authenticity": 0.5})
    assert alone["authenticity"] == "50.0%"
    assert "verdict" not in alone


def test_the_command_that_sends_an_offline_run_is_printed_whether_or_not_there_is_a_key(tmp_path: Path) -> None:
    command = "wandb sync a b"
    for key in (False, True):
        settings = RunSettings("run", str(tmp_path), "digits", "train_gan", data="", wandb_key=key)
        result = {"images": 1, "seconds": 1.0, "images_per_s": 1.0, "paths": {"wandb": "b"}, "wandb_sync": command}
        settings.folder.write(RESULT, json.dumps(result).encode())
        assert ("send to W&B", command) in closing_table(settings, "driver.log")[-1][1]


@pytest.mark.parametrize(
    ("picture", "suffix"),
    [
        ("grid-000000000640.png", ".png"),
        ("grid-000000000640.webp", ".webp"),
        ("reconstructions-000000000640.webp", ".webp"),
    ],
)
def test_the_command_that_samples_writes_a_film_of_clips(picture: str, suffix: str, tmp_path: Path) -> None:
    settings = RunSettings("run", str(tmp_path), "digits", "train_gan", data="")
    assert dict(commands(settings))["sample"].endswith("--grid samples.png")
    (settings.folder / "samples").write(picture, b"")
    assert dict(commands(settings))["sample"].endswith(f"--grid samples{suffix}")


def test_figures_of_one_group_come_together() -> None:
    assert by_group({"rate": 3.0, "of/a": 1.0, "of/b": 2.0}) == {"rate": 3.0, "of": {"a": 1.0, "b": 2.0}}
