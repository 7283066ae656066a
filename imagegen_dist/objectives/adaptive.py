"""An augmentation probability that follows the discriminator's overfitting, for every adversarial loss.

r = (E D(train) - E D(held-out)) / (E D(train) - E D(fake)) is 0 if the discriminator D takes held-out samples for
training samples, and 1 if it takes them for generated ones (r_v of StyleGAN2-ADA, arXiv:2006.06676, Eq. 1). A constant
added to D does not change it, so that it also measures a relativistic loss, under which the sign of D means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from imagegen_dist.objectives.base import Terms

_MOST = 2.0  # of r, whose denominator may come close to 0


@dataclass(frozen=True)
class AdaptiveConfig:
    """How quickly the probability of augmentation follows r. Raises ValueError for unusable values."""

    every: int = 2_048
    """Images seen between two measurements of r, each of one batch of training, held-out and generated samples."""
    half_life_images: int = 8_192
    """Half-life of the averages over measurements of both differences of logits, in images seen."""
    rise_images: int = 500_000
    """Images in which p rises from 0 to 1 at its greatest speed, at r of twice the target or more."""
    max_p: float = 0.8
    """Largest p, from 0 to 1. Above 0.8, generated samples begin to look augmented (arXiv:2006.06676)."""

    def __post_init__(self) -> None:
        for name in ("every", "half_life_images", "rise_images"):
            if getattr(self, name) < 1:
                flag = f"--objective.adaptive.{name.replace('_', '-')}"
                raise ValueError(f"{name} {getattr(self, name)} is below 1; set {flag} to 1 or more images")
        if not 0 < self.max_p <= 1:
            raise ValueError(f"max_p {self.max_p} is outside (0, 1]; set --objective.adaptive.max-p")


class AdaptiveProbability(nn.Module):
    """The probability of augmentation p, moved toward a target of r. Its buffers are part of every checkpoint.

    p: scalar. overfitting: the last r that was known, within ±2, scalar. gaps: averages of E D(train) - E D(held-out)
    and of E D(train) - E D(fake), [2]. All are float64. target: of r, in (0, 1). start: the first p.
    """

    p: Tensor
    overfitting: Tensor
    gaps: Tensor

    def __init__(self, config: AdaptiveConfig, target: float, start: float, device: torch.device) -> None:
        super().__init__()
        self._config = config
        self._target = target
        zero = torch.zeros((), dtype=torch.float64, device=device)
        self.register_buffer("p", zero + min(start, config.max_p))
        self.register_buffer("overfitting", zero.clone())
        self.register_buffer("gaps", zero.repeat(2))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the buffers; the state of a run whose probability did not follow has none, and p begins anew."""
        return super().load_state_dict(state_dict, strict and bool(state_dict), assign)

    @torch.no_grad()
    def follow(self, means: Tensor, images: int) -> Terms:
        """Move p by the mean logits of training, held-out and generated samples, [3]; returns what to log.

        images: images seen since the last measurement. p changes by (r - target) / target, at most 1, in units of
        images / rise_images. Where E D(train) <= E D(fake), on average, the discriminator does not tell the two apart,
        r has no meaning, and p stays as it is. A measurement that is not finite is ignored. Reads no value on the host.
        """
        measured = means[0] - means[1:]
        kept = 0.5 ** (images / self._config.half_life_images)
        finite = measured.isfinite().all()
        self.gaps.copy_(torch.where(finite, torch.lerp(measured, self.gaps, kept), self.gaps))
        known = finite & (self.gaps[1] > 0)
        r = (self.gaps[0] / self.gaps[1]).clamp(-_MOST, _MOST)
        self.overfitting.copy_(torch.where(known, r, self.overfitting))
        error = ((self.overfitting - self._target) / self._target).clamp(-1, 1)
        moved = self.p + error * (images / self._config.rise_images)
        self.p.copy_(torch.where(known, moved.clamp(0, self._config.max_p), self.p))
        return {"augmentation/p": self.p.clone(), "augmentation/overfitting": self.overfitting.clone()}
