"""Projection finds the latents of a model's own samples, and keeps to what the prior has."""

import numpy as np
import pytest
import torch
from PIL import Image

from imagegen_dist import load
from imagegen_dist.cli.project import main
from imagegen_dist.errors import DONE, MISUSED
from imagegen_dist.inference.projection import Search, project
from imagegen_dist.inference.sought import Sought, advance, begin, started
from tests.checkpoints import write_checkpoint

FEW = Search(steps=120, guesses=32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("gan") / "run", "r3gan-patch")


def test_own_samples_are_found_with_their_class_within_the_priors_length(run):
    model = load(run)
    samples = model.sample(3, [1, 0, 2], seed=5)
    start, found = project(model, samples, Search(steps=1, guesses=32)), project(model, samples, FEW)
    assert float((found.psnr - start.psnr).min()) > 5
    assert found.label is not None
    assert torch.allclose(found.label.sum(1), torch.ones(3))
    assert float(found.z.norm(dim=1).max()) <= model.latents(1).numel() ** 0.5 + 1e-4
    assert torch.equal(found.samples, model.generate(found.z, found.label))


def test_rows_at_different_steps_are_found_as_if_each_were_alone(run):
    model = load(run)
    pictures, search = model.sample(2, [1, 2], seed=5), Search(steps=12, guesses=32)
    first = started(begin(model, pictures[:1], search))
    for _ in range(5):
        first, _ = advance(model, first)
    second = started(begin(model, pictures[1:], search, label=torch.tensor([2])))
    together = Sought.joined([first, second])
    for _ in range(7):
        together, _ = advance(model, together)
    first, second = together.rows()
    assert (int(first.step), int(second.step)) == (12, 7)
    assert torch.allclose(first.z, project(model, pictures[:1], search).z, atol=1e-4)
    assert torch.equal(second.free, torch.tensor([[0.0, 0.0, 1.0]]))


def test_a_label_that_is_given_is_held(run):
    model = load(run)
    picture = model.sample(1, 1, seed=5)
    found = project(model, picture, Search(steps=5, guesses=32), label=torch.tensor([2]))
    assert torch.equal(found.label, torch.tensor([[0.0, 0.0, 1.0]]))
    with pytest.raises(ValueError, match="class 3"):
        project(model, picture, label=torch.tensor([3]))


def test_what_the_mask_hides_is_free(run):
    model = load(run)
    samples = model.sample(1, 1, seed=5)
    mask = torch.zeros(model.shape.spatial)
    mask[: len(mask) // 2] = 1
    damaged = samples.clone()
    damaged[:, :, len(mask) // 2 :] = 255
    found = project(model, damaged, FEW, mask)
    assert float(found.psnr) > float(project(model, damaged, FEW).psnr) + 3


def test_conditions_stay_as_data_have_them(tmp_path):
    model = load(write_checkpoint(tmp_path / "run", "r3gan-styled"))
    found = project(model, torch.zeros(2, *model.shape.dims, dtype=torch.uint8), FEW)
    assert found.label is not None
    assert model.conditions is not None
    digit = found.label[:, model.conditions.slices["digit"]]
    assert float(digit.min()) >= 0
    assert torch.allclose(digit.sum(1), torch.ones(2), atol=1e-5)


def test_an_autoencoder_starts_from_its_encoder(tmp_path):
    model = load(write_checkpoint(tmp_path / "run", "ladder"))
    assert project(model, model.sample(2, seed=1), FEW).z.shape == model.latents(2).shape


def test_the_command_writes_pictures_and_latents(run, tmp_path, capsys):
    Image.fromarray(np.arange(900, dtype=np.uint8).reshape(30, 30)).save(tmp_path / "a.png")
    grid, arrays = tmp_path / "out.png", tmp_path / "out.npz"
    words = [run, str(tmp_path / "a.png"), "--grid", str(grid), "--latents", str(arrays), "--steps", "5"]
    assert main([*words, "--direction", "sefa1=-2:2:3", "--scale", "1"]) == DONE
    assert "PSNR" in capsys.readouterr().out
    side = load(run).shape.spatial[0]
    with Image.open(grid) as made:
        assert made.width >= 5 * side  # the picture, what was found, three edits
    with np.load(arrays) as found:
        assert set(found) == {"z", "label", "psnr"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["MISSING.png", "--grid", "out.png"], "MISSING.png"),
        (["a.png", "--grid", "out.jpg"], "a grid is a .png"),
        (["a.png"], "nothing to write"),
        ([], "at least one PICTURE"),
    ],
)
def test_mistakes_are_one_line(run, words, said, capsys):
    assert main([run, *words]) == MISUSED
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
