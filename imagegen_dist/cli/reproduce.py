"""`imagegen reproduce PRESET`: a shell script from the data to the published figure, with what a full run needs."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import tyro

from imagegen_dist.cli.command import flag, flags_help, listing, parse_flags, run_command
from imagegen_dist.cli.published import (
    INCEPTION,
    INCEPTION_RELEASES,
    INCEPTION_SHA256,
    PUBLISHED,
    Published,
    preset_named,
)
from imagegen_dist.commands import command
from imagegen_dist.errors import UsageError
from imagegen_dist.metrics.formatting import duration, figure

if TYPE_CHECKING:
    from imagegen_dist.prediction.predict import Forecast

JOB = "reproduce"
_SUMMARY = (
    "Print a shell script that reproduces a preset's published figure, from the data to the number, and what a full "
    "run needs: machines, hours, dollars and disk, as predicted. Nothing is downloaded or trained."
)
_WIDTH = 80
_GPU_TYPES = ("l40s", "a100-80gb", "h100", "h200", "b200")
_MOST_GPUS = 4096
_BYTES_A_WEIGHT = 16  # of a checkpoint: float32 weights, their average, two moments of Adam
_CHECKPOINTS = 4  # the newest two, the best, and one that is being written
_GB = 1e9
_ON_ONE = 8  # GPUs of the largest machine
_BUCKET = "s3://bucket"
_HASH = '"$(sha256sum inception.safetensors | cut -c-64)"'


@dataclass(frozen=True)
class Options:
    """Flags of `imagegen reproduce`."""

    preset: Annotated[str, tyro.conf.Positional, flag("PRESET")] = ""
    """A preset with a published figure, listed below; also without r3gan-, e.g. ffhq-64."""
    storage: Annotated[str, flag("URL")] = ""
    """Folder or bucket for shards and runs. Default: the working directory, or s3://bucket for several machines."""
    workers: Annotated[int | None, flag("N")] = None
    """GPUs to train on. Default: as many as the paper's code trains on."""


@dataclass(frozen=True)
class Machines:
    """What one GPU type would take, in words of the table."""

    gpus: str
    machines: str
    images_per_s: str
    time: str
    on_demand: str
    spot: str


def main(arguments: Sequence[str] | None = None) -> int:
    """`imagegen reproduce`: returns the exit code, as named in errors.py."""
    return run_command(JOB, arguments, _help_text, _run)


def parse(words: Sequence[str]) -> Options:
    """Read the command's words; the preset is one of PUBLISHED. Raises UsageError."""
    options = parse_flags(Options, JOB, words)
    if not options.preset:
        raise UsageError(f"PRESET is needed: one of {', '.join(PUBLISHED)}")
    if options.workers is not None and not 1 <= options.workers <= _MOST_GPUS:
        raise UsageError(f"--workers {options.workers}: a number of GPUs from 1 to {_MOST_GPUS}")
    return replace(options, preset=preset_named(options.preset), storage=options.storage.rstrip("/"))


def _run(words: Sequence[str]) -> None:
    options = parse(words)
    from imagegen_dist.prediction.gpus import GPU_TYPES  # they import torch
    from imagegen_dist.prediction.predict import Samples, forecast
    from imagegen_dist.presets import PRESETS
    from imagegen_dist.storage import Store

    if options.storage:
        Store(options.storage)  # refuses what is no place
    preset = PRESETS[options.preset]
    assert preset.shape is not None
    workers = options.workers or PUBLISHED[options.preset].gpus
    preset.experiment.training.batching.check_workers(workers)
    samples = Samples.of_preset(preset.shape, preset.classes, "")
    print(script(options, forecast(preset.experiment, samples, GPU_TYPES[_GPU_TYPES[0]])))


def script(options: Options, found: Forecast) -> str:
    """The whole script. found: a forecast of the preset on any GPU type."""
    published = PUBLISHED[options.preset]
    workers = options.workers or published.gpus
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            _comment(f"{options.preset}: {published.figure} ({published.paper}). It was not reproduced here yet."),
            "#",
            *_needs(published, found, workers),
            "set -euo pipefail",
            "",
            *steps(options),
        ]
    )


def _needs(published: Published, found: Forecast, workers: int) -> Iterator[str]:
    yield _comment(f"A full run of {found.experiment.training.total_images:,} images, predicted and not measured")
    yield _comment("(docs/PREDICTION.md; without compilation, figures and the start; list prices):")
    yield "#"
    yield f"# {'GPUs':<14}{'images/s':>9}{'time':>12}{'on demand':>11}{'spot':>10}  machines"
    for row in machines(found, workers):
        yield (
            f"# {row.gpus:<14}{row.images_per_s:>9}{row.time:>12}{row.on_demand:>11}{row.spot:>10}  {row.machines}"
        ).rstrip()
    yield "#"
    shards = published.samples * found.samples.sample_bytes / _GB
    weights = sum(found.count.networks.values()) / 4
    kept = _CHECKPOINTS * _BYTES_A_WEIGHT * weights / _GB
    yield _comment(
        f"Disk or bucket: {_gigabytes(published.source_bytes / _GB)} of source, about {_gigabytes(shards)} of shards, "
        f"{_gigabytes(kept)} of checkpoints."
    )
    yield "#"


def machines(found: Forecast, workers: int) -> list[Machines]:
    """A row for each GPU type whose memory takes a pass."""
    from imagegen_dist.prediction.gpus import GPU_TYPES, machine_for

    rows = []
    for name in _GPU_TYPES:
        gpu = GPU_TYPES[name]
        of_type = replace(found, gpu=gpu)
        if not of_type.fits(workers):
            rows.append(Machines(f"{workers} x {name}", "too little memory", "–", "–", "–", "–"))
            continue
        predicted, machine = of_type.for_workers(workers).at(workers), machine_for(gpu, workers)
        rows.append(
            Machines(
                gpus=f"{workers} x {name}",
                machines=f"{predicted.machines} x {machine.name}" if machine else "",
                images_per_s=figure(predicted.images_per_s),
                time=duration(predicted.seconds),
                on_demand=f"${predicted.dollars:,.0f}",
                spot=f"${predicted.spot_dollars:,.0f}",
            )
        )
    return rows


def steps(options: Options) -> Iterator[str]:
    """The commands, from the data to the figure, with their comments."""
    published = PUBLISHED[options.preset]
    workers = options.workers or published.gpus
    place = options.storage or (_BUCKET if workers > _ON_ONE else "")
    below = f"{place}/" if place else ""
    shards, runs = f"{below}{options.preset.removeprefix('r3gan-')}", f"{below}runs"
    run = f"{options.preset}-published"
    yield _comment(f"1. The data: {published.place}")
    yield _comment(f"({published.terms}).")
    yield from published.data
    yield ""
    yield _comment(f"2. Shards. {published.preparation}")
    yield _shell("make_shards", *published.pack[:1], shards, *published.pack[1:])
    yield _shell("check_shards", shards)
    yield ""
    where = "s3://bucket stands for yours" if place == _BUCKET else "--storage URL puts a bucket here"
    yield _comment(
        f"3. Training on {workers} GPUs; the same command resumes it. Several machines need a Ray cluster "
        f"(docs/cluster.md) and a bucket: {where}."
    )
    yield _shell("train", options.preset, "--data", shards, "--storage", runs, "--run", run, "--workers", str(workers))
    yield ""
    yield _comment("4. Inception's published weights, converted once from the file that torch-fidelity publishes.")
    yield from inception()
    yield ""
    yield _comment(f"5. The figure: {published.generated:,} samples, all {published.samples:,} training pictures.")
    yield _shell(
        "evaluate",
        f"{runs}/{run}",
        "--metrics",
        published.metrics,
        "--samples",
        str(published.generated),
        "--weights",
        "inception.safetensors",
        "--weights-sha256",
        _HASH,
    )
    yield _comment(f"Published: {published.figure} ({published.paper}).")


def inception() -> Iterator[str]:
    """Shell lines that fetch Inception's weights, check them, and write them as inception.safetensors."""
    yield f"weights={INCEPTION}"
    yield f"sha256={INCEPTION_SHA256}"
    yield f"releases={INCEPTION_RELEASES}"
    yield 'curl -LO "$releases/v0.2.0/$weights"'
    yield 'echo "$sha256  $weights" | sha256sum --check'
    yield "python - \"$weights\" <<'END'"
    yield "import sys, torch"
    yield "from safetensors.torch import save_file"
    yield "tensors = torch.load(sys.argv[1], weights_only=True)"
    yield 'kept = {k: v for k, v in tensors.items() if "num_batches" not in k}'
    yield 'save_file(kept, "inception.safetensors")'
    yield "END"


def _shell(job: str, *words: str) -> str:
    """A command line, continued at its flags where it is wider than the script."""
    program = command(job)
    parts = [program]
    for word in words:
        text = word if word == _HASH else shlex.quote(word)
        if word.startswith("--") or parts == [program]:
            parts.append(text)
        else:
            parts[-1] += f" {text}"
    return _continued(parts)


def _continued(parts: Sequence[str]) -> str:
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 1 + len(part) > _WIDTH - 2:
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    return " \\\n".join(lines)


def _comment(text: str) -> str:
    return "\n".join(textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False))


def _gigabytes(value: float) -> str:
    return f"{value:.2g} GB" if value < 10 else f"{value:,.0f} GB"


def _help_text(words: Sequence[str] = ()) -> str:
    known = listing("presets", {name: f"{each.figure} ({each.paper})" for name, each in PUBLISHED.items()})
    return f"{flags_help(Options, JOB, _SUMMARY)}\n\n{known}"
