"""`--init-from`, `--freeze-d` and `--fork-from` as a user types them, on the command line and in Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import imagegen_dist
from imagegen_dist.cli.prepare import Prepared, prepare
from imagegen_dist.cli.train import main
from imagegen_dist.cli.train_options import parse
from imagegen_dist.errors import UsageError
from imagegen_dist.storage import Store
from imagegen_dist.storage.lease import Lease
from tests.checkpoints import write_checkpoint
from tests.runs import TINY, _packed_digits

SETTINGS: dict[str, dict[str, Any]] = {}
for _path, _value in {**TINY, "training.total_images": 240}.items():
    SETTINGS.setdefault(_path.partition(".")[0], {})[_path.partition(".")[2]] = _value


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with the digits and a run "first" of 240 images."""
    folder = tmp_path_factory.mktemp("storage")
    shutil.copytree(_packed_digits(), folder / ".data")
    imagegen_dist.train("digits", storage=folder, run="first", workers=0, **SETTINGS)
    return folder


def prepared(storage: Path, *words: str) -> Prepared:
    return prepare(parse("train", [*words, "--storage", str(storage)]))


def test_a_source_without_a_preset_gives_its_settings_and_a_run_is_found_by_its_name(storage: Path) -> None:
    found = prepared(storage, "--init-from", "first", "--run", "new", "--freeze-d", "1", "--objective.gamma", "3")
    assert found.experiment.model.widths == (16,)  # type: ignore[attr-defined]
    assert found.experiment.training.freeze_d == 1
    assert found.settings.preset == "digits"
    assert found.settings.lineage is not None
    assert found.settings.lineage.given == str(storage / "first")
    assert found.settings.lineage.new == ()


def test_both_work_from_python_and_go_on_by_their_names_without_their_source(storage: Path, tmp_path: Path) -> None:
    shutil.copytree(storage, tmp_path / "runs")
    there: dict[str, Any] = {"storage": tmp_path / "runs", "workers": 0}
    begun = imagegen_dist.train(init_from=tmp_path / "runs" / "first", freeze_d=1, run="begun", **there)
    longer = {"total_images": 480}
    forked = imagegen_dist.train(fork_from="first", at=120, run="forked", training=longer, **there)
    assert [begun.result["images"], forked.result["images"]] == [240, 480]
    assert begun.result["lineage"]["how"] == "init-from"
    assert forked.config["lineage"]["changed"] == ["--training.total-images 240 -> 480"]
    assert forked.result["lineage"]["images"] == 120
    shutil.rmtree(tmp_path / "runs" / "first")
    for name, run in ("begun", begun), ("forked", forked):
        again = imagegen_dist.train(run=name, training={"total_images": 504}, **there)
        assert again.result["images"] == 504
        assert again.config["lineage"] == run.config["lineage"]
    forked_again = {"fork_from": tmp_path / "runs" / "first", "at": 120}
    assert imagegen_dist.train(**forked_again, run="forked", training={"total_images": 528}, **there).rows


def test_a_run_of_others_names_no_code_to_run(storage: Path, tmp_path: Path) -> None:
    """Its preset's module and its feature network are imported from the storage that the user names alone."""
    shutil.copytree(storage / "first", tmp_path / "theirs" / "first")
    file = tmp_path / "theirs" / "first" / "config.json"
    found = json.loads(file.read_text())
    found["preset"] = "no_such_module:preset"
    found["experiment"]["evaluation"]["features"] = "module:no_such_module:network"
    file.write_text(json.dumps(found))
    words = ["--fork-from", str(file.parent), "--run", "new", "--training.total-images", "480"]
    assert parse("train", [*words, "--storage", str(storage)]).experiment.evaluation.features == ""
    with pytest.raises(UsageError, match="the module no_such_module cannot be imported"):
        parse("train", [*words, "--storage", str(tmp_path / "theirs")])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--init-from {}/vae --run new", "trained by train_vae.py, and this is train_gan.py"),
        ("digits --init-from {}/vae --run new", "is a mlpvae, and this run trains a r3gan"),
        ("--init-from {}/nothing --run new", "this is no run, checkpoint, exported folder, diffusers autoencoder"),
        ("--init-from runs/nothing --run new", "runs/nothing is no folder here, and no repository that can be read"),
        ("digits --init-from first --freeze-d 3 --run new", "--freeze-d 3: the discriminator has 1 stage"),
        ("--init-from first --fork-from first --run new", "give one"),
        ("digits --at 120", "--at 120 goes with --fork-from RUN"),
        ("digits --fork-from first --run new", "has its run's own settings: leave digits out"),
        ("--fork-from first --at 7 --run new", "--at 7: there are checkpoints at 120, 240 images"),
        ("--fork-from first --run new", "the fork would end at 240"),
        ("--fork-from {}/nothing --run new", "is no run: it has no config.json"),
        ("--fork-from first --run new --at 120 --model.widths 32", "--model.widths cannot change from [16] to [32]"),
        ("--init-from first --run first", "first holds a run that began with new weights: choose another --run"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    storage: Path, capsys: pytest.CaptureFixture[str], words: str, line: str
) -> None:
    if not (storage / "vae").exists():
        write_checkpoint(storage / "vae", "mlp-vae")
    code = main([*words.format(storage).split(), "--storage", str(storage), "--dry-run"], "train_gan")
    said = capsys.readouterr().err
    assert code == 2
    assert said.count("\n") == 1
    assert line in said
    assert not (storage / "new").exists()


def test_a_run_that_is_being_trained_is_not_forked(storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lease = Lease(Store(storage) / "first")
    lease.acquire(lambda _: None)
    with lease:
        words = ["--fork-from", "first", "--at", "120", "--run", "new", "--storage", str(storage)]
        assert main([*words, "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is being trained by process" in said


def test_a_checkpoint_of_another_run_is_refused_before_anything_starts(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(storage, tmp_path / "runs")
    config = json.loads((tmp_path / "runs" / "first" / "config.json").read_text())
    config["id"] = "another"
    (tmp_path / "runs" / "first" / "config.json").write_text(json.dumps(config))
    assert main(["--run", "first", "--storage", str(tmp_path / "runs"), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "was copied here from another run: remove it from this one" in said
