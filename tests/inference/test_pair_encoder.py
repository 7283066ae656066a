"""The encoder trained on generated pairs finds a model's own samples, is the same each time, and is kept safely."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from PIL import Image

from imagegen_dist import load
from imagegen_dist.cli.project import main
from imagegen_dist.data.modality import to_float
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.kept_encoder import NAME, encoder_beside
from imagegen_dist.inference.pair_encoder import PairTraining, first_guess, new_encoder, train_encoder
from imagegen_dist.inference.projection import Search, project
from imagegen_dist.storage import Store
from tests.checkpoints import write_checkpoint

FEW = PairTraining(pairs=64)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_checkpoint(tmp_path_factory.mktemp("gan") / "run", "r3gan-patch")


@pytest.fixture(scope="module")
def model(run: str) -> GeneratorModel:
    found = load(run)
    assert isinstance(found, GeneratorModel)
    return found


def test_a_trained_encoder_finds_samples_better_than_many_guesses_without_a_step(model: GeneratorModel) -> None:
    samples = model.sample(12, seed=5)
    encoder = train_encoder(model, PairTraining(pairs=4800))
    found = project(model, samples, Search(steps=0), encoder=encoder)
    guessed = project(model, samples, Search(steps=1, rate=0.0, guesses=640))
    assert float(found.psnr.mean()) > float(guessed.psnr.mean()) + 1
    assert torch.equal(found.samples, model.generate(found.z, found.label))
    assert float(found.z.norm(dim=1).max()) <= model.latents(1).numel() ** 0.5 + 1e-4
    further = project(model, samples, Search(steps=20), encoder=encoder)
    assert float(further.psnr.mean()) > float(found.psnr.mean())


def test_the_same_training_gives_the_same_encoder(model: GeneratorModel) -> None:
    first, second = (train_encoder(model, FEW).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    untrained = new_encoder(model).state_dict()
    assert not any(torch.equal(first[name], untrained[name]) for name in first)


@pytest.mark.parametrize("preset", ["video", "r3gan-styled"])
def test_any_number_of_axes_and_conditions(preset: str, tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path / "run", preset))
    encoder = train_encoder(model, PairTraining(pairs=4, batch=2))
    z, free = first_guess(model, encoder, to_float(model.sample(2)))
    assert z.shape == model.latents(2).shape
    assert free.shape == (2, model.label_width)
    if model.conditions is not None:
        assert torch.allclose(free[:, model.conditions.slices["digit"]].sum(1), torch.ones(2), atol=1e-5)


def test_training_ends_with_its_time_and_says_what_to_change(model: GeneratorModel) -> None:
    seconds = iter(range(0, 1000, 50))
    with pytest.raises(TimeoutError, match=r"64 of 320 pairs in 1 minutes: give it more minutes, or fewer pairs"):
        train_encoder(model, PairTraining(pairs=320, timeout_s=60), clock=lambda: float(next(seconds)))


def test_it_is_read_by_the_next_and_trained_anew_for_other_weights_or_a_damaged_file(run: str, tmp_path: Path) -> None:
    model, place = load(run), str(tmp_path)
    first, second = encoder_beside(model, place, FEW), encoder_beside(model, place, FEW)
    assert (first.trained, second.trained) == (64, 0)
    target = to_float(model.sample(2))
    for ours, theirs in zip(first.encoder(target), second.encoder(target), strict=True):
        assert torch.equal(ours, theirs)
    assert encoder_beside(model, place, PairTraining(pairs=96)).trained == 96
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    assert encoder_beside(model, place, FEW).trained == 64
    file = tmp_path / NAME
    file.write_bytes(file.read_bytes()[:-100])
    assert encoder_beside(model, place, FEW).trained == 64
    file.write_bytes(b"\x80\x04.")
    assert encoder_beside(model, place, FEW).trained == 64


def test_a_place_that_cannot_be_written_is_said(run: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    kept = encoder_beside(load(run), str(tmp_path / "file"), FEW)
    assert kept.trained == 64
    assert str(tmp_path / "file") in kept.lost


def test_nothing_is_written_to_the_hub(model: GeneratorModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "read", Mock(side_effect=FileNotFoundError))
    monkeypatch.setattr(Store, "write", write := Mock())
    kept = encoder_beside(model, "hf://someone/digits", FEW)
    assert (kept.trained, write.called) == (64, False)
    assert "Hub" in kept.lost


def test_the_command_trains_once_and_gives_the_same_answer(
    run: str, model: GeneratorModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "a.png"
    Image.fromarray(model.sample(1, 1, seed=3)[0, 0].numpy()).save(picture)
    words = [run, str(picture), "--encoder", "--encoder-pairs", "1000", "--steps", "0"]
    said = []
    for name in ("first.npz", "second.npz"):
        assert main([*words, "--latents", str(tmp_path / name)]) == DONE
        said.append(capsys.readouterr().out)
    assert f"encoder trained on 992 pairs, kept in {run}/{NAME}" in said[0]
    assert "trained" not in said[1]
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--encoder", "--mask", "m.png"], "--mask m.png: an encoder is trained on whole samples"),
        (["--steps", "0"], "--steps 0: from 1"),
        (["--encoder", "--encoder-pairs", "5"], "--encoder-pairs 5: from 1000"),
    ],
)
def test_mistakes_are_one_line(run: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([run, "a.png", "--grid", "out.png", *words]) == MISUSED
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
