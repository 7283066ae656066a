"""Films that `imagegen sample` writes: clips and turning volumes, and paths through latents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from imagegen_dist.cli.sample_window import seen
from imagegen_dist.drawing.animation import animate
from imagegen_dist.inference.animation import TRAVERSED_SEEDS, interpolation, traversal
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.folder import card_of
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.sampling_request import SamplingRequest
from imagegen_dist.storage import PATIENCE_S, file_at

if TYPE_CHECKING:
    from imagegen_dist.cli.sample import Options

_FILM_SIDE = 256  # pixels to which the only tile of a film is enlarged, at least


def write_film(model: Model, samples: np.ndarray, columns: int, url: str, options: Options) -> str:
    """Write a film of samples, uint8 [N, C, *S]: clips play, volumes turn. Returns what to say of it."""
    drawing = model.drawing
    frames = drawing.film(samples, columns, _scale(options, samples.shape), options.frames)
    return _write(model, frames, url, options.fps or drawing.fps)


def write_interpolation(model: Model, asked: SamplingRequest, options: Options) -> str:
    """Write an interpolation between seeds; what to say of it."""
    samples = seen(model, interpolation(model, asked, options.frames), options)
    return _write_path(model, samples, asked.columns, options.interpolate, options)


def write_traversal(model: AutoencoderModel, asked: SamplingRequest, options: Options, url: str) -> str:
    """Write a traversal of latents, those of the highest rate first; what to say of it. url: of the checkpoint."""
    rates = card_of(model, url).figures.get("rate_of_latent")
    latents = most_used(rates, model.autoencoder.group_dims[0][0])
    samples = seen(model, traversal(model, asked, options.frames, latents), options)
    return _write_path(model, samples, min(len(asked.seeds), TRAVERSED_SEEDS), options.traverse, options)


def most_used(rates: object, latents: int) -> Sequence[int]:
    """Latents by their rate, the highest first; none where the rates of all are not known."""
    if not isinstance(rates, dict) or len(rates) < latents:
        return []
    values = [float(rates.get(f"{latent:03}", np.nan)) for latent in range(latents)]
    return np.argsort(-np.array(values), kind="stable").tolist() if np.isfinite(values).all() else []


def extension_of(url: str) -> str:
    """What a file's name ends with, in lower case."""
    return url.rpartition("/")[2].rpartition(".")[2].lower()


def _write_path(model: Model, samples: np.ndarray, columns: int, url: str, options: Options) -> str:
    """Write a film of samples that change, uint8 [F, tiles, C, *S]. Clips play while their latents move."""
    drawing, scale = model.drawing, _scale(options, samples.shape[1:])
    frames = (drawing.frame(each, number, columns, scale) for number, each in enumerate(samples))
    return _write(model, frames, url, options.fps or drawing.path_fps)


def _scale(options: Options, dims: Sequence[int]) -> int | None:
    """The scale that is asked for, or that of a single tile. dims: [tiles, C, *S]."""
    return options.scale or (ceil(_FILM_SIDE / max(dims[-2:])) if dims[0] == 1 else None)


def _write(model: Model, frames: Iterable[Image.Image], url: str, fps: float) -> str:
    made = list(frames)
    lossless = not model.drawing.rendered
    store, name = file_at(url, PATIENCE_S)
    store.write(name, animate(made, extension_of(url), fps, lossless))
    return f"{len(made):,} frames of {made[0].width} × {made[0].height}: {url}"
