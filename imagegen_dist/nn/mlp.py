"""Fully connected hidden layers."""

from collections.abc import Callable
from itertools import pairwise
from math import sqrt

import torch
from torch import nn

from imagegen_dist.nn.conv import Linear

# Gain that preserves the second moment through a ReLU.
RELU_GAIN = sqrt(2)


def mlp(
    widths: tuple[int, ...],
    activation: Callable[[], nn.Module] = nn.ReLU,
    gain: float = RELU_GAIN,
    *,
    generator: torch.Generator,
) -> nn.Sequential:
    """[B, widths[0]] -> [B, widths[-1]]: a linear layer between consecutive widths, each followed by the activation.

    gain: weights are initialised from N(0, gain² / inputs) with `generator`. A single width gives the identity.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [Linear(inputs, outputs, bias=True, gain=gain, generator=generator), activation()]
    return nn.Sequential(*layers)
