"""An evaluation that fails, or that cannot be made, costs no training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.multiprocessing import ProcessExitedException

from imagegen_dist import config, load
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.pack import pack
from imagegen_dist.evaluation.checks import check_held_out, foreseen
from imagegen_dist.experiment import Experiment
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import newest_images
from tests.evaluation import small
from tests.evaluation.small import Breakable, beside, pictures
from tests.runs import TINY, Listener, final_tensors, tiny, train_here, train_on

BREAKABLE = "module:tests.evaluation.small:Breakable"
TAKEN = {"evaluation__samples": 50, "training__checkpoint_every": 24 * 1000, "training__total_images": 24 * 8}


class Checks(Listener):
    """Notes the newest checkpoint at each message."""

    def __init__(self, where: RunSettings) -> None:
        super().__init__()
        self.where = where
        self.kept: list[int] = []

    def message(self, text: str) -> None:
        super().message(text)
        self.kept.append(newest_images(self.where.folder))


@pytest.fixture
def where(tmp_path: Path) -> RunSettings:
    run = RunSettings("run", str(tmp_path), "digits", "train_gan", "", wandb_mode="disabled")
    return beside(run, tmp_path)


@pytest.mark.parametrize("preset", ["digits", "digits-vae"])
def test_a_failed_evaluation_is_said_and_the_run_goes_on(
    preset: str, where: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Breakable, "broken_rank", 0)
    changes = {**TAKEN, "evaluation__features": BREAKABLE, "evaluation__every": 24 * 3}
    experiment = tiny(**changes) if preset == "digits" else small_vae(changes)
    heard = Checks(where)
    outcome = train_here(experiment, where, heard)
    assert outcome.complete
    assert outcome.missing == "no figures at 192 images: RuntimeError: it broke"
    said = [text for text in heard.messages if "it broke" in text]
    assert [text.split(";")[0] for text in said] == [
        f"no figures at {images} images: RuntimeError: it broke" for images in (72, 144, 192)
    ]
    result = json.loads(where.folder.read("result.json"))
    assert result["images"] == 192
    assert result["figures_missing"] == outcome.missing
    assert "frechet" not in result

    before = final_tensors(where)
    monkeypatch.setattr(Breakable, "broken_rank", None)
    outcome = train_here(experiment, where)
    assert outcome.complete
    assert not outcome.missing
    result = json.loads(where.folder.read("result.json"))
    assert "figures_missing" not in result
    assert result["frechet"] > 0
    after = final_tensors(where)
    assert all(after[name].equal(tensor) for name, tensor in before.items())


def small_vae(changes: dict[str, Any]) -> Experiment:
    changed = {path: value for path, value in TINY.items() if not path.startswith("model.")} | {
        path.replace("__", "."): value for path, value in changes.items()
    }
    return config.overrides(
        find_preset("digits-vae").experiment, {**changed, "model.hidden": [16], "model.latent": 4}.items()
    )


def test_a_checkpoint_is_there_before_figures_are_taken_and_is_told_them(
    where: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []

    class Looks(Breakable):
        def forward(self, x: Any) -> Any:
            if len(x) > 2:
                kept.append(newest_images(where.folder))
            return super().forward(x)

    monkeypatch.setattr(small, "Breakable", Looks)
    outcome = train_here(tiny(**TAKEN, evaluation__features=BREAKABLE, evaluation__every=96), where)
    assert not outcome.missing
    assert kept[-1] == 192
    assert 96 in kept
    folder = where.folder / "checkpoints"
    manifests = [
        json.loads((folder / step / attempt).read("manifest.json"))
        for step in folder.names()
        for attempt in (folder / step).names()
    ]
    taken = {int(row["images"]): row["eval/frechet"] for row in read_rows(where.folder) if "eval/frechet" in row}
    assert {manifest["images"]: manifest["metric"] for manifest in manifests} == taken
    assert load(where.folder.url).images == 192


def test_what_fails_on_one_rank_is_heard_by_all_of_them(where: RunSettings, tmp_path: Path) -> None:
    experiment = tiny(**TAKEN, evaluation__features="module:tests.evaluation.small:BrokenOnRank1")
    train_on(2, experiment, where, tmp_path / "meeting")
    result = json.loads(where.folder.read("result.json"))
    assert result["figures_missing"] == "no figures at 192 images: RuntimeError: it broke"
    assert newest_images(where.folder) == 192


def test_an_evaluation_that_kills_is_left_out_once_it_has_killed_twice(where: RunSettings, tmp_path: Path) -> None:
    experiment = tiny(**TAKEN, evaluation__features="module:tests.evaluation.small:Deadly", evaluation__searched=0)
    for attempt in range(2):
        with pytest.raises(ProcessExitedException, match="SIGKILL"):
            train_on(1, experiment, where, tmp_path / f"meeting-{attempt}")
        assert newest_images(where.folder) == 192
    heard = Listener()
    outcome = train_here(experiment, where, heard)
    assert outcome.complete
    assert outcome.missing == "no figures at 192 images: 2 processes in a row died within the evaluation"
    assert any("perhaps for lack of memory" in text for text in heard.messages)
    assert not where.folder.exists("evaluating.json")


def test_pictures_that_cannot_be_made_are_said(where: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    from imagegen_dist.evaluation.evaluator import Evaluator

    def fail(self: Evaluator) -> Any:
        raise MemoryError("too large")

    monkeypatch.setattr(Evaluator, "pictures", fail)
    heard = Listener()
    experiment = tiny(**TAKEN, evaluation__searched=0, evaluation__features=BREAKABLE)
    assert train_here(experiment, where, heard).complete
    assert "no pictures at 192 images: MemoryError: too large; the run continues" in heard.messages


def test_one_class_counts_as_no_labels(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (60, 1, 28, 28), np.uint8)
    for labels in (1, 3):  # the second has 3 classes of which 2 have no sample
        pack(((each, labels - 1) for each in picture), Store(tmp_path / f"{labels}"), classes=labels)
        index = DatasetIndex.load(Store(tmp_path / f"{labels}"))
        assert index.distinct_classes == 0
        [line] = foreseen(tiny(**TAKEN), index, None)
        assert line.startswith("no Fréchet distance will be computed: the data have labels of only one class")
    where = RunSettings("run", str(tmp_path), "x", "train_gan", Store(tmp_path / "1").url, wandb_mode="disabled")
    heard = Listener()
    outcome = train_here(tiny(**TAKEN), where, heard)
    assert outcome.complete
    assert not outcome.missing
    assert not any("classifier" in text for text in heard.messages)
    assert load(where.folder.url).classes == 0


def test_held_out_samples_of_another_kind_are_refused_before_the_run(where: RunSettings, tmp_path: Path) -> None:
    index = DatasetIndex.load(Store(where.data))
    check_held_out(index, index)
    check_held_out(index, replace(index, classes=None, class_counts=None))
    names = tuple("abcdefghij")
    wrong = [
        (replace(index, shape=replace(index.shape, channels=3)), "and the held-out ones image of"),
        (replace(index, classes=11, class_counts=None), "have 10 classes, and the held-out ones 11"),
        (replace(index, class_names=("b", *names[1:])), "class 0 is 'a' in training samples and 'b'"),
    ]
    for held_out, said in wrong:
        with pytest.raises(ValueError, match=said):
            check_held_out(replace(index, class_names=names), held_out)


def test_a_held_out_set_of_one_sample_without_a_label_costs_no_figures(where: RunSettings, tmp_path: Path) -> None:
    run = replace(where, validation=pictures(tmp_path / "one", 1, None, 2))
    assert not train_here(tiny(**TAKEN, evaluation__classifier_images=200), run).missing
    result = json.loads(run.folder.read("result.json"))
    assert result["frechet"] > 0
    assert "frechet_real" not in result
    assert "classifier_chance" in result  # of the training samples: 200 images teach a classifier nothing
