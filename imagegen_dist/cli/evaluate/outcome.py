"""What an evaluation says: a table on the console, and every figure with its settings as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from imagegen_dist import config
from imagegen_dist.cli.evaluate.measuring import Results
from imagegen_dist.cli.evaluate.request import Network, Request
from imagegen_dist.evaluation.copying import PICTURE_OF_COPIES
from imagegen_dist.evaluation.figures import Figure
from imagegen_dist.evaluation.requested_classes import RequestedClasses
from imagegen_dist.metric_table import EVALUATION
from imagegen_dist.metrics.chance import chance_warnings
from imagegen_dist.metrics.features import KEPT_AT_MOST
from imagegen_dist.metrics.formatting import FigureLine, duration, figure, figure_lines
from imagegen_dist.records import by_group, config_hash, git_commit
from imagegen_dist.storage import Store
from imagegen_dist.versions import versions
from imagegen_dist.wording import counted

_CLASSES = {
    "data": "; classes in the frequencies of the real data",
    "uniform": "; all classes alike",
    "none": "",
}
_SIDE_BY_SIDE = ("kid", "kernel_distance", "kd_dinov2", "precision", "recall", "density", "coverage")


def write(request: Request, results: Results) -> list[str]:
    """Store the figures, and a picture where copies were looked for; URLs of the files. Raises StorageError."""
    content = _document(request, results)
    store, name = request.out or _default_place(request, content)
    files = {name: (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()}
    if results.copies is not None:
        shown = results.copies
        data, extension = request.model.drawing.preview(shown.samples, shown.columns, captions=shown.captions)
        files[f"{name.removesuffix('.json')}-{PICTURE_OF_COPIES}.{extension}"] = data
    for each, data in files.items():
        store.write(each, data)
    return [f"{store.url.rstrip('/')}/{each}" for each in files]


def _default_place(request: Request, content: dict[str, Any]) -> tuple[Store, str]:
    """A file beside the checkpoints: the same evaluation again takes its place, another one does not."""
    asked = {name: content[name] for name in ("settings", "figures_of", "features", "reference")}
    name = f"{request.model.images:012d}-{config.fingerprint(asked)[:8]}.json"
    return request.folder / "evaluations", name


def _document(request: Request, results: Results) -> dict[str, Any]:
    """All figures by name, and what each depends on; a value that is not finite is null."""
    figures: dict[str, Any] = {}
    figures_of: dict[str, Any] = {}
    for network, found in results.figures:
        for each in found:
            figures[each.name] = _finite(each.value)
            if each.deviation is not None:
                figures[f"{each.name}_deviation"] = _finite(each.deviation)
            figures_of[each.name] = {
                "features": network.source.kind,
                **_settings(request, each),
            }
    figures |= {name: _finite(value) for name, value in results.of_real.items()}
    index = request.real.dataset.index
    return {
        "model": request.url,
        "images": request.model.images,
        "config": config_hash(request.experiment),
        "figures": by_group(figures),
        "figures_of": figures_of,
        **({"warnings": warned} if (warned := _warnings(results)) else {}),
        "features": {network.source.kind: _describe(network) for network, _ in results.figures},
        "reference": {
            "url": request.data,
            "fingerprint": index.fingerprint,
            "samples": request.real.samples,
            "of": index.samples,
        },
        "settings": {
            "samples": request.samples,
            "seed": request.seed,
            "label_distribution": request.classes.distribution,
            "importance_samples": request.experiment.evaluation.importance_samples,
        },
        "seconds": round(results.seconds, 1),
        "versions": versions(),
        "git_commit": git_commit(),
    }


def _warnings(results: Results) -> list[str]:
    """What has to be read with the figures, of every classifier that is near chance."""
    return [line for network, _ in results.figures for line in chance_warnings(network.doubts)]


def _settings(request: Request, found: Figure) -> dict[str, Any]:
    """A figure's own settings, and where they do not say so how many generated and real samples it is of."""
    own = found.settings or {}
    if "samples" in own:
        return dict(own)
    references = request.real.samples
    most = KEPT_AT_MOST if found.name in _SIDE_BY_SIDE else max(request.samples, references)
    samples = references if "reconstruction" in found.name else request.samples
    return {"samples": min(samples, most), "references": min(references, most), **own}


def _describe(network: Network) -> dict[str, Any]:
    opened = network.network
    weights = network.source.weights
    return {
        "network": opened.name,
        "sha256": opened.sha256,
        "dimensions": opened.dim,
        "resize": opened.resize,
        **({"weights": weights} if weights else {}),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def show(request: Request, results: Results, written: list[str], console: Console | None = None) -> None:
    """Print the table, on standard output unless another console is given."""
    console = console or Console(highlight=False, markup=False, emoji=False)
    console.print(Text(f"{request.folder.url} at {request.model.images:,} images", "bold"), soft_wrap=True)
    console.print(Group(*_tables(request, results)))
    index = request.real.dataset.index
    facts = [
        (
            "generated",
            f"{counted(request.samples, 'sample')}, seed {request.seed}{_requested(request.classes)}",
        ),
        ("real", f"{request.real.samples:,} of {counted(index.samples, 'sample')}, {request.data}"),
        ("", f"fingerprint {index.fingerprint}"),
    ]
    for network, _ in results.figures:
        opened = network.network
        facts += [
            ("features", f"{opened.name}, {counted(opened.dim, 'dimension')}; resize: {opened.resize}"),
            ("", f"sha256 {opened.sha256}"),
        ]
    facts += [("took", duration(results.seconds)), ("written", written[0]), *(("", each) for each in written[1:])]
    console.print()
    for name, value in facts:
        console.print(Text(f"{name:<10} ", "dim").append(value, "not dim"), soft_wrap=True)
    for note in results.notes:
        console.print(Text(note, "yellow"), soft_wrap=True)


def _tables(request: Request, results: Results) -> Iterator[RenderableType]:
    """A table of figures for each network's features and one for real samples, each above what its figures depend on.

    No row is wider than 80 columns.
    """
    for network, found in results.figures:
        told = dict[str, list[str]]()
        by_name = {EVALUATION + each.name: each for each in found}
        lines = figure_lines({name: each.value for name, each in by_name.items()})
        for line in lines:
            if own := by_name[line.name].settings:
                told.setdefault(_words(own), []).append(line.label)
        deviations = {name: each.deviation for name, each in by_name.items() if each.deviation is not None}
        yield _titled(f"in the features of: {network.network.name}", _table(lines, deviations))
        for settings, names in told.items():
            yield Padding(Text(f"{', '.join(names)}: {settings}", "dim"), (0, 0, 0, 2))
    if results.of_real:
        lines = figure_lines({EVALUATION + name: value for name, value in results.of_real.items()})
        yield _titled(
            f"of {counted(request.real.samples, 'real sample')}, as the model encodes them", _table(lines, {})
        )


def _requested(classes: RequestedClasses) -> str:
    """Which classes or conditions were requested, in words."""
    if classes.conditions is not None:
        return "; conditions as they occur together in the data"
    return _CLASSES[classes.distribution]


def _words(settings: Mapping[str, Any]) -> str:
    """A figure's settings: `samples 1,000, references 4,000`."""
    shown = []
    for name, value in settings.items():
        said = figure(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        shown.append(f"{name.replace('_', ' ')} {said}")
    return ", ".join(shown)


def _titled(title: str, table: Table) -> RenderableType:
    return Group(Text(), Text(title), table)


def _table(lines: Sequence[FigureLine], deviations: Mapping[str, float]) -> Table:
    """A line a figure, with its reference or else its direction. deviations: of figures by full name."""
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    for line in lines:
        deviation = f"± {figure(deviations[line.name])}" if line.name in deviations else ""
        value = " ".join(filter(None, (line.value, deviation, line.unit)))
        table.add_row(line.label, value, line.reference or line.direction)
    return table
