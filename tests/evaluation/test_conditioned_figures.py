"""Figures of models that are told conditions: what a perfect and a confused generator get, in runs and evaluations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from imagegen_dist import config
from imagegen_dist.cli.evaluate.command import main
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.distributed import World
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.evaluation.checks import foreseen
from imagegen_dist.evaluation.evaluator import score_generated
from imagegen_dist.evaluation.figures import Comparison, compare
from imagegen_dist.evaluation.groups import groups_of
from imagegen_dist.evaluation.reference import Reference, reference_store
from imagegen_dist.metrics.features import FeatureSums
from imagegen_dist.metrics.frechet import Moments
from imagegen_dist.models.classifier import ClassifierConfig
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from tests.evaluation import small
from tests.evaluation.conditioned import (
    IMAGES,
    answers_of,
    answers_on,
    beside,
    opened,
    reference_of,
    replayed,
)
from tests.ranks import run_ranks
from tests.runs import CPU, Listener, tiny, train_here
from tests.test_vae_runs import tiny as tiny_vae

PARTS = ("agreement/place", "accuracy/framed", "r2/bright")
TAKEN = {
    "training__total_images": 48,
    "evaluation__samples": 60,
    "evaluation__classifier_images": IMAGES,
    "evaluation__metrics": ("by-class",),
}


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    """A place for runs; the classifier is trained once, and found in its cache by all of them."""
    folder = tmp_path_factory.mktemp("conditioned")
    run = RunSettings("gan", Store(folder).url, "digits", "train_gan", data="", wandb_mode="disabled")
    return beside(run, folder)


@pytest.fixture(scope="module")
def real(where: RunSettings) -> tuple[Dataset, Dataset]:
    return opened(where.data, where.validation)


@pytest.fixture(scope="module")
def reference(where: RunSettings, real: tuple[Dataset, Dataset]) -> Reference:
    return reference_of(*real, where.shared)


@pytest.fixture(scope="module")
def gan(where: RunSettings, reference: Reference) -> RunSettings:
    data = {"url": where.data, "validation": where.validation}
    where.folder.write("config.json", json.dumps({"data": data}).encode())
    heard = Listener()
    assert not train_here(tiny(**TAKEN), where, heard).missing
    assert not any("training a classifier" in text for text in heard.messages)
    return where


def scored(real: tuple[Dataset, Dataset], reference: Reference, later: int) -> dict[str, float]:
    """Figures of 900 replayed held-out samples, by class too, beside the training samples."""
    training, held_out = real
    generated = replayed(held_out, reference, 900, later)
    shown, label = training.read(range(300))
    features = FeatureSums.empty(reference.network, CPU, keep=True)
    features.add(reference.network, shown.float() / 127.5 - 1, 0)
    groups = groups_of(generated.classes.of(range(900)), label, training.index.conditions)
    return score_generated(generated, reference, World(), ["by-class"], features, groups)


def test_the_classifier_recognises_every_part_of_held_out_conditions(reference: Reference) -> None:
    assert set(reference.recognised) == set(PARTS)
    assert min(reference.recognised.values()) > 0.8
    assert reference.accuracy == reference.recognised["agreement/place"]
    assert reference.class_counts.tolist() == [100, 100, 100]
    assert reference.network.classes == 3


def test_real_samples_are_recognised_as_the_held_out_ones_are(
    real: tuple[Dataset, Dataset], reference: Reference
) -> None:
    found = scored(real, reference, later=0)
    for name in PARTS:
        assert found[name] == pytest.approx(reference.recognised[name], abs=0.02)
        assert found[name.replace("/", "_real/")] == reference.recognised[name]
    assert found["label_agreement"] == found["agreement/place"]


def test_confused_conditions_are_recognised_by_chance_and_seen_by_class_alone(
    real: tuple[Dataset, Dataset], reference: Reference
) -> None:
    right, wrong = scored(real, reference, later=0), scored(real, reference, later=76)  # another place, frame and light
    assert wrong["agreement/place"] < 0.1
    assert 0.3 < wrong["accuracy/framed"] < 0.7
    assert wrong["r2/bright"] < -0.5
    assert wrong["frechet"] == pytest.approx(right["frechet"], rel=0.1)
    for part in ("place", "framed", "bright"):
        assert wrong[f"frechet_within/{part}"] > 1.1 * right[f"frechet_within/{part}"]
    assert wrong["frechet_within/place"] > 2 * right["frechet_within/place"]


def test_numbers_are_sorted_by_the_quartiles_of_the_real_samples(real: tuple[Dataset, Dataset]) -> None:
    conditions = real[0].index.conditions
    assert conditions is not None
    told = torch.zeros(8, conditions.width)
    told[:, conditions.slices["bright"]] = torch.arange(8.0)[:, None]
    asked, shown = groups_of(told + 2, told, conditions)["bright"]
    assert shown.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert asked.tolist() == [1, 1, 2, 2, 3, 3, 3, 3]


def test_a_part_that_is_requested_alike_has_no_distance_by_class_and_some_part_has() -> None:
    features = FeatureSums(Moments(2), None, [torch.randn(8, 2, generator=torch.Generator().manual_seed(0))])
    half, alike = torch.arange(8) % 2, torch.zeros(8, dtype=torch.int64)
    found = compare(["by-class"], Comparison(features, features, groups={"a": (half, half), "b": (half, alike)}))
    assert [each.name for each in found] == ["frechet_within/a", "frechet_across/a"]
    with pytest.raises(ValueError, match="of 8 generated and 8 real samples, no two classes have two on both sides"):
        compare(["by-class"], Comparison(features, features, groups={"b": (half, alike)}))


def test_one_two_and_three_ranks_add_up_the_same_answers(where: RunSettings, reference: Reference) -> None:
    one = answers_of(where.data, where.validation, where.shared, World())
    assert one.recognised is not None
    folder = Path(where.storage.removeprefix("file://"))
    (folder / "cache").symlink_to(folder / ".cache")
    for ranks in (2, 3):
        run_ranks(ranks, answers_on, ranks, where.data, where.validation, str(folder))
        sums = torch.load(folder / f"{ranks}.pt", weights_only=True)
        torch.testing.assert_close(sums, one.recognised.sums, rtol=1e-9, atol=1e-6)


def test_a_classifier_of_classes_is_cached_where_it_was(tmp_path: Path) -> None:
    data = Dataset.open(small.pictures(tmp_path, 20))
    parts = {
        "form": 3,
        "training": data.index.fingerprint,
        "held_out": None,
        "classifier": config.encode(ClassifierConfig()),
        "images": 100,
        "torch": torch.__version__.split("+")[0],
    }
    expected = Store(tmp_path) / "features" / config.fingerprint(parts)[:16]
    assert reference_store(Store(tmp_path), data, None, 100).url == expected.url


def test_a_run_that_is_told_conditions_takes_every_figure(gan: RunSettings) -> None:
    found = json.loads(gan.folder.read("result.json"))
    assert found["label_agreement"] == found["agreement"]["place"]
    assert found["classifier_accuracy"] == found["agreement_real"]["place"] > 0.9
    assert set(found["accuracy"]) == set(found["accuracy_real"]) == {"framed"}
    assert set(found["r2"]) == set(found["r2_real"]) == {"bright"}
    assert set(found["frechet_within"]) == set(found["frechet_across"]) == {"place", "framed", "bright"}
    assert found["frechet"] > found["frechet_real"]


def test_a_model_that_is_not_told_conditions_covers_the_modes_of_their_class(
    where: RunSettings, reference: Reference
) -> None:
    run = replace(where, name="untold")
    assert not train_here(tiny(**TAKEN, data__conditional=False), run).missing
    found = json.loads(run.folder.read("result.json"))
    assert 1 <= found["modes"] <= 3
    assert not {"label_agreement", "agreement", "r2", "frechet_within"} & found.keys()


def test_imagegen_evaluate_takes_the_same_figures_of_the_same_samples(gan: RunSettings, tmp_path: Path) -> None:
    asked = ("--metrics", "fid,agreement,conditions,by-class,is,copies", "--samples", "60", "--workers", "0")
    assert main([gan.folder.url, *asked, "--out", str(tmp_path / "found.json")]) == DONE
    document = json.loads((tmp_path / "found.json").read_text())
    of_run, found = json.loads(gan.folder.read("result.json")), document["figures"]
    for name in ("agreement", "agreement_real", "accuracy", "accuracy_real", "r2", "r2_real"):
        assert found[name] == pytest.approx(of_run[name], abs=1e-3)
    assert found["frechet"] == pytest.approx(of_run["frechet"], rel=1e-3)
    assert found["label_agreement"] == of_run["label_agreement"]
    assert found["class_score"] >= 1
    assert document["figures_of"]["frechet_within/place"]["classes"] == 3
    assert document["settings"]["label_distribution"] == "data"


def test_real_samples_with_other_means_are_told_as_the_models(gan: RunSettings, tmp_path: Path) -> None:
    asked = ("--metrics", "conditions,by-class", "--data", gan.validation, "--samples", "60", "--workers", "0")
    assert main([gan.folder.url, *asked, "--out", str(tmp_path / "found.json")]) == DONE
    found = json.loads((tmp_path / "found.json").read_text())["figures"]
    assert set(found["frechet_within"]) == {"place", "framed", "bright"}


def test_rows_of_other_data_are_told_with_their_own_values(real: tuple[Dataset, Dataset], where: RunSettings) -> None:
    own = Dataset.open(where.validation)
    assert own.index.known_conditions is not None
    assert own.index.conditions is not None
    assert real[0].index.conditions is not None
    told = own.index.known_conditions.told_as(real[0].index.conditions)
    expected = real[1].labels(range(150))
    assert expected is not None
    torch.testing.assert_close(torch.from_numpy(told.rows), expected, rtol=1e-5, atol=1e-5)


def test_a_vae_that_is_told_conditions_is_evaluated(where: RunSettings, reference: Reference, tmp_path: Path) -> None:
    run = replace(where, name="vae", preset="digits-vae", job="train_vae")
    data = {"url": run.data, "validation": run.validation}
    run.folder.write("config.json", json.dumps({"data": data}).encode())
    assert not train_here(tiny_vae("vae", **TAKEN, data__conditional=True), run).missing
    of_run = json.loads(run.folder.read("result.json"))
    assert {"elbo", "frechet_reconstruction", "label_agreement", "r2"} <= of_run.keys()
    out = tmp_path / "found.json"
    asked = ("--metrics", "conditions", "--references", "60", "--workers", "0", "--out", str(out))
    assert main([run.folder.url, *asked]) == DONE
    found = json.loads(out.read_text())["figures"]
    assert found["elbo"] == pytest.approx(of_run["elbo"], rel=1e-3)
    assert found["r2_real"] == of_run["r2_real"]
    assert set(found["r2"]) == {"bright"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--label-distribution", "uniform"), "conditions are requested as they occur together in the data"),
        (("--data", "{labelled}", "--metrics", "by-class"), "--metrics by-class compares samples class by class"),
        (("--data", "{other}"), "there is no condition framed"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    gan: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    noise = torch.randint(256, (6, 1, 14, 14), dtype=torch.uint8).numpy()
    small.pack(((each, number % 3) for number, each in enumerate(noise)), Store(tmp_path / "labelled"), classes=3)
    small.pack(((each, {"condition": {"place": "left"}}) for each in noise), Store(tmp_path / "other"))
    places = {name: Store(tmp_path / name).url for name in ("labelled", "other")}
    assert main([gan.folder.url, *(word.format(**places) for word in words)]) == MISUSED
    captured = capsys.readouterr().err
    assert said in captured
    assert captured.count("\n") == 1


def test_agreement_and_conditions_are_each_of_their_own_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunSettings("run", Store(tmp_path).url, "digits", "train_gan", small.pictures(tmp_path / "data"))
    train_here(tiny(training__total_images=24), replace(run, wandb_mode="disabled"))
    assert main([run.folder.url, "--metrics", "conditions", "--data", run.data]) == MISUSED
    assert "the model is not told conditions; set agreement" in capsys.readouterr().err


def test_notes_of_a_run_say_what_has_no_effect(real: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    training, held_out = (each.index for each in real)
    assert foreseen(tiny(**TAKEN), training, held_out) == []
    uniform = foreseen(tiny(**TAKEN, evaluation__label_distribution="uniform"), training, held_out)
    assert uniform[0].startswith("--evaluation.label-distribution uniform has no effect: conditions are requested")
    untold = foreseen(tiny(**TAKEN, data__conditional=False), training, held_out)
    assert untold == ["--evaluation.metrics by-class has no effect: the networks are not told labels"]


def test_labels_alone_are_those_that_are_read_with_samples(real: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    labelled = Dataset.open(small.pictures(tmp_path / "labelled", 20))
    for dataset in (*real, labelled):
        alone, beside_samples = dataset.labels([5, 0, 7]), dataset.read([5, 0, 7])[1]
        assert alone is not None
        assert beside_samples is not None
        assert torch.equal(alone, beside_samples)
