"""Twice differentiable augmentation of real and generated samples (StyleGAN2-ADA, arXiv:2006.06676, Appendix B).

Each transformation is applied to a sample with probability p times its multiplier. The geometric ones are composed into
one affine map per sample, so that a sample is resampled only once. All random numbers of a batch are drawn at once, and
all transformations are computed together: on a GPU, the number of operators on these small tensors determines the time.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import inf, pi, sqrt
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from imagegen_dist.nn.grid import resample_grid
from imagegen_dist.objectives.base import Draw, Randomness
from imagegen_dist.objectives.depth import PARTS as DEPTH
from imagegen_dist.objectives.depth import Depth, moved
from imagegen_dist.objectives.policies import Policies, Policy, shares_of, shifted
from imagegen_dist.shape import SampleShape

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
    """Set a rectangle of half the extent to 0, multiplier of p. On a black background it leaks into the samples."""
    flip_depth: float = 0.0
    """Mirror the first of three axes, a volume's depth or a video's time, multiplier of p."""
    translate_depth: float = 0.0
    """Translate along the first of three axes by whole places, up to 1/8 of the extent, multiplier of p."""
    rotate_depth: float = 0.0
    """Turn the first axis of a cube to either side of each axis, multiplier of p."""
    policy: tuple[str, ...] = ()
    """DiffAugment's policies in place of all but the transformations in depth: color (its parts are brightness,
    saturation and contrast), translation, cutout; with a share of p where it is not 1, as in color,cutout:0.3."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "policy" and not 0 <= value <= 1:
                flag = field.name.replace("_", "-")
                raise ValueError(f"{field.name} {value} is outside [0, 1]; set --objective.augment.{flag}")
        shares_of(self.policy)


def augment(x: Tensor, p: float, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Augmented samples: x [B, C, *S] in [-1, 1], with two or three spatial axes -> [B, C, *S].

    p: probability in [0, 1]; 0 returns x itself. generator: the only source of randomness, on any device. Geometric
    transformations and cutout act on the last two axes and are the same along a third (all frames of a video rotate
    together). Beyond the edges the sample is mirrored. Twice differentiable in x. On CUDA, the summation order of the
    transposed resampling is not deterministic. Raises ValueError if p or the number of axes is out of range.
    """
    augmentation = Augmentation(config)
    drawn = augmentation.draw(x, p, Draw(0, generator))
    return x if drawn is None else augmentation.transform(drawn, x).apply(x)


def random_flip(x: Tensor, draw: Randomness) -> Tensor:
    """x [B, C, *S], each sample mirrored along its last axis with probability 1/2."""
    flipped = draw.uniform(len(x)) < 0.5
    flipped = flipped.to(x.device, non_blocking=True).view(-1, *[1] * (x.ndim - 1))
    return torch.where(flipped, x.flip(-1), x)


# The random numbers of a sample, uniform on [0, 1) or normal, with the transformation that each belongs to. Scaled,
# they are amounts (some rounded), which are set to 0 if the transformation is not applied to the sample.
_WHOLE = {"quarters": "rotate90", "shift_x": "translate_integer", "shift_y": "translate_integer"}
_UNIFORM = {
    **_WHOLE,
    "before": "rotate before",
    "after": "rotate after",
    "flip": "flip",
    "luma_flip": "luma_flip",
    "hue": "hue",
    "centre_y": "cutout",
    "centre_x": "cutout",
}
_NORMAL = {
    "move_x": "translate",
    "move_y": "translate",
    "scale": "scale",
    "anisotropy": "anisotropy",
    "contrast": "contrast",
    "saturation": "saturation",
    "brightness": "brightness",
}
_AMOUNTS = {**_UNIFORM, **_NORMAL}
_STRIKES = tuple(dict.fromkeys(_AMOUNTS.values()))

# The centre of a cutout that is not applied lies this far away, in extents.
_FAR = 10.0


def _numbers_to_amounts(height: int, width: int) -> dict[str, tuple[float, float]]:
    """Scale and offset from each random number to its amount.

    Units: angles in radians, scales in octaves, shift in pixels, move in half heights, centres in extents.
    """
    reach_x, reach_y = _INTEGER_TRANSLATION_MAX * width, _INTEGER_TRANSLATION_MAX * height
    return {
        "quarters": (4, -2.5),  # rounded, each of -2, -1, 0, 1 equally often
        "shift_x": (2 * reach_x, -reach_x),
        "shift_y": (2 * reach_y, -reach_y),
        "before": (2 * _ROTATION_MAX, -_ROTATION_MAX),
        "after": (2 * _ROTATION_MAX, -_ROTATION_MAX),
        "flip": (0, pi),  # an angle whose cosine is -1
        "luma_flip": (0, pi),
        "hue": (2 * _HUE_MAX, -_HUE_MAX),
        "centre_y": (1, -_FAR),
        "centre_x": (1, -_FAR),
        "move_x": (2 * _FRACTIONAL_TRANSLATION_STD * width / height, 0),
        "move_y": (2 * _FRACTIONAL_TRANSLATION_STD, 0),
        "scale": (_SCALE_STD_OCTAVES, 0),
        "anisotropy": (_ANISOTROPY_STD_OCTAVES, 0),
        "contrast": (_CONTRAST_STD_OCTAVES, 0),
        "saturation": (_SATURATION_STD_OCTAVES, 0),
        "brightness": (_BRIGHTNESS_STD, 0),
    }


def _rotation(amount: str, unit: float = 1.0) -> list[tuple[Mapping[str, float], float]]:
    """Angles whose cosines are [[cos, -sin], [sin, cos]] of an amount."""
    turn = {amount: unit}
    return [(turn, 0), (turn, pi / 2), (turn, -pi / 2), (turn, 0)]


def _mixtures(height: int) -> list[list[tuple[Mapping[str, float], float]]]:
    """Linear combinations of amounts (weights by name, and a constant), in the groups of `Augmentation.transform`."""
    shift = 2 / height  # pixels in half heights
    return [
        [*_rotation("quarters", pi / 2), *_rotation("before"), *_rotation("after")],
        [({"flip": 1}, 0), ({}, 0), ({"luma_flip": 1}, 0), ({"hue": 1}, 0), ({"hue": 1}, -pi / 2)],
        [
            ({"scale": 1, "anisotropy": 1}, 0),
            ({"scale": 1, "anisotropy": -1}, 0),
            ({"contrast": 1}, 0),
            ({"contrast": 1, "saturation": 1}, 0),
            ({"contrast": 1, "saturation": 1}, 0),
        ],
        [({"move_x": 1}, 0), ({"move_y": 1}, 0)],
        [({"shift_x": shift}, 0), ({"shift_y": shift}, 0)],
        [({"brightness": 1}, 0)],
        [({"centre_y": 1}, _FAR), ({"centre_x": 1}, _FAR)],
    ]


_GEOMETRY = ("flip", "rotate90", "translate_integer", "scale", "rotate", "anisotropy", "translate")
_OF_THREE_CHANNELS = ("luma_flip", "hue", "saturation")

# Components of a colour transformation, 3 × 3 each: the projection on the grey axis (1, 1, 1) / √3, the projection on
# its orthogonal complement, and the cross product with the axis.
_GREY = [1 / 3] * 9
_CHROMA = [2 / 3 if i == j else -1 / 3 for i in range(3) for j in range(3)]
_CROSS = [value / sqrt(3) for value in (0, -1, 1, 1, 0, -1, -1, 1, 0)]
_GREY_AND_CHROMA = [_GREY, _CHROMA, _CROSS]

_MIXED = [len(group) for group in _mixtures(1)]


class Transform(NamedTuple):
    """The transformations of a batch; None for each kind that is disabled.

    theta: affine maps from output to input positions, in coordinates from -1 to 1, [B, 2, 3]. colour: matrices
    [B, C, C] or factors [B, 1, 1]. added: added to their products, [B, 1, 1]. rows [B, H], columns [B, W]: positions in
    both are set to 0. pull: of a sample's mean, also added, [B, 1, 1]. row_of [B, H], column_of [B, W], source
    [B, D H W]: whence rows, columns and values come. Floating-point parts have the samples' dtype.
    """

    theta: Tensor | None = None
    colour: Tensor | None = None
    added: Tensor | None = None
    rows: Tensor | None = None
    columns: Tensor | None = None
    pull: Tensor | None = None
    row_of: Tensor | None = None
    column_of: Tensor | None = None
    source: Tensor | None = None

    def apply(self, x: Tensor) -> Tensor:
        """The samples x [B, C, *S] transformed."""
        if all(part is None for part in self):
            return x
        if self.source is not None:
            x = moved(x, self.source)
        planes = x if x.ndim == 4 else x.flatten(1, -3)  # the frames of a video are moved and cut alike
        if self.theta is not None:
            grid = F.affine_grid(self.theta, list(planes.shape), align_corners=False)
            planes = resample_grid(planes, grid)
        if self.colour is not None and self.added is not None:
            values = planes.reshape(*x.shape[:2], -1)
            added = self.added
            if self.pull is not None:
                added = added + self.pull * values.mean((1, 2), keepdim=True)
            planes = _recolour(values, self.colour, added).reshape(planes.shape)
        if self.row_of is not None and self.column_of is not None:
            planes = shifted(planes, self.row_of, self.column_of)
        if self.rows is not None and self.columns is not None:
            planes = planes.masked_fill(self.rows[:, None, :, None] & self.columns[:, None, None], 0)
        return planes if x.ndim == 4 else planes.reshape(x.shape)

    def views(self) -> tuple[Transform, Transform]:
        """The transformations of each sample's first view, and of its second."""
        views = [(None, None) if part is None else part.unflatten(0, (-1, 2)).unbind(1) for part in self]
        return Transform(*(first for first, _ in views)), Transform(*(second for _, second in views))


def _recolour(x: Tensor, colour: Tensor, added: Tensor) -> Tensor:
    """colour x + added, for x [B, C, N]."""
    if colour.shape[1] == 1:
        return torch.addcmul(added, colour, x)
    return torch.baddbmm(added, colour, x)


class _Constants(NamedTuple):
    """Constants for samples of one shape, float64 except `strike`.

    certainty, power [K]: transformation k is applied with probability 1 - (1 - p certainty)^power. strike [A]: index of
    each amount's transformation, int64. scale, shift [A]: from random numbers to amounts. mixing [A, M], bias [M]: from
    amounts to angles, logarithms and lengths. ratio [2, 3]: from half heights to half extents, None for squares.
    colours [3, 9] or [3, 1]: from coefficients to matrices. lines [2, max(H, W)]: positions of rows and columns, in
    extents.
    """

    certainty: Tensor
    power: Tensor
    strike: Tensor
    scale: Tensor
    shift: Tensor
    mixing: Tensor
    bias: Tensor
    ratio: Tensor | None
    colours: Tensor
    lines: Tensor


class Drawn(NamedTuple):
    """The random numbers of a batch, [B, A], and which transformations are applied to each sample, bool [B, K].

    policy: amounts of DiffAugment's policies, in place of these. depth: amounts along the first of three axes.
    """

    numbers: Tensor | None = None
    strikes: Tensor | None = None
    constants: _Constants | None = None
    policy: Policy | None = None
    depth: Tensor | None = None


class Augmentation:
    """The transformations of a config; constants are created once per shape and kept on their device."""

    def __init__(self, config: AugmentConfig) -> None:
        self._config = config
        self._policies = Policies(shares_of(config.policy))
        self._depth = Depth(*(getattr(config, part) for part in DEPTH))
        self._constants: dict[Hashable, _Constants] = {}

    def draw(self, x: Tensor, p: float | Tensor, draw: Randomness, views: int = 1) -> Drawn | None:
        """Random numbers for so many augmented views of each sample, in adjacent rows; None without augmentation.

        Arguments and errors as `augment`'s; p may also be a float64 scalar on the device of the draws, whose value is
        not read.
        """
        if not isinstance(p, Tensor) and not 0 <= p <= 1:
            raise ValueError(f"augmentation probability {p} is outside [0, 1]; set --objective.augment-p")
        if x.ndim not in (4, 5):
            raise ValueError(f"augmentation needs samples with 2 or 3 spatial axes, not {x.ndim - 2}")
        if not isinstance(p, Tensor) and p == 0:
            return None
        count = views * len(x)
        drawn = self._draw_named(count, p, draw) if self._config.policy else self._draw_all(x, count, p, draw)
        if self._depth:
            drawn = (drawn or Drawn())._replace(depth=self._depth.draw(count, p, draw))
        return drawn

    def check(self, shape: SampleShape) -> None:
        """Raise ValueError if samples of this shape cannot be transformed so."""
        self._depth.check(shape)

    def _draw_named(self, count: int, p: float | Tensor, draw: Randomness) -> Drawn | None:
        """Amounts of DiffAugment's policies; None without any."""
        return Drawn(policy=self._policies.draw(count, p, draw)) if self._policies else None

    def _draw_all(self, x: Tensor, count: int, p: float | Tensor, draw: Randomness) -> Drawn | None:
        """Random numbers of all other transformations in the plane; None without any."""
        if not (self._moves or self._recolours(x.shape[1]) or self._config.cutout):
            return None
        sizes = [len(_STRIKES), len(_UNIFORM)]
        chance, uniform = draw.uniform(count, sum(sizes), dtype=torch.float64).split(sizes, 1)
        normal = draw.normal(count, len(_NORMAL), dtype=torch.float64)
        constants = self._constants_for(x, normal.device)
        certainty = constants.certainty
        misses = 1 - p * certainty if isinstance(p, Tensor) else torch.rsub(certainty, 1, alpha=p)
        strikes = chance >= misses.pow(constants.power)
        return Drawn(torch.cat([uniform, normal], 1), strikes, constants)

    def transform(self, drawn: Drawn, x: Tensor) -> Transform:
        """The transformations of drawn random numbers, for samples of x's shape, dtype and device."""
        if drawn.policy is not None:
            colour, added, pull = self._policies.colour(drawn.policy, x)
            row_of, column_of = self._policies.shifts(drawn.policy, x)
            rows, columns = self._policies.cut(drawn.policy, x)
            found = Transform(None, colour, added, rows, columns, pull, row_of, column_of)
        else:
            found = self._transform_in_plane(drawn, x)
        return found if drawn.depth is None else found._replace(source=self._depth.source(drawn.depth, x))

    def _transform_in_plane(self, drawn: Drawn, x: Tensor) -> Transform:
        """The transformations of the config's multipliers, but for those in depth."""
        constants = drawn.constants
        if drawn.numbers is None or drawn.strikes is None or constants is None:
            return Transform()
        amounts = torch.addcmul(constants.shift, drawn.numbers, constants.scale)
        amounts[:, : len(_WHOLE)].round_()
        amounts = amounts * drawn.strikes.index_select(1, constants.strike)
        mixed = torch.addmm(constants.bias, amounts, constants.mixing)
        turns, signs, octaves, move, shift, brightness, centres = mixed.split(_MIXED, 1)
        stretch, colours = (octaves.exp2() * signs.cos()).split([2, 3], 1)
        theta = colour = added = rows = columns = None
        if self._moves:
            quarter, before, after = turns.cos().unflatten(1, (3, 2, 2)).unbind(1)
            # From output to input positions: quarter turn, shift, rotation, scaling with flip, rotation, move. All
            # amounts are symmetric about 0: inverses need no other sign, and the flip may follow the rotations.
            moved = torch.bmm(before * stretch.unsqueeze(1), after)
            offset = torch.baddbmm(shift.unsqueeze(2), moved, move.unsqueeze(2))
            theta = torch.bmm(quarter, torch.cat([moved, offset], 2))
            theta = theta if constants.ratio is None else theta * constants.ratio
            theta = theta.to(x.device, x.dtype, non_blocking=True)
        if self._recolours(x.shape[1]):
            added = (colours[:, :1] * brightness).unsqueeze(2)
            colour = (colours @ constants.colours).unflatten(1, (3, 3) if x.shape[1] == 3 else (1, 1))
            added, colour = (each.to(x.device, x.dtype, non_blocking=True) for each in (added, colour))
        if self._config.cutout:
            near = (constants.lines - centres.unsqueeze(2)).abs() < _CUTOUT_SIZE / 2
            rows, columns = near.to(x.device, non_blocking=True).unbind(1)
            rows, columns = rows[:, : x.shape[-2]], columns[:, : x.shape[-1]]
        return Transform(theta, colour, added, rows, columns)

    def _constants_for(self, x: Tensor, device: torch.device) -> _Constants:
        channels, (height, width) = x.shape[1], x.shape[-2:]
        key = (channels, height, width, x.dtype, x.device, device)
        if key not in self._constants:
            self._constants[key] = self._make_constants(channels, height, width, device)
        return self._constants[key]

    def _make_constants(self, channels: int, height: int, width: int, device: torch.device) -> _Constants:
        def constant(values: Sequence[Any], dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.tensor(values, dtype=dtype).to(device)

        affine = _numbers_to_amounts(height, width)
        mixtures = [mixture for group in _mixtures(height) for mixture in group]
        extents, longest = (height, width), max(height, width)
        return _Constants(
            certainty=constant([self._certainty(strike, channels) for strike in _STRIKES]),
            power=constant([0.5 if strike.startswith("rotate ") else 1.0 for strike in _STRIKES]),
            strike=constant([_STRIKES.index(strike) for strike in _AMOUNTS.values()], torch.int64),
            scale=constant([affine[amount][0] for amount in _AMOUNTS]),
            shift=constant([affine[amount][1] for amount in _AMOUNTS]),
            mixing=constant([[weights.get(amount, 0.0) for weights, _ in mixtures] for amount in _AMOUNTS]),
            bias=constant([bias for _, bias in mixtures]),
            ratio=None if height == width else constant([[1, height / width, height / width], [width / height, 1, 1]]),
            colours=constant(_GREY_AND_CHROMA if channels == 3 else [[1], [0], [0]]),
            lines=constant([[(i + 0.5) / n if i < n else inf for i in range(longest)] for n in extents]),
        )

    def _certainty(self, strike: str, channels: int) -> float:
        """The probability of a transformation where p is 1."""
        name = strike.split()[0]
        multiplier: float = getattr(self._config, name)
        if name in _OF_THREE_CHANNELS and channels != 3:
            return 0.0
        return multiplier / 2 if name in ("flip", "luma_flip") else multiplier

    @property
    def _moves(self) -> bool:
        return any(getattr(self._config, name) for name in _GEOMETRY)

    def _recolours(self, channels: int) -> bool:
        names = ("brightness", "contrast", *(_OF_THREE_CHANNELS if channels == 3 else ()))
        return any(getattr(self._config, name) for name in names)
