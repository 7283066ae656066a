"""The job that evaluates: what it stores, what it says, and the one line that answers a mistake."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console, Group

from imagegen_dist.cli.evaluate import outcome, request
from imagegen_dist.cli.evaluate.command import main
from imagegen_dist.cli.evaluate.options import asked_metrics, parse
from imagegen_dist.cli.evaluate.request import feature_sources, prepare
from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import to_float
from imagegen_dist.data.pack import pack
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.evaluation.copying import find_copies
from imagegen_dist.evaluation.engine import Real
from imagegen_dist.evaluation.feature_networks import FeatureSource, open_network
from imagegen_dist.evaluation.figures import DEFAULT_METRICS, METRICS, Figure
from imagegen_dist.inference import load
from imagegen_dist.inference.folder import card_of, write_folder
from imagegen_dist.inference.loading import read_trained
from imagegen_dist.metrics.frechet import Moments, frechet_distance
from imagegen_dist.metrics.neighbourhoods import neighbourhoods
from imagegen_dist.records import RunSettings
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from tests.evaluation.small import PIXELS, SAMPLES, beside, coarse, pictures
from tests.runs import tiny, train_here
from tests.test_vae_runs import tiny as tiny_vae

COARSE = ("--features", f"module:{PIXELS}")
QUICK = {"training__total_images": 48, "evaluation__classifier_images": 640}


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    folder = tmp_path_factory.mktemp("gan")
    return trained(beside(run_settings(folder), folder), tiny(**QUICK))


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    folder = tmp_path_factory.mktemp("vae")
    where = replace(beside(run_settings(folder), folder), preset="digits-vae", job="train_vae")
    return trained(where, tiny_vae("vae", **QUICK))


def run_settings(folder: Path) -> RunSettings:
    return RunSettings("run", Store(folder).url, "digits", "train_gan", data="", wandb_mode="disabled")


def trained(where: RunSettings, experiment: Any) -> RunSettings:
    """The run, with the part of config.json that a driver would have written."""
    data = {"url": where.data, "validation": where.validation}
    where.folder.write("config.json", json.dumps({"data": data}).encode())
    train_here(experiment, where)
    return where


def figures(where: RunSettings, tmp_path: Path, *words: object) -> dict[str, Any]:
    out = tmp_path / "figures.json"
    assert main([where.folder.url, *(str(word) for word in words), "--out", str(out), "--workers", "0"]) == DONE
    return json.loads(out.read_text())


def mistake(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command answers, checked to be one line on standard error and exit code 2."""
    assert main([str(word) for word in words]) == MISUSED == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("evaluate.py: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_figures_are_those_of_samples_that_load_gives_beside_the_real_ones(gan: RunSettings, tmp_path: Path) -> None:
    in_turn = ("--label-distribution", "uniform")  # as `sample` takes the classes
    found = figures(gan, tmp_path, *COARSE, "--samples", 150, "--references", 200, "--seed", 4, *in_turn)
    features, real = coarse(), Dataset.open(gan.data).read(range(200))[0]
    x, y = features(to_float(load(gan.folder.url).sample(150, seed=4))), features(to_float(real))
    ours, theirs = Moments(16), Moments(16)
    ours.add(x)
    theirs.add(y)
    assert found["figures"]["frechet"] == pytest.approx(frechet_distance(ours, theirs), rel=1e-3)
    counted = neighbourhoods(x, y)
    assert found["figures"]["coverage"] == pytest.approx(counted.coverage, abs=0.02)
    assert set(found["figures"]) == {
        *("frechet", "kernel_distance", "kernel_distance_deviation"),
        *("precision", "recall", "density", "coverage"),
    }


def test_every_figure_is_stored_with_all_that_it_depends_on(gan: RunSettings, tmp_path: Path) -> None:
    found = figures(gan, tmp_path, "--metrics", "fid,kid,is,agreement,modes", "--samples", 100)
    index = DatasetIndex.load(Store(gan.data))
    assert found["images"] == 48
    assert found["model"].startswith(f"{gan.folder.url}/checkpoints/step-000000000048/")
    assert found["reference"] == {
        "url": gan.data,
        "fingerprint": index.fingerprint,
        "samples": SAMPLES,
        "of": SAMPLES,
    }
    assert found["figures_of"]["kernel_distance"] == {
        "features": "classifier",
        "samples": 100,
        "references": SAMPLES,
        "subsets": 100,
        "subset_size": 100,
        "subset_seed": 0,
    }
    assert found["figures_of"]["label_agreement"]["samples"] == 100
    assert set(found["features"]) == {"classifier"}
    [weights] = Path(gan.storage, ".cache").glob("features/*/classifier.safetensors")
    assert found["features"]["classifier"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert found["features"]["classifier"]["resize"] == "none"
    assert found["settings"]["seed"] == 0
    assert {"torch", "imagegen_dist"} <= found["versions"].keys()
    assert 1 <= found["figures"]["class_score"] <= 10
    assert 0 <= found["figures"]["label_agreement"] <= 1
    assert 1 <= found["figures"]["modes"] <= 10
    assert found["figures_of"]["modes_kl"]["perfect_sampler"] == pytest.approx(9 / 200)


def test_a_row_of_the_table_is_one_line_of_80_columns() -> None:
    counted = {"samples": 50_000, "references": 1_281_167}
    subsets = counted | {"subsets": 100, "subset_size": 1000, "subset_seed": 0, "labels": "counts"}
    found = (
        Figure("frechet_reconstruction", 1234.5, 12.34, counted),
        Figure("kernel_distance", 0.012345, 0.00123, subsets),
        Figure("label_agreement", 0.971, None, counted),
        Figure("authenticity", 0.51, None, counted),
        Figure("authenticity_real", 0.545, None, counted),
    )
    network = SimpleNamespace(network=SimpleNamespace(name="a classifier of the dataset's own labels"))
    request = SimpleNamespace(real=SimpleNamespace(samples=1))
    results = SimpleNamespace(figures=[(network, found)], of_real={"log_likelihood": -105.7})
    out = io.StringIO()
    Console(file=out, width=80).print(Group(*outcome._tables(request, results)))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "reconstruction Fréchet distance 1,234 ± 12.34 lower is better" in lines
    assert "kernel distance 0.0123 ± 0.0012 lower is better" in lines
    assert "label agreement 97.1% higher is better" in lines
    assert "authenticity 51.0% held-out real samples: 54.5%" in lines
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "log-likelihood -105.7 nats per sample higher is better" in lines
    assert "of 1 real sample, as the model encodes them" in lines
    said = " ".join(lines)
    assert (
        "reconstruction Fréchet distance, label agreement, authenticity: samples 50,000, references 1,281,167" in said
    )
    assert (
        "kernel distance: samples 50,000, references 1,281,167, subsets 100, subset size 1,000, subset seed 0" in said
    )


def test_the_table_says_it_all_and_the_file_lies_beside_the_checkpoints(
    gan: RunSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [gan.folder.url, *COARSE, "--samples", "60", "--metrics", "fid,pr", "--workers", "0"]
    assert main(words) == DONE
    said = capsys.readouterr().out
    [name] = (gan.folder / "evaluations").names()
    found = json.loads((gan.folder / "evaluations").read(name))
    for part in (
        "at 48 images",
        f"{found['figures']['frechet']:.3f}"[:5],
        "lower is better",
        "k 3",
        "60 samples, seed 0",
        "260 of 260 samples",
        found["reference"]["fingerprint"],
        found["features"]["module"]["sha256"],
        f"{gan.folder.url}/evaluations/{name}",
    ):
        assert part in said
    assert main(words) == DONE
    assert (gan.folder / "evaluations").names() == [name]
    assert main([*words, "--seed", "1"]) == DONE
    assert len((gan.folder / "evaluations").names()) == 2


def test_statistics_of_real_samples_are_taken_once(
    gan: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ("--cache", tmp_path / "cache", "--samples", 60)
    first = figures(gan, tmp_path, *COARSE, *cache)
    monkeypatch.setattr(Real, "measure", lambda *_: pytest.fail("real samples were measured again"))
    assert figures(gan, tmp_path, *COARSE, *cache)["figures"] == first["figures"]
    with pytest.raises(pytest.fail.Exception):
        figures(gan, tmp_path, *COARSE, *cache, "--references", 200)


def test_a_vae_is_also_measured_on_real_samples(vae: RunSettings, tmp_path: Path) -> None:
    found = figures(vae, tmp_path, *COARSE, "--metrics", "fid", "--references", 120, "--importance-samples", 3)
    assert found["reference"]["url"] == vae.validation
    of_real = found["figures"]
    assert of_real["elbo"] == pytest.approx(-of_real["rate"] - of_real["distortion"])
    assert of_real["log_likelihood"] >= of_real["elbo"] - 1
    assert len(of_real["rate_of_latent"]) == 4
    assert {"psnr", "ssim", "active_units", "frechet", "frechet_reconstruction"} <= of_real.keys()
    on_training = figures(
        vae, tmp_path, *COARSE, "--metrics", "fid", "--references", 120, "--data", vae.data, "--importance-samples", 0
    )
    assert on_training["reference"]["fingerprint"] == DatasetIndex.load(Store(vae.data)).fingerprint
    assert "log_likelihood" not in on_training["figures"]


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_figures_are_those_that_the_end_of_training_took(kind: str, tmp_path: Path) -> None:
    """Of the same samples, seed and network: both are computed by one engine."""
    changes = {**QUICK, "evaluation__samples": 110, "evaluation__features": f"module:{PIXELS}"}
    experiment = tiny(**changes) if kind == "gan" else tiny_vae("vae", evaluation__importance_samples=3, **changes)
    where = trained(beside(run_settings(tmp_path), tmp_path), experiment)
    rows = [json.loads(line) for line in where.folder.read("metrics.jsonl").splitlines()]
    last = next(row for row in reversed(rows) if any(name.startswith("eval/") for name in row))
    taken = {name.removeprefix("eval/"): value for name, value in last.items() if name.startswith("eval/")}
    generated = figures(where, tmp_path, *COARSE, "--data", where.data, "--samples", 110, "--metrics", "fid")
    same = {"frechet": generated["figures"]["frechet"]}
    if kind == "vae":  # encodes held-out samples
        real = figures(where, tmp_path, *COARSE, "--samples", 50, "--references", 110, "--metrics", "fid")["figures"]
        same |= {name: real[name] for name in taken.keys() & real.keys() if not name.startswith("frechet")}
        assert {"elbo", "rate", "distortion", "psnr", "ssim", "log_likelihood", "active_units"} <= same.keys()
    assert same == pytest.approx({name: taken[name] for name in same}, rel=1e-9)


def test_an_exported_folder_has_the_figures_of_its_checkpoint(
    gan: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = Store(tmp_path / "exported")
    model = load(gan.folder.url)
    write_folder(model, card_of(model, read_trained(gan.folder.url).url), exported)
    words = (*COARSE, "--data", gan.data, "--samples", 100, "--metrics", "fid,kid")
    there = figures(replace(gan, storage=str(tmp_path), name="exported"), tmp_path, *words)
    assert there["model"] == exported.url
    assert there["figures"] == figures(gan, tmp_path, *words)["figures"]
    capsys.readouterr()
    assert "does not say where the data are" in mistake(capsys, exported.url, *COARSE)


def test_copies_are_looked_for_in_what_training_has_seen(
    gan: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*COARSE, "--metrics", "fid,copies", "--samples", 120)
    found = figures(gan, tmp_path, *words)
    assert "copies: off the data" in capsys.readouterr().out  # the generator has learnt next to nothing
    said = found["figures"]
    seen, held_out = Dataset.open(gan.data), Dataset.open(gan.validation)
    network = open_network(FeatureSource("module", function=PIXELS), seen.index.shape, torch.device("cpu"))
    expected = find_copies(load(gan.folder.url).sample(120), seen, held_out, network, SAMPLES, torch.device("cpu"))
    assert {name: said[name] for name in expected.figures} == pytest.approx(expected.figures, abs=0.02)
    assert found["figures_of"]["authenticity"] == {"features": "module", "samples": 120, "training_samples": SAMPLES}
    with Image.open(tmp_path / "figures-neighbours.png") as picture:
        assert min(picture.size) > 100
    # Held-out data as what training has seen: the run's own samples of them are then none.
    other = figures(gan, tmp_path, *words, "--data", gan.validation)
    assert "copying_z" not in other["figures"]


def test_copies_of_a_built_in_dataset_are_looked_for_beside_its_held_out_split(gan: RunSettings) -> None:
    request = prepare(parse([gan.folder.url, *COARSE, "--metrics", "copies", "--data", "digits"]), lambda _: None)
    held_out = builtin_dataset("digits", "val", Store(gan.storage) / ".data")
    assert request.held_out is not None
    assert request.held_out.dataset.index.fingerprint == Dataset.open(held_out.url).index.fingerprint
    assert request.held_out.samples == 1000


def test_help_names_metrics_and_features(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == DONE
    said = capsys.readouterr().out
    for part in ("RUN|CHECKPOINT", "fd-dinov2", "density and coverage", "module:PACKAGE.MODULE:FUNCTION"):
        assert part in said


def test_weights_belong_to_the_network_that_is_named(gan: RunSettings) -> None:
    def sources(*words: str) -> dict[str, tuple[str, str]]:
        options = parse(["run", *words])
        found = feature_sources(options, asked_metrics(options.metrics, METRICS) or DEFAULT_METRICS)
        return {source.kind: (source.weights, ",".join(metrics)) for source, metrics in found.items()}

    assert sources() == {"classifier": ("", "fid,kid,pr,dc,is")}
    assert sources("--weights", "w") == {"inception": ("w", "fid,kid,pr,dc,is")}
    assert sources("--weights", "w", "--metrics", "fd-dinov2") == {"dinov2-l": ("w", "fd-dinov2")}
    assert sources("--weights", "w", "--features", "dinov2-s", "--metrics", "kid,fd-dinov2") == {
        "dinov2-s": ("w", "kid,fd-dinov2")
    }
    assert sources("--weights", "inception=a,dinov2=s3://b?x=1", "--metrics", "fid,fd-dinov2") == {
        "inception": ("a", "fid"),
        "dinov2-l": ("s3://b?x=1", "fd-dinov2"),
    }
    assert sources("--weights", "dinov2=b", "--metrics", "fid,fd-dinov2") == {
        "classifier": ("", "fid"),
        "dinov2-l": ("b", "fd-dinov2"),
    }
    with pytest.raises(ValueError, match="of which network"):
        sources("--weights", "w", "--metrics", "fid,fd-dinov2", "--features", "inception")
    with pytest.raises(ValueError, match="takes none of it"):
        sources("--weights", "w", "--features", "classifier")


def test_mistakes_are_answered_in_one_line(
    gan: RunSettings, vae: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = gan.folder.url
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"no tensors")
    sha256 = hashlib.sha256(b"no tensors").hexdigest()
    given = "--weights", weights, "--features", "inception"
    assert f"has the SHA-256 {sha256}, not {'0' * 64}" in mistake(capsys, run, *given, "--weights-sha256", "0" * 64)
    assert f"(it has {sha256})" in mistake(capsys, run, *given)
    assert "weights-inception-2015-12-05-6726825d.pth" in mistake(capsys, run, "--features", "inception")
    assert "is not known; set it to one of inception" in mistake(capsys, run, "--features", "vgg")
    assert "did you mean fid?" in mistake(capsys, run, "--metrics", "fidd")
    assert "has 260 samples; ask for at most 260" in mistake(capsys, run, *COARSE, "--references", 5000)
    assert "holds no complete checkpoint; give a run, one of its checkpoints" in mistake(capsys, tmp_path)
    assert "nowhere holds no complete checkpoint" in mistake(capsys, f"{tmp_path}/nowhere")
    assert "RUN is missing" in mistake(capsys)
    assert "--kid-subset-size 100" in mistake(capsys, run, *COARSE, "--samples", 50, "--kid-subset-size", 100)
    assert "have no classes; leave it out" in mistake(capsys, run, *COARSE, "--metrics", "is")
    assert "--samples 1: from 2 to 100,000,000" in mistake(capsys, run, "--samples", 1)
    assert "class-conditional" in mistake(capsys, vae.folder.url, "--metrics", "agreement")
    assert "need more than 5 samples per side" in mistake(capsys, run, *COARSE, "--metrics", "pr", "--samples", 4)
    assert "--split val is of a built-in dataset" in mistake(capsys, run, "--split", "val")
    assert "a number of tasks from 1" in mistake(capsys, run, "--workers", -1)
    other = Store(tmp_path / "other")
    pack(((np.zeros((3, 8, 8), np.uint8), number % 2) for number in range(6)), other, classes=2)
    assert "they cannot be compared; set --data" in mistake(capsys, run, "--data", other.url)
    assert "nothing does not exist" in mistake(capsys, run, "--data", tmp_path / "nothing")


def test_data_that_number_other_classes_are_refused() -> None:
    kind = {"shape": SampleShape(1, (8, 8)), "classes": 2, "conditions": None}
    data = SimpleNamespace(index=SimpleNamespace(**kind, class_names=("dog", "cat")))
    model = SimpleNamespace(**kind, class_names=("cat", "dog"))
    with pytest.raises(ValueError, match="class 0 is 'dog' in the data, and 'cat' in the model; set"):
        request._check_fit("URL", data, model)  # type: ignore[arg-type]
    request._check_fit("URL", data, SimpleNamespace(**kind, class_names=None))  # type: ignore[arg-type]


def test_data_without_labels_need_a_network_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = replace(run_settings(tmp_path), data=pictures(tmp_path / "plain", 40, classes=None))
    trained(where, tiny(training__total_images=48, data__conditional=False))
    assert "no labels to train one on, or of one class; set --features inception" in mistake(capsys, where.folder.url)
    assert figures(where, tmp_path, *COARSE, "--metrics", "fid")["figures"]["frechet"] > 0
