"""What `imagegen data` does: pictures to shards and index, an index for shards that others wrote, a check of both."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from imagegen_dist.cli.contents import contents_of
from imagegen_dist.cli.data import Options
from imagegen_dist.cli.packing import UNDECODABLE, Made, Packing, Request, Target, UndecodableError, find_made
from imagegen_dist.cli.progress import ProgressBar
from imagegen_dist.cli.verify_shards import check_dataset, index_shards
from imagegen_dist.commands import command as command_line
from imagegen_dist.data.builtin import SPLITS, builtin_dataset, is_builtin
from imagegen_dist.data.contents import Copies, find_copies
from imagegen_dist.data.images import Conversion
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.labels import empty_classes
from imagegen_dist.data.modality import modality
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.pack_tasks import Recipe
from imagegen_dist.data.picture import DEEPEST_WHITE
from imagegen_dist.data.sources.base import Source
from imagegen_dist.data.sources.detect import open_source
from imagegen_dist.data.sources.folder import FolderSource
from imagegen_dist.data.sources.relabelled import check_classes, relabelled
from imagegen_dist.data.sources.shards import open_shards
from imagegen_dist.data.sources.tables import Columns
from imagegen_dist.data.split import mixed_rows, parse_shares, split_rows
from imagegen_dist.data.stacked import channel_classes
from imagegen_dist.data.trust import FLAG as REMOTE_SHARDS
from imagegen_dist.data.trust import UntrustedPlaceError, check_public, shards_are_near
from imagegen_dist.errors import DONE, FAILED, TaskError, UsageError
from imagegen_dist.experiment import parameter_counts
from imagegen_dist.metrics.formatting import count
from imagegen_dist.presets import PRESETS
from imagegen_dist.storage import Store, temporary_folder
from imagegen_dist.wording import counted, one_line

DUPLICATES = "duplicates.txt"
"""Which copies of pictures were left out, and of which others they are, a line each."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}
_SMALL_SIDE = 32  # pixels up to which the preset for the CPU is suggested
_LISTED = 20  # undecodable pictures that are named on the screen


@dataclass(frozen=True)
class Command:
    """A parsed command line."""

    options: Options
    conversion: Conversion
    shard_bytes: int
    shares: dict[str, float]
    max_bad: float


def make_shards(options: Options) -> tuple[str, int]:
    """Do what the options say: (what to print at the end, exit code). Raises ValueError, TaskError."""
    try:
        return _run(command_of(options))
    except UndecodableError as error:
        raise TaskError(str(error)) from error


def command_of(options: Options) -> Command:
    """The options with what their texts mean. Raises UsageError."""
    channels = int(options.channels) if options.channels else None
    size = _parse_size(options.size)
    conversion = Conversion(size, channels, options.crop == "center", options.icc, options.white_level)
    shares, max_bad = _parse_split(options.split), _parse_share(options.max_bad)
    return Command(options, conversion, parse_bytes(options.shard_size), shares, max_bad)


def _run(command: Command) -> tuple[str, int]:
    """Do what the command says: (what to print at the end, exit code)."""
    options, parallel = command.options, command.options.workers != 0
    if options.check:
        report = check_dataset(Store(options.check), parallel, options.allow_remote_shards)
        return report.table(shutil.get_terminal_size().columns), FAILED if report.damaged else DONE
    if options.index_only:
        store = Store(options.index_only)
        index_at = Store(options.index_at) if options.index_at else store
        index = index_shards(
            store, index_at, parallel, options.subset, options.labels == "auto", _parse_member(options.member)
        )
        _tell_empty_classes(
            [index], f"packing them again with `{command_line('make_shards', store, 'DEST', '--relabel')}`"
        )
        return f"{counts(index_at, index)}\n{_advice(index_at, index)}", DONE
    with _work(command) as work:
        return _pack(work, command), DONE


@dataclass(frozen=True)
class _Work:
    """The datasets to be made, and what is known of them."""

    targets: list[Target]
    duplicates: tuple[str, ...] = ()  # a line for each picture that is left out as a copy
    made: Made | None = None  # where all is there already


@contextlib.contextmanager
def _work(command: Command) -> Iterator[_Work]:
    """The datasets to be made and what of. Raises UsageError, DatasetError, StorageError."""
    options = command.options
    columns = Columns(options.image_column, options.label_column)
    if is_builtin(options.source):
        changed = options.split or options.subset or options.member or options.relabel or options.dedup
        if changed or options.labels != "auto" or columns != Columns():
            raise UsageError(
                f"{options.source} comes split, in a form of its own: give neither --split, --subset, --member, "
                "--dedup, columns nor what changes labels"
            )
        with temporary_folder("builtin") as cache:
            sources = {name: open_shards(builtin_dataset(options.source, name, Store(cache)), []) for name in SPLITS}
            yield _Work([Target(name, source, np.arange(source.count)) for name, source in sources.items()])
        return
    dest = Store(options.dest)
    labelled, remote = options.labels == "auto", options.allow_remote_shards
    source = open_source(options.source, columns, options.subset, labelled, remote, _parse_member(options.member))
    for note in source.notes:
        print(note, file=sys.stderr)
    if isinstance(source, FolderSource) and f"{dest}/".startswith(f"{source.place}/"):
        raise UsageError(f"DEST {dest} lies in SOURCE {source.place}, which would not be the same afterwards")
    source = relabelled(source) if options.relabel else check_classes(source)
    yield _find_work(source, dest, command)


def _find_work(source: Source, dest: Store, command: Command) -> _Work:
    """Which records of a source go to which dataset; what a split or --dedup needs to know of them is read here."""
    rows, names = mixed_rows(source.count) if source.mixes else np.arange(source.count), list(command.shares) or [""]
    if not command.shares and not command.options.dedup:
        return _Work([Target("", source, rows)])
    if made := find_made(dest, names, source, _flags(command)):
        return _Work([Target(name, source, rows[:0]) for name in names], (), made)
    contents = contents_of(source, command.options.workers)
    copies = find_copies(contents.digests)
    labels = source.labels if source.labels is not None else contents.labels
    _tell_copies(source, copies, labels, command.options.dedup)
    duplicates: tuple[str, ...] = ()
    if command.options.dedup:
        later = copies.later()
        rows = rows[~np.isin(rows, later)]
        first = copies.first[copies.group[later]]
        pairs = zip(later.tolist(), first.tolist(), strict=True)
        duplicates = tuple(f"{source.name_of(row)} is {source.name_of(kept)}" for row, kept in pairs)
    if not command.shares:
        return _Work([Target("", source, rows)], duplicates)
    parts = split_rows(rows, list(command.shares.values()), labels, copies)
    targets = [Target(name, source, part) for name, part in zip(names, parts, strict=True)]
    for target in targets:
        if target.rows.size == 0:
            said = f"{counted(source.count, 'picture')}" + (
                f", {copies.total:,} of them copies" if copies.total else ""
            )
            raise UsageError(f"--split {command.options.split}: {target.name} would get none of {said}")
    return _Work(targets, duplicates)


def _copies(copies: int, pictures: int, remedy: str) -> str:
    return f"{copies:,} of {pictures:,} pictures are copies of others, byte for byte: {remedy}"


def _tell_copies(source: Source, copies: Copies, labels: IntArray | None, left_out: bool) -> None:
    """Say on standard error how many pictures are copies, and which have several labels."""
    if not copies.total:
        return
    remedy = f"{DUPLICATES} names those left out" if left_out else "they fall on one side; --dedup leaves them out"
    print(_copies(copies.total, source.count, remedy), file=sys.stderr)
    conflicts = copies.conflicts(labels) if labels is not None else np.empty(0, np.int64)
    if conflicts.size:
        row = int(conflicts[0])
        first = int(copies.first[copies.group[row]])
        print(
            f"{conflicts.size:,} of them have another label than the first of their kind: {source.name_of(row)} and "
            f"{source.name_of(first)}",
            file=sys.stderr,
        )


def _pack(work: _Work, command: Command) -> str:
    """Pack, and say on standard error what was left out; what to print at the end.

    Raises KeyboardInterrupt with a text, and as Packing.run does.
    """
    options, dest, targets = command.options, Store(command.options.dest), work.targets
    source = targets[0].source
    workers = 0 if is_builtin(options.source) else options.workers  # built-in data lie on this node alone
    recipe = Recipe(command.conversion, options.format)
    request = Request(_flags(command), recipe, command.shard_bytes, workers, command.max_bad)
    packing = Packing(dest, targets, request)
    try:
        with ProgressBar() as bar:
            made = work.made or packing.run(bar)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_what_is_kept(packing)) from None
    except UndecodableError as error:
        _list_left_out(error.lines, packing.pictures, source, dest)
        raise
    finally:
        for line in packing.notes:
            print(line, file=sys.stderr)
    _list_left_out(made.undecodable, packing.pictures, source, dest)
    _tell_empty_classes(made.indexes)
    if made.copies and not command.shares and not options.dedup:  # else it was said before
        print(_copies(made.copies, packing.pictures, "--dedup leaves them out"), file=sys.stderr)
    if work.duplicates:
        dest.write(DUPLICATES, "".join(f"{line}\n" for line in work.duplicates).encode(errors="backslashreplace"))
    stores = [dest / target.name if target.name else dest for target in targets]
    lines = [counts(store, index) for store, index in zip(stores, made.indexes, strict=True)]
    if not made.fresh:
        lines.insert(0, "complete already, by this same command: nothing was written")
    by_name = dict(zip((target.name for target in targets), stores, strict=True))
    return "\n".join([*lines, _advice_for(by_name, made.indexes)])


def _flags(command: Command) -> dict[str, str]:
    """All that makes the bytes of a dataset, by the names that the user knows; equal where they are."""
    options, size = command.options, command.conversion.size
    return {
        "SOURCE": options.source if is_builtin(options.source) else Store(options.source).url,
        "--size": "" if size is None else f"{size[1]}x{size[0]}",
        "--crop": options.crop,
        "--format": options.format,
        "--shard-size": f"{command.shard_bytes}",
        "--channels": options.channels,
        "--icc": options.icc,
        "--white-level": "" if options.white_level == DEEPEST_WHITE else str(options.white_level),
        "--member": _parse_member(options.member),
        "--split": ",".join(f"{name}:{share:g}" for name, share in command.shares.items()),
        "--image-column": options.image_column,
        "--dedup": "yes" if options.dedup else "",
        "--label-column": options.label_column,
        "--labels": "none" if options.labels == "none" else "",
        "--relabel": "yes" if options.relabel else "",
        "--subset": options.subset,
    }


def _tell_empty_classes(indexes: Sequence[DatasetIndex], remedy: str = "--relabel") -> None:
    """Say on standard error which classes have a sample in none of the datasets."""
    of_each = [index.class_counts for index in indexes if index.class_counts is not None]
    if of_each and (
        line := empty_classes([sum(each) for each in zip(*of_each, strict=True)], indexes[0].class_names, remedy)
    ):
        print(line, file=sys.stderr)


def _what_is_kept(packing: Packing) -> str:
    if not packing.kept:
        return "interrupted: no shard was finished; the same command begins anew"
    return (
        f"interrupted: {counted(packing.kept, 'shard')} of {packing.shards:,} kept; the same command goes on from there"
    )


def counts(store: Store, index: DatasetIndex) -> str:
    """A dataset in one line."""
    labels = "no labels" if index.classes is None else f"{index.classes:,} class{'es' * (index.classes != 1)}"
    shards = f"{len(index.shards):,} shard{'s' * (len(index.shards) != 1)}"
    size = sum(shard.bytes for shard in index.shards)
    return f"{counted(index.samples, 'sample')} of {index.shape} in {shards}, {labels}, {count(size)}B: {store}"


def _advice_for(stores: dict[str, Store], indexes: list[DatasetIndex]) -> str:
    """The command that trains on one of several datasets and holds another one out."""
    names = list(stores)
    train = "train" if "train" in names else names[0]
    others = [name for name in names if name != train]
    held_out = "val" if "val" in others else next(iter(others), None)
    return _advice(stores[train], indexes[names.index(train)], None if held_out is None else stores[held_out])


def _advice(store: Store, index: DatasetIndex, validation: Store | None = None) -> str:
    """The command that trains on a dataset."""
    words = ["train_gan", _suggested_preset(index), "--data", store.url]
    begin = "train on it: "
    if not shards_are_near(store, place := index.location(store)):
        words.append(REMOTE_SHARDS)
        try:
            check_public(place.url)
        except UntrustedPlaceError:
            begin = f"{place} is at this machine's own address: serve the index from there too, and train on that: "
            words = [*words[:-2], f"{place}/..."]
    held_out = () if validation is None else ("--data.validation", validation.url)
    return begin + command_line(*words, *held_out)


def _suggested_preset(index: DatasetIndex) -> str:
    """A small preset whose networks can have these samples."""
    small = max(index.shape.spatial) <= _SMALL_SIDE
    stacked = () if channel_classes(index) is None else ("r3gan-stackedmnist-small",)
    for name in (*stacked, *(("digits", "dcgan") if small else ("dcgan", "digits"))):
        with contextlib.suppress(ValueError):
            parameter_counts(PRESETS[name].experiment, index.shape, index.classes)
            return name
    return "article-gan"


def _list_left_out(undecodable: Sequence[str], pictures: int, source: Source, dest: Store) -> None:
    for line in undecodable[:_LISTED]:
        print(f"left out: {one_line(line)}", file=sys.stderr)
    if len(undecodable) > _LISTED:
        print(f"... and {len(undecodable) - _LISTED:,} more: {dest / UNDECODABLE}", file=sys.stderr)
    if undecodable:
        print(f"{len(undecodable):,} of {counted(pictures, 'picture')} cannot be decoded", file=sys.stderr)
    if source.left_out:
        some = ", ".join(source.left_out[:5]) + (", ..." if len(source.left_out) > 5 else "")
        print(
            f"{counted(len(source.left_out), 'file')} left out, not named as pictures are: {one_line(some)}",
            file=sys.stderr,
        )


def _parse_size(text: str) -> tuple[int, int] | None:
    """(H, W) in WIDTHxHEIGHT."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not text:
        return None
    if match is None or min(int(match[1]), int(match[2])) < 1:
        raise UsageError(f"--size {text}: give WIDTHxHEIGHT in pixels, e.g. 64x64")
    return int(match[2]), int(match[1])


def parse_bytes(text: str) -> int:
    """Bytes in 128MB (10^6) or 128MiB (2^20). Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]?I?)B?", text.upper())
    size = int(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
    if size < 1:
        raise UsageError(f"--shard-size {text}: give bytes as 500kB, 128MB or 1GB")
    return size


def _parse_member(text: str) -> str:
    """An extension as shards have them, without the dot. Raises UsageError for none of a picture."""
    member = text.lower().removeprefix(".")
    kinds = modality("image").extensions
    if member and member.rpartition(".")[2] not in kinds:
        raise UsageError(f"--member {text}: the extension of a picture, e.g. jpg or depth.png ({', '.join(kinds)})")
    return member


def _parse_share(text: str) -> float:
    """A share in 0.05 or 5%."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"--max-bad {text}: give a share of the pictures from 0 to 1, as 0.05 or 5%")
    return share


def _parse_split(text: str) -> dict[str, float]:
    try:
        return parse_shares(text)
    except ValueError as error:
        raise UsageError(f"--split {text}: {error}") from None
