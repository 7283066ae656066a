"""How far latents disentangle, with spread: `python -m benchmarks.disentanglement [--seeds 5] [--images N]`

Sprites on a grid that a run sees to its end in minutes: 3 shapes × 6 sizes × 16 × 16 positions, 32 × 32 pixels, 4,608
in all, drawn as dSprites' with the orientation 0. A VAE, β-VAE, FactorVAE and β-TCVAE of one convolutional network,
each from several seeds, in processes of one thread; scores are of all sprites, as published ones are of all of
dSprites. The table has the mean of the seeds and, in brackets, the smallest and the largest. The same command continues
where it was interrupted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.rate_distortion import Console
from benchmarks.seeds import cells, in_processes, markdown, run_to_end, titles
from imagegen_dist import config
from imagegen_dist.data import dsprites
from imagegen_dist.data.index import INDEX_NAME
from imagegen_dist.data.pack import pack
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store

POSITIONS = 16
SHARED = {
    "model.channels": "32,32,64",
    "model.kernels": "4",
    "data.lanes": 2,
    "data.decoded_bytes": 1 << 27,
    "training.microbatch_size": 64,
    "training.ema_half_life": 6_400,
    "evaluation.every": 0,
}


@dataclass(frozen=True)
class Method:
    """A preset, and the setting that says how strongly it disentangles, with its values."""

    name: str
    preset: str
    setting: str
    strengths: tuple[float, ...]


METHODS = {
    "vae": Method("VAE", "beta-vae-dsprites", "objective.beta", (1,)),
    "beta": Method("β-VAE", "beta-vae-dsprites", "objective.beta", (2, 4, 8)),
    "factor": Method("FactorVAE", "factor-vae-dsprites", "objective.gamma", (5, 10, 35)),
    "tc": Method("β-TCVAE", "beta-tcvae-dsprites", "objective.beta", (2, 4, 6)),
}
SCORES = {
    "mig": ("MIG", "{:.2f}"),
    "factor_vae": ("FactorVAE score", "{:.2f}"),
    "dci_disentanglement": ("DCI", "{:.2f}"),
    "rate": ("rate", "{:.1f}"),
    "distortion": ("distortion", "{:.1f}"),
    "active_units": ("active latents", "{:.1f}"),
}
"""Columns of the table, by the names of result.json; rates and distortions in nats a sprite."""


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--strengths", type=float, nargs="+", help="of the table's, these alone")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=320_000, help="images that each run sees")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side, of one thread each")
    parser.add_argument("--storage", default="runs/disentanglement", help="directory of the runs")
    options = parser.parse_args()

    sprites(Store(options.storage))
    asked = [(name, strength, seed) for seed in range(options.seeds) for name, strength in variants(options)]
    found: dict[tuple[str, float], list[dict[str, Any]]] = {variant: [] for variant in variants(options)}
    for (name, strength, seed), result in in_processes(partial(train, options), asked, options.at_once):
        found[name, strength].append(result)
        print(f"{run_name(name, strength, seed)} is done", flush=True)
    print(
        f"\n{date.today()}, torch {torch.__version__}, {options.images:,} images each, learning rate {options.lr:g}\n"
    )
    print(table(found))


def variants(options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """(method, strength) in the order of the table."""
    for name in options.methods:
        for strength in METHODS[name].strengths:
            if not options.strengths or strength in options.strengths:
                yield name, float(strength)


def run_name(method: str, strength: float, seed: int) -> str:
    return f"{method}-{strength:g}-seed-{seed}"


def sprites(storage: Store) -> Store:
    """The shards of the grid, which are packed on first use."""
    place = storage / "sprites-32"
    if not place.exists(INDEX_NAME):
        pack(_drawn(), place, shard_samples=1_000)
    return place


def _drawn() -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Every sprite of the grid with its factors, in random order."""
    sizes = (dsprites.FACTORS["shape"], dsprites.FACTORS["scale"], POSITIONS, POSITIONS)
    for number in np.random.default_rng(0).permutation(np.prod(sizes)):
        shape, scale, x, y = map(int, np.unravel_index(number, sizes))
        at = np.ravel_multi_index((shape, scale, 0, 2 * x, 2 * y), tuple(dsprites.FACTORS.values()))
        picture = dsprites.render(np.array([at]))[0]
        small = picture.reshape(1, 32, 2, 32, 2).mean((2, 4)).round().astype(np.uint8)
        yield small, {"factors": {"shape": shape, "scale": scale, "position_x": x, "position_y": y}}


def train(options: argparse.Namespace, method: str, strength: float, seed: int) -> dict[str, Any]:
    """A run to its end, or what is left of it; its result.json."""
    torch.set_num_threads(1)
    chosen, place = METHODS[method], sprites(Store(options.storage)).url
    changes: Mapping[str, Any] = {
        **SHARED,
        chosen.setting: strength,
        "optim.autoencoder.lr": options.lr,
        "data.url": place,
        "training.seed": seed,
        "training.total_images": options.images,
        "training.report_every": options.images // 10 // 64 * 64,
        "training.sample_every": options.images,
        "training.checkpoint_every": options.images // 2 // 64 * 64,
    }
    if method == "factor":  # the published one is sized for 64 × 64 sprites of a GPU
        changes = {**changes, "objective.discriminator_hidden": "256,256,256"}
    experiment = config.overrides(find_preset(chosen.preset).experiment, changes.items())
    settings = RunSettings(
        name=run_name(method, strength, seed),
        storage=options.storage,
        preset=chosen.preset,
        job="disentanglement",
        data=place,
        validation=place,
        attempt=str(time.time_ns()),
        wandb_mode="disabled",
    )
    return run_to_end(experiment, settings, Console(settings.name))


def table(found: Mapping[tuple[str, float], list[dict[str, Any]]]) -> str:
    """Markdown: a row a method and strength, with the mean, least and largest of each figure over the seeds."""
    rows = [["method", "strength", "seeds", *titles(SCORES)]]
    for (name, strength), results in found.items():
        rows.append([METHODS[name].name, f"{strength:g}", str(len(results)), *cells(results, SCORES)])
    return markdown(rows)


if __name__ == "__main__":
    main()
