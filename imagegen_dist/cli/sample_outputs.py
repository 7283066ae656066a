"""What `imagegen sample` writes: a grid, a folder of files, animations, and shards, a Ray task a shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, sqrt
from typing import TYPE_CHECKING

from imagegen_dist.cli.device import pick_device
from imagegen_dist.cli.progress import ProgressBar
from imagegen_dist.cli.sample_conditions import parse_conditions
from imagegen_dist.cli.sample_directions import list_directions, parse_directions, swept_samples
from imagegen_dist.cli.sample_files import check_format_of, check_formats, write_folder, write_meshes
from imagegen_dist.cli.sample_films import extension_of, write_film, write_interpolation, write_traversal
from imagegen_dist.cli.sample_seeds import as_typed, parse_asked
from imagegen_dist.cli.sample_shards import write_shards
from imagegen_dist.cli.sample_window import parse_window, seen
from imagegen_dist.drawing.animation import FILMS, check_encoder
from imagegen_dist.drawing.png import save_png
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.animation import check_interpolation, check_traversal
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.batches import batch_on
from imagegen_dist.inference.engines import use_engine_
from imagegen_dist.inference.generated import Maker
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.given import Given
from imagegen_dist.inference.loading import build_model, read_trained
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.sampling_request import SamplingRequest
from imagegen_dist.storage import PATIENCE_S, Store, file_at
from imagegen_dist.wording import counted

if TYPE_CHECKING:
    from imagegen_dist.cli.sample import Options

_SEEDS, _FILM_SEEDS = "0-63", "0-7"
_SWEPT_SEEDS = "0-7"  # rows of a grid whose columns are a sweep
_MOST_TILES = 4_000
"""Samples in one picture, at most."""

_MOST_COLUMNS = 20


def run(options: Options) -> None:
    """Write what is asked for, and say what was written. Raises ValueError before anything is; TaskError."""
    asked, film = (
        parse_asked(options.seeds or seeds, options.classes, options.mix, options.truncation)
        for seeds in (_default_seeds(options), _FILM_SEEDS)
    )
    _check_outputs(options, asked, film)
    parse_directions(options.direction)
    device = pick_device(options.device)
    trained = read_trained(options.checkpoint)
    model = build_model(trained).to(device)
    model.batch = options.batch or batch_on(model)
    if options.direction == "list":
        print(list_directions(model))
        return
    if options.set or options.sweep:
        given, swept = _conditions(options, model), options.sweep.partition("=")[0].strip()
        asked, film = (replace(each, conditions=given, swept=swept) for each in (asked, film))
    asked, film = (as_typed(each, model).resolved(model) for each in (asked, film))
    _check_model(options, asked, model)
    use_engine_(model, options.engine)
    _write_all(options, model, asked, film, Maker(trained.url, device, options.engine, model.batch))


def _write_all(
    options: Options,
    model: GeneratorModel | AutoencoderModel,
    asked: SamplingRequest,
    film: SamplingRequest,
    maker: Maker,
) -> None:
    """Write each output, and say what was written. film: what is asked for of paths through latents."""
    if options.grid:
        print(_write_grid(model, asked, options))
    if options.strip:
        print(_write_strip(model, asked, options))
    for folder, write in ((options.folder, write_folder), (options.mesh, write_meshes)):
        if folder:
            with ProgressBar("sampling") as bar:
                bar.start(len(asked), 0, "sampling")
                said = write(model, asked, options, bar.advance)
            print(said)
    if options.shards:
        print(write_shards(model, maker, asked, options, options.seeds or _default_seeds(options)))
    if options.interpolate:
        print(write_interpolation(model, film, options))
    if options.traverse:
        assert isinstance(model, AutoencoderModel)  # checked before
        print(write_traversal(model, film, options, maker.url))


def _default_seeds(options: Options) -> str:
    return _SWEPT_SEEDS if options.sweep or options.direction else _SEEDS


def _conditions(options: Options, model: Model) -> tuple[Given, ...]:
    if model.conditions is None:
        has = "of one of its classes: give --classes" if model.classes else "unconditional"
        raise UsageError(f"--set and --sweep: this model has no named conditions, it is {has}")
    return tuple(parse_conditions(options.set, options.sweep, model.conditions))


def _check_outputs(options: Options, asked: SamplingRequest, film: SamplingRequest) -> None:
    """Raise ValueError for files that cannot be written as they are named, before a model is loaded."""
    for name in ("grid", "strip"):
        if getattr(options, name) and len(asked) > _MOST_TILES:
            samples = counted(len(asked), "sample")
            raise UsageError(f"--{name} of {samples}: {_MOST_TILES:,} at most; give fewer --seeds, or --folder")
    if options.strip and extension_of(options.strip) != "png":
        raise UsageError(f"--strip {options.strip}: a strip is a .png")
    for name in ("grid", "interpolate", "traverse"):
        if url := getattr(options, name):
            _check_film(name, url)
    check_formats(options)
    parse_window(options.window)
    for name in ("folder", "mesh"):
        if (url := getattr(options, name)) and Store(url).names():
            raise UsageError(f"--{name} {url}: it holds files already; choose another place")
    if options.interpolate and len(set(film.seeds)) < 2:
        raise UsageError(
            f"--interpolate goes from seed to seed, and --seeds names {film.seeds[0]} alone: give two or more"
        )
    if options.shards and any(isinstance(each, Mapping) for each in asked.classes):
        raise UsageError("--mix with --shards: a blend of classes has no label; take --grid or --folder")


def _check_film(name: str, url: str) -> None:
    """Raise UsageError if a film, or a grid, cannot be written as the file is named."""
    if name == "grid" and (extension := extension_of(url)) not in FILMS:
        if extension != "png":
            raise UsageError(f"--grid {url}: a grid is a .png, and of clips or volumes also a film, .webp or .mp4")
        return
    try:
        check_encoder(extension_of(url))
    except ValueError as error:
        raise UsageError(f"--{name} {url}: {error}") from None


def _check_model(options: Options, asked: SamplingRequest, model: GeneratorModel | AutoencoderModel) -> None:
    """Raise ValueError for what this model cannot do, before anything is written."""
    asked.check(model)
    if options.shards and any(isinstance(value, Mapping) for each in asked.conditions for value in each.values()):
        raise UsageError("--sweep between two classes with --shards: a blend is no condition of a sample; take --grid")
    for name, check in (("interpolate", check_interpolation), ("traverse", check_traversal)):
        if getattr(options, name):
            check(model)
    check_format_of(options, model)
    if not model.drawing.moves:
        if options.strip:
            raise UsageError("--strip is of frames or slices, and this model makes single pictures: take --grid")
        if options.grid and extension_of(options.grid) != "png":
            raise UsageError(f"--grid {options.grid}: a grid of pictures is a .png; --interpolate moves them")


def grid_columns(asked: SamplingRequest, classes: int) -> int:
    """Columns of a grid: one a class where classes are named or few, else as many as rows."""
    if asked.classes or asked.columns > 1:
        return asked.columns
    if 1 < classes <= _MOST_COLUMNS and len(asked) > classes:
        return classes
    return ceil(sqrt(len(asked)))


def _write_grid(model: Model, asked: SamplingRequest, options: Options) -> str:
    """Write a picture or a film of all samples; what to say of it."""
    columns, url = grid_columns(asked, model.classes), options.grid
    if options.direction:
        sweep = parse_directions(options.direction, told=True)
        samples, columns = seen(model, swept_samples(model, asked, sweep), options), sweep.columns
    else:
        samples = seen(model, asked.sample(model, range(len(asked))), options)
    if extension_of(url) != "png":
        return write_film(model, samples, columns, url, options)
    _write(url, save_png(model.drawing.pages(samples, columns, options.scale or None)))
    return f"{counted(len(samples), 'sample')}, {columns} in a row: {url}"


def _write_strip(model: Model, asked: SamplingRequest, options: Options) -> str:
    """Write the frames of clips or the slices of volumes; what to say of it."""
    samples = seen(model, asked.sample(model, range(len(asked))), options)
    strip = model.drawing.strip(samples, options.scale or None)
    _write(options.strip, save_png([strip]))
    return f"{counted(len(asked), 'sample')}, a row each: {options.strip}"


def _write(url: str, data: bytes) -> None:
    store, name = file_at(url, PATIENCE_S)
    store.write(name, data)
