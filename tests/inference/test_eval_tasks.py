"""Evaluation in pieces: any cut gives one value, and a sample is a function of the seed and its number."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from imagegen_dist import load
from imagegen_dist.data.modality import to_uint8
from imagegen_dist.distributed import World, process_group
from imagegen_dist.evaluation.asked_classes import AskedClasses
from imagegen_dist.evaluation.evaluator import CHUNK, Dataset
from imagegen_dist.evaluation.feature_networks import FeatureSource
from imagegen_dist.evaluation.figures import Answers
from imagegen_dist.evaluation.named_reference import find_reference
from imagegen_dist.evaluation.reading import chunks_of
from imagegen_dist.inference.eval_tasks import Encoded, Generated, Measured, Reference, Wanted, cut, generate, measure
from imagegen_dist.inference.loading import find_checkpoint, read_trained
from imagegen_dist.metrics.frechet import frechet_distance
from imagegen_dist.records import RunSettings
from imagegen_dist.settings import EvaluationConfig
from imagegen_dist.storage import Store
from tests.evaluation.small import PIXELS, beside
from tests.ranks import run_ranks
from tests.runs import CPU, Listener, tiny, train_here
from tests.test_vae_runs import tiny as tiny_vae

SAMPLES = 4 * CHUNK + 17
COARSE = FeatureSource("module", function=PIXELS)
WANTED = (Wanted(COARSE, keep=True),)
ALIKE = AskedClasses(10)


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    folder = tmp_path_factory.mktemp("gan")
    where = beside(run_settings(folder), folder / "data")
    train_here(tiny(training__total_images=48, evaluation__samples=0), where)
    return where


@pytest.fixture(scope="module", params=["vae", "ladder", "fsq"])
def vae(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    folder = tmp_path_factory.mktemp("vae")
    where = replace(beside(run_settings(folder), folder / "data"), preset="digits-vae", job="train_vae")
    train_here(tiny_vae(request.param, training__total_images=48), where)
    return where


def run_settings(folder: Path) -> RunSettings:
    return RunSettings("run", Store(folder).url, "digits", "train_gan", data="", wandb_mode="disabled")


def added(pieces: list[Measured]) -> Measured:
    total, *others = pieces
    for other in others:
        total.merge(other)
    return total


def cuts(samples: int) -> list[list[range]]:
    """The whole, and two ways to cut it."""
    edges = [[0, samples], [0, 2 * CHUNK, samples], [0, CHUNK, 3 * CHUNK, samples]]
    return [[range(*pair) for pair in pairwise(each)] for each in edges]


def test_pieces_are_whole_chunks_and_a_few_dozen_at_most() -> None:
    for samples in (1, CHUNK, 4000, 50_000, 1_281_167):
        pieces = cut(samples)
        assert [number for ids in pieces[:3] for number in ids] == list(range(pieces[:3][-1].stop))
        assert pieces[-1].stop == samples
        assert all(ids.start % CHUNK == 0 for ids in pieces)
        assert len(pieces) <= 65
    assert [list(ids) for ids in chunks_of(range(CHUNK, 2 * CHUNK + 3))] == [
        list(range(CHUNK, 2 * CHUNK)),
        list(range(2 * CHUNK, 2 * CHUNK + 3)),
    ]


def test_generated_samples_give_one_value_however_they_are_cut(gan: RunSettings) -> None:
    whole, *others = (
        added([measure(Generated(gan.folder.url, SAMPLES, ids, 3, ALIKE, WANTED)) for ids in ranges])
        for ranges in cuts(SAMPLES)
    )
    for other in others:
        assert torch.equal(other.features[0].features(), whole.features[0].features())
        torch.testing.assert_close(other.features[0].moments.cov, whole.features[0].moments.cov, rtol=1e-12, atol=1e-14)
    assert whole.features[0].moments.count == SAMPLES


def test_the_answers_of_a_classifier_add_up() -> None:
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    label = torch.arange(20) % 4
    whole, first, second = Answers(), Answers(), Answers()
    whole.add(logits, label)
    first.add(logits[:13], label[:13])
    second.add(logits[13:], label[13:])
    ours, theirs = Measured([], first), Measured([], second)
    ours.merge(theirs)
    assert torch.equal(ours.answers.shown, whole.shown)
    assert (ours.answers.right, ours.answers.asked) == (whole.right, 20)
    assert 0 < whole.right < 20


def test_real_samples_give_one_value_however_they_are_cut(gan: RunSettings) -> None:
    dataset = Dataset.open(gan.data)
    whole, other = (
        added([measure(Reference(dataset, ids, WANTED)) for ids in ranges]) for ranges in (cuts(230)[0], cuts(230)[2])
    )
    assert torch.equal(other.features[0].features(), whole.features[0].features())
    assert len(whole.features[0].features()) == 230


def test_a_vaes_figures_of_real_samples_are_one_however_they_are_cut(vae: RunSettings) -> None:
    dataset, experiment = Dataset.open(vae.validation), read_trained(vae.folder.url).experiment
    whole, other = (
        added([measure(Encoded(vae.folder.url, experiment, dataset, 120, ids, WANTED)) for ids in ranges])
        for ranges in (cuts(120)[0], [range(50), range(50, 120)])
    )
    assert whole.real is not None
    assert other.real is not None
    torch.testing.assert_close(other.real.terms, whole.real.terms, rtol=1e-12, atol=1e-9)
    assert torch.equal(other.real.codes, whole.real.codes)
    assert torch.equal(other.features[0].features(), whole.features[0].features())


def same_samples(where: RunSettings) -> None:
    model = load(where.folder.url)
    ids = range(CHUNK, CHUNK + 20)
    theirs = model.sample(ids.stop, seed=5)[ids.start :].int()
    model.batch = CHUNK
    ours = to_uint8(generate(model, ids, 5, AskedClasses(model.classes))[0]).int()
    # Products of a batch and of one sample round differently.
    assert (ours - theirs).abs().max() <= 1
    assert (ours != theirs).float().mean() < 1e-3


def test_a_gans_samples_are_those_that_load_gives(gan: RunSettings) -> None:
    same_samples(gan)


def test_a_vaes_samples_are_those_that_load_gives(vae: RunSettings) -> None:
    same_samples(vae)


def reference_on(rank: int, ranks: int, data: str, validation: str, folder: str) -> None:
    """The reference of a run's evaluation in named features, by so many ranks."""
    world = World(rank, ranks)
    evaluation = EvaluationConfig(features=f"module:{PIXELS}")
    with process_group(world, f"{folder}/meeting"):
        found = find_reference(
            Store(folder), Dataset.open(data), Dataset.open(validation), evaluation, world, CPU, lambda text: None
        )
    if rank == 0:
        Path(folder, "found").write_text(repr((found.moments.count, found.real_frechet)))


def test_one_two_and_three_ranks_take_one_reference(gan: RunSettings, tmp_path: Path) -> None:
    found = []
    for ranks in (1, 2, 3):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        run_ranks(ranks, reference_on, ranks, gan.data, gan.validation, str(folder))
        found.append(eval((folder / "found").read_text()))  # noqa: S307 - two numbers of ours
    (count, distance), *others = found
    assert count == 260
    for other in others:
        assert other == (count, pytest.approx(distance, rel=1e-9))
    # Found again, without a sample being read.
    say: list[str] = []
    again = find_reference(
        Store(tmp_path / "2"),
        Dataset.open(gan.data),
        Dataset.open(gan.validation),
        EvaluationConfig(features=f"module:{PIXELS}"),
        World(),
        CPU,
        say.append,
    )
    assert (again.real_frechet, say) == (found[1][1], [])
    assert frechet_distance(again.moments, again.moments) == pytest.approx(0, abs=1e-8)


def test_a_run_takes_its_figures_in_named_features(tmp_path: Path) -> None:
    where = beside(run_settings(tmp_path), tmp_path / "data")
    changes = {"evaluation__samples": 60, "evaluation__features": f"module:{PIXELS}", "evaluation__every": 24}
    listener = Listener()
    train_here(tiny(training__total_images=96, training__checkpoint_every=10_000, **changes), where, listener)
    rows = [row for row in listener.rows if "eval/frechet" in row]
    assert [row["images"] for row in rows] == [24, 48, 72, 96]
    assert all(row["eval/frechet_real"] == rows[0]["eval/frechet_real"] for row in rows)
    assert all(row["system/evaluation_s"] > 0 for row in rows)
    assert "eval/label_agreement" not in rows[0]
    # The best one is kept, though no checkpoint was due.
    best = min(rows, key=lambda row: row["eval/frechet"])
    metrics = {
        checkpoint.images: checkpoint.manifest["metric"]
        for name in (where.folder / "checkpoints").names()
        for attempt in (where.folder / "checkpoints" / name).names()
        for checkpoint in [find_checkpoint(where.folder / "checkpoints" / name / attempt)]
    }
    assert metrics[int(best["images"])] == best["eval/frechet"] == min(metrics.values())
