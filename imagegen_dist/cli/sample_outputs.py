"""What `imagegen sample` writes: a grid, a folder of files, animations, and shards, a Ray task a shard."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from imagegen_dist.cli.device import pick_device
from imagegen_dist.cli.make_shards import counts, parse_bytes
from imagegen_dist.cli.progress import ProgressBar
from imagegen_dist.cli.sample_conditions import parse_conditions
from imagegen_dist.cli.sample_seeds import as_typed, parse_asked
from imagegen_dist.data.modality import modality
from imagegen_dist.data.pack_shards import Target, pack_shards
from imagegen_dist.data.pack_tasks import Recipe
from imagegen_dist.data.sources.base import listing_digest
from imagegen_dist.drawing.animation import animate, check_encoder
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.animation import (
    TRAVERSED_SEEDS,
    check_interpolation,
    check_traversal,
    interpolation,
    traversal,
)
from imagegen_dist.inference.batches import batch_on
from imagegen_dist.inference.engines import use_engine_
from imagegen_dist.inference.folder import card_of
from imagegen_dist.inference.generated import GeneratedSource, Maker, sample_extension
from imagegen_dist.inference.given import Given
from imagegen_dist.inference.loading import build_model, read_trained
from imagegen_dist.inference.model import AutoencoderModel, GeneratorModel, Model
from imagegen_dist.inference.sampling_request import SamplingRequest
from imagegen_dist.ray.tasks import run_tasks
from imagegen_dist.storage import PATIENCE_S, Store, file_at, reached
from imagegen_dist.wording import counted

if TYPE_CHECKING:
    from imagegen_dist.cli.sample import Options

_SEEDS, _FILM_SEEDS = "0-63", "0-7"
_SWEPT_SEEDS = "0-7"  # rows of a grid whose columns are a sweep
_MOST_TILES = 4_000
"""Samples in one picture, at most."""

_MOST_COLUMNS = 20
_FILM_SIDE = 256  # pixels to which the only tile of an animation is enlarged, at least


def run(options: Options) -> None:
    """Write what is asked for, and say what was written. Raises ValueError before anything is; TaskError."""
    asked, film = (
        parse_asked(options.seeds or seeds, options.classes, options.mix, options.truncation)
        for seeds in (_SWEPT_SEEDS if options.sweep else _SEEDS, _FILM_SEEDS)
    )
    _check_outputs(options, asked, film)
    device = pick_device(options.device)
    trained = read_trained(options.checkpoint)
    model = build_model(trained).to(device)
    model.batch = options.batch or batch_on(model)
    if options.set or options.sweep:
        given, swept = _conditions(options, model), options.sweep.partition("=")[0].strip()
        asked, film = (replace(each, conditions=given, swept=swept) for each in (asked, film))
    asked, film = (as_typed(each, model).resolved(model) for each in (asked, film))
    _check_model(options, asked, model)
    use_engine_(model, options.engine)
    if options.grid:
        print(_write_grid(model, asked, options.grid, options.scale))
    if options.folder:
        with ProgressBar("sampling") as bar:
            bar.start(len(asked), 0, "sampling")
            said = _write_folder(model, asked, options.folder, options.scale, bar.advance)
        print(said)
    if options.shards:
        maker = Maker(trained.url, device, options.engine, model.batch)
        print(_pack_samples(model, maker, asked, options))
    if options.interpolate:
        samples = interpolation(model, film, options.frames)
        print(_write_film(model, samples, film.columns, options.interpolate, options.scale, options.fps))
    if options.traverse:
        assert isinstance(model, AutoencoderModel)  # checked before
        rates = card_of(model, trained.url).figures.get("rate_of_latent")
        latents = most_used(rates, model.autoencoder.group_dims[0][0])
        samples = traversal(model, film, options.frames, latents)
        columns = min(len(film.seeds), TRAVERSED_SEEDS)
        print(_write_film(model, samples, columns, options.traverse, options.scale, options.fps))


def _conditions(options: Options, model: Model) -> tuple[Given, ...]:
    if model.conditions is None:
        has = "of one of its classes: give --classes" if model.classes else "unconditional"
        raise UsageError(f"--set and --sweep: this model has no named conditions, it is {has}")
    return tuple(parse_conditions(options.set, options.sweep, model.conditions))


def _check_outputs(options: Options, asked: SamplingRequest, film: SamplingRequest) -> None:
    """Raise ValueError for files that cannot be written as they are named, before a model is loaded."""
    if options.grid:
        if _extension_of(options.grid) != "png":
            raise UsageError(f"--grid {options.grid}: a grid is a .png")
        if len(asked) > _MOST_TILES:
            samples = counted(len(asked), "sample")
            raise UsageError(f"--grid of {samples}: {_MOST_TILES:,} at most; give fewer --seeds, or --folder")
    for name in ("interpolate", "traverse"):
        if url := getattr(options, name):
            try:
                check_encoder(_extension_of(url))
            except ValueError as error:
                raise UsageError(f"--{name} {url}: {error}") from None
    if options.folder and Store(options.folder).names():
        raise UsageError(f"--folder {options.folder}: it holds files already; choose another place")
    if options.interpolate and len(set(film.seeds)) < 2:
        raise UsageError(
            f"--interpolate goes from seed to seed, and --seeds names {film.seeds[0]} alone: give two or more"
        )
    if options.shards and any(isinstance(each, Mapping) for each in asked.classes):
        raise UsageError("--mix with --shards: a blend of classes has no label; take --grid or --folder")


def _check_model(options: Options, asked: SamplingRequest, model: GeneratorModel | AutoencoderModel) -> None:
    """Raise ValueError for what this model cannot do, before anything is written."""
    asked.check(model)
    if options.shards and any(isinstance(value, Mapping) for each in asked.conditions for value in each.values()):
        raise UsageError("--sweep between two classes with --shards: a blend is no condition of a sample; take --grid")
    for name, check in (("interpolate", check_interpolation), ("traverse", check_traversal)):
        if getattr(options, name):
            check(model)
            if model.modality == "video":
                raise UsageError(f"--{name}: samples of video move already; take --grid")


def grid_columns(asked: SamplingRequest, classes: int) -> int:
    """Columns of a grid: one a class where classes are named or few, else as many as rows."""
    if asked.classes or asked.columns > 1:
        return asked.columns
    if 1 < classes <= _MOST_COLUMNS and len(asked) > classes:
        return classes
    return ceil(sqrt(len(asked)))


def _write_grid(model: Model, asked: SamplingRequest, url: str, scale: int) -> str:
    """Write a picture of all samples; what to say of it."""
    columns = grid_columns(asked, model.classes)
    samples = asked.sample(model, range(len(asked))).cpu().numpy()
    data, _ = modality(model.modality).preview(samples, columns, scale or None)
    _write(url, data)
    return f"{counted(len(asked), 'sample')}, {columns} in a row: {url}"


def _write_folder(
    model: GeneratorModel | AutoencoderModel, asked: SamplingRequest, url: str, scale: int, tell: Callable[[int], None]
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


def _name(model: Model, asked: SamplingRequest, row: int) -> str:
    seed, column = asked.seeds[row // asked.columns], row % asked.columns
    label = asked.class_of(model, row)
    if label is not None:
        return f"seed{seed:06d}-class{label}"
    if asked.conditions:
        return f"seed{seed:06d}-condition{column}" if asked.columns > 1 else f"seed{seed:06d}"
    return f"seed{seed:06d}-mix{column}" if asked.classes else f"seed{seed:06d}"


def _write_film(model: Model, samples: Tensor, columns: int, url: str, scale: int, fps: float) -> str:
    """Write an animation of samples uint8 [F, tiles, C, *S]; what to say of it."""
    kind, shown = modality(model.modality), samples.cpu().numpy()
    if not scale and shown.shape[1] == 1:
        scale = ceil(_FILM_SIDE / max(shown.shape[-2:]))
    frames = [kind.drawing.frame(frame, 0, columns, scale or None) for frame in shown]
    _write(url, animate(frames, _extension_of(url), fps))
    return f"{len(frames):,} frames of {frames[0].width} × {frames[0].height}: {url}"


def _extension_of(url: str) -> str:
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


def _pack_samples(
    model: GeneratorModel | AutoencoderModel, maker: Maker, asked: SamplingRequest, options: Options
) -> str:
    """Make the shards that are not there yet; returns a line that describes them. Raises as `pack_shards` does."""
    shard_bytes = parse_bytes(options.shard_size)
    flags = {
        "SOURCE": maker.url,
        "--seeds": options.seeds or (_SWEPT_SEEDS if options.sweep else _SEEDS),
        "--classes": options.classes,
        "--set": options.set,
        "--sweep": options.sweep,
        "--truncation": f"{options.truncation:g}",
        "--engine": options.engine,
        "--batch": f"{maker.batch}",
        "--shard-size": f"{shard_bytes}",
    }
    source = GeneratedSource(
        place=maker.url,
        count=len(asked),
        listing=listing_digest([flags]),
        mixes=False,
        classes=model.classes or None,
        class_names=model.class_names,
        known=model.conditions,
        maker=maker,
        asked=asked,
    )
    store = reached(options.shards)
    packed = pack_shards(
        store,
        [Target("", source, np.arange(len(asked)))],
        Recipe(None, sample_extension(model), modality=model.modality),
        flags,
        shard_bytes,
        workers=options.workers if maker.device == "cpu" else 0,  # a GPU belongs to this process
        run_tasks=run_tasks,
        progress=ProgressBar,
        tell=lambda line: print(line, file=sys.stderr),
    )
    return counts(store, packed.indexes[""]) + ("" if packed.fresh else ", complete already")
