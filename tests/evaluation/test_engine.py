"""The engine: any division of the work gives one value, and a sample is a function of the seed and its number."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from imagegen_dist import load
from imagegen_dist.cli.evaluate.tasks import EncodedBy, GeneratedBy, Piece, RealOf, WantedOf, measure
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.modality import to_uint8
from imagegen_dist.distributed import World, process_group
from imagegen_dist.evaluation.engine import CHUNK, Generated, Measured, chunks_in, ids_of, pieces
from imagegen_dist.evaluation.feature_networks import FeatureSource
from imagegen_dist.evaluation.figures import Answers
from imagegen_dist.evaluation.named_reference import find_reference
from imagegen_dist.evaluation.requested_classes import RequestedClasses
from imagegen_dist.inference.loading import find_checkpoint
from imagegen_dist.metrics.frechet import frechet_distance
from imagegen_dist.objectives.base import Randomness
from imagegen_dist.objectives.interface import Sampler
from imagegen_dist.records import RunSettings
from imagegen_dist.settings import EvaluationConfig
from imagegen_dist.storage import Store
from tests.evaluation.small import PIXELS, beside
from tests.ranks import run_ranks
from tests.runs import CPU, Listener, tiny, train_here
from tests.test_vae_runs import tiny as tiny_vae

SAMPLES = 4 * CHUNK + 17
COARSE = FeatureSource("module", function=PIXELS)
WANTED = (WantedOf(COARSE, keep=True),)
ALIKE = RequestedClasses(10)


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


def measured(of: GeneratedBy | RealOf | EncodedBy, *edges: int) -> Measured:
    """What is measured of a source that is cut at these chunks."""
    total, *others = (measure(Piece(of, range(*pair))) for pair in pairwise([0, *edges, chunks_in(of.samples)]))
    for other in others:
        total.merge(other)
    return total


def test_pieces_are_whole_chunks_and_a_few_dozen_at_most() -> None:
    for samples in (1, CHUNK, 4000, 50_000, 1_281_167):
        found = pieces(samples)
        assert len(found) <= 65
        assert [chunk for piece in found for chunk in piece] == list(range(chunks_in(samples)))
        assert ids_of(found[-1][-1], samples).stop == samples
    assert list(ids_of(1, CHUNK + 3)) == [CHUNK, CHUNK + 1, CHUNK + 2]


def test_generated_samples_give_one_value_however_they_are_cut(gan: RunSettings) -> None:
    generated = GeneratedBy(gan.folder.url, SAMPLES, 3, ALIKE, WANTED)
    whole, *others = measured(generated), measured(generated, 2), measured(generated, 1, 3)
    for other in others:
        assert torch.equal(other.features[0].features(), whole.features[0].features())
        torch.testing.assert_close(other.features[0].moments.cov, whole.features[0].moments.cov, rtol=1e-12, atol=1e-14)
    assert whole.features[0].moments.count == SAMPLES


class _Short:
    """A sampler on a device that takes so many samples at once."""

    def __init__(self, sampler: Sampler, most: int) -> None:
        self.sampler, self.most, self.taken = sampler, most, list[int]()

    def prior(self, count: int, draw: Randomness) -> torch.Tensor:
        return self.sampler.prior(count, draw)

    def generate(self, drawn: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        self.taken.append(len(drawn))
        if len(drawn) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.sampler.generate(drawn, label)


def test_chunks_that_do_not_fit_together_are_taken_in_halves_and_counted_once(gan: RunSettings) -> None:
    one = GeneratedBy(gan.folder.url, SAMPLES, 3, ALIKE, WANTED).open(CPU)
    whole = one.measure(range(5), lambda _: None)
    done, short = list[int](), _Short(one.sampler, 2 * CHUNK)
    several = replace(one, sampler=short, together=4).measure(range(5), done.append)
    assert short.taken == [4 * CHUNK, 2 * CHUNK, 2 * CHUNK, 17]
    assert done == [2 * CHUNK, 2 * CHUNK, 17]
    # Samples are rounded to 256 values: one that rounds the other way moves a feature by 1/127.5 of a pixel's share.
    torch.testing.assert_close(several.features[0].features(), whole.features[0].features(), rtol=0, atol=0.01)
    assert several.features[0].moments.count == SAMPLES
    with pytest.raises(torch.OutOfMemoryError):
        replace(one, sampler=_Short(one.sampler, CHUNK - 1), together=4).measure(range(5), done.append)


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
    real = RealOf(Dataset.open(gan.data), 230, WANTED)
    whole, other = measured(real), measured(real, 1, 3)
    assert torch.equal(other.features[0].features(), whole.features[0].features())
    assert len(whole.features[0].features()) == 230


def test_a_vaes_figures_of_real_samples_are_one_however_they_are_cut(vae: RunSettings) -> None:
    encoded = EncodedBy(vae.folder.url, Dataset.open(vae.validation), 120, WANTED, importance_samples=2)
    whole, other = measured(encoded), measured(encoded, 1)
    assert whole.encoded is not None
    assert other.encoded is not None
    torch.testing.assert_close(other.encoded.terms, whole.encoded.terms, rtol=1e-12, atol=1e-9)
    assert torch.equal(other.encoded.codes, whole.encoded.codes)
    assert torch.equal(other.features[0].features(), whole.features[0].features())


def test_a_vaes_figures_are_those_of_single_chunks_if_several_are_encoded_together(vae: RunSettings) -> None:
    one = EncodedBy(vae.folder.url, Dataset.open(vae.validation), 2 * CHUNK + 20, WANTED).open(CPU)
    whole, several = (replace(one, together=count).measure(range(3), lambda _: None) for count in (1, 3))
    assert whole.encoded is not None
    assert several.encoded is not None
    torch.testing.assert_close(several.encoded.terms, whole.encoded.terms, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(several.encoded.codes, whole.encoded.codes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(several.features[0].features(), whole.features[0].features(), rtol=0, atol=0.01)


def same_samples(where: RunSettings) -> None:
    model = load(where.folder.url)
    ids = range(CHUNK, CHUNK + 20)
    theirs = model.sample(ids.stop, seed=5)[ids.start :].int()
    generated = Generated(model.sampler, ids.stop, 5, RequestedClasses(model.classes), (), CPU)
    ours = to_uint8(generated.generate(ids)[0]).int()
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
