"""What each distance of videos and volumes sees: `python benchmarks/distances.py [--samples 1000] [--folder DIR]`

Held-out samples of the built-in data, as they are and changed in one respect, are compared with as many training
samples. A distance that does not move for a change is blind to it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.modality import to_float
from imagegen_dist.data.stream import StreamConfig
from imagegen_dist.evaluation.figures import Comparison, compare
from imagegen_dist.evaluation.weightless import weightless_kinds, weightless_network
from imagegen_dist.metrics.features import FeatureNetwork, FeatureSums
from imagegen_dist.storage import Store

Change = Callable[[Tensor, torch.Generator], Tensor]
NOISE = 0.15
"""Standard deviation, of samples in [-1, 1]."""


def shuffled(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each sample's frames, or planes along D, in an order of their own."""
    return torch.stack([sample[:, torch.randperm(x.shape[2], generator=generator)] for sample in x])


def frozen(x: Tensor, generator: torch.Generator) -> Tensor:
    """The first frame throughout."""
    return x[:, :, :1].expand_as(x).contiguous()


def jittered(x: Tensor, generator: torch.Generator) -> Tensor:
    """Every frame, or plane, moved sideways by up to a pixel on its own."""
    moves = torch.randint(-1, 2, x.shape[:3:2], generator=generator).tolist()
    return torch.stack(
        [
            torch.stack(
                [torch.roll(frame, move, -1) for frame, move in zip(sample.unbind(1), of_sample, strict=True)], 1
            )
            for sample, of_sample in zip(x, moves, strict=True)
        ]
    )


def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    """Noise on every pixel."""
    return (x + NOISE * torch.randn(x.shape, generator=generator)).clamp(-1, 1)


def smoothed(x: Tensor, generator: torch.Generator) -> Tensor:
    """The mean over 3 × 3 × 3 positions."""
    return torch.nn.functional.avg_pool3d(x, 3, 1, 1, count_include_pad=False)


def mirrored(x: Tensor, generator: torch.Generator) -> Tensor:
    """Every second plane along D mirrored: each is as likely as before, but they do not belong together."""
    return torch.stack([plane.flip(-1) if at % 2 else plane for at, plane in enumerate(x.unbind(2))], 2)


CHANGES: Mapping[str, Mapping[str, Change]] = {
    "moving-digits": {
        "frames shuffled": shuffled,
        "frozen": frozen,
        "jitter of 1 px": jittered,
        f"noise of {NOISE}": noisy,
    },
    "solids:10000": {
        "planes shuffled": shuffled,
        "every second plane mirrored": mirrored,
        "smoothed": smoothed,
        f"noise of {NOISE}": noisy,
    },
}


def sums_of(network: FeatureNetwork, x: Tensor) -> FeatureSums:
    """The samples in a network's features."""
    sums = FeatureSums.empty(network, "cpu")
    for first in range(0, len(x), 50):
        sums.add(network, x[first : first + 50], first)
    return sums


def short(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(name: str, samples: int, store: Store) -> list[str]:
    """The distances of one built-in dataset, as rows of a Markdown table."""
    read = [Dataset.open(builtin_dataset(name, split, store).url, StreamConfig()) for split in ("train", "val")]
    real, held_out = (to_float(each.read(range(samples))[0]) for each in read)
    generator, index = torch.Generator().manual_seed(0), read[0].index
    changed = {"held-out": held_out} | {words: change(held_out, generator) for words, change in CHANGES[name].items()}
    rows = [f"| {name} | {' | '.join(changed)} | s |", f"|{'---|' * (len(changed) + 2)}"]
    for kind in weightless_kinds(index.modality, index.shape):
        began = time.process_time()
        network = weightless_network(kind, index.shape, torch.device("cpu"))
        of_real, values = sums_of(network, real), dict[str, list[str]]()
        for sample in changed.values():
            for figure in compare([kind], Comparison(sums_of(network, sample), of_real, kind)):
                values.setdefault(figure.name, []).append(short(figure.value))
        seconds = [f"{(time.process_time() - began) / (len(changed) + 1):.1f}", ""]
        rows += [f"| `{each}` | {' | '.join(values[each])} | {of} |" for each, of in zip(values, seconds, strict=True)]
    return rows


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--samples", type=int, default=1000)
    options.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "distances")
    given = options.parse_args()
    print(f"{given.samples:,} samples on each side; s: CPU seconds for {given.samples:,} samples")
    for name in CHANGES:
        print("", *table(name, given.samples, Store(given.folder)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
