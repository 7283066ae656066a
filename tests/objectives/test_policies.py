"""DiffAugment's policies: the distribution of each part, their order, their shares, and derivatives of both orders."""

from collections import Counter

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from imagegen_dist.objectives.augment import Augmentation, AugmentConfig, augment
from imagegen_dist.objectives.base import Draw
from imagegen_dist.objectives.policies import shares_of

ALL = ("color", "translation", "cutout")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(1), dtype=torch.float64)


def apply(policy: tuple[str, ...], x: torch.Tensor, p: float = 1.0) -> torch.Tensor:
    return augment(x, p, AugmentConfig(policy=policy), seeded())


def is_uniform(values: torch.Tensor, low: float, high: float) -> bool:
    """By the largest distance from the distribution function (Kolmogorov and Smirnov, p about 1e-3)."""
    ordered = ((values - low) / (high - low)).sort().values
    steps = torch.arange(1, len(values) + 1, dtype=values.dtype) / len(values)
    return bool((ordered - steps).abs().max() < 1.95 / len(values) ** 0.5)


def of_each(values: torch.Tensor) -> torch.Tensor:
    """The number of each sample, checked to be the same at each of its places."""
    flat = values.flatten(1)
    torch.testing.assert_close(flat, flat[:, :1].expand_as(flat))
    return flat[:, 0]


def test_brightness_adds_up_to_a_half() -> None:
    x = noise(500, 3, 4, 4)
    assert is_uniform(of_each(apply(("brightness",), x) - x), -0.5, 0.5)


def test_saturation_scales_chroma_by_up_to_2_and_keeps_grey() -> None:
    x = noise(500, 3, 4, 4)
    y = apply(("saturation",), x)
    torch.testing.assert_close(y.mean(1), x.mean(1))
    assert is_uniform(of_each((y - y.mean(1, keepdim=True)) / (x - x.mean(1, keepdim=True))), 0, 2)


def test_contrast_scales_by_a_half_to_one_and_a_half_about_the_mean_of_the_sample() -> None:
    x = noise(500, 3, 4, 4)
    y, of_sample = apply(("contrast",), x), (1, 2, 3)
    torch.testing.assert_close(y.mean(of_sample), x.mean(of_sample))
    factor = (y - y.mean(of_sample, keepdim=True)) / (x - x.mean(of_sample, keepdim=True))
    assert is_uniform(of_each(factor), 0.5, 1.5)


def test_translation_moves_by_each_whole_number_of_pixels_equally_often_and_fills_with_0() -> None:
    x = noise(1, 1, 16, 8).expand(1500, -1, -1, -1)
    y = apply(("translation",), x)
    padded = torch.nn.functional.pad(x[0, 0], (1, 1, 2, 2))
    moves = {(row, column): padded[row : row + 16, column : column + 8] for row in range(5) for column in range(3)}
    found = Counter(next(move for move, moved in moves.items() if torch.equal(moved, sample[0])) for sample in y)
    assert found.keys() == moves.keys()
    assert max(abs(count - 100) for count in found.values()) < 40  # four deviations


def test_cutout_clears_half_the_extents_about_a_centre_that_may_lie_at_an_edge() -> None:
    y = apply(("cutout",), torch.ones(4500, 2, 8, 8, dtype=torch.float64))
    rows = Counter((sample[0] == 0).any(1).sum().item() for sample in y)
    # Offsets 0 to 8 of a window of 4 in 8 rows.
    assert rows.keys() == {2, 3, 4}
    assert [rows[count] / 500 for count in (2, 3, 4)] == pytest.approx([2, 2, 5], abs=0.35)
    for sample in y[:50]:
        cleared = sample[0] == 0
        assert torch.equal(cleared, cleared.any(1)[:, None] & cleared.any(0))
        assert torch.equal(sample[0], sample[1])


def test_all_parts_come_in_their_order() -> None:
    x = noise(200, 3, 8, 8)
    augmentation = Augmentation(AugmentConfig(policy=ALL))
    drawn = augmentation.draw(x, 1.0, Draw(0, seeded()))
    assert drawn is not None
    transform = augmentation.transform(drawn, x)
    amounts = drawn.policy.centred[:, :3, None, None, None]
    y = x + amounts[:, 0]
    grey = y.mean(1, keepdim=True)
    y = (y - grey) * (2 * amounts[:, 1] + 1) + grey
    mean = y.mean((1, 2, 3), keepdim=True)
    y = (y - mean) * (amounts[:, 2] + 1) + mean
    y = transform._replace(colour=None, added=None, pull=None).apply(y)
    torch.testing.assert_close(transform.apply(x), y)
    assert (y == 0).double().mean() > 0.2


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channel_counts_are_coloured_too(channels: int) -> None:
    x = noise(64, channels, 4, 4)
    y = apply(("color",), x)
    # A single channel has no chroma: one factor for each sample.
    factor = (y - y.mean((1, 2, 3), keepdim=True)) / (x - x.mean((1, 2, 3), keepdim=True))
    assert (channels == 1) == bool((factor.flatten(1).std(1) < 1e-9).all())


@pytest.mark.parametrize(("policy", "p", "expected"), [(("cutout:0.5",), 0.6, 0.3), (("color", "color:0.2"), 1, 0.488)])
def test_parts_are_applied_with_p_times_their_shares(policy: tuple[str, ...], p: float, expected: float) -> None:
    x = 2 + noise(4000, 3, 4, 4).abs()
    struck = ((apply(policy, x, p) - x).abs().flatten(1).amax(1) > 1e-9).double().mean().item()
    assert struck == pytest.approx(expected, abs=0.03)


def test_shares_by_name() -> None:
    assert shares_of(("color", "brightness:0", "cutout:.25")) == {
        "brightness": 0.0,
        "saturation": 1.0,
        "contrast": 1.0,
        "cutout": 0.25,
    }


@pytest.mark.parametrize("word", ["colour", "cutout:2", "cutout:much", "", "cutout:nan"])
def test_names_and_shares_that_there_are_not_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"set --objective\.augment\.policy to some of color, brightness"):
        AugmentConfig(policy=("translation", word))


def test_frames_of_a_video_are_transformed_alike() -> None:
    frame = noise(4, 3, 8, 8)
    video = frame[:, :, None].expand(-1, -1, 5, -1, -1)
    torch.testing.assert_close(apply(ALL, video), apply(ALL, frame)[:, :, None].expand_as(video))


@pytest.mark.parametrize("shape", [(3, 3, 4, 4), (2, 1, 2, 4, 3)])
def test_derivatives_of_first_and_second_order(shape: tuple[int, ...]) -> None:
    x = noise(*shape).requires_grad_()
    assert gradcheck(lambda x: apply(ALL, x, 0.9), (x,))
    assert gradgradcheck(lambda x: apply(ALL, x, 0.9).pow(3), (x,))
