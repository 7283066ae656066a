"""Projection: the latents and conditions whose sample is nearest to a picture, so that it can be edited.

Adam minimises the mean squared error over z and the weights of classes or conditions, from the nearest of some samples,
or from the latents of an encoder: an autoencoder's own, or one that was trained on generated pairs (pair_encoder.py).
|z| is held to the length of the prior's draws: farther out the error is smaller, but directions no longer do what they
do to samples. Class weights are a softmax, so that they remain a mixture (sought.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from imagegen_dist.inference.pair_encoder import PairEncoder, first_guess
from imagegen_dist.inference.sought import Search as Search
from imagegen_dist.inference.sought import Sought, advance, begin, finish, started

if TYPE_CHECKING:
    from imagegen_dist.inference.autoencoder import AutoencoderModel
    from imagegen_dist.inference.generator import GeneratorModel

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
    encoder: PairEncoder | None = None,
) -> Projection:
    """Find the latents of pictures uint8 [B, C, *S], all of them at once.

    mask: weight of each position, from 0 to 1, [*S] or [B, *S], for edits of a part: what it hides is free. label:
    int64 [B] or float32 [B, K], which is then held; by default it is found too. tell: is told of each further step.
    encoder: of this model, from `train_encoder`; the search starts from what it finds, and with 0 steps that is the
    result. Raises ValueError for pictures, labels or masks that do not fit, for a mask with an encoder, which was
    trained on whole samples, for 0 steps without an encoder, and if latents are codes.
    """
    if encoder is None and search.steps < 1:
        raise ValueError("a search has at least 1 step: only what an encoder finds needs none")
    if encoder is not None and mask is not None:
        raise ValueError("the encoder was trained on whole samples, and cannot leave out what a mask hides")
    first = None if encoder is None else partial(first_guess, model, encoder)
    sought = started(begin(model, pictures, search, mask, label, first))
    for _ in range(search.steps):
        sought, _ = advance(model, sought)
        if tell is not None:
            tell(1)
    return projection_of(model, sought)


def projection_of(model: GeneratorModel | AutoencoderModel, sought: Sought) -> Projection:
    """What a search has found by now."""
    label, samples, psnr = finish(model, sought)
    return Projection(sought.z.cpu(), None if label is None else label.cpu(), samples.cpu(), psnr.cpu())
