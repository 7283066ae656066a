"""The order in memory of samples' and convolutions' axes: channels before positions, or positions before channels.

Tensor cores take positions before channels; with the other order, cuDNN may transpose before and after a convolution.
Results differ by rounding alone.
"""

from __future__ import annotations

import torch
from torch import nn

_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def memory_format(ndim: int, channels_last: bool) -> torch.memory_format:
    """The format of samples with so many spatial axes; with one axis, PyTorch has no other than the plain one."""
    return _CHANNELS_LAST.get(ndim, torch.contiguous_format) if channels_last else torch.contiguous_format


def lay_out_(network: nn.Module, layout: torch.memory_format) -> None:
    """Lay out the weights of a network's convolutions in place; copies and optimizer states made later follow them."""
    ndim = next((axes for axes, known in _CHANNELS_LAST.items() if known is layout), None)
    if ndim is None:
        return
    for weight in network.parameters():
        if weight.ndim == ndim + 2:
            weight.data = weight.data.contiguous(memory_format=layout)
