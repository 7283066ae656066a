"""What β trades: `python -m benchmarks.rate_distortion [--images N] [--seeds 3] [--at-once 2] [--storage DIR]`

A β-VAE a value of β on the built-in dSprites from several seeds, each a whole run of preset `beta-vae-dsprites` in a
process of one thread; then rate and distortion of held-out sprites in nats, beside the published ones of runs of 19.2
million images, as a table (the mean of the seeds and, in brackets, the smallest and the largest), and as a picture with
a row of reconstructions a β. Every rise of β has to lower the mean rate and to raise the mean distortion, or the script
ends with an error. The same command goes on where it was interrupted, and with more --images where it ended.

The published learning rate, 1e-4, is for 300,000 steps. Here it is ten times that, and averaged weights are evaluated.
"""

from __future__ import annotations

import argparse
import time
from datetime import date
from functools import partial
from itertools import pairwise, product
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from benchmarks.seeds import cells, in_processes, markdown, run_to_end, titles
from imagegen_dist import config, load
from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stream import read_samples
from imagegen_dist.inference import AutoencoderModel
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.run import SilentEvents
from imagegen_dist.storage import Store

PRESET = "beta-vae-dsprites"
# (distortion, rate) in nats of one seed each, as the preset cites them.
PUBLISHED = {
    1.0: (24.6, 27.4),
    2.0: (32.8, 18.8),
    4.0: (49.1, 14.1),
    8.0: (71.8, 9.9),
    16.0: (113.5, 6.5),
    32.0: (160.0, 4.5),
}
PUBLISHED_IMAGES = 19_200_000
_SHOWN = 16


class Console(SilentEvents):
    """A line for each report of a run, with the name of it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def row(self, row: dict[str, float]) -> None:
        if "vae/rate" in row:
            terms = f"distortion {row['vae/distortion']:.1f}, rate {row['vae/rate']:.1f}"
            print(f"{self.name} {row['images']:,.0f} images: {terms}, {row['system/images_per_s']:,.0f}/s", flush=True)

    def message(self, text: str) -> None:
        print(f"{self.name} {text}", flush=True)


def train(options: argparse.Namespace, seed: int, beta: float) -> dict[str, Any]:
    """The run of one β to its end, or what is left of it; its result.json."""
    torch.set_num_threads(1)
    changes = {
        "objective.beta": beta,
        "optim.autoencoder.lr": options.lr,
        "data.url": "dsprites",
        "data.lanes": 2,
        "data.decoded_bytes": 1 << 27,
        "training.seed": seed,
        "training.total_images": options.images,
        "training.microbatch_size": 64,
        "training.bf16": options.bf16,
        "training.ema_half_life": 6_400,
        "training.report_every": 6_400,
        "training.sample_every": options.images,
        "training.checkpoint_every": 12_800,
        "evaluation.every": 0,
    }
    experiment = config.overrides(find_preset(PRESET).experiment, changes.items())
    settings = RunSettings(
        name=run_name(beta, seed, options),
        storage=options.storage,
        preset=PRESET,
        job="rate_distortion",
        data=sprites("train", options).url,
        validation=sprites("val", options).url,
        attempt=str(time.time_ns()),
        wandb_mode="disabled",
    )
    return run_to_end(experiment, settings, Console(settings.name))


def run_name(beta: float, seed: int, options: argparse.Namespace) -> str:
    """Of every setting that a run cannot change on the way."""
    return f"beta-{beta:g}-lr-{options.lr:g}" + ("-bf16" if options.bf16 else "") + f"-seed-{seed}"


def sprites(split: str, options: argparse.Namespace) -> Store:
    """The shards of a split of dSprites."""
    return builtin_dataset("dsprites", split, Store(options.storage) / ".data")


FIGURES = {
    "distortion": ("distortion", "{:.1f}"),
    "rate": ("rate", "{:.1f}"),
    "elbo": ("−ELBO", "{:.1f}"),
    "active_units": ("active latents", "{:.1f}"),
    "mig": ("MIG", "{:.2f}"),
    "images_per_s": ("images/s", "{:,.0f}"),
}
"""Columns of the table, by the names of result.json."""

Results = dict[float, list[dict[str, Any]]]
"""The figures of every seed, by β."""


def table(results: Results) -> str:
    """Markdown: a row a β, with the mean, least and largest of each figure over the seeds."""
    rows = [["β", "seeds", "images seen", *titles(FIGURES), "published distortion", "published rate"]]
    for beta, found in results.items():
        published = [f"{value:g}" for value in PUBLISHED[beta]] if beta in PUBLISHED else ["", ""]
        figures = cells([{**each, "elbo": -each["elbo"]} for each in found], FIGURES)
        rows.append([f"{beta:g}", str(len(found)), f"{found[0]['images']:,}", *figures, *published])
    return markdown(rows)


def mean_of(key: str, found: list[dict[str, Any]]) -> float:
    """Of the seeds."""
    return fmean(each[key] for each in found)


def out_of_order(results: Results) -> list[str]:
    """Where a larger β has not lowered the mean rate and raised the mean distortion, a line each."""
    found = []
    for (low, before), (high, after) in pairwise(results.items()):
        for key, sign in (("rate", -1), ("distortion", 1)):
            was, now = mean_of(key, before), mean_of(key, after)
            if sign * (now - was) <= 0:
                found.append(f"{key} {was:.2f} at β {low:g}, {now:.2f} at β {high:g}")
    return found


def picture(results: Results, options: argparse.Namespace) -> None:
    """Rate against distortion, and under it held-out sprites with their reconstructions, to options.picture."""
    figure, (curve, strip) = plt.subplots(
        2, 1, figsize=(8, 9), height_ratios=[1.35, 1], layout="constrained", facecolor="white"
    )
    draw_curve(curve, results)
    draw_strip(strip, results, options)
    figure.savefig(options.picture, dpi=110)


def draw_curve(axes: Axes, results: Results) -> None:
    """Both curves with their β; ours through the means, with a point for every seed."""
    images = max(found[0]["images"] for found in results.values())
    ours = {beta: (mean_of("distortion", found), mean_of("rate", found)) for beta, found in results.items()}
    every = [(each["rate"], each["distortion"]) for found in results.values() for each in found]
    axes.scatter(*zip(*every, strict=True), s=9, color="#1f5fa8", alpha=0.6)
    theirs = {beta: PUBLISHED[beta] for beta in results if beta in PUBLISHED}
    curves = (
        (theirs, f"published, {PUBLISHED_IMAGES / 1e6:g} million images", "o", "#9a9a9a", (-6, -6), "right", "top"),
        (ours, f"here, {images:,} images, held-out sprites", "s", "#1f5fa8", (6, 6), "left", "bottom"),
    )
    for points, label, marker, colour, offset, across, up in curves:
        rates, distortions = [rate for _, rate in points.values()], [distortion for distortion, _ in points.values()]
        axes.plot(rates, distortions, marker=marker, color=colour, label=label)
        for beta, at in zip(points, zip(rates, distortions, strict=True), strict=True):
            where = {"xytext": offset, "textcoords": "offset points", "ha": across, "va": up}
            axes.annotate(f"β {beta:g}", at, color=colour, fontsize=9, **where)
    axes.margins(0.08)
    axes.set(xlabel="rate, nats a sprite", ylabel="distortion, nats a sprite", xlim=(0, None), ylim=(0, None))
    axes.set_title("dSprites: what β trades")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


def draw_strip(axes: Axes, results: Results, options: argparse.Namespace) -> None:
    """A row of sprites, and a row of their reconstructions for every β, by the model of the first seed."""
    store = sprites("val", options)
    originals, _ = read_samples(DatasetIndex.load(store), store, range(_SHOWN))
    rows = {"sprites": originals}
    for beta in results:
        model = load(f"{options.storage}/{run_name(beta, 0, options)}")
        assert isinstance(model, AutoencoderModel)
        rows[f"β {beta:g}"] = model.reconstruct(originals)
    axes.imshow(np.concatenate([in_line(samples) for samples in rows.values()]), cmap="gray", vmin=0, vmax=255)
    size = originals.shape[-1]
    axes.set_yticks([(number + 0.5) * size for number in range(len(rows))], rows)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def in_line(samples: torch.Tensor) -> np.ndarray:
    """[N, 1, H, W] -> [H, N · W]."""
    return np.concatenate(list(samples[:, 0].numpy()), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--betas", type=float, nargs="+", default=list(PUBLISHED))
    parser.add_argument("--images", type=int, default=256_000, help="images that each run sees")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--bf16", action="store_true", help="train under bfloat16 autocast")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side, of one thread each")
    parser.add_argument("--storage", default="runs/rate-distortion", help="directory of the runs")
    parser.add_argument("--picture", default="docs/rate-distortion.png")
    options = parser.parse_args()
    options.betas.sort()

    for split in ("train", "val"):
        sprites(split, options)
    results: Results = {beta: [] for beta in options.betas}
    asked = product(range(options.seeds), options.betas)
    for (seed, beta), result in in_processes(partial(train, options), asked, options.at_once):
        results[beta].append(result)
        print(f"{run_name(beta, seed, options)} is done", flush=True)
    picture(results, options)
    print(f"\n{date.today()}, torch {torch.__version__}, {options.at_once} runs at once of one thread each\n")
    print(table(results))
    if wrong := out_of_order(results):
        raise SystemExit("\nnot monotonic: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
