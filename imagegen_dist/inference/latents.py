"""Latents as a dataset: which autoencoders make one, and what its latents.json says."""

from __future__ import annotations

from imagegen_dist.decoding.document import NAME as NAME
from imagegen_dist.decoding.statistics import LatentStatistics as LatentStatistics
from imagegen_dist.decoding.statistics import codes_as_they_are as codes_as_they_are
from imagegen_dist.decoding.statistics import latent_statistics as latent_statistics
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.model import Model


def check_latents(model: Model) -> AutoencoderModel:
    """The model as an autoencoder whose latents can form a dataset. Raises ValueError."""
    if not isinstance(model, AutoencoderModel):
        raise ValueError("a GAN has no encoder: give the checkpoint of an autoencoder")
    dims = model.autoencoder.group_dims
    if len(dims) > 1 or len(dims[0]) == 1:
        said = "of several levels" if len(dims) > 1 else f"a vector of {dims[0][0]}"
        raise ValueError(f"its latents are {said}: a dataset needs maps, as those of resvae (presets kl-f8, fsq-f8)")
    return model
