"""Twice differentiable augmentation of real and generated samples (StyleGAN2-ADA, arXiv:2006.06676, Appendix B).

Each transformation is applied to a sample with probability p times its multiplier. The geometric ones are composed into
one affine map per sample, so that a sample is resampled only once.
"""

from dataclasses import dataclass, fields
from math import pi, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

# Strengths of arXiv:2006.06676, Appendix B. Lengths are fractions of the extent; "octaves" are powers of two.
_INTEGER_TRANSLATION_MAX = 0.125
_SCALE_STD_OCTAVES = 0.2
_ROTATION_MAX = pi
_ANISOTROPY_STD_OCTAVES = 0.2
_FRACTIONAL_TRANSLATION_STD = 0.125
_BRIGHTNESS_STD = 0.2
_CONTRAST_STD_OCTAVES = 0.5
_HUE_MAX = pi
_SATURATION_STD_OCTAVES = 1.0
_CUTOUT_SIZE = 0.5


@dataclass(frozen=True)
class AugmentConfig:
    """Multipliers of p, one per transformation; 0 disables it. The defaults are R3GAN's: 1, and 0.5 for colour.

    Raises ValueError if a multiplier is outside [0, 1].
    """

    flip: float = 1.0
    """Mirror the last axis, multiplier of p."""
    rotate90: float = 1.0
    """Rotate by 0, 90, 180 or 270 degrees, multiplier of p."""
    translate_integer: float = 1.0
    """Translate by an integer number of pixels, up to 1/8 of the extent, multiplier of p."""
    scale: float = 1.0
    """Scale isotropically, multiplier of p."""
    rotate: float = 1.0
    """Rotate by any angle, multiplier of p."""
    anisotropy: float = 1.0
    """Scale one axis relative to the other, multiplier of p."""
    translate: float = 1.0
    """Translate by fractions of a pixel, multiplier of p."""
    brightness: float = 0.5
    """Add a constant, multiplier of p."""
    contrast: float = 0.5
    """Multiply by a constant, multiplier of p."""
    luma_flip: float = 0.5
    """Invert luminance, preserving colour, multiplier of p; three channels only."""
    hue: float = 0.5
    """Rotate colours about the grey axis, multiplier of p; three channels only."""
    saturation: float = 0.5
    """Scale the distance from the grey axis, multiplier of p; three channels only."""
    cutout: float = 1.0
    """Set a rectangle of half the extent to 0, multiplier of p."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                flag = field.name.replace("_", "-")
                raise ValueError(f"{field.name} {value} is outside [0, 1]; set --objective.augment.{flag}")


def augment(x: Tensor, p: float, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Augmented samples: x [B, C, *S] in [-1, 1], with two or three spatial axes -> [B, C, *S].

    p: probability in [0, 1]; 0 returns x itself. generator: the only source of randomness, on any device. Geometric
    transformations and cutout act on the last two axes and are the same along a third (all frames of a video rotate
    together). Beyond the edges the sample is mirrored. Twice differentiable in x. On CUDA, the summation order of the
    transposed resampling is not deterministic. Raises ValueError if p or the number of axes is out of range.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"augmentation probability {p} is outside [0, 1]; set --objective.augment-p")
    if x.ndim not in (4, 5):
        raise ValueError(f"augmentation needs samples with 2 or 3 spatial axes, not {x.ndim - 2}")
    if p == 0:
        return x
    draw = _Draw(len(x), p, generator)
    x = _transform_geometry(x, config, draw)
    x = _transform_colour(x, config, draw)
    return _cut_out(x, config, draw)


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """x [B, C, *S], each sample mirrored along its last axis with probability 1/2."""
    flipped = torch.rand(len(x), generator=generator, device=generator.device) < 0.5
    return torch.where(_per_sample(flipped, x), x.flip(-1), x)


class _Draw:
    """Random quantities of a batch: each draw has one value per sample, in float64 on the generator's device."""

    def __init__(self, batch: int, p: float, generator: torch.Generator) -> None:
        self.batch, self.p, self.generator = batch, p, generator

    def uniform(self) -> Tensor:
        """[B] in [-1, 1)."""
        values = torch.rand(self.batch, generator=self.generator, device=self.generator.device, dtype=torch.float64)
        return 2 * values - 1

    def normal(self) -> Tensor:
        """[B] from N(0, 1)."""
        return torch.randn(self.batch, generator=self.generator, device=self.generator.device, dtype=torch.float64)

    def strikes(self, probability: float) -> Tensor:
        """[B]: 1.0 with this probability, else 0.0."""
        return ((self.uniform() + 1) / 2 < probability).double()


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    """values [B] on x's device, reshaped to broadcast against x [B, C, *S]."""
    return values.to(x.device, non_blocking=True).view(-1, *[1] * (x.ndim - 1))


# Geometry. Coordinates are (column, row) pixels from the centre. A matrix [B, 3, 3] maps an output position to the
# input position that is read there, so that each transformation enters by its inverse, to the right of the previous
# ones.


def _affine(xx: Tensor, xy: Tensor, yx: Tensor, yy: Tensor, x0: Tensor, y0: Tensor) -> Tensor:
    """[B, 3, 3] of the map (x, y) -> (xx·x + xy·y + x0, yx·x + yy·y + y0); each argument is [B]."""
    zero, one = torch.zeros_like(xx), torch.ones_like(xx)
    return torch.stack([xx, xy, x0, yx, yy, y0, zero, zero, one], dim=-1).unflatten(-1, (3, 3))


def _translation(dx: Tensor, dy: Tensor) -> Tensor:
    zero, one = torch.zeros_like(dx), torch.ones_like(dx)
    return _affine(one, zero, zero, one, dx, dy)


def _scaling(sx: Tensor, sy: Tensor) -> Tensor:
    zero = torch.zeros_like(sx)
    return _affine(sx, zero, zero, sy, zero, zero)


def _rotation(angle: Tensor) -> Tensor:
    zero, cos, sin = torch.zeros_like(angle), angle.cos(), angle.sin()
    return _affine(cos, -sin, sin, cos, zero, zero)


def _geometry(height: int, width: int, config: AugmentConfig, draw: _Draw) -> Tensor | None:
    """[B, 3, 3]: the composition of all geometric transformations; None if every multiplier is 0."""
    inverses: list[Tensor] = []
    p = draw.p
    if config.flip:
        sign = 1 - 2 * draw.strikes(0.5) * draw.strikes(config.flip * p)
        inverses.append(_scaling(sign, torch.ones_like(sign)))
    if config.rotate90:
        quarters = torch.floor(2 * (draw.uniform() + 1)) * draw.strikes(config.rotate90 * p)
        inverses.append(_rotation(quarters * (pi / 2)))
    if config.translate_integer:
        reach = _INTEGER_TRANSLATION_MAX * draw.strikes(config.translate_integer * p)
        inverses.append(
            _translation((draw.uniform() * reach * width).round(), (draw.uniform() * reach * height).round())
        )
    if config.scale:
        scale = torch.exp2(_SCALE_STD_OCTAVES * draw.normal() * draw.strikes(config.scale * p))
        inverses.append(_scaling(1 / scale, 1 / scale))
    # One rotation before and one after the anisotropic scaling; together they occur with the probability of one.
    rotation_p = 1 - sqrt(1 - config.rotate * p)
    if config.rotate:
        inverses.append(_rotation(_ROTATION_MAX * draw.uniform() * draw.strikes(rotation_p)))
    if config.anisotropy:
        scale = torch.exp2(_ANISOTROPY_STD_OCTAVES * draw.normal() * draw.strikes(config.anisotropy * p))
        inverses.append(_scaling(1 / scale, scale))
    if config.rotate:
        inverses.append(_rotation(_ROTATION_MAX * draw.uniform() * draw.strikes(rotation_p)))
    if config.translate:
        reach = _FRACTIONAL_TRANSLATION_STD * draw.strikes(config.translate * p)
        inverses.append(_translation(draw.normal() * reach * width, draw.normal() * reach * height))
    if not inverses:
        return None
    matrix = inverses[0]
    for inverse in inverses[1:]:
        matrix = matrix @ inverse
    return matrix


def _transform_geometry(x: Tensor, config: AugmentConfig, draw: _Draw) -> Tensor:
    """x [B, C, *S] resampled once, bilinearly, under each sample's affine map."""
    height, width = x.shape[-2:]
    matrix = _geometry(height, width, config, draw)
    if matrix is None:
        return x
    # The sampler's coordinates run from -1 to 1 between the edges.
    to_pixels = matrix.new_tensor([width / 2, height / 2, 1])
    theta = (matrix * to_pixels / to_pixels[:, None])[:, :2].to(x.device, x.dtype, non_blocking=True)
    planes = x.flatten(1, -3)
    grid = F.affine_grid(theta, list(planes.shape), align_corners=False)
    return resample_grid(planes, grid).reshape(x.shape)


def resample_grid(x: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples of x [B, C, H, W] at grid [B, H', W', 2], mirrored at the edges -> [B, C, H', W'].

    Differentiable in x any number of times (torch's own grid_sample only once); not in grid.
    """
    return _Resample.apply(x, grid)


class _Resample(Function):
    """The resampling is linear in x, so its derivative is its transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.extent = x.shape[2:]
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _ResampleTransposed.apply(gradients[0], grid, ctx.extent), None


class _ResampleTransposed(Function):
    """Transpose of _Resample, whose derivative is _Resample again."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor, extent: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        # Only the shape of the sampled tensor matters for the gradient with respect to it.
        sampled = gradient.new_zeros(()).expand(*gradient.shape[:2], *extent)
        bilinear, reflection = 0, 2
        x_gradient, _ = torch.ops.aten.grid_sampler_2d_backward(
            gradient, sampled, grid, bilinear, reflection, False, [True, False]
        )
        return x_gradient

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Resample.apply(gradients[0], grid), None, None


def _transform_colour(x: Tensor, config: AugmentConfig, draw: _Draw) -> Tensor:
    """x [B, C, *S] -> M (x + brightness), where M is the [B, C, C] product of the other colour transformations."""
    p = draw.p
    if config.brightness:
        brightness = _BRIGHTNESS_STD * draw.normal() * draw.strikes(config.brightness * p)
        x = x + _per_sample(brightness.to(x.dtype), x)
    if config.contrast:
        contrast = torch.exp2(_CONTRAST_STD_OCTAVES * draw.normal() * draw.strikes(config.contrast * p))
        x = x * _per_sample(contrast.to(x.dtype), x)
    matrix = _colour_matrix(config, draw) if x.shape[1] == 3 else None
    if matrix is None:
        return x
    return torch.einsum("bij,bj...->bi...", matrix.to(x.device, x.dtype, non_blocking=True), x)


def _colour_matrix(config: AugmentConfig, draw: _Draw) -> Tensor | None:
    """[B, 3, 3] of luma flip, hue and saturation about the grey axis; None if every multiplier is 0."""
    if not (config.luma_flip or config.hue or config.saturation):
        return None
    p, device = draw.p, draw.generator.device
    identity = torch.eye(3, dtype=torch.float64, device=device)
    # Projection onto the grey axis (1, 1, 1) / √3, and the cross product with it.
    grey = torch.full_like(identity, 1 / 3)
    cross = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64, device=device) / sqrt(3)
    matrix = identity.expand(draw.batch, 3, 3)
    if config.luma_flip:
        flips = draw.strikes(0.5) * draw.strikes(config.luma_flip * p)
        matrix = (identity - 2 * grey * flips[:, None, None]) @ matrix
    if config.hue:
        angle = (_HUE_MAX * draw.uniform() * draw.strikes(config.hue * p))[:, None, None]
        matrix = (grey + (identity - grey) * angle.cos() + cross * angle.sin()) @ matrix
    if config.saturation:
        saturation = torch.exp2(_SATURATION_STD_OCTAVES * draw.normal() * draw.strikes(config.saturation * p))
        matrix = (grey + (identity - grey) * saturation[:, None, None]) @ matrix
    return matrix


def _cut_out(x: Tensor, config: AugmentConfig, draw: _Draw) -> Tensor:
    """x with a rectangle of half the extent around a random point set to 0, the middle of the range."""
    if not config.cutout:
        return x
    strikes = _per_sample(draw.strikes(config.cutout * draw.p) > 0, x)
    inside = strikes
    for axis in (-2, -1):
        centre = _per_sample((draw.uniform() + 1) / 2, x)
        extent = x.shape[axis]
        position = (torch.arange(extent, device=x.device) + 0.5) / extent
        position = position.view(-1, *[1] * (-1 - axis))
        inside = inside & ((position - centre).abs() < _CUTOUT_SIZE / 2)
    return torch.where(inside, 0, x)
