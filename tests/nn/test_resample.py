"""Resampling against scipy, on constants, as transposes of one another, and under double differentiation."""

import numpy as np
import pytest
import torch
from scipy import signal
from torch.autograd import gradcheck, gradgradcheck

from imagegen_dist.nn.resample import downsample, upsample

TAPS = np.array([1.0, 3.0, 3.0, 1.0])


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_fir_upsample_equals_scipy(ndim):
    x = noise(1, 1, *[5] * ndim)
    expected = x[0, 0].numpy()
    for axis in range(ndim):
        expected = np.apply_along_axis(lambda line: signal.upfirdn(TAPS / 4, line, up=2)[1:-1], axis, expected)
    torch.testing.assert_close(upsample(x, "fir")[0, 0], torch.from_numpy(expected))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_fir_downsample_equals_scipy(ndim):
    x = noise(1, 1, *[6] * ndim)
    expected = x[0, 0].numpy()
    for axis in range(ndim):
        expected = np.apply_along_axis(lambda line: np.convolve(TAPS / 8, line)[2:-1:2], axis, expected)
    torch.testing.assert_close(downsample(x, "fir")[0, 0], torch.from_numpy(expected))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_fir_keeps_constants_away_from_the_edge(ndim):
    x = torch.full((2, 3, *[8] * ndim), 0.7)
    for y in (upsample(x, "fir"), downsample(x, "fir")):
        inner = y[(..., *[slice(1, -1)] * ndim)]
        torch.testing.assert_close(inner, torch.full_like(inner, 0.7))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_box_keeps_constants_and_halving_undoes_doubling(ndim):
    x = noise(2, 3, *[4] * ndim)
    assert upsample(x, "box").shape == (2, 3, *[8] * ndim)
    torch.testing.assert_close(downsample(upsample(x, "box"), "box"), x)


@pytest.mark.parametrize("kernel", ["fir", "box"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_halving_is_the_scaled_transpose_of_doubling(ndim, kernel):
    x, y = noise(1, 2, *[3] * ndim), noise(1, 2, *[6] * ndim)
    torch.testing.assert_close((upsample(x, kernel) * y).sum(), 2**ndim * (x * downsample(y, kernel)).sum())


@pytest.mark.parametrize("kernel", ["fir", "box"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("resample", [upsample, downsample])
def test_gradients_of_first_and_second_order(resample, ndim, kernel):
    x = noise(1, 2, *[2] * ndim).requires_grad_()
    assert gradcheck(resample, (x, kernel))
    assert gradgradcheck(lambda x: resample(x, kernel).pow(3), (x,))
