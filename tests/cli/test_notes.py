"""Settings that have another effect than they seem to are said, once, and only where they do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagegen_dist import config
from imagegen_dist.cli.prepare import silent_settings
from imagegen_dist.cli.train import main_gan
from imagegen_dist.data.index import DatasetIndex, ShardInfo
from imagegen_dist.evaluation.checks import foreseen, remarks
from imagegen_dist.presets import PRESETS, find_preset
from imagegen_dist.shape import SampleShape


def index(samples: int = 4000, classes: int | None = 10, size: int = 28, channels: int = 1) -> DatasetIndex:
    counts = None if classes is None else (samples // classes,) * classes
    shards = (ShardInfo("0.tar", 1, samples, 0, "0" * 64),)
    return DatasetIndex("image", SampleShape(channels, (size, size)), shards, classes, class_counts=counts)


def notes(preset: str, data: DatasetIndex, **changes: Any) -> list[str]:
    found = find_preset(preset)
    changed = {path.replace("__", "."): value for path, value in changes.items()}
    draws = 2 if found.job == "train_gan" else 1
    return silent_settings(config.overrides(found.experiment, changed.items()), found, data, draws)


def test_the_presets_for_the_built_in_data_have_nothing_to_say() -> None:
    for name in ("digits", "digits-vae", "vae-gan", "article-gan", "article-vae"):
        assert notes(name, index()) == []
        assert foreseen(PRESETS[name].experiment, index(), replace(index(), classes=None, class_counts=None)) == []


@pytest.mark.parametrize(
    ("preset", "data", "changes", "said"),
    [
        (
            "digits",
            index(classes=None),
            {"data__url": "/mine"},
            "--data.conditional true has no effect: the data have no",
        ),
        ("digits", index(classes=1), {"data__url": "/mine"}, "have labels of only one class"),
        ("digits-vae", index(), {"data__url": "/mine"}, "labels of the data's 10 classes are not told to the networks"),
        (
            "dcgan",
            index(),
            {"training__total_images": 100_000},
            "made for samples of 64 × 64 × 3, and without --data it trains on the built-in digits, 28 × 28",
        ),
        (
            "digits",
            index(270),
            {"training__total_images": 2_497_500},
            "each of the 270 samples will be seen 18,500 times",
        ),
    ],
    ids=["unlabelled", "one class", "ignored labels", "dcgan", "epochs"],
)
def test_a_setting_without_its_effect_is_said_in_one_line(
    preset: str, data: DatasetIndex, changes: dict[str, Any], said: str
) -> None:
    lines = notes(preset, data, **changes)
    assert [line for line in lines if said in line]
    assert len(lines) == 1


def test_a_vae_that_ignores_its_latents_is_named() -> None:
    [line] = remarks({"rate": 0.004, "active_units": 0.0, "elbo": -180.0})
    assert line.startswith("the latents carry 0.004 nats per sample and no latent is used: the decoder ignores them")
    [line] = remarks({"rate": 0.5, "active_units": 0.0})
    assert "the latents carry 0.5 nats per sample and no latent is used" in line
    [line] = remarks({"rate": 0.05, "active_units": 3.0})
    assert "the latents carry 0.05 nats per sample: the decoder ignores them" in line
    assert remarks({"rate": 23.0, "active_units": 12.0}) == []
    assert remarks({"frechet": 3.0}) == []


def test_notes_come_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_gan(["dcgan", "--storage", str(tmp_path), "--run", "dry", "--dry-run"]) == 0
    assert "train_gan.py: note: this preset was made for samples of" in capsys.readouterr().err
