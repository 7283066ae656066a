import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from imagegen_dist.metrics.image_quality import dice, ms_ssim, ms_ssim_scales, psnr, ssim


def pair(shape, seed=0):
    """Two uint8 samples that are alike: smooth content, and the same with noise."""
    random = np.random.default_rng(seed)
    x = np.cumsum(random.normal(size=shape), -1)
    x = 128 + 100 * x / np.abs(x).max()
    y = x + random.normal(size=shape) * 20
    return [torch.from_numpy(part.clip(0, 255).astype(np.uint8))[None] for part in (x, y)]


def peer(x, y, data_range):
    return structural_similarity(
        x[0].numpy(),
        y[0].numpy(),
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=data_range,
    )


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 40), (1, 12, 14, 16), (2, 50)])
def test_ssim_equals_scikit_image(shape):
    x, y = pair(shape)
    assert 0.1 < float(ssim(x, y)) < 0.95
    assert float(ssim(x, y)) == pytest.approx(peer(x, y, 255), abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (1, 4, 6, 6)])
def test_psnr_equals_scikit_image(shape):
    x, y = pair(shape)
    expected = peak_signal_noise_ratio(x[0].numpy(), y[0].numpy(), data_range=255)
    assert float(psnr(x, y)) == pytest.approx(expected, abs=1e-4)


def test_samples_in_plus_minus_one_have_a_range_of_two():
    x, y = pair((3, 24, 24))
    for metric in (psnr, ssim):
        torch.testing.assert_close(metric(x.float() / 127.5, y.float() / 127.5), metric(x, y))
    scaled = [part.float() / 127.5 - 1 for part in (x, y)]
    assert float(ssim(*scaled)) == pytest.approx(peer(*scaled, 2), abs=1e-6)
    torch.testing.assert_close(psnr(*scaled), psnr(x, y))


def test_another_range_can_be_given():
    x, y = pair((1, 20, 20))
    for metric in (psnr, ssim):
        torch.testing.assert_close(metric(x / 255, y / 255, data_range=1.0), metric(x, y))


def test_equal_samples_have_similarity_one_and_infinite_ratio():
    x, _ = pair((3, 16, 16))
    assert ssim(x, x).tolist() == [1.0]
    assert psnr(x, x).tolist() == [float("inf")]


def test_closed_form_of_constant_samples():
    x, y = torch.full((1, 1, 11, 11), 0.6), torch.full((1, 1, 11, 11), 0.2)
    assert float(psnr(x, y)) == pytest.approx(20 * np.log10(2 / 0.4), abs=1e-4)
    c1 = (0.01 * 2) ** 2
    assert float(ssim(x, y)) == pytest.approx((2 * 0.6 * 0.2 + c1) / (0.36 + 0.04 + c1), abs=1e-6)


def test_every_sample_has_its_own_value():
    pairs = [pair((1, 16, 16), seed) for seed in range(3)]
    x, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    for metric in (psnr, ssim):
        values = metric(x, y)
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, torch.cat([metric(*one) for one in pairs]))
        assert len(set(values.tolist())) == 3


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 8\) and .* \(1, 1, 9, 9\) cannot be compared"):
        psnr(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 9, 9))
    with pytest.raises(ValueError, match="the same shape and dtype"):
        ssim(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(1, 8, 28\); SSIM needs 1 to 3 axes of at least 11 pixels"):
        ssim(torch.zeros(1, 1, 8, 28), torch.zeros(1, 1, 8, 28))
    with pytest.raises(ValueError, match="data_range is 0; it must be positive"):
        psnr(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), data_range=0)


@pytest.mark.parametrize("spatial", [(48,), (44, 50), (44, 45, 46)])
def test_ms_ssim_is_1_of_equals_falls_with_noise_and_takes_what_scales_fit(spatial):
    x = torch.rand(2, 1, *spatial, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    assert ms_ssim_scales(spatial) == 3
    torch.testing.assert_close(ms_ssim(x, x, scales=3), torch.ones(2))
    less, more = (ms_ssim(x, x + deviation * noise, scales=3) for deviation in (0.1, 0.5))
    assert (more < less).all()
    assert (less < 1).all()
    with pytest.raises(ValueError, match="MS-SSIM takes 2 to 3 scales of them, not 5"):
        ms_ssim(x, x)


def test_ms_ssim_of_two_scales_is_the_weighted_product_of_both():
    x = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    y = (x + 0.2).clamp(-1, 1)
    coarse = [torch.nn.functional.avg_pool2d(each, 2) for each in (x, y)]
    fine, weight = 0.0448, 0.2856
    constant = torch.zeros_like(x)
    assert ms_ssim(constant, constant + 0.5, scales=2) < 1  # luminance, at the coarsest scale
    found = ms_ssim(x, y, scales=2)
    assert float(ssim(*coarse)) ** (weight / (fine + weight)) >= float(found)


def test_dice_is_twice_the_overlap_over_the_sum():
    x, y = torch.full((2, 1, 4, 4, 4), -1.0), torch.full((2, 1, 4, 4, 4), -1.0)
    x[0, 0, :2], y[0, 0, 1:3] = 1, 1
    torch.testing.assert_close(dice(x, y), torch.tensor([0.5, 1.0]))
