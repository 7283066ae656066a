"""Projection: the latents and conditions whose sample is nearest to a picture, so that it can be edited.

Adam minimises the mean squared error over z and the weights of classes or conditions, from the nearest of some samples
(or from the encoder's latents). |z| is held to the length of the prior's draws: farther out the error is smaller, but
directions no longer do what they do to samples. Class weights are a softmax, so that they remain a mixture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.data.modality import to_float, to_stored
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.inputs import check_samples
from imagegen_dist.inference.model import Model

if TYPE_CHECKING:
    from imagegen_dist.inference.generator import GeneratorModel

_SEED = 2**63 + 2**62  # of the samples among which the first guess is: no user's
_BETAS, _EPSILON = (0.9, 0.99), 1e-8
_DECAY = 0.3  # the last share of the steps, over which the learning rate goes to 0
CLASS_LOGIT = 4.0
"""Logit of the class of the first guess; those of the others are 0."""


@dataclass(frozen=True)
class Search:
    """How pictures are searched.

    steps: of Adam. rate: its learning rate. guesses: samples among which the nearest is the start.
    """

    steps: int = 300
    rate: float = 0.1
    guesses: int = 640


_DEFAULT = Search()


@dataclass(frozen=True, eq=False)
class Projection:
    """What was found for each picture.

    z: latents [B, Z, *s]. label: weights of classes or conditions, float32 [B, K]; None for an unconditional model.
    samples: of these, uint8 [B, C, *S]. psnr: peak signal-to-noise ratio where the mask is not 0, in dB, [B].
    """

    z: Tensor
    label: Tensor | None
    samples: Tensor
    psnr: Tensor


def project(
    model: GeneratorModel | AutoencoderModel,
    pictures: Tensor,
    search: Search = _DEFAULT,
    mask: Tensor | None = None,
    label: Tensor | None = None,
    tell: Callable[[int], None] | None = None,
) -> Projection:
    """Find the latents of pictures uint8 [B, C, *S], all of them at once.

    mask: weight of each position, from 0 to 1, [*S] or [B, *S], for edits of a part: what it hides is free. label:
    int64 [B] or float32 [B, K], which is then held; by default it is found too. tell: is told of each further step.
    Raises ValueError for pictures, labels or masks that do not fit, and if latents are codes.
    """
    check_samples(pictures, model.shape)
    if not model.gaussian:
        raise ValueError("this model's latents are codes, which cannot be searched by gradients: use encode")
    target = to_float(pictures).to(model.device)
    weight = _weights(mask, target)
    z, start = _first_guess(model, target, weight, search.guesses, label)
    radius = sqrt(model.latents(1).numel())
    free = [z, start] if start is not None and label is None else [z]
    loss = _Loss(model, target, weight, is_class=bool(model.classes) and label is None)

    def hold() -> None:
        _hold_length_(z, radius)
        if len(free) > 1 and model.conditions is not None:
            _hold_conditions_(free[1], model.conditions)

    _descend(free, lambda: loss(z, start), search, hold, tell)
    found = loss.label(start)
    with torch.no_grad():
        made = loss.generate(z, found)
        psnr = 10 * torch.log10(4 / loss.errors(made).clamp_min(1e-12))
    samples = to_stored(made, model.shape.bits).cpu()
    return Projection(z.detach().cpu(), None if found is None else found.detach().cpu(), samples, psnr.cpu())


class _Loss:
    """The summed mean squared error of samples, as a function of latents and of free labels."""

    def __init__(self, model: Model, target: Tensor, weight: Tensor, is_class: bool) -> None:
        self._model, self._target, self._is_class = model, target, is_class
        self._weight = weight / weight.flatten(1).mean(1).reshape(-1, *[1] * (weight.ndim - 1))

    def label(self, free: Tensor | None) -> Tensor | None:
        """What the networks are told."""
        return free.softmax(1) if free is not None and self._is_class else free

    def generate(self, z: Tensor, label: Tensor | None) -> Tensor:
        """Samples in [-1, 1]."""
        return generate(self._model, z, label)

    def errors(self, samples: Tensor) -> Tensor:
        """The mean squared error of each sample, [B]."""
        return ((samples - self._target) ** 2 * self._weight).flatten(1).mean(1)

    def __call__(self, z: Tensor, free: Tensor | None) -> Tensor:
        return self.errors(self.generate(z, self.label(free))).sum()


def generate(model: Model, z: Tensor, label: Tensor | None) -> Tensor:
    """Samples [B, C, *S] in [-1, 1] of latents, with gradients."""
    if isinstance(model, AutoencoderModel) and len(model.autoencoder.group_dims) == 1:
        return model.autoencoder.decode(z, label)
    return model.sampler.generate(z, label)


def _weights(mask: Tensor | None, target: Tensor) -> Tensor:
    """The mask as [B, C, *S]. Raises ValueError."""
    if mask is None:
        return torch.ones_like(target)
    spatial = target.shape[2:]
    if mask.shape[-len(spatial) :] != spatial or mask.ndim - len(spatial) not in (0, 1):
        raise ValueError(f"the mask is {list(mask.shape)}: {list(spatial)} or a batch of these is needed")
    weight = mask.float().to(target).reshape(-1, 1, *spatial).expand_as(target)
    if not weight.isfinite().all() or float(weight.min()) < 0 or float(weight.flatten(1).amax(1).min()) <= 0:
        raise ValueError("the mask needs weights from 0 to 1, and a weight above 0 for each picture")
    return weight


@torch.no_grad()
def _first_guess(
    model: Model, target: Tensor, weight: Tensor, guesses: int, label: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """(z, logits of classes or conditions) to start from, as leaves that require gradients."""
    told = None if label is None else label.to(model.device)
    if told is not None and not told.is_floating_point():
        told = torch.nn.functional.one_hot(told.long(), model.classes).float()
    if isinstance(model, AutoencoderModel) and len(model.autoencoder.group_dims) == 1 and not model.label_width:
        z = model.encode(to_stored(target, model.shape.bits))
        return z.clone().requires_grad_(), told
    drawn, labels = model.latents(guesses, _SEED), model.labels(guesses)
    best = torch.full((len(target),), float("inf"), device=model.device)
    nearest = torch.zeros(len(target), dtype=torch.int64)
    for start in range(0, guesses, model.batch):
        some = slice(start, start + model.batch)
        known = None if labels is None else labels[some].to(model.device)
        made = generate(model, drawn[some].to(model.device), known)
        for row, x in enumerate(made):
            errors = ((x - target) ** 2 * weight).flatten(1).mean(1)
            closer = errors < best
            best[closer] = errors[closer]
            nearest[closer.cpu()] = start + row
    z = drawn[nearest].to(model.device).clone().requires_grad_()
    if told is not None or labels is None:
        return z, told
    chosen = labels[nearest].to(model.device)
    if not chosen.is_floating_point():
        chosen = CLASS_LOGIT * torch.nn.functional.one_hot(chosen, model.classes).float()
    return z, chosen.clone().requires_grad_()


def _descend(
    free: list[Tensor],
    loss: Callable[[], Tensor],
    search: Search,
    hold: Callable[[], None],
    tell: Callable[[int], None] | None,
) -> None:
    """Adam with a learning rate that ends at 0; changes `free`. hold: keeps them within bounds after each step."""
    optimizer = torch.optim.Adam(free, search.rate, betas=_BETAS, eps=_EPSILON)
    for step in range(search.steps):
        optimizer.param_groups[0]["lr"] = search.rate * min(1.0, (search.steps - step) / (_DECAY * search.steps))
        optimizer.zero_grad()
        with torch.enable_grad():
            loss().backward()
        optimizer.step()
        with torch.no_grad():
            hold()
        if tell is not None:
            tell(1)


def _hold_length_(z: Tensor, radius: float) -> None:
    """Shorten latents [B, Z, *s] that are longer than the radius."""
    length = z.flatten(1).norm(dim=1).clamp_min(1e-12)
    z.mul_((radius / length).clamp_max(1).reshape(-1, *[1] * (z.ndim - 1)))


def _hold_conditions_(label: Tensor, conditions: Conditions) -> None:
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
