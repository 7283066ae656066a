"""Animations: interpolation between seeds, and latent traversals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imagegen_dist.evaluation.traversal import MOST_TRAVERSED, traverse
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.interpolation import blend, latent_path, swing
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.sampling_request import SamplingRequest

TRAVERSED_SEEDS = 5
"""Maximum number of columns of a traversal."""


def check_interpolation(model: Model) -> None:
    """Raise ValueError if a model's latents cannot be interpolated."""
    if not model.gaussian:
        raise ValueError("--interpolate: this model's latents are codes, which cannot be interpolated")


def interpolation(model: Model, asked: SamplingRequest, frames: int) -> Tensor:
    """From each seed to the next and back to the first: uint8 [F, columns, C, *S], F = seeds * frames.

    One column per class or condition. What is not given, the class or parts of a condition, changes from seed to seed
    as well, by linear interpolation of the weights of the class embeddings.
    """
    keys = model.latents_of(asked.seeds)
    path = latent_path(keys, frames)
    if model.known is not None:
        vectors = asked.label(model, range(len(asked)))  # [seeds * columns, K]
        assert vectors is not None
        blended = torch.stack([blend(each, frames) for each in vectors.unflatten(0, (-1, asked.columns)).unbind(1)], 1)
        columns: Tensor | None = blended.flatten(0, 1)
    elif model.classes and not asked.classes:
        weights = torch.zeros(len(asked.seeds), model.classes)
        weights[torch.arange(len(weights)), torch.tensor(asked.seeds) % model.classes] = 1
        columns = blend(weights, frames)
    else:
        label = model.labels(asked.columns, asked.classes or None)
        columns = None if label is None else label.repeat(len(path), *(1 for _ in label.shape[1:]))
    drawn = path.repeat_interleave(asked.columns, 0)
    return model.generate(drawn, columns, asked.truncation).unflatten(0, (len(path), asked.columns))


def check_traversal(model: Model) -> None:
    """Raise ValueError if the latents cannot be varied one at a time."""
    if not isinstance(model, AutoencoderModel):
        raise ValueError("--traverse varies the latents of a VAE, and this is a GAN: use --interpolate")
    if not model.gaussian:
        raise ValueError("--traverse: this model's latents are codes, which cannot be varied continuously")
    dims = model.autoencoder.group_dims[0]
    if len(dims) > 1:
        shown = " × ".join(map(str, dims))
        raise ValueError(f"--traverse: this model's latents are a map of {shown}, not a vector: use --interpolate")


def traversal(model: AutoencoderModel, asked: SamplingRequest, frames: int, latents: Sequence[int] = ()) -> Tensor:
    """Latents that oscillate between -2.5 and 2.5 one at a time: uint8 [frames, L * seeds, C, *S], one row per latent.

    Each of the first seeds is a column, with the first class or its own. latents: in the order of the rows; empty: the
    first 20. Of several levels, the highest: the lower ones follow from it without noise.
    """
    size = model.autoencoder.group_dims[0][0]
    moved = list(latents)[:MOST_TRAVERSED] or list(range(min(size, MOST_TRAVERSED)))
    seeds = asked.seeds[:TRAVERSED_SEEDS]
    shown = SamplingRequest(seeds, asked.classes[:1], conditions=asked.conditions[:1])
    bases = model.latents_of(seeds)[:, :size] * asked.truncation
    z = torch.stack([traverse(base, moved, swing(frames)).unflatten(0, (len(moved), frames)) for base in bases])
    z = z.permute(2, 1, 0, 3).flatten(0, 2)  # [frames, L, seeds, Z]
    label = shown.label(model, range(len(seeds)))
    told = None if label is None else label.repeat(frames * len(moved), *(1 for _ in label.shape[1:]))
    return model.decode(z, told).unflatten(0, (frames, -1))
