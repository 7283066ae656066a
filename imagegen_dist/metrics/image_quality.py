"""PSNR, SSIM, MS-SSIM and Dice of reconstructions and their originals, one value per sample."""

from collections.abc import Sequence

import torch
from torch import Tensor

from imagegen_dist.nn.convolve import convolve
from imagegen_dist.nn.resample import downsample

_TAPS = 11
_SIGMA = 1.5
_K1 = 0.01
_K2 = 0.03
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents, from the finest scale on
_RANGES = {torch.uint8: 255, torch.uint16: 65535}


def psnr(x: Tensor, y: Tensor, data_range: float | None = None) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(range² / mean squared error), in dB: [B, C, *S] twice -> [B] float32.

    data_range: largest minus smallest possible value of a pixel; by default 255 for uint8, 65535 for uint16, and 2, of
    [-1, 1], for floats. inf if both are equal. Raises ValueError for unequal shapes or dtypes.
    """
    x, y = _scaled(x, y, data_range)
    return (-10 * (x - y).square().flatten(1).mean(1).log10()).float()


def ssim(x: Tensor, y: Tensor, data_range: float | None = None) -> Tensor:
    """Structural similarity, averaged over channels and window positions: [B, C, *S] twice -> [B] float32.

    A Gaussian window of 11 pixels per axis, σ = 1.5, K1 = 0.01, K2 = 0.03, population variances, and no padding; S has
    one to three axes. data_range as for `psnr`. Raises ValueError also if an axis is shorter than the window.
    (Wang et al., IEEE Transactions on Image Processing 13 (4), 2004, Eq. 13)
    """
    x, y = _scaled(x, y, data_range)
    if not 1 <= x.ndim - 2 <= 3 or min(x.shape[2:]) < _TAPS:
        raise ValueError(f"samples have shape {tuple(x.shape[1:])}; SSIM needs 1 to 3 axes of at least {_TAPS} pixels")
    luminance, contrast = _similarity(x, y)
    return (luminance * contrast).flatten(1).mean(1).float()


def ms_ssim(x: Tensor, y: Tensor, data_range: float | None = None, scales: int = len(_SCALES)) -> Tensor:
    """Multi-scale structural similarity, averaged over channels: [B, C, *S] twice -> [B] float32.

    Contrast and structure at every scale, each half as fine as the one before, and luminance at the coarsest; with the
    published exponents of five scales, or those of the finest ones divided by their sum. Negative similarities count as
    0. data_range and errors as for `ssim`; raises ValueError also if an axis is too short for so many scales.
    (Wang et al., Asilomar Conference on Signals, Systems and Computers, 2003, Eq. 7)
    """
    x, y = _scaled(x, y, data_range)
    if not 2 <= scales <= (fit := ms_ssim_scales(x.shape[2:])):
        raise ValueError(
            f"samples have shape {tuple(x.shape[1:])}: MS-SSIM takes 2 to {fit} scales of them, not {scales}; "
            f"every axis needs {_TAPS} pixels at the coarsest"
        )
    exponents, result = [each / sum(_SCALES[:scales]) for each in _SCALES[:scales]], x.new_ones(x.shape[:2])
    for scale, exponent in enumerate(exponents):
        luminance, contrast = _similarity(x, y)
        similarity = luminance * contrast if scale == scales - 1 else contrast
        result = result * similarity.flatten(2).mean(2).clamp(min=0) ** exponent
        x, y = downsample(x, "box"), downsample(y, "box")
    return result.mean(1).float()


def ms_ssim_scales(spatial: Sequence[int]) -> int:
    """How many scales MS-SSIM takes of samples of this extent, at most five; fewer than 2: it is not available."""
    shortest, scales = min(spatial), 0
    while shortest >= _TAPS and scales < len(_SCALES):
        shortest, scales = shortest // 2, scales + 1
    return scales


def dice(x: Tensor, y: Tensor) -> Tensor:
    """Twice the overlap over the sum of both segments, averaged over channels: [B, C, *S] in [-1, 1] -> [B] float32.

    A segment is where a channel is above 0; of two empty ones, the value is 1. (Dice, Ecology 26 (3), 1945)
    """
    a, b = (x > 0).flatten(2), (y > 0).flatten(2)
    overlap, total = (a & b).sum(2), a.sum(2) + b.sum(2)
    return torch.where(total > 0, 2 * overlap / total.clamp(min=1), 1.0).mean(1).float()


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast with structure, at every window position."""
    mean_x, mean_y, square_x, square_y, product = _windowed(torch.stack([x, y, x * x, y * y, x * y]))
    variances = square_x - mean_x.square() + square_y - mean_y.square()
    covariance = product - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _K1**2) / (mean_x.square() + mean_y.square() + _K1**2)
    return luminance, (2 * covariance + _K2**2) / (variances + _K2**2)


def _scaled(x: Tensor, y: Tensor, data_range: float | None) -> tuple[Tensor, Tensor]:
    """Both as float64, divided by the range: the variances are small differences of large means."""
    if x.shape != y.shape or x.dtype != y.dtype:
        raise ValueError(
            f"{x.dtype} {tuple(x.shape)} and {y.dtype} {tuple(y.shape)} cannot be compared: "
            "samples of the same shape and dtype are expected"
        )
    if data_range is None:
        data_range = _RANGES.get(x.dtype, 2)
    if not data_range > 0:
        raise ValueError(f"data_range is {data_range}; it must be positive")
    return x.double() / data_range, y.double() / data_range


def _windowed(maps: Tensor) -> Tensor:
    """Gaussian means at every position with the whole window inside: [M, B, C, *S] -> [M, B, C, *S - 10]."""
    ndim = maps.ndim - 3
    offsets = torch.arange(_TAPS, dtype=maps.dtype, device=maps.device) - _TAPS // 2
    taps = torch.softmax(-offsets.square() / (2 * _SIGMA**2), 0)
    means = maps.flatten(0, 2).unsqueeze(1)
    for axis in range(ndim):
        weight = taps.view([1, 1, *(_TAPS if axis == other else 1 for other in range(ndim))])
        means = convolve(means, weight, stride=(1,) * ndim, padding=(0,) * ndim)
    return means.view(*maps.shape[:3], *means.shape[2:])
