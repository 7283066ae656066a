"""Strides of single axes between stages, as settings give them."""

from functools import partial
from typing import Any

import pytest
import torch

from imagegen_dist import config
from imagegen_dist.models import dcgan
from imagegen_dist.models.conv_vae import ConvVAEConfig
from imagegen_dist.models.dcgan import DCGANConfig
from imagegen_dist.models.ladder_vae import LadderVAEConfig
from imagegen_dist.models.r3gan import Discriminator, Generator, R3GANConfig
from imagegen_dist.models.res_vae import ResVAEConfig
from imagegen_dist.nn.resample import downsample, upsample
from imagegen_dist.nn.strides import check_strides, extents_upward, lowest_extent, strides_of
from imagegen_dist.presets import PRESETS
from imagegen_dist.shape import SampleShape

CLIP = SampleShape(1, (4, 16, 16))
FAMILIES: dict[str, tuple[Any, int]] = {
    "convolutional": (ConvVAEConfig(channels=(4, 4), kernels=(4, 2), strides=("1x2x2", "2")), 2),
    "residual": (ResVAEConfig(channels=4, multipliers=(1, 1, 2), attention=False, strides=("1x2x2",)), 4),
    "ladder": (LadderVAEConfig((4,), (3,), (8,), (2,), strides=("1x2x2",)), 4),
}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_an_entry_for_all_steps_or_one_for_each():
    assert strides_of(("2",), 2, 3) == [(2, 2, 2), (2, 2, 2)]
    assert strides_of(("1x2x2", "2"), 2, 3) == [(1, 2, 2), (2, 2, 2)]
    assert strides_of(("2",), 0, 2) == []


def test_extents_between_the_lowest_and_the_sample():
    steps = [(2, 2, 2), (1, 2, 2)]
    lowest = lowest_extent(CLIP, steps, "strides", "change them")
    assert lowest == (2, 4, 4)
    assert extents_upward(lowest, steps) == [(2, 4, 4), (4, 8, 8), (4, 16, 16)]
    with pytest.raises(ValueError, match=r"\(4, 16, 16\) is not divisible by 8 × 2 × 2 = strides: change them"):
        lowest_extent(CLIP, [(8, 2, 2)], "strides", "change them")


@pytest.mark.parametrize("strides", [("3",), ("1x2",), ("2", "2"), (), ("2x",)])
def test_other_strides_are_refused_in_one_line(strides):
    def steps() -> list[tuple[int, ...]]:
        check_strides(strides, 3)
        return strides_of(strides, 3, 3)

    with pytest.raises(ValueError, match=r"by --model\.strides") as error:
        steps()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kernel", ["fir", "box"])
def test_an_axis_of_stride_1_is_not_filtered(kernel):
    x = torch.randn(2, 3, 4, 6, generator=seeded(), dtype=torch.float64)
    rows = x.transpose(1, 2).flatten(0, 1)  # [B · 4, C, 6]
    for resample in (upsample, downsample):
        whole = resample(x, kernel, (1, 2))
        torch.testing.assert_close(whole.transpose(1, 2).flatten(0, 1), resample(rows, kernel))
        assert resample(x, kernel, (1, 1)) is x


@pytest.mark.parametrize("family", FAMILIES)
def test_autoencoders_keep_time_as_their_strides_say(family):
    settings, time = FAMILIES[family]
    encoder, decoder = settings.parts().values()
    raw = encoder(CLIP, 0, settings, parameters=1, generator=seeded())(torch.zeros(2, *CLIP.dims))
    if family == "ladder":
        assert [tuple(level.shape[2:]) for level in raw] == [(), (4, 8, 8)]
        raw = partial(lambda levels, level, _: levels[level], raw)
    elif family == "residual":
        assert raw.shape[2:] == (time, 4, 4)
    else:
        assert settings.base(CLIP) == (time, 4, 4)
    assert decoder(CLIP, 0, settings, outputs=1, generator=seeded())(raw).shape == (2, *CLIP.dims)


def test_a_gan_keeps_time_by_strides_and_patches():
    settings = R3GANConfig(
        widths=(8, 8),
        group_channels=0,
        strides=("1x2x2",),
        patch=(2, 4, 4),
        patch_kernel=(2, 6, 8),
        pixel_channels=2,
        pixel_kernel=(1, 3, 3),
    )
    generator = Generator(CLIP, 0, settings, generator=seeded())
    discriminator = Discriminator(CLIP, 0, settings, generator=seeded())
    assert tuple(generator.basis.shape[1:]) == (2, 2, 2)
    assert discriminator.reduce.kernel == (2, 2, 2)
    assert discriminator(generator(torch.zeros(2, 64))).shape == (2,)
    with pytest.raises(ValueError, match=r"3 entries for 2 spatial axes: give one per axis by --model\.\w+"):
        Generator(SampleShape(1, (16, 16)), 0, settings, generator=seeded())


def test_a_dcgan_halves_space_as_often_as_its_stages_and_keeps_time():
    settings = DCGANConfig(widths=(16, 8, 4), z_dim=8, strides=("1x2x2", "1x2x2", "2"))
    assert settings.stages(CLIP) == ((16, 8, 4), (2, 2, 2))
    # The stages in use are those next to the sample.
    assert settings.stages(SampleShape(1, (4, 4, 4))) == ((8, 4), (2, 1, 1))
    generator = dcgan.Generator(CLIP, 0, settings, generator=seeded())
    discriminator = dcgan.Discriminator(CLIP, 0, settings, generator=seeded())
    assert discriminator(generator(torch.zeros(2, 8))).shape == (2,)


def test_one_number_for_all_axes_or_one_for_each_as_text_and_in_json():
    digits = PRESETS["digits"].experiment
    moving = config.overrides(digits, [("model.patch", "2,8,8"), ("model.patch-kernel", "2,14,14")])
    assert moving.model.patch == (2, 8, 8)
    assert config.decode(type(digits), config.encode(moving)) == moving
    for one in ("7", 7, [7]):
        assert config.override(digits, "model.patch", one) == digits
    with pytest.raises(config.ConfigError, match=r"model\.patch: 'x' is not a number"):
        config.override(digits, "model.patch", "2,x")
    old = config.encode(digits)
    del old["model"]["strides"], old["model"]["pixel_kernel"]
    assert config.decode(type(digits), old) == digits
