"""What `--dry-run --gpu-type` predicts for every preset, and its memory beside that of real steps.

    python benchmarks/prediction.py                       # the tables of docs/PREDICTION.md and of cluster/README.md
    python benchmarks/prediction.py --measure digits r3gan-cifar10:4 ...

--measure takes a real step on the CPU, of the preset's microbatch or of so many images, and adds up what PyTorch's
allocator gave and got back during it, as the profiler records it: an account of its own, which also has what kernels
allocate for themselves. The prediction beside it is of the same number of images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from imagegen_dist.prediction.counting import StepCount, count_step
from imagegen_dist.prediction.gpus import GPU_TYPES, MACHINES
from imagegen_dist.prediction.predict import Forecast, Samples
from imagegen_dist.presets import PRESETS

CLUSTER = [machine for machine in MACHINES if machine.in_cluster_file]
LARGE = ("h100", "h200")


def samples_of(name: str) -> Samples:
    preset = PRESETS[name]
    assert preset.shape is not None
    return Samples.of_preset(preset.shape, preset.classes, preset.experiment.data.url)


def forecast_of(name: str, count: StepCount, gpu: str) -> Forecast:
    return Forecast(PRESETS[name].experiment, samples_of(name), GPU_TYPES[gpu], count, count.images)


def measured_peak(name: str, images: int) -> tuple[int, float]:
    """(bytes at the peak of a real step on the CPU, seconds that it took)."""
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        count_step(PRESETS[name].experiment, samples_of(name).index, images, fake=False, watch=record_function("step"))
    events = watch.profiler.kineto_results.events()
    start = next(event.start_ns() for event in events if event.name() == "step")
    now = peak = 0
    for event in sorted((each for each in events if each.name() == "[memory]"), key=lambda each: each.start_ns()):
        now += event.nbytes()
        peak = max(peak, now) if event.start_ns() >= start else 0
    return peak, time.perf_counter() - began


def memory_rows(wanted: Sequence[str]) -> Iterator[str]:
    yield "| preset | images | predicted, MB | measured, MB | predicted over measured | seconds |"
    yield "|---|---|---|---|---|---|"
    for each in wanted:
        name, _, images = each.partition(":")
        size = int(images or PRESETS[name].experiment.training.microbatch_size)
        predicted = count_step(PRESETS[name].experiment, samples_of(name).index, size).peak_bytes
        measured, seconds = measured_peak(name, size)
        yield (
            f"| `{name}` | {size} | {predicted / 1e6:,.1f} | {measured / 1e6:,.1f} | {predicted / measured:.2f} | "
            f"{seconds:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs="+", metavar="PRESET[:IMAGES]", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for line in memory_rows(options.measure):
        print(line, flush=True)


if __name__ == "__main__":
    main()
