"""The model card says every figure that was taken, and in which features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from imagegen_dist import load
from imagegen_dist.inference.card import Card, write_card
from imagegen_dist.inference.folder import card_of
from tests.checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    return card_of(load(write_checkpoint(tmp_path_factory.mktemp("run"), "mlp-vae")))


def section(card: Card, figures: dict[str, Any], **evaluation: Any) -> str:
    """The card's section on figures, with these figures and settings of the evaluation."""
    experiment = card.facts["experiment"]
    changed = {**experiment, "evaluation": {**experiment["evaluation"], **evaluation}}
    written = write_card(replace(card, facts={**card.facts, "experiment": changed}, figures=figures))
    return written.partition("## Figures")[2].partition("## ")[0]


def test_the_features_that_are_named_are_those_that_were_used(card: Card) -> None:
    by_labels = section(card, {"frechet": 4.6})
    assert "of a small classifier trained on the dataset's own labels" in by_labels
    by_inception = section(card, {"frechet": 4.6}, features="inception", weights_sha256="ab" * 32, samples=50_000)
    assert "classifier" not in by_inception
    assert "(FIDs) use the features of `inception`" in by_inception
    assert "ab" * 32 in by_inception
    assert "Computed from 50,000 samples each" in by_inception
    own = section(card, {"frechet": 4.6}, features="module:ours:features")
    assert "`module:ours:features`" in own
    assert "FID" not in own
    assert "features" not in section(card, {"psnr": 21.5})


def test_no_figure_is_left_out(card: Card) -> None:
    figures = {
        "frechet": 4.645,
        "modes": 998.0,
        "authenticity": 0.51,
        "copying_z": 1.25,
        "mig": 0.4,
        "rate_level_0": 3.5,
        "a_figure_of_tomorrow": 7.5,
        "dci": {"completeness": 0.25, "informativeness": 0.75},
        "rate": {str(latent): float(latent) for latent in range(40)},
    }
    rows = [line for line in section(card, figures).splitlines() if line.startswith("| ")]
    for row in (
        "| modes: classes that samples cover | 998 | higher is better |",
        "| MIG: mutual information gap | 0.4000 | higher is better |",
        "| rate of level 0 | 3.500 nats per sample |  |",
        *("| a figure of tomorrow | 7.500 |  |", "| dci, completeness | 0.2500 |  |"),
    ):
        assert row in rows
    assert any("51.0%" in row for row in rows)
    assert any("copying statistic" in row and "1.250" in row for row in rows)
    assert any("0.0000 to 39.00 (40 values)" in row for row in rows)
