"""Pictures that are searched in a model together, each at its own step: some may begin while others end.

The loss is the mean squared error of a sample, over z and the weights of classes or conditions. Adam descends it, each
row by itself. |z| is held to the length of the prior's draws, and class weights are a softmax: they remain a mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields, replace
from math import prod, sqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.data.modality import to_float, to_stored
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.inputs import check_conditions, check_label, check_samples
from imagegen_dist.inference.model import Model

if TYPE_CHECKING:
    from imagegen_dist.inference.generator import GeneratorModel

_BETAS, _EPSILON = (0.9, 0.99), 1e-8
_DECAY = 0.3  # the last share of the steps, over which the learning rate goes to 0
_GUESSES_AT_ONCE = 16
CLASS_LOGIT = 4.0
"""Logit of the class of the first guess; those of the others are 0."""

SEED = 2**63 + 2**62
"""Of the samples among which the first guess is: no user's."""


@dataclass(frozen=True)
class Search:
    """How pictures are searched.

    steps: of Adam. rate: its learning rate. guesses: samples among which the nearest is the start. seed: of these.
    """

    steps: int = 300
    rate: float = 0.1
    guesses: int = 640
    seed: int = SEED


@dataclass(frozen=True, eq=False)
class Sought:
    """Pictures and how far each is found; every field has a row for each.

    target: [B, C, *S] in [-1, 1]. weight: of its positions, like it, with the mean 1. z: latents [B, Z, *s]. free:
    logits of classes, or conditions, [B, K], K = 0 for an unconditional model; of a label that is held, the label.
    held: bool [B]. rate, step, steps: the learning rate, the steps that were done, and all of them, [B]. The others
    are Adam's moments.
    """

    target: Tensor
    weight: Tensor
    z: Tensor
    free: Tensor
    held: Tensor
    rate: Tensor
    step: Tensor
    steps: Tensor
    z_mean: Tensor
    z_square: Tensor
    free_mean: Tensor
    free_square: Tensor

    def __len__(self) -> int:
        return len(self.target)

    @classmethod
    def joined(cls, several: Sequence[Sought]) -> Sought:
        """The rows of several, in their order."""
        return cls(*(torch.cat([getattr(each, field.name) for each in several]) for field in fields(cls)))

    def rows(self) -> list[Sought]:
        """Each row for itself."""
        parts = zip(*(getattr(self, field.name).split(1) for field in fields(self)), strict=True)
        return [Sought(*part) for part in parts]


def begin(
    model: GeneratorModel | AutoencoderModel,
    pictures: Tensor,
    search: Search,
    mask: Tensor | None = None,
    label: Tensor | None = None,
    first: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Generator[int, None, Sought]:
    """The start of a search for pictures uint8 [B, C, *S]: the nearest of some samples, or the encoder's latents.

    mask: weight of each position, from 0 to 1, [*S] or [B, *S]. label: int64 [B] or float32 [B, K], which is then held.
    first: returns the start instead, z and logits of classes or conditions, for pictures [B, C, *S] in [-1, 1].
    Yields how many samples were compared, after each few; returns the start. Raises ValueError for what does not fit,
    and if latents are codes.
    """
    check_samples(pictures, model.shape)
    if not model.gaussian:
        raise ValueError("this model's latents are codes, which cannot be searched by gradients: use encode")
    if label is not None:
        (check_label if model.conditions is None else check_conditions)(label, len(pictures), model.label_width)
    target = to_float(pictures).to(model.device)
    weight = _weights(mask, target)
    if first is not None:
        z, free = first(target)
    elif isinstance(model, AutoencoderModel) and len(model.autoencoder.group_dims) == 1 and not model.label_width:
        z, free = model.encode(pictures).clone(), target.new_zeros(len(target), 0)
    else:
        z, free = yield from _nearest(model, target, weight, search)
    if label is not None:
        told = label.to(target.device)
        free = told if told.is_floating_point() else torch.nn.functional.one_hot(told.long(), model.classes).float()
    count, device = len(target), target.device

    def each(value: float | bool) -> Tensor:
        return torch.full((count,), value, device=device)

    settings = each(label is not None), each(search.rate), each(0), each(search.steps)
    moments = [torch.zeros_like(x) for x in (z, z, free, free)]
    return Sought(target, weight, z, free, *settings, *moments)


def started(beginning: Generator[int, None, Sought]) -> Sought:
    """The start of a search, once all samples are compared."""
    while True:
        try:
            next(beginning)
        except StopIteration as end:
            found: Sought = end.value
            return found


@torch.no_grad()
def advance(model: GeneratorModel | AutoencoderModel, sought: Sought) -> tuple[Sought, Tensor]:
    """One step of Adam for all rows, and the peak signal-to-noise ratio before it in dB, [B]."""
    z, free = sought.z.detach().requires_grad_(), sought.free.detach().requires_grad_()
    changing = [z, free] if free.numel() and not bool(sought.held.all()) else [z]
    with torch.enable_grad():
        errors = errors_of(sought, generate(model, z, label_of(model, sought, free)))
        gradients = torch.autograd.grad(errors.sum(), changing)
    done = replace(sought, step=sought.step + 1)
    left = (sought.steps - sought.step) / (_DECAY * sought.steps)
    rate = sought.rate * left.clamp_max(1)
    new_z, z_mean, z_square = _adam(sought.z, gradients[0], sought.z_mean, sought.z_square, rate, done.step)
    hold_length_(new_z, sqrt(prod(model.drawn_dims)))
    done = replace(done, z=new_z, z_mean=z_mean, z_square=z_square)
    if len(changing) > 1:
        slope = gradients[1] * ~sought.held[:, None]
        new, mean, square = _adam(sought.free, slope, sought.free_mean, sought.free_square, rate, done.step)
        if model.conditions is not None:
            hold_conditions_(new, model.conditions)
        new = torch.where(sought.held[:, None], sought.free, new)
        done = replace(done, free=new, free_mean=mean, free_square=square)
    return done, _psnr(errors)


@torch.no_grad()
def finish(model: GeneratorModel | AutoencoderModel, sought: Sought) -> tuple[Tensor | None, Tensor, Tensor]:
    """(weights of classes or conditions [B, K] or None, samples as stored [B, C, *S], psnr [B] in dB) of all rows."""
    label = label_of(model, sought, sought.free)
    made = generate(model, sought.z, label)
    return label, to_stored(made, model.shape.bits), _psnr(errors_of(sought, made))


def label_of(model: Model, sought: Sought, free: Tensor) -> Tensor | None:
    """What the networks are told: a mixture of classes, or conditions, [B, K]; None for an unconditional model."""
    if not model.label_width:
        return None
    if not model.classes:
        return free
    return torch.where(sought.held[:, None], free, free.softmax(1))


def errors_of(sought: Sought, samples: Tensor) -> Tensor:
    """The weighted mean squared error of samples in [-1, 1], [B]."""
    return _weighted_errors(samples, sought.target, sought.weight)


def _weighted_errors(samples: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return ((samples - target) ** 2 * weight).flatten(1).mean(1)


def generate(model: Model, z: Tensor, label: Tensor | None) -> Tensor:
    """Samples [B, C, *S] in [-1, 1] of latents, with gradients."""
    if isinstance(model, AutoencoderModel) and len(model.autoencoder.group_dims) == 1:
        return model.autoencoder.decode(z, label)
    return model.sampler.generate(z, label)


def _psnr(errors: Tensor) -> Tensor:
    return 10 * torch.log10(4 / errors.detach().clamp_min(1e-12))


def _weights(mask: Tensor | None, target: Tensor) -> Tensor:
    """The mask as [B, C, *S], with the mean 1. Raises ValueError."""
    if mask is None:
        return torch.ones_like(target)
    spatial = target.shape[2:]
    if mask.shape[-len(spatial) :] != spatial or mask.ndim - len(spatial) not in (0, 1):
        raise ValueError(f"the mask is {list(mask.shape)}: {list(spatial)} or a batch of these is needed")
    weight = mask.float().to(target).reshape(-1, 1, *spatial).expand_as(target)
    if not weight.isfinite().all() or float(weight.min()) < 0 or float(weight.flatten(1).amax(1).min()) <= 0:
        raise ValueError("the mask needs weights from 0 to 1, and a weight above 0 for each picture")
    return weight / weight.flatten(1).mean(1).reshape(-1, *[1] * (weight.ndim - 1))


def _nearest(
    model: Model, target: Tensor, weight: Tensor, search: Search
) -> Generator[int, None, tuple[Tensor, Tensor]]:
    """(z, logits of classes or conditions) of the nearest of some samples."""
    drawn, labels = model.latents(search.guesses, search.seed), model.labels(search.guesses)
    best = torch.full((len(target),), float("inf"), device=model.device)
    nearest = torch.zeros(len(target), dtype=torch.int64, device=model.device)
    for start in range(0, search.guesses, _GUESSES_AT_ONCE):
        some = slice(start, start + _GUESSES_AT_ONCE)
        with torch.no_grad():
            known = None if labels is None else labels[some].to(model.device)
            for row, x in enumerate(generate(model, drawn[some].to(model.device), known), start):
                errors = _weighted_errors(x, target, weight)
                nearest[errors < best] = row
                best = torch.minimum(best, errors)
        yield min(start + _GUESSES_AT_ONCE, search.guesses)
    rows = nearest.cpu()
    z = drawn[rows].to(model.device)
    if labels is None:
        return z, z.new_zeros(len(z), 0)
    chosen = labels[rows].to(model.device)
    if not chosen.is_floating_point():
        chosen = CLASS_LOGIT * torch.nn.functional.one_hot(chosen, model.classes).float()
    return z, chosen


def _adam(
    values: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, rate: Tensor, step: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(values, mean, square) [B, ...] after a step of Adam, the step-th of each row. rate: [B]. (arXiv:1412.6980)"""
    first, second = _BETAS

    def of_row(x: Tensor) -> Tensor:
        return x.reshape(-1, *[1] * (values.ndim - 1))

    mean = mean.lerp(gradient, 1 - first)
    square = square * second + (1 - second) * gradient**2
    corrected = square.sqrt() / of_row((1 - second**step).sqrt())
    return values - of_row(rate / (1 - first**step)) * mean / (corrected + _EPSILON), mean, square


def hold_length_(z: Tensor, radius: float) -> None:
    """Shorten latents [B, Z, *s] that are longer than the radius."""
    length = z.flatten(1).norm(dim=1).clamp_min(1e-12)
    z.mul_((radius / length).clamp_max(1).reshape(-1, *[1] * (z.ndim - 1)))


def hold_conditions_(label: Tensor, conditions: Conditions) -> None:
    """Keep conditions [B, K] as data has them: a class as a mixture, attributes in [0, 1], numbers in their range."""
    for part, places in zip(conditions.parts, conditions.slices.values(), strict=True):
        values = label[:, places]
        if part.kind == "vector":
            mean, deviation = torch.tensor(part.mean).to(values), torch.tensor(part.deviation).to(values)
            low, high = ((torch.tensor(ends).to(values) - mean) / deviation for ends in (part.low, part.high))
            values.clamp_(low, high)
        else:
            values.clamp_(0, 1)
            if part.kind == "class":
                values.div_(values.sum(1, keepdim=True).clamp_min(1e-6))
