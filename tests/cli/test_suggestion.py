"""Which preset is suggested for a dataset: one of its kind of samples whose networks can have them."""

import pytest

from imagegen_dist.cli.suggestion import suggested_preset, train_line
from imagegen_dist.data.index import DatasetIndex, ShardInfo
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store


def index(modality: str, *dims: int) -> DatasetIndex:
    return DatasetIndex(modality, SampleShape(dims[0], dims[1:]), (ShardInfo("0.tar", 1, 40, 0, "0" * 64),))


@pytest.mark.parametrize(
    ("modality", "dims", "latents", "preset"),
    [
        ("image", (1, 28, 28), False, "digits"),
        ("image", (3, 64, 64), False, "dcgan"),
        ("video", (1, 8, 32, 32), False, "moving-digits-gan"),
        ("video", (3, 16, 64, 64), False, "dcgan"),
        ("video", (3, 6, 12, 20), False, "dcgan"),  # no patches of 2×8×8
        ("voxels", (1, 16, 16, 16), False, "solids-gan"),
        ("voxels", (1, 20, 20, 20), False, "solids-gan"),
        ("voxels", (1, 64, 64, 64), False, "dcgan"),
        ("voxels", (1, 5, 7, 9), False, "article-gan"),
        ("image", (4, 7, 7), True, "latent-digits"),
        ("image", (4, 32, 32), True, "r3gan-latent256"),
        ("voxels", (2, 4, 8, 8), True, "solids-gan"),
    ],
)
def test_the_preset_that_is_suggested_fits_the_samples(
    modality: str, dims: tuple[int, ...], latents: bool, preset: str
) -> None:
    assert suggested_preset(index(modality, *dims), latents) == preset


def test_held_out_latents_are_named_beside_those_that_are_trained_on() -> None:
    line = train_line(Store("/latents/train"), index("image", 4, 7, 7), Store("/latents/val"), latents=True)
    assert line.endswith("latent-digits --data /latents/train --data.validation /latents/val")
