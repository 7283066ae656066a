"""Which loss drops modes: `python -m benchmarks.stackedmnist [--images N] [--gamma FROM TO] [--seeds 3] [--full]`

The ablation of arXiv:2501.05441 (Table 1) on the built-in StackedMNIST: relativistic (RpGAN) or non-saturating (GAN)
loss, with R1 and R2 or with R1 alone, from several seeds. Each is a whole run of preset `r3gan-stackedmnist-small` in a
process of one thread; then how many of the 1,000 modes its samples hit and KL(samples || data) of the modes in nats, by
a classifier of single digits over 26,000 samples, beside the published figures, as a table (the mean of the seeds and,
in brackets, the smallest and the largest) and as a picture with a row of samples each. The same command goes on where
it was interrupted, and with more --images where it ended.

--full runs preset `r3gan-stackedmnist`, the published networks and schedule of 10 million images, one run after
another; it wants a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from datetime import date
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.seeds import CPU, cells, in_processes, markdown, read_result, run_to_end, titles
from imagegen_dist import config, load
from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stacked import MODES
from imagegen_dist.distributed import World
from imagegen_dist.evaluation.reference import build_reference
from imagegen_dist.experiment import Experiment
from imagegen_dist.metrics.modes import perfect_kl
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.run import RunError, SilentEvents
from imagegen_dist.storage import Store

SMALL, FULL = "r3gan-stackedmnist-small", "r3gan-stackedmnist"
_SHOWN = 16


class Variant(NamedTuple):
    """A loss, and what was published of it with a small ResNet: (modes, KL), or that it diverges."""

    loss: str
    penalty: str
    published: tuple[str, str]


VARIANTS = {
    "RpGAN + R1 + R2": Variant("relativistic", "r1+r2", ("1,000", "0.078")),
    "GAN + R1 + R2": Variant("non-saturating", "r1+r2", ("693", "0.927")),
    "RpGAN + R1": Variant("relativistic", "r1", ("diverges", "")),
    "GAN + R1": Variant("non-saturating", "r1", ("diverges", "")),
}


class Console(SilentEvents):
    """A line for each report that has figures, with the name of the run."""

    def __init__(self, name: str) -> None:
        self.name = name

    def row(self, row: dict[str, float]) -> None:
        if "eval/modes" in row:
            said = f"{row['eval/modes']:,.0f} modes, KL {row['eval/modes_kl']:.3f}"
            print(f"{self.name} {row['images']:,.0f} images: {said}", flush=True)
        elif "loss/generator" in row:
            losses = f"loss D {row['loss/discriminator']:.2f} G {row['loss/generator']:.2f}"
            print(f"{self.name} {row['images']:,.0f} images: {losses}, {row['system/images_per_s']:,.0f}/s", flush=True)

    def message(self, text: str) -> None:
        print(f"{self.name} {text}", flush=True)


def experiment_of(name: str, seed: int, options: argparse.Namespace) -> Experiment:
    """The run of a variant."""
    changes: dict[str, Any] = {
        "objective.loss": VARIANTS[name].loss,
        "objective.penalty": VARIANTS[name].penalty,
        "data.url": options.data,
        "training.seed": seed,
        "evaluation.searched": 0,
    }
    if options.images:
        changes["training.total_images"] = options.images
    if options.gamma:
        changes |= {"objective.gamma.start": options.gamma[0], "objective.gamma.end": options.gamma[1]}
    if not options.full:
        changes |= {
            "training.report_every": 12_800,
            "training.sample_every": 1_000_000_000,
            "training.checkpoint_every": 6_400,
            "evaluation.every": options.evaluate_every,
        }
    return config.overrides(find_preset(FULL if options.full else SMALL).experiment, changes.items())


def settings_of(name: str, seed: int, options: argparse.Namespace) -> RunSettings:
    """Where it lives."""
    preset = FULL if options.full else SMALL
    words = [preset, VARIANTS[name].loss, VARIANTS[name].penalty.replace("+", "")]
    if options.gamma:
        words.append("gamma-{:g}-{:g}".format(*options.gamma))
    return RunSettings(
        name="-".join([*words, f"seed-{seed}"]),
        storage=options.storage,
        preset=preset,
        job="stackedmnist",
        data=stacks("train", options).url,
        validation=stacks("val", options).url,
        attempt=str(time.time_ns()),
        wandb_mode="disabled",
    )


def train(options: argparse.Namespace, seed: int, name: str) -> str:
    """The run of a variant to its end, or what is left of it; why it could not go on, or ""."""
    if not options.full:
        torch.set_num_threads(1)
    experiment, settings = experiment_of(name, seed, options), settings_of(name, seed, options)
    try:
        run_to_end(experiment, settings, Console(f"{name}, seed {seed},"), device_of(options))
    except RunError as error:
        return str(error)
    return ""


def device_of(options: argparse.Namespace) -> torch.device:
    """A GPU for the published schedule, where there is one."""
    return torch.device("cuda") if options.full and torch.cuda.is_available() else CPU


def stacks(split: str, options: argparse.Namespace) -> Store:
    """The shards of a split."""
    return builtin_dataset(options.data, split, Store(options.storage) / ".data")


def prepare(options: argparse.Namespace) -> None:
    """Pack the data and train the classifier once, before the runs that share them."""
    some = next(iter(VARIANTS))
    experiment, settings = experiment_of(some, 0, options), settings_of(some, 0, options)
    training, held_out = (Dataset.open(url, experiment.data) for url in (settings.data, settings.validation))
    images = experiment.evaluation.classifier_images
    reference = build_reference(settings.shared, training, held_out, images, World(), device_of(options), print)
    print(f"the classifier reads all three digits of {reference.accuracy:.1%} of held-out stacks", flush=True)


FIGURES = {
    "modes": ("modes", "{:,.0f}"),
    "modes_kl": ("KL, nats", "{:.3f}"),
    "frechet": ("Fréchet", "{:.0f}"),
    "images_per_s": ("images/s", "{:,.0f}"),
}
"""Columns of the table, by the names of result.json."""

Failed = Mapping[tuple[str, int], str]
"""Why the run of a variant and seed could not go on; "" where it is at its end."""


def table(failed: Failed, options: argparse.Namespace) -> str:
    """Markdown: a row a variant, with the mean, least and largest of each figure over the seeds."""
    rows = [["loss", "seeds", "images seen", *titles(FIGURES), "published modes", "published KL"]]
    for name in options.variants:
        published = list(VARIANTS[name].published)
        whole = [seed for seed in range(options.seeds) if not failed[name, seed]]
        found = [read_result(settings_of(name, seed, options)) for seed in whole]
        images = f"{found[0]['images']:,}" if found else ""
        lost = "; ".join(failed[name, seed] for seed in range(options.seeds) if failed[name, seed])
        rows.append(
            [name, f"{len(found)}" + (f" ({lost})" if lost else ""), images, *cells(found, FIGURES), *published]
        )
    return markdown(rows)


def picture(failed: Failed, options: argparse.Namespace) -> None:
    """A row of held-out stacks, and one of samples for every variant, of its first seed, to options.picture."""
    store = stacks("val", options)
    real, _ = Dataset(DatasetIndex.load(store), store).read(range(_SHOWN))
    rows = {"held-out digits": real}
    for name in options.variants:
        if not failed[name, 0]:
            rows[name] = load(settings_of(name, 0, options).folder.url).sample(_SHOWN, seed=0)
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(rows)), layout="constrained", facecolor="white")
    axes.imshow(np.concatenate([in_line(samples) for samples in rows.values()]))
    size = real.shape[-1]
    axes.set_yticks([(number + 0.5) * size for number in range(len(rows))], rows)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.savefig(options.picture, dpi=110)


def in_line(samples: torch.Tensor) -> np.ndarray:
    """[N, 3, H, W] -> [H, N · W, 3]."""
    return np.concatenate(list(samples.permute(0, 2, 3, 1).numpy()), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--images", type=int, default=0, help="images that each run sees; 0: the preset's")
    parser.add_argument("--evaluate-every", type=int, default=51_200, help="images between two counts of modes")
    about = "weight of the gradient penalties at the beginning and at the end; default: the preset's"
    parser.add_argument("--gamma", type=float, nargs=2, metavar=("FROM", "TO"), help=about)
    parser.add_argument("--data", default="stackedmnist", help="stackedmnist, or stackedmnist:N")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side, of one thread each")
    parser.add_argument("--full", action="store_true", help="the published networks and schedule, on a GPU")
    parser.add_argument("--storage", default="runs/stackedmnist", help="directory of the runs")
    parser.add_argument("--picture", default="docs/stackedmnist.png")
    options = parser.parse_args()
    if options.full:
        options.at_once = 1

    prepare(options)
    failed = {}
    asked = product(range(options.seeds), options.variants)
    for (seed, name), why in in_processes(partial(train, options), asked, options.at_once):
        failed[name, seed] = why
        print(f"{name}, seed {seed}, is done", flush=True)
    picture(failed, options)
    experiment = experiment_of(options.variants[0], 0, options)
    samples, index = experiment.evaluation.samples, DatasetIndex.load(stacks("train", options))
    said = f"{date.today()}, torch {torch.__version__}, preset {FULL if options.full else SMALL}"
    counted = f"modes and KL of {samples:,} samples (a perfect sampler's KL: {perfect_kl(MODES, samples):.3f})"
    print(f"\n{said}, {index.samples:,} training stacks, {counted}\n")
    print(table(failed, options))


if __name__ == "__main__":
    main()
