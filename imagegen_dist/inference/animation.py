"""Samples that change with time: from seed to seed, and latent by latent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imagegen_dist.evaluation.traversal import MOST_TRAVERSED, traverse
from imagegen_dist.inference.interpolation import blend, swing, walk
from imagegen_dist.inference.model import AutoencoderModel, Model
from imagegen_dist.inference.sampling_request import Asked

TRAVERSED_SEEDS = 5
"""Columns of a traversal, at most."""


def check_interpolation(model: Model) -> None:
    """Raise ValueError where there is nothing between two latents."""
    if not model.gaussian:
        raise ValueError("--interpolate: this model's latents are codes, and nothing lies between two of them")


def interpolation(model: Model, asked: Asked, frames: int) -> Tensor:
    """From each seed to the next and back to the first: uint8 [F, columns, C, *S], F = seeds * frames.

    A column a class. Where no class is named there is one column, whose class goes from seed to seed as well, in
    straight lines through the weights of the class embeddings.
    """
    keys = model.latents_of(asked.seeds)
    path = walk(keys, frames)
    if model.classes and not asked.classes:
        weights = torch.zeros(len(asked.seeds), model.classes)
        weights[torch.arange(len(weights)), torch.tensor(asked.seeds) % model.classes] = 1
        return model.generate(path, blend(weights, frames), asked.truncation).unsqueeze(1)
    label = model.labels(asked.columns, asked.classes or None)
    columns = None if label is None else label.repeat(len(path), *(1 for _ in label.shape[1:]))
    drawn = path.repeat_interleave(asked.columns, 0)
    return model.generate(drawn, columns, asked.truncation).unflatten(0, (len(path), asked.columns))


def check_traversal(model: Model) -> None:
    """Raise ValueError where there are no single latents to move."""
    if not isinstance(model, AutoencoderModel):
        raise ValueError("--traverse moves the latents of a VAE, and this is a GAN: take --interpolate")
    if not model.gaussian:
        raise ValueError("--traverse: this model's latents are codes, which cannot be moved a little")
    dims = model.autoencoder.group_dims[0]
    if len(dims) > 1:
        shown = " × ".join(map(str, dims))
        raise ValueError(f"--traverse: this model's latents are a map of {shown}, and no vector: take --interpolate")


def traversal(model: AutoencoderModel, asked: Asked, frames: int, latents: Sequence[int] = ()) -> Tensor:
    """Latents that swing from -2.5 to 2.5 one at a time: uint8 [frames, L * seeds, C, *S], a row a latent.

    Each of the first seeds is a column, with the first class or its own. latents: which, from the top row down; none:
    the first 20. Of several levels, the highest: those below follow from it without noise.
    """
    size = model.autoencoder.group_dims[0][0]
    moved = list(latents)[:MOST_TRAVERSED] or list(range(min(size, MOST_TRAVERSED)))
    seeds = asked.seeds[:TRAVERSED_SEEDS]
    shown = Asked(seeds, asked.classes[:1])
    bases = model.latents_of(seeds)[:, :size] * asked.truncation
    z = torch.stack([traverse(base, moved, swing(frames)).unflatten(0, (len(moved), frames)) for base in bases])
    z = z.permute(2, 1, 0, 3).flatten(0, 2)  # [frames, L, seeds, Z]
    label = shown.label(model, range(len(seeds)))
    told = None if label is None else label.repeat(frames * len(moved), *(1 for _ in label.shape[1:]))
    return model.decode(z, told).unflatten(0, (frames, -1))
