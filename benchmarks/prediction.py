"""What `--dry-run --gpu-type` predicts for every preset, and its memory beside that of real steps.

    python -m benchmarks.prediction                       # the table of docs/PREDICTION.md
    python -m benchmarks.prediction --cluster             # the table of cluster/README.md
    python -m benchmarks.prediction --measure digits r3gan-cifar10:2 ...

--write puts both tables into their pages. `--counts FILE` keeps what was counted: it is read from there, or written if
there is none.

--measure takes a real step on the CPU, of the preset's microbatch or of so many images, and adds up what PyTorch's
allocator gave and got back during it, as the profiler records it: an account of its own, which also has what kernels
allocate for themselves. The prediction beside it is of the same number of images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from imagegen_dist.metrics.formatting import duration, figure
from imagegen_dist.prediction.counting import Kernel, StepCount, count_step
from imagegen_dist.prediction.gpus import GPU_TYPES, MACHINES
from imagegen_dist.prediction.predict import Forecast, Prediction, Samples
from imagegen_dist.presets import PRESETS

ROOT = Path(__file__).parents[1]
CLUSTER = [machine for machine in MACHINES if machine.in_cluster]
LARGE = next(machine for machine in MACHINES if machine.name == "p5.48xlarge")
SHOWN = ("l4", "a10g", "l40s", "a100-80gb", "h100", "h200")
MANY = 8
"""Machines of cluster/aws.yaml at most."""


def samples_of(name: str) -> Samples:
    preset = PRESETS[name]
    assert preset.shape is not None
    return Samples.of_preset(preset.shape, preset.classes, preset.experiment.data.url)


def counts_of(names: Sequence[str], file: Path | None) -> dict[str, StepCount]:
    """The counts of a pass of one microbatch. file: where they are kept between scripts, if anywhere."""
    if file and file.exists():
        kept = json.loads(file.read_text())
        return {name: _count_from(kept[name]) for name in names}
    counts = {}
    for name in names:
        experiment = PRESETS[name].experiment
        counts[name] = count_step(experiment, samples_of(name).index, experiment.training.microbatch_size)
    if file:
        file.write_text(json.dumps({name: _as_json(count) for name, count in counts.items()}))
    return counts


def _as_json(count: StepCount) -> dict:
    kernels = [[each.flops, str(each.dtype).removeprefix("torch."), each.bytes, n] for each, n in count.kernels.items()]
    return {**vars(count), "kernels": kernels}


def _count_from(kept: dict) -> StepCount:
    kernels = {Kernel(flops, getattr(torch, dtype), size): n for flops, dtype, size, n in kept["kernels"]}
    return StepCount(**{**kept, "kernels": kernels, "turns": tuple(kept["turns"])})


def forecast_of(name: str, count: StepCount, gpu: str) -> Forecast:
    return Forecast(PRESETS[name].experiment, samples_of(name), GPU_TYPES[gpu], count, count.images)


_ATTEMPTS = 4


def measured_peak(name: str, images: int) -> int:
    """Bytes at the peak of a real step on the CPU. The profiler now and then returns no event of memory; then again."""
    return next(filter(None, (_profiled_peak(name, images) for _ in range(_ATTEMPTS))), 0)


def _profiled_peak(name: str, images: int) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        count_step(PRESETS[name].experiment, samples_of(name).index, images, fake=False, watch=record_function("step"))
    events = watch.profiler.kineto_results.events()
    start = next(event.start_ns() for event in events if event.name() == "step")
    now = peak = 0
    for event in sorted((each for each in events if each.name() == "[memory]"), key=lambda each: each.start_ns()):
        now += event.nbytes()
        peak = max(peak, now) if event.start_ns() >= start else 0
    return peak


def preset_rows(counts: Mapping[str, StepCount]) -> Iterator[str]:
    """Every preset: what a pass of a microbatch does, and images/s of one GPU of each type."""
    yield f"| preset | GFLOP an image | in 16 bits | kernels | images | peak, GB | {' | '.join(SHOWN)} | on h100 |"
    yield "|---|" + "---|" * (len(SHOWN) + 6)
    for name, count in counts.items():
        found = [forecast_of(name, count, gpu) for gpu in SHOWN]
        speeds = " | ".join(figure(each.for_workers(1).at(1).images_per_s) if each.fits() else "–" for each in found)
        yield (
            f"| `{name}` | {figure(count.flops / count.images / 1e9)} | {found[0].bf16_share:.0%} | "
            f"{count.launches:,} | {count.images} | {figure(count.peak_bytes / 1e9)} | {speeds} | "
            f"{found[SHOWN.index('h100')].for_workers(1).at(1).binds} |"
        )


def cluster_rows(counts: Mapping[str, StepCount]) -> Iterator[str]:
    """Every preset: time and list price to its end, on the cheapest machine of cluster/aws.yaml and on one p5.48xlarge.

    Where a microbatch fits no GPU of that file, that is said in place of the machine; where there are fewer than eight
    microbatches, one p5.48xlarge has GPUs without work.
    """
    yield "| preset | machine | one: time | cost | bound by | up to eight: time | cost | p5.48xlarge: time | cost |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, count in counts.items():
        workers = min(MANY, PRESETS[name].experiment.training.batching.microbatches)
        fitting = [machine for machine in CLUSTER if forecast_of(name, count, machine.gpu).fits(workers)]
        if fitting:
            one, machine = min(
                ((forecast_of(name, count, each.gpu).for_workers(1).at(1, each), each) for each in fitting),
                key=lambda found: found[0].dollars,
            )
            many = forecast_of(name, count, machine.gpu).for_workers(workers).at(workers, machine)
            cells = f"{machine.name} | {_time_and_cost(one)} | {one.binds} | {_time_and_cost(many)}"
        else:
            cells = "none fits | – | – | – | – | –"
        large = forecast_of(name, count, LARGE.gpu).for_workers(workers)
        beside = _time_and_cost(large.at(workers, LARGE)) if large.fits(workers) else "does not fit | –"
        beside = beside if workers == LARGE.gpus else "– | –"
        yield f"| `{name}` | {cells} | {beside} |"


def _time_and_cost(found: Prediction) -> str:
    dollars = f"${found.dollars:,.0f}" if found.dollars >= 10 else f"${found.dollars:.2f}"
    return f"{duration(found.seconds)} | {dollars}"


def memory_rows(wanted: Sequence[str]) -> Iterator[str]:
    yield "| preset | images | predicted, MB | measured, MB | predicted over measured |"
    yield "|---|---|---|---|---|"
    for each in wanted:
        name, _, images = each.partition(":")
        size = int(images or PRESETS[name].experiment.training.microbatch_size)
        predicted = count_step(PRESETS[name].experiment, samples_of(name).index, size).peak_bytes
        measured = measured_peak(name, size)
        yield f"| `{name}` | {size} | {predicted / 1e6:,.1f} | {measured / 1e6:,.1f} | {predicted / measured:.2f} |"


def replace_table(page: Path, rows: Iterable[str]) -> None:
    """Put a table in place of the page's own that has the same head."""
    head, *rest = rows
    text = page.read_text()
    start = text.index(head)
    page.write_text(text[:start] + "\n".join([head, *rest]) + text[text.index("\n\n", start) :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs="+", metavar="PRESET[:IMAGES]", default=[])
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--counts", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        rows = memory_rows(options.measure)
    else:
        counts = counts_of(list(PRESETS), options.counts)
        if options.write:
            replace_table(ROOT / "docs" / "PREDICTION.md", preset_rows(counts))
            replace_table(ROOT / "cluster" / "README.md", cluster_rows(counts))
            return
        rows = cluster_rows(counts) if options.cluster else preset_rows(counts)
    for line in rows:
        print(line, flush=True)


if __name__ == "__main__":
    main()
