"""What `--dry-run --gpu-type TYPE` prints: speed, memory and cost of a training on GPUs that this machine lacks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from imagegen_dist.cli.command import wrapped
from imagegen_dist.cli.progress import packing_of
from imagegen_dist.cli.train_options import Command
from imagegen_dist.data.builtin import builtin_dataset, is_builtin
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.metrics.formatting import duration, figure
from imagegen_dist.prediction.gpus import GPU_TYPES, MACHINES, SPOT_SHARE, gpu_type, machine_for
from imagegen_dist.prediction.predict import (
    BANDWIDTH_SHARE,
    FRAGMENTATION,
    LAUNCH_S,
    Forecast,
    Prediction,
    Samples,
    forecast,
    usable_bytes,
)
from imagegen_dist.presets import PRESETS, find_preset
from imagegen_dist.resources import Workers
from imagegen_dist.storage import Store
from imagegen_dist.wording import counted

_LABEL = 12
_MANY = 8
"""Workers of the second row where --workers is not given."""


def prediction_text(command: Command) -> str:
    """The prediction for a command. Only an index is read, if one is named. Raises ValueError."""
    experiment, gpu = command.experiment, gpu_type(command.options.gpu_type)
    batching = experiment.training.batching
    workers = command.workers or Workers(1, min(_MANY, batching.microbatches))
    batching.check_workers(workers.high)
    found = forecast(experiment, samples_of(command), gpu)
    text = [f"experiment  {command.options.preset}"]
    for label, words in _paragraphs(found, workers):
        text.append(wrapped(words, _LABEL).replace(" " * _LABEL, f"{label:<{_LABEL}}", 1))
    if found.fits(workers.high):
        text += rows_of([found.for_workers(each).at(each) for each in _counts(workers)])
    return "\n".join([*text, "Nothing was trained."])


def samples_of(command: Command) -> Samples:
    """The samples of the data that a command names, else samples like those that its preset was made for."""
    options, data = command.options, command.experiment.data
    preset = find_preset(options.preset) if options.preset in PRESETS or ":" in options.preset else None
    if not is_builtin(data.url):
        return Samples.of(DatasetIndex.load(Store(data.url), data.allow_remote_shards))
    if options.data or preset is None or preset.shape is None:
        place = builtin_dataset(data.url, "train", Store(options.storage) / ".data", packing_of(data.url))
        return Samples.of(DatasetIndex.load(place))
    return Samples.of_preset(preset.shape, preset.classes, data.url)


def rows_of(predictions: Sequence[Prediction]) -> list[str]:
    """Two tables with a line for each number of workers: what a run takes, and what data and all-reduce add."""
    lines = [f"{'workers':<{_LABEL}}{'images/s':>8} {'time':>11} {'on demand':>11} {'spot':>10}  bound by"]
    for each in predictions:
        cost = f"{_dollars(each.dollars):>11} {_dollars(each.spot_dollars):>10}"
        speed = f"{figure(each.images_per_s):>8} {duration(each.seconds):>11}"
        lines.append(f"{each.workers:<{_LABEL}}{speed} {cost}  {each.binds}")
    lines.append(
        f"{'workers':<{_LABEL}}{'a step':>8} {'S3 reads':>11} {'which adds':>11} {'all-reduce':>10}  which adds"
    )
    for each in predictions:
        reads = f"{each.store_bytes_per_s / 1e6:.3g} MB/s"
        data = f"{_seconds(each.step_s):>8} {reads:>11} {_seconds(each.waiting_s):>11}"
        reduce = f"{_seconds(each.reduce_s):>10} {_seconds(each.exposed_s):>10}"
        lines.append(f"{each.workers:<{_LABEL}}{data} {reduce}  {each.pass_images}")
    return lines


def _counts(workers: Workers) -> list[int]:
    return sorted({workers.low, workers.high})


def _paragraphs(found: Forecast, workers: Workers) -> Iterator[tuple[str, str]]:
    """(label, text) of what is said beside the table."""
    samples, gpu, step = found.samples, found.gpu, found.count
    batching = found.experiment.training.batching
    yield "samples", f"{samples.index.shape}, {_source(samples)}"
    yield (
        "steps",
        f"{found.experiment.training.steps:,} of {batching.batch_size} images in {batching.microbatches} microbatches "
        f"of {batching.microbatch_size}",
    )
    machine = machine_for(gpu, workers.high)
    bought = "no machine of AWS has it"
    if machine:
        several = f" of {machine.gpus} GPUs" if machine.gpus > 1 else ""
        bought = f"{machine.name}{several}, ${machine.price:g} an hour on demand"
    yield "GPU", f"{gpu.name}, {_gib(gpu.memory_bytes)}: {bought}"
    yield (
        "work",
        f"{figure(step.flops / step.images / 1e9)} GFLOP an image, {found.bf16_share:.0%} of it in 16-bit types; "
        f"{step.launches:,} kernels a pass of {counted(found.pass_images, 'image')}",
    )
    yield "memory", _memory(found, workers)
    if none := no_cluster_machine(found, workers.high):
        yield "", none
    yield (
        "assumed",
        f"{gpu.utilisation:.0%} of the FLOP/s and {BANDWIDTH_SHARE:.0%} of the memory bandwidth of the data sheet, "
        f"{LAUNCH_S * 1e6:g} µs to launch a kernel, no compilation, {FRAGMENTATION:.0%} of memory lost; spot at "
        f"{SPOT_SHARE:g} of the list price. None of it was measured on this GPU",
    )


def _source(samples: Samples) -> str:
    size = f"{samples.sample_bytes / 1e3:.3g} kB each"
    if not samples.dataset_bytes:
        return f"as the preset was made for; {size} assumed"
    return f"{counted(samples.index.samples, 'sample')} of {size} in {counted(len(samples.index.shards), 'shard')}"


def _memory(found: Forecast, workers: Workers) -> str:
    batching = found.experiment.training.batching
    largest, size = found.largest_pass(workers.high), batching.microbatch_size
    peak = f"{_gib(found.peak_bytes(workers.high))} at the peak of a pass of {counted(found.pass_images, 'image')}"
    usable = f"{_gib(found.usable_bytes)} usable"
    if not found.fits(workers.high):
        smaller = next((each for each in range(size - 1, 0, -1) if each <= largest and size % each == 0), 0)
        remedy = f"set --training.microbatch-size to {smaller}" if smaller else "no microbatch fits"
        keeps = not found.experiment.training.recompute_from
        again = ", --training.recompute-from 1 with --training.compile false" if keeps else ""
        return f"{peak}, {usable}: it does not fit; {remedy}{again}, or take another GPU type"
    return f"{peak}, {usable}; the largest pass that fits is of {counted(largest // size, 'microbatch')}"


def no_cluster_machine(found: Forecast, workers: int = 1) -> str:
    """One line where a pass fits no GPU that cluster/aws.yaml starts, else ""."""
    names = {each.gpu for each in MACHINES if each.in_cluster}
    largest = max((GPU_TYPES[name] for name in names), key=lambda each: each.memory_bytes)
    if found.peak_bytes(workers) <= usable_bytes(largest.memory_bytes):
        return ""
    return (
        f"a pass fits no machine that cluster/aws.yaml starts as it is: its largest GPU, {largest.name}, has "
        f"{_gib(usable_bytes(largest.memory_bytes))} usable"
    )


def _seconds(value: float) -> str:
    return "0 s" if value == 0 else f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g} GiB"


def _dollars(value: float) -> str:
    return "–" if not math.isfinite(value) else f"${value:,.0f}" if value >= 10 else f"${value:.2f}"
