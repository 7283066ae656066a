"""Gradients of both phases of a GAN: with plain PyTorch's convolutions, and compiled, on weights that have moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imagegen_dist.models import dcgan, r3gan
from imagegen_dist.models.dcgan import DCGANConfig
from imagegen_dist.models.r3gan import R3GANConfig
from imagegen_dist.nn import compiling, conv, resample
from imagegen_dist.objectives.augment import AugmentConfig
from imagegen_dist.objectives.base import Batch, Draw
from imagegen_dist.objectives.gan import GAN, GANConfig
from imagegen_dist.schedule import constant
from imagegen_dist.shape import SampleShape

SHAPES = {1: SampleShape(2, (8,)), 2: SampleShape(3, (8, 8)), 3: SampleShape(1, (4, 8, 4))}
R3GAN = (r3gan, R3GANConfig(widths=(8, 16), group_channels=4, z_dim=4, embed_dim=4))
NAMED = AugmentConfig(policy=("color", "translation", "cutout"), flip_depth=1.0, translate_depth=1.0)
DCGAN = (dcgan, DCGANConfig(widths=(8, 4), z_dim=4, embed_dim=4))


def gradients(
    family: Any,
    shape: SampleShape,
    config: GANConfig,
    dtype: torch.dtype,
    compiled: Callable[..., Any] = lambda function: function,
) -> list[Tensor]:
    """Of every weight in both phases. The weights are away from zero: behind one, no gradient would pass."""
    module, settings = family
    seed = torch.Generator().manual_seed(0)
    networks = [cls(shape, 3, settings, generator=seed) for cls in (module.Generator, module.Discriminator)]
    with torch.no_grad():
        for network in networks:
            network.to(dtype)
            for weight in network.parameters():
                weight += 0.2 * torch.randn(weight.shape, generator=seed).to(dtype)
    game = GAN(*networks, config, compiled)
    sample = torch.randn(4, *shape.dims, generator=seed).to(dtype).clamp(-1, 1)
    found = []
    for phase in game.phases():
        for network in networks:
            network.requires_grad_(network is phase.trains)
        loss, _ = phase.loss(Batch(sample, torch.tensor([0, 1, 2, 0])), Draw(0, torch.Generator().manual_seed(1)))
        found += torch.autograd.grad(loss, list(phase.trains.parameters()))
    return found


def worst(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference, relative to the largest value of the same gradient; some are exactly 0 on both sides."""
    pairs = zip(ours, theirs, strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp_min(1e-6)).item() for a, b in pairs)


def plain(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, transposed: bool = False, **form: Any) -> Tensor:
    """The same by torch.nn.functional, with PyTorch's own derivatives."""
    name = f"conv_transpose{x.ndim - 2}d" if transposed else f"conv{x.ndim - 2}d"
    return getattr(F, name)(x, weight, bias, **form)


@pytest.mark.parametrize("ndim", SHAPES)
@pytest.mark.parametrize("family", [R3GAN, DCGAN], ids=["r3gan", "dcgan"])
def test_gradients_of_both_phases_are_those_of_pytorchs_convolutions(monkeypatch, family, ndim):
    config = GANConfig(gamma=constant(0.7), augment_p=constant(0.6 if ndim > 1 else 0.0))
    ours = gradients(family, SHAPES[ndim], config, torch.float64)
    for module in (conv, resample):
        monkeypatch.setattr(module, "convolve", plain)
    theirs = gradients(family, SHAPES[ndim], config, torch.float64)
    assert sum(gradient.abs().max() > 1e-3 for gradient in theirs) > len(theirs) / 2
    assert worst(ours, theirs) < 1e-12


@pytest.mark.parametrize(
    ("ndim", "config"),
    [
        (2, GANConfig(gamma=constant(0.7), augment_p=constant(0.6))),
        (
            3,
            GANConfig(
                penalty="r1", loss="non-saturating", augment_p=constant(0.6), adaptive_augment=0.3, augment=NAMED
            ),
        ),
        (1, GANConfig(penalty="wgan-gp", loss="wasserstein")),
    ],
    ids=["r1+r2, augmented", "r1, policies and depth", "wgan-gp"],
)
def test_a_compiled_loss_is_one_graph_with_the_gradients_of_the_eager_one(ndim, config):
    widths = (8, 8) if ndim == 2 else (8,)
    small = (r3gan, R3GANConfig(widths=widths, blocks_per_stage=1, group_channels=4, z_dim=4, embed_dim=4))
    expected = gradients(small, SHAPES[ndim], config, torch.float32)
    found = gradients(small, SHAPES[ndim], config, torch.float32, lambda f: compiling.compiled(f, "aot_eager"))
    assert worst(found, expected) < 1e-5
