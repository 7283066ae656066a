"""The job that makes datasets: pictures to shards and index, and an index for shards that are there."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from imagegen_dist.data.builtin import BUILTIN, builtin_dataset
from imagegen_dist.data.images import Conversion, ImageFolder, find_images, fit, read_images
from imagegen_dist.data.index import INDEX_NAME, DatasetError, DatasetIndex, combine_scans, scan_shard, shard_names
from imagegen_dist.data.modality import Pixels, modality
from imagegen_dist.data.pack import pack
from imagegen_dist.data.stream import read_samples
from imagegen_dist.experiment import parameter_counts
from imagegen_dist.launch.flags import UsageError, flag, flags_help, parse_flags
from imagegen_dist.launch.train import DONE, FAILED, INTERRUPTED, MISUSED
from imagegen_dist.metrics.numerals import count
from imagegen_dist.presets import PRESETS
from imagegen_dist.storage import Store

UNDECODABLE_LIMIT = 0.01
"""Share of pictures that cannot be decoded above which the job fails."""

_JOB = "make_shards"
_SUMMARY = (
    "Pack a folder of pictures into shards that training reads: one sub-folder a class, or no sub-folders and no "
    "labels. Or index shards that are there, with --index-only."
)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}
_BATCH = 500  # samples of a built-in dataset decoded at once
_SMALL_SIDE = 32  # pixels up to which the preset for the CPU is suggested


class UndecodableError(Exception):
    """Too many pictures that cannot be decoded."""


@dataclass(frozen=True)
class Options:
    """Flags of the job."""

    source: Annotated[str, tyro.conf.Positional, flag("SOURCE")] = ""
    """A folder of pictures (local, s3://..., gs://...), or a built-in dataset (digits)."""
    dest: Annotated[str, tyro.conf.Positional, flag("DEST")] = ""
    """Folder for the shards and their index.json; it may not hold any yet."""
    size: Annotated[str, flag("WIDTHxHEIGHT")] = ""
    """Crop about the centre to this aspect ratio and resize. Default: pictures, all of one size, keep it."""
    format: Annotated[Literal["png", "jpg", "webp"], flag("png|jpg|webp")] = "png"
    """How samples are stored: png and webp (RGB alone) without loss, jpg at quality 95. Default: png."""
    shard_size: Annotated[str, flag("BYTES")] = "128MB"
    """A shard is closed when it has reached this, e.g. 500kB, 128MB, 1GB. Default: 128MB."""
    channels: Annotated[str, flag("1|3")] = ""
    """Make all grey (1) or RGB (3). Default: as they are; RGB where any is."""
    index_only: Annotated[str, flag("URL")] = ""
    """Index the shards in this folder, in place of SOURCE and DEST."""


@dataclass(frozen=True)
class Command:
    """A parsed command line."""

    options: Options
    conversion: Conversion
    shard_bytes: int


def main(arguments: Sequence[str] | None = None) -> int:
    """`python jobs/make_shards.py`: returns the exit code, as named in launch/train.py."""
    try:
        print(_run(parse(sys.argv[1:] if arguments is None else arguments)))
        return DONE
    except ValueError as error:
        return _complain(str(error), MISUSED)
    except UndecodableError as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted: nothing was kept", INTERRUPTED)


def parse(arguments: Sequence[str]) -> Command:
    """Read the job's arguments. Raises UsageError; --help prints and raises SystemExit(0)."""
    if any(argument in ("-h", "--help") for argument in arguments):
        print(flags_help(Options, _JOB, _SUMMARY))
        raise SystemExit(0)
    options = parse_flags(Options, _JOB, arguments)
    if options.index_only:
        if options != Options(index_only=options.index_only):
            raise UsageError("--index-only URL goes alone: it reads the shards there as they are")
    elif not options.source or not options.dest:
        raise UsageError(f"SOURCE and DEST are needed, or --index-only URL (see {_JOB}.py --help)")
    if options.channels not in ("", "1", "3"):
        raise UsageError(f"--channels {options.channels}: 1 (grey) or 3 (RGB)")
    if options.channels == "1" and options.format == "webp":
        raise UsageError("--channels 1 with --format webp: WebP has no grey and would be read as RGB; take png or jpg")
    conversion = Conversion(_parse_size(options.size), int(options.channels) if options.channels else None)
    return Command(options, conversion, _parse_bytes(options.shard_size))


def _run(command: Command) -> str:
    """Do what the command says; what to print at the end."""
    options = command.options
    if options.index_only:
        store = Store(options.index_only)
        return _summary(store, index_shards(store))
    dest = Store(options.dest)
    _check_empty(dest)
    if options.source in BUILTIN:
        return _pack_builtin(options.source, dest, command)
    folder = find_images(Store(options.source))
    dest.probe()
    return _summary(dest, pack_folder(folder, dest, command))


def index_shards(store: Store) -> DatasetIndex:
    """Read all shards in a folder and write index.json beside them. Raises DatasetError, StorageError."""
    if store.exists(INDEX_NAME):
        raise DatasetError(f"{store} has an {INDEX_NAME} already: remove it to make a new one")
    names, kind = shard_names(store), modality("image")
    if not names:
        raise DatasetError(f"{store} has no shards (*.tar)" if store.exists() else f"{store} does not exist")
    store.probe()
    try:
        with _progress() as bar:
            scans = [scan_shard(name, store.read(name), kind) for name in bar.track(names, description="shards")]
        index = combine_scans(scans, kind.name)
    except ValueError as error:
        raise DatasetError(f"{store}: {error}") from error
    index.save(store)
    return index


def pack_folder(folder: ImageFolder, dest: Store, command: Command) -> DatasetIndex:
    """Pack a folder's pictures, mixed; on standard error, what was left out.

    Raises UndecodableError where too many cannot be decoded, DatasetError, StorageError; then nothing is left in dest.
    """
    total, undecodable = len(folder.pictures), list[str]()
    with _progress() as bar:
        pictures = bar.track(folder.shuffled(), description="pictures")
        samples = read_images(folder.store, pictures, command.conversion, undecodable)
        try:
            index = _pack(_bounded(samples, total, undecodable), dest, command, class_names=folder.class_names)
        except UndecodableError:
            bar.stop()
            _list_left_out(folder, undecodable)
            raise
    _list_left_out(folder, undecodable)
    return index


def _pack_builtin(name: str, dest: Store, command: Command) -> str:
    """Pack the training and the held-out samples of a built-in dataset; what to print at the end."""
    train, val = dest / "train", dest / "val"
    for store in (train, val):
        _check_empty(store)
        store.probe()
    with tempfile.TemporaryDirectory(prefix="imagegen-builtin-") as cache:
        lines = []
        for store in (train, val):
            source = builtin_dataset(name, "train" if store == train else "val", Store(cache))
            index = DatasetIndex.load(source)
            samples = _builtin_samples(index, source, command.conversion)
            packed = _pack(samples, store, command, classes=index.classes, class_names=index.class_names)
            lines.append(_counts(store, packed))
    return "\n".join([*lines, _advice(train, packed, val)])


def _builtin_samples(index: DatasetIndex, store: Store, conversion: Conversion) -> Iterator[tuple[Pixels, int | None]]:
    for start in range(0, index.samples, _BATCH):
        samples, labels = read_samples(index, store, range(start, min(start + _BATCH, index.samples)))
        for at, sample in enumerate(samples.numpy()):
            picture = Image.fromarray(sample[0] if len(sample) == 1 else sample.transpose(1, 2, 0))
            yield fit(picture, conversion), None if labels is None else int(labels[at])


def _pack(
    samples: Iterator[tuple[Pixels, int | None]],
    dest: Store,
    command: Command,
    classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
) -> DatasetIndex:
    """Pack into an empty place, which is empty again where that fails."""
    try:
        return pack(
            samples,
            dest,
            extension=command.options.format,
            shard_bytes=command.shard_bytes,
            classes=classes,
            class_names=class_names,
        )
    except BaseException:
        with contextlib.suppress(OSError):
            for name in shard_names(dest):
                dest.remove(name)
        raise


def _bounded(
    samples: Iterator[tuple[Pixels, int | None]], total: int, undecodable: list[str]
) -> Iterator[tuple[Pixels, int | None]]:
    """All samples, and then an error where too many were left out: only when all of those are known."""
    yield from samples
    if len(undecodable) > UNDECODABLE_LIMIT * total:
        raise UndecodableError(
            f"{len(undecodable):,} of {total:,} pictures cannot be decoded, above {UNDECODABLE_LIMIT:.0%}: "
            "nothing was kept; repair or remove those listed above"
        )


def _check_empty(dest: Store) -> None:
    if dest.exists(INDEX_NAME):
        raise DatasetError(f"{dest} holds a dataset already: remove it, or choose another place")
    shards = shard_names(dest)
    if shards:
        raise DatasetError(
            f"{dest} has {len(shards)} shards without an {INDEX_NAME}: index them with --index-only, "
            "remove them where an interrupted run left them, or choose another place"
        )


def _summary(store: Store, index: DatasetIndex) -> str:
    return f"{_counts(store, index)}\n{_advice(store, index)}"


def _counts(store: Store, index: DatasetIndex) -> str:
    labels = "no labels" if index.classes is None else f"{index.classes:,} class{'es' * (index.classes != 1)}"
    shards = f"{len(index.shards):,} shard{'s' * (len(index.shards) != 1)}"
    size = sum(shard.bytes for shard in index.shards)
    return f"{index.samples:,} samples of {index.shape} in {shards}, {labels}, {count(size)}B: {store}"


def _advice(store: Store, index: DatasetIndex, validation: Store | None = None) -> str:
    """The command that trains on a dataset."""
    words = ["python", "jobs/train_gan.py", _suggested_preset(index), "--data", store.url]
    return "train on it: " + shlex.join(words if validation is None else [*words, "--data.validation", validation.url])


def _suggested_preset(index: DatasetIndex) -> str:
    """A small preset whose networks can have these samples."""
    small = max(index.shape.spatial) <= _SMALL_SIDE
    for name in ("digits", "dcgan") if small else ("dcgan", "digits"):
        with contextlib.suppress(ValueError):
            parameter_counts(PRESETS[name].experiment, index.shape, index.classes)
            return name
    return "article-gan"


def _list_left_out(folder: ImageFolder, undecodable: Sequence[str]) -> None:
    for line in undecodable:
        print(f"left out: {line}", file=sys.stderr)
    if undecodable:
        print(f"{len(undecodable):,} of {len(folder.pictures):,} pictures cannot be decoded", file=sys.stderr)
    if folder.left_out:
        some = ", ".join(folder.left_out[:5]) + (", ..." if len(folder.left_out) > 5 else "")
        print(f"{len(folder.left_out):,} files are no pictures by their names: {some}", file=sys.stderr)


def _progress() -> Progress:
    """A bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _parse_size(text: str) -> tuple[int, int] | None:
    """(H, W) in WIDTHxHEIGHT."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not text:
        return None
    if match is None or min(int(match[1]), int(match[2])) < 1:
        raise UsageError(f"--size {text}: give WIDTHxHEIGHT in pixels, e.g. 64x64")
    return int(match[2]), int(match[1])


def _parse_bytes(text: str) -> int:
    """Bytes in 128MB (10^6) or 128MiB (2^20)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]?I?)B?", text.upper())
    size = int(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
    if size < 1:
        raise UsageError(f"--shard-size {text}: give bytes as 500kB, 128MB or 1GB")
    return size


def _complain(line: str, code: int) -> int:
    print(f"{_JOB}.py: {' '.join(line.split())}", file=sys.stderr)
    return code
