"""An encoder trained on generated pairs: a small network from a sample to the latents and label that it was made from.

It draws latents and labels, generates their samples, and learns two things. What it returns must generate the sample
again: many latents make nearly the same sample, so that z alone cannot be regressed. And, with a small weight, it must
be the z and the label that were drawn, which keeps latents where the prior has them. No data are needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, log, pi, prod, sqrt
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagegen_dist.inference.sought import CLASS_LOGIT, generate, hold_conditions_, hold_length_
from imagegen_dist.nn.conv import Conv, Linear
from imagegen_dist.shape import SampleShape

if TYPE_CHECKING:
    from imagegen_dist.inference.model import Model

SEED = 2**63 + 2**61
"""Of the pairs' latents and of the network's first weights: no user's."""

_WIDTHS = (32, 64, 128)
_HIDDEN = 512
_SMALLEST = 8  # an axis with more positions is halved
_LEARNING_RATE = 2e-3
_WARM_UP = 0.1  # the share of the steps over which the learning rate rises
_SAMPLE_WEIGHT, _DRAWN_WEIGHT = 10.0, 0.1


@dataclass(frozen=True)
class PairTraining:
    """How the encoder is trained.

    pairs: that are generated. batch: pairs a step. timeout_s: seconds after which training gives up.
    """

    pairs: int = 16_000
    batch: int = 32
    timeout_s: float = 1800.0

    @property
    def steps(self) -> int:
        """Steps of Adam, at least one."""
        return max(1, self.pairs // self.batch)


class PairEncoder(nn.Module):
    """Samples [B, C, *S] in [-1, 1] -> z [B, prod(drawn_dims)] and logits of classes, or conditions, [B, K]."""

    def __init__(self, shape: SampleShape, latents: int, told: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(SEED % 2**63)
        extents, channels, layers, stage = list(shape.spatial), shape.channels, list[nn.Module](), 0
        while stage == 0 or max(extents) > _SMALLEST:
            strides = tuple(2 if extent > _SMALLEST else 1 for extent in extents)
            width = _WIDTHS[min(stage, len(_WIDTHS) - 1)]
            layers += [_conv(len(extents), channels, width, strides, generator), nn.GELU()]
            extents = [-(-extent // stride) for extent, stride in zip(extents, strides, strict=True)]
            channels, stage = width, stage + 1
        layers += [_conv(len(extents), channels, channels, 1, generator), nn.GELU(), nn.Flatten()]
        layers += [Linear(channels * prod(extents), _HIDDEN, bias=True, gain=sqrt(2), generator=generator), nn.GELU()]
        layers += [Linear(_HIDDEN, latents + told, bias=True, generator=generator)]
        self.layers, self.latents = nn.Sequential(*layers), latents

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        found = self.layers(samples)
        return found[:, : self.latents], found[:, self.latents :]


def _conv(ndim: int, channels: int, width: int, stride: int | tuple[int, ...], generator: torch.Generator) -> Conv:
    return Conv(ndim, channels, width, 3, stride, padding=1, bias=True, gain=sqrt(2), generator=generator)


def new_encoder(model: Model) -> PairEncoder:
    """The untrained encoder of a model, on the CPU. Raises ValueError if the model's latents are codes."""
    if not model.gaussian:
        raise ValueError("this model's latents are codes, which an encoder of pairs cannot find: use encode")
    return PairEncoder(model.shape, prod(model.drawn_dims), model.label_width)


def train_encoder(
    model: Model,
    training: PairTraining | None = None,
    tell: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> PairEncoder:
    """Train the encoder of a model on pairs that the model generates: the same one each time.

    tell: is told of each further number of pairs. clock: seconds from any moment on. Raises ValueError if the model's
    latents are codes, and TimeoutError with what to change if training takes longer than its time limit.
    """
    training = training or PairTraining()
    encoder = new_encoder(model).to(model.device)
    optimiser = torch.optim.Adam(encoder.parameters(), _LEARNING_RATE)
    began = clock()
    for step in range(training.steps):
        for group in optimiser.param_groups:
            group["lr"] = _LEARNING_RATE * _rate((step + 1) / training.steps)
        z, label = _drawn(model, step * training.batch, training.batch)
        optimiser.zero_grad(set_to_none=True)
        _loss(model, encoder, z, label).backward()
        optimiser.step()
        if tell is not None:
            tell(training.batch)
        if clock() - began > training.timeout_s:
            done = (step + 1) * training.batch
            raise TimeoutError(
                f"the encoder saw {done:,} of {training.steps * training.batch:,} pairs in {training.timeout_s / 60:g} "
                "minutes: give it more minutes, or fewer pairs"
            )
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def first_guess(model: Model, encoder: PairEncoder, target: Tensor) -> tuple[Tensor, Tensor]:
    """(z [B, Z, *s] within the prior's length, logits of classes or conditions [B, K]) of samples in [-1, 1]."""
    flat, free = encoder(target)
    z = flat.reshape(-1, *model.drawn_dims).clone()
    hold_length_(z, sqrt(prod(model.drawn_dims)))
    free = free.clone()
    if model.conditions is not None:
        hold_conditions_(free, model.conditions)
    elif model.classes:
        # A class whose weight is nearly 0 has no gradient, so that a search could never come back to it.
        free = (free - free.amax(1, keepdim=True)).clamp_min(-CLASS_LOGIT - log(model.classes))
    return z, free


def _rate(share: float) -> float:
    """The factor of the learning rate after a share of the steps: it rises, and then falls as a cosine."""
    return share / _WARM_UP if share < _WARM_UP else (1 + cos(pi * (share - _WARM_UP) / (1 - _WARM_UP))) / 2


def _drawn(model: Model, start: int, count: int) -> tuple[Tensor, Tensor | None]:
    """Draws of the prior [B, Z, *s] and labels as `labels` returns them, of the pairs from `start` on."""
    if model.classes and model.conditions is None:
        label = model.labels(count, [number % model.classes for number in range(start, start + count)])
    else:
        label = model.labels(count, seed=start)
    return model.latents(count, SEED, start).to(model.device), None if label is None else label.to(model.device)


def _loss(model: Model, encoder: PairEncoder, z: Tensor, label: Tensor | None) -> Tensor:
    with torch.no_grad():
        samples = generate(model, z, label)
    flat, free = encoder(samples)
    length = flat.norm(dim=1, keepdim=True).clamp_min(1e-12)
    held = flat * (sqrt(flat.shape[1]) / length).clamp_max(1)
    told = None if label is None else free.softmax(1) if model.conditions is None else free
    again = generate(model, held.reshape_as(z), told)
    drawn = F.mse_loss(flat, z.flatten(1))
    if label is not None:
        drawn = drawn + (F.cross_entropy(free, label) if model.conditions is None else F.mse_loss(free, label))
    return _SAMPLE_WEIGHT * F.mse_loss(again, samples) + _DRAWN_WEIGHT * drawn
