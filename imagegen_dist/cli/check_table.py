"""The result of a check as a table for the terminal."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagegen_dist.data.verification import CheckedShard, CheckReport
from imagegen_dist.metrics.formatting import count
from imagegen_dist.wording import counted

_LISTED_AT_MOST = 20  # shards up to which good ones have a line as well


def check_table(report: CheckReport, width: int) -> str:
    """Plain text of at most `width` columns: one line for each shard, or of many for those with a finding; totals.

    A finding that is too long for its line continues below.
    """
    few = len(report.shards) <= _LISTED_AT_MOST
    shown = [shard for shard in report.shards if few or shard.findings]
    return "\n".join([*(_lines(shown, width) if shown else ()), *textwrap.wrap(_totals(report), width)])


def _totals(report: CheckReport) -> str:
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


def _lines(shards: Sequence[CheckedShard], width: int) -> list[str]:
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
