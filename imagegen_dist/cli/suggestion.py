"""The command that trains on a dataset, for those commands that make one to print at their end."""

from __future__ import annotations

import contextlib

from imagegen_dist.commands import command
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stacked import channel_classes
from imagegen_dist.data.trust import FLAG as REMOTE_SHARDS
from imagegen_dist.data.trust import UntrustedPlaceError, check_public, shards_are_near
from imagegen_dist.experiment import parameter_counts
from imagegen_dist.presets import PRESETS
from imagegen_dist.storage import Store

_SMALL_SIDE = 32  # pixels up to which the preset for the CPU is suggested
_SMALL_LATENTS = 16  # positions along an axis
_OF_ANY_SIZE = "article-gan"  # perceptrons, which do not divide the axes
_OF_AXES = {"video": ("moving-digits-gan", "dcgan"), "voxels": ("solids-gan", "dcgan")}  # small samples' first
_OF_LATENTS = ("latent-digits", "r3gan-latent256")


def train_line(store: Store, index: DatasetIndex, validation: Store | None = None, latents: bool = False) -> str:
    """The line with the command that trains on a dataset. latents: its samples are an autoencoder's latents."""
    preset = suggested_preset(index, latents)
    words = ["train_gan", preset, "--data", store.url]
    untold = index.conditions is not None and not PRESETS[preset].experiment.data.conditional
    told = ("--data.conditional", "true") if untold else ()
    begin = "train on it: "
    if not shards_are_near(store, place := index.location(store)):
        words.append(REMOTE_SHARDS)
        try:
            check_public(place.url)
        except UntrustedPlaceError:
            begin = f"{place} is at this machine's own address: serve the index from there too, and train on that: "
            words = [*words[:-2], f"{place}/..."]
    held_out = () if validation is None else ("--data.validation", validation.url)
    return begin + command(*words, *told, *held_out)


def suggested_preset(index: DatasetIndex, latents: bool = False) -> str:
    """A small preset that is made for such samples, or whose networks can at least have them."""
    for name in _candidates(index, latents):
        with contextlib.suppress(ValueError):
            parameter_counts(PRESETS[name].experiment, index.shape, index.labels)
            return name
    return _OF_ANY_SIZE


def _candidates(index: DatasetIndex, latents: bool) -> tuple[str, ...]:
    """Presets, the most suitable first."""
    side = max(index.shape.spatial)
    if latents:
        small = side <= _SMALL_LATENTS
        flat = (*(_OF_LATENTS if small else reversed(_OF_LATENTS)), "digits")
        return _OF_AXES.get(index.modality, flat)
    if index.modality in _OF_AXES:
        of_axes = _OF_AXES[index.modality]
        return of_axes if side <= _SMALL_SIDE else of_axes[::-1]
    stacked = () if channel_classes(index) is None else ("r3gan-stackedmnist-small",)
    return (*stacked, *(("digits", "dcgan") if side <= _SMALL_SIDE else ("dcgan", "digits")))
