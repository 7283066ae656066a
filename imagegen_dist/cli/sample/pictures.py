"""Samples to look at: a grid, a folder of files, an animation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, sqrt

import numpy as np
from torch import Tensor

from imagegen_dist.data.animation import animate
from imagegen_dist.data.modality import modality
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.generated import sample_extension
from imagegen_dist.inference.model import AutoencoderModel, GeneratorModel, Model
from imagegen_dist.inference.sampling_request import Asked
from imagegen_dist.storage import PATIENCE_S, Store, file_at
from imagegen_dist.wording import counted

MOST_TILES = 4_000
"""Samples in one picture, at most."""

_MOST_COLUMNS = 20
_FILM_SIDE = 256  # pixels to which the only tile of an animation is enlarged, at least


def grid_columns(asked: Asked, classes: int) -> int:
    """Columns of a grid: one a class where classes are named or few, else as many as rows."""
    if asked.classes:
        return len(asked.classes)
    if 1 < classes <= _MOST_COLUMNS and len(asked) > classes:
        return classes
    return ceil(sqrt(len(asked)))


def check_grid(asked: Asked) -> None:
    """Raise UsageError where so many samples make no picture."""
    if len(asked) > MOST_TILES:
        raise UsageError(
            f"--grid of {counted(len(asked), 'sample')}: {MOST_TILES:,} at most; give fewer --seeds, or --folder"
        )


def write_grid(model: Model, asked: Asked, url: str, scale: int) -> str:
    """Write a picture of all samples; what to say of it."""
    columns = grid_columns(asked, model.classes)
    samples = asked.sample(model, range(len(asked))).cpu().numpy()
    data, _ = modality(model.modality).preview(samples, columns, scale or None)
    _write(url, data)
    return f"{counted(len(asked), 'sample')}, {columns} in a row: {url}"


def check_folder(url: str) -> None:
    """Raise UsageError where a folder is not new or empty."""
    if Store(url).names():
        raise UsageError(f"--folder {url}: it holds files already; choose another place")


def write_folder(
    model: GeneratorModel | AutoencoderModel, asked: Asked, url: str, scale: int, tell: Callable[[int], None]
) -> str:
    """Write a file a sample, as it is or enlarged; what to say of it. tell: is told of each so many more."""
    store, kind = Store(url, PATIENCE_S), modality(model.modality)
    plain = sample_extension(model) == "png" and scale in (0, 1)
    for start in range(0, len(asked), model.batch):
        rows = range(start, min(start + model.batch, len(asked)))
        for row, sample in zip(rows, asked.sample(model, rows).cpu().numpy(), strict=True):
            data = kind.encode(sample, "png") if plain else kind.preview(sample[None], 1, scale or 1)[0]
            store.write(f"{_name(model, asked, row)}.png", data)
        tell(len(rows))
    return f"{counted(len(asked), 'picture')}: {store}"


def _name(model: Model, asked: Asked, row: int) -> str:
    seed, column = asked.seeds[row // asked.columns], row % asked.columns
    label = asked.class_of(model, row)
    if label is not None:
        return f"seed{seed:06d}-class{label}"
    return f"seed{seed:06d}-mix{column}" if asked.classes else f"seed{seed:06d}"


def check_film(model: Model, flag: str) -> None:
    """Raise UsageError where samples move already."""
    if model.modality == "video":
        raise UsageError(f"--{flag}: samples of video move already; take --grid")


def write_film(model: Model, samples: Tensor, columns: int, url: str, scale: int, fps: float) -> str:
    """Write an animation of samples uint8 [F, tiles, C, *S]; what to say of it."""
    kind, shown = modality(model.modality), samples.cpu().numpy()
    if not scale and shown.shape[1] == 1:
        scale = ceil(_FILM_SIDE / max(shown.shape[-2:]))
    frames = [kind.pages(frame, columns, scale or None)[0] for frame in shown]
    _write(url, animate(frames, extension_of(url), fps))
    return f"{len(frames):,} frames of {frames[0].width} × {frames[0].height}: {url}"


def extension_of(url: str) -> str:
    """What a file's name ends with, in lower case."""
    return url.rpartition("/")[2].rpartition(".")[2].lower()


def most_used(rates: object, latents: int) -> Sequence[int]:
    """Latents by their rate, the highest first; none where the rates of all are not known."""
    if not isinstance(rates, dict) or len(rates) < latents:
        return []
    values = [float(rates.get(f"{latent:03}", np.nan)) for latent in range(latents)]
    return np.argsort(-np.array(values), kind="stable").tolist() if np.isfinite(values).all() else []


def _write(url: str, data: bytes) -> None:
    store, name = file_at(url, PATIENCE_S)
    store.write(name, data)
