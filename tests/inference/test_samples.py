"""Samples as a notebook shows them."""

import base64
import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imagegen_dist import load
from tests.checkpoints import write_checkpoint


def shown(html: str) -> Image.Image:
    """The picture in a page."""
    return Image.open(io.BytesIO(base64.b64decode(html.partition("base64,")[2].partition('"')[0])))


@pytest.mark.parametrize(("family", "frames"), [("r3gan", 1), ("video", 4), ("voxels", 16)])
def test_a_notebook_shows_pictures_plays_clips_and_turns_volumes(family: str, frames: int, tmp_path: Path) -> None:
    samples = load(write_checkpoint(tmp_path, family)).sample(3, seed=5)
    html = samples._repr_html_()
    assert f"torch.uint8 {list(samples.shape)}" in html
    assert getattr(shown(html), "n_frames", 1) == frames


def test_what_is_computed_with_samples_is_a_plain_tensor(tmp_path: Path) -> None:
    samples = load(write_checkpoint(tmp_path, "video")).sample(70, classes=1)
    assert ", the first 60 shown" in samples._repr_html_()
    assert isinstance(samples, torch.Tensor)
    others = samples[:2], samples.float(), torch.cat([samples, samples]), copy.deepcopy(samples)
    assert all(type(other) is torch.Tensor for other in others)
    assert torch.equal(samples, others[3])
    assert np.array_equal(samples.numpy(), others[3].numpy())
    stored = io.BytesIO()
    torch.save(samples, stored)
    stored.seek(0)
    assert type(torch.load(stored, weights_only=True)) is torch.Tensor


def test_a_grid_is_a_film_where_its_name_says_so(tmp_path: Path) -> None:
    model = load(write_checkpoint(tmp_path / "run", "video"))
    for name, kind in (("a.png", "PNG"), ("a.webp", "WEBP")):
        model.grid(tmp_path / name, rows=2)
        with Image.open(tmp_path / name) as grid:
            assert (grid.format, grid.n_frames) == (kind, 4)
