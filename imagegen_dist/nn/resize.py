"""Resizing as evaluation protocols define it: metrics depend on the filter, so that each protocol names its own."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_like_tensorflow(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear as in TensorFlow 1, whose Inception network is FID's: [B, C, *S] -> [B, C, *size].

    Output position i reads input i * S / size, without a half-pixel offset and without antialiasing; the last input is
    repeated beyond the edge.
    """
    for axis in range(x.ndim - 1, 1, -1):
        before, after = x.shape[axis], size[axis - 2]
        at = torch.arange(after, dtype=x.dtype, device=x.device) * torch.tensor(before / after, dtype=torch.float32)
        low = at.long()
        near, far = x.index_select(axis, low), x.index_select(axis, (low + 1).clamp_max(before - 1))
        fraction = (at - low).reshape(-1, *[1] * (x.ndim - 1 - axis))
        x = near + (far - near) * fraction
    return x


def resize_bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic with antialiasing when it downsamples, as Pillow's (a = -1/2): [B, C, H, W] -> [B, C, *size]."""
    return F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)
