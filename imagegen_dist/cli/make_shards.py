"""The work of `imagegen data`: pack pictures into shards, index shards that others wrote, and check a dataset."""

from __future__ import annotations

import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagegen_dist.cli.conversions import conversion_of
from imagegen_dist.cli.progress import ProgressBar
from imagegen_dist.cli.suggestion import train_line
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.pack_shards import PackedDatasets
from imagegen_dist.data.packing import PackConfig, pack_dataset
from imagegen_dist.data.sources.base import SourceOptions
from imagegen_dist.data.sources.condition_table import parse_conditions
from imagegen_dist.data.sources.files import FileKinds
from imagegen_dist.data.split import parse_shares
from imagegen_dist.data.verification import CheckedShard, CheckReport, check_dataset, index_shards
from imagegen_dist.errors import DONE, FAILED, UsageError
from imagegen_dist.metrics.formatting import count
from imagegen_dist.ray.tasks import run_tasks
from imagegen_dist.storage import Store
from imagegen_dist.wording import counted

if TYPE_CHECKING:
    from imagegen_dist.cli.data import Options

Value = TypeVar("Value")

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}


def make_shards(options: Options) -> tuple[str, int]:
    """Do what the options say: (what to print at the end, exit code). Raises ValueError, TaskError."""
    config = command_of(options)
    run = None if options.workers == 0 else run_tasks
    if options.check:
        report = check_dataset(Store(options.check), options.allow_remote_shards, run_tasks=run, progress=ProgressBar)
        return check_table(report, shutil.get_terminal_size().columns), FAILED if report.damaged else DONE
    if options.index_only:
        store = Store(options.index_only)
        index_at = Store(options.index_at) if options.index_at else store
        kinds = {name: kind for name, kind in config.source.conditions.items() if kind}
        name = "" if options.modality == "auto" else options.modality
        choice = config.source.subset, config.source.labelled, config.source.member, kinds, name
        index = index_shards(store, index_at, *choice, run_tasks=run, progress=ProgressBar, tell=_tell)
        return f"{counts(index_at, index)}\n{train_line(index_at, index)}", DONE
    packed = pack_dataset(
        options.source,
        options.dest,
        config,
        workers=options.workers,
        run_tasks=run_tasks,
        progress=ProgressBar,
        tell=_tell,
    )
    lines = [] if packed.fresh else ["complete already, by this same command: nothing was written"]
    lines += [counts(store, packed.indexes[name]) for name, store in packed.stores.items()]
    return "\n".join([*lines, _advice_for(packed)]), DONE


def command_of(options: Options) -> PackConfig:
    """The options of packing with their texts parsed. Raises UsageError."""
    conversion = conversion_of(options)
    return PackConfig(
        conversion=conversion,
        format=options.format,
        shard_bytes=parse_bytes(options.shard_size),
        max_bad=_parse_share(options.max_bad),
        split=_parsed(parse_shares, "--split", options.split),
        dedup=options.dedup,
        relabel=options.relabel,
        source=SourceOptions(
            options.subset,
            options.labels == "auto",
            options.image_column,
            options.label_column,
            _parse_member(options.member, conversion.files),
            options.allow_remote_shards,
            options.attributes,
            _parsed(parse_conditions, "--conditions", options.conditions),
            options.folders,
        ),
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def counts(store: Store, index: DatasetIndex) -> str:
    """A dataset in one line."""
    shards = f"{len(index.shards):,} shard{'s' * (len(index.shards) != 1)}"
    size = sum(shard.bytes for shard in index.shards)
    samples = f"{counted(index.samples, 'sample')} of {index.shape}"
    return f"{samples} in {shards}, {index.describe_labels()}, {count(size)}B: {store}"


def _advice_for(packed: PackedDatasets) -> str:
    """The command that trains on one of the datasets and holds another one out."""
    train = "train" if "train" in packed.stores else next(iter(packed.stores))
    others = [name for name in packed.stores if name != train]
    held_out = "val" if "val" in others else next(iter(others), None)
    validation = None if held_out is None else packed.stores[held_out]
    return train_line(packed.stores[train], packed.indexes[train], validation)


def parse_bytes(text: str) -> int:
    """Bytes in 128MB (10^6) or 128MiB (2^20). Raises UsageError."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d+)?) ?([KMG]?I?)B?", text.upper())
    size = int(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
    if size < 1:
        raise UsageError(f"--shard-size {text}: give bytes as 500kB, 128MB or 1GB")
    return size


def _parse_member(text: str, files: FileKinds) -> str:
    """An extension as shards have them, without the dot. Raises UsageError for none of the modality."""
    member = text.lower().removeprefix(".")
    if member and member.rpartition(".")[2] not in files.members:
        some = f"e.g. {files.members[0]} or depth.{files.members[0]} ({', '.join(files.members)})"
        raise UsageError(f"--member {text}: the extension of a {files.noun}, {some}")
    return member


def _parse_share(text: str) -> float:
    """A share in 0.05 or 5%."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"--max-bad {text}: give a share of the samples from 0 to 1, as 0.05 or 5%")
    return share


def _parsed(parse: Callable[[str], Value], name: str, text: str) -> Value:
    """The text of a flag, parsed. Raises UsageError."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{name} {text}: {error}") from None


_LISTED_AT_MOST = 20  # shards up to which good ones have a line as well


def check_table(report: CheckReport, width: int) -> str:
    """Plain text of at most `width` columns: one line for each shard, or of many for those with a finding; totals.

    A finding that is too long for its line continues below.
    """
    few = len(report.shards) <= _LISTED_AT_MOST
    shown = [shard for shard in report.shards if few or shard.findings]
    return "\n".join([*(_check_lines(shown, width) if shown else ()), *textwrap.wrap(_check_totals(report), width)])


def _check_totals(report: CheckReport) -> str:
    listed = [shard.info for shard in report.shards if shard.info]
    good = [shard.info for shard in report.shards if shard.info and not shard.findings]
    samples, good_samples = (sum(info.samples for info in infos) for infos in (listed, good))
    size, good_size = (sum(info.bytes for info in infos) for infos in (listed, good))
    parts = [f"{len(good):,} of {len(listed):,} shard{'s' * (len(listed) != 1)} good"]
    if len(good) == len(listed):
        parts += [f"{counted(samples, 'sample')}", f"{count(size)}B"]
    else:
        parts += [f"{good_samples:,} of {counted(samples, 'sample')}", f"{count(good_size)}B of {count(size)}B"]
    if len(listed) < len(report.shards):
        parts.append(f"{len(report.shards) - len(listed):,} not in the index")
    return ", ".join(parts)


def _check_lines(shards: Sequence[CheckedShard], width: int) -> list[str]:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    table.add_column("shard", overflow="fold")
    table.add_column("samples", justify="right", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("found", overflow="fold")
    for shard in shards:
        sizes = ("", "") if shard.info is None else (f"{shard.info.samples:,}", f"{shard.info.bytes:,}")
        found = "\n".join(map(_printable, shard.findings)) or "good"
        table.add_row(Text(_printable(shard.name)), *sizes, Text(found))
    drawn = io.StringIO()
    Console(file=drawn, width=width, color_system=None, force_terminal=False).print(table)
    return [line.rstrip() for line in drawn.getvalue().splitlines()]


def _printable(text: str) -> str:
    """The text without control characters, which names in a shard may contain."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
