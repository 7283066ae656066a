"""What the evaluator of a VAE does with the samples and networks that it looks at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from imagegen_dist.data.cache import CacheConfig
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.pack import pack
from imagegen_dist.data.stream import StreamConfig
from imagegen_dist.distributed import World
from imagegen_dist.evaluation.engine import CHUNK
from imagegen_dist.evaluation.evaluator import Evaluator
from imagegen_dist.experiment import Experiment, build_networks
from imagegen_dist.storage import Store
from tests.test_vae_runs import MODELS, tiny

SAMPLES = 2 * CHUNK + 20
OBJECTIVES = ["vae", "fsq", "iwae", "ladder"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Bars whose row is their factor."""
    place = Store(tmp_path_factory.mktemp("bars"))
    pictures = np.zeros((SAMPLES, 1, 12, 12), np.uint8)
    pictures[np.arange(SAMPLES), 0, np.arange(SAMPLES) % 12] = 200
    pack(((x, {"factors": {"row": number % 12, "half": number % 2}}) for number, x in enumerate(pictures)), place)
    return Dataset.open(place.url)


def evaluator(objective: str, dataset: Dataset, **changes: object) -> tuple[Evaluator, dict[str, torch.nn.Module]]:
    experiment: Experiment = tiny(objective, **{"evaluation__samples": SAMPLES, **changes})
    networks = build_networks(experiment, dataset.index.shape, None)
    device, cache = torch.device("cpu"), Store("memory://cache")
    return Evaluator(networks, experiment, dataset, None, cache, World(), device, print), networks


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_sample_is_read_and_encoded_once(
    objective: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, networks = evaluator(objective, dataset, evaluation__importance_samples=3)
    encoded: list[int] = []
    read: list[int] = []
    networks["encoder"].register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    whole = Dataset.read
    monkeypatch.setattr(Dataset, "read", lambda self, ids: read.extend(ids) or whole(self, ids))
    looked.figures()
    assert encoded == [CHUNK, CHUNK, 20]
    assert read == list(range(SAMPLES))


def test_the_rates_of_a_ladders_levels_add_up_to_its_rate(dataset: Dataset) -> None:
    figures = evaluator("ladder", dataset)[0].figures()
    assert figures["rate"] == pytest.approx(figures["rate_level_0"] + figures["rate_level_1"])
    assert figures["elbo"] == pytest.approx(-figures["rate"] - figures["distortion"])
    assert "rate_level_0" not in evaluator("vae", dataset)[0].figures()


def test_the_rates_of_latents_add_up_to_the_rate_where_latents_are_maps_too(dataset: Dataset) -> None:
    figures = evaluator("vae", dataset, model=MODELS["res"])[0].figures()
    rates = [value for name, value in figures.items() if name.startswith("rate_of_latent/")]
    assert len(rates) == 4
    assert sum(rates) == pytest.approx(figures["rate"])


def test_a_ladders_traversal_has_a_row_for_each_latent_of_a_highest_level_that_is_a_vector(dataset: Dataset) -> None:
    levels = {"kind": "laddervae", "channels": [4], "latents": [2], "units": [8], "vectors": [3]}
    pictures = evaluator("ladder", dataset, model=levels)[0].pictures()
    assert len(pictures["traversals"][0]) == 3 * pictures["traversals"][1]
    maps = {"kind": "laddervae", "channels": [4], "latents": [2], "units": [], "vectors": []}
    assert "traversals" not in evaluator("ladder", dataset, model=maps)[0].pictures()


def test_evaluation_keeps_fetched_shards_where_the_run_is_told_to(tmp_path: Path) -> None:
    place = Store("memory://observed/bars")
    pack(((np.zeros((1, 8, 8), np.uint8), {"factors": {"constant": 0}}) for _ in range(6)), place)
    reading = StreamConfig(cache=CacheConfig(directory=str(tmp_path / "fetched")))
    dataset = Dataset.open(place.url, reading)
    looked, _ = evaluator("vae", dataset, evaluation__samples=6)
    looked.figures()
    assert [path for path in (tmp_path / "fetched").rglob("*") if path.is_file()]


@pytest.mark.parametrize("metric", ["copies", "agreement", "is", "no-such-metric"])
def test_a_metric_that_training_cannot_take_is_refused_with_those_that_it_can(metric: str, dataset: Dataset) -> None:
    with pytest.raises(ValueError, match=f"--evaluation.metrics {metric}: available during training are fid, kid, pr"):
        evaluator("vae", dataset, evaluation__metrics=("fid", metric))
