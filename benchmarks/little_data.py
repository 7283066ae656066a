"""What helps where there are few samples: `python -m benchmarks.little_data [--digits 200] [--seeds 0] [--rows FILE]`

100, 200 and 500 digits, the losses and networks of preset `digits-200`, each case over three seeds: without
augmentation, with a fixed probability, with one that follows overfitting; and without augmentation or with the last,
beginning from a model of another dataset, scikit-learn's digits of 8×8 pixels, enlarged. Each run is in one process of
one thread.

Figures are of 1,000 samples: label agreement and Fréchet distance in the features of a classifier of all 4,000 digits,
and copies of the few digits that the model has seen, each beside the same figure of the 1,000 held-out digits. "nothing
but the digits" is a set of 1,000 that repeats the few.

A line of --rows is a finished run. The same command goes on where it was interrupted; --report prints the tables.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.seeds import cells, titles
from imagegen_dist import config, load
from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import INDEX_NAME
from imagegen_dist.data.modality import to_float
from imagegen_dist.data.pack import pack
from imagegen_dist.distributed import World
from imagegen_dist.evaluation.copying import find_copies
from imagegen_dist.evaluation.reference import Reference, build_reference
from imagegen_dist.experiment import Experiment, build_networks
from imagegen_dist.lineage.beginning import plan
from imagegen_dist.lineage.source import read_source
from imagegen_dist.metrics.features import agreement, feature_statistics
from imagegen_dist.metrics.frechet import frechet_distance
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings, last_values
from imagegen_dist.run import SilentEvents, execute
from imagegen_dist.storage import Store

PRESET = "digits-200"
DIGITS, SEEDS, SAMPLES = (100, 200, 500), (0, 1, 2), 1000
CPU = torch.device("cpu")

FIXED = {"objective.adaptive.rise_images": 10**12}  # r is measured, and p stays where it begins
CASES: dict[str, dict[str, Any]] = {
    "nothing": FIXED,
    "fixed p": {**FIXED, "objective.augment_p": 0.3},
    "adaptive p": {},
    "transfer": FIXED,
    "transfer, adaptive p": {},
}
SOURCE = "small digits"  # the run from whose weights transfer begins


def small_digits(store: Store) -> Store:
    """scikit-learn's 1,797 digits of 8×8 pixels and 17 levels, enlarged to 24×24 in the middle of 28×28."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = store / "small-digits"
    if not folder.exists(INDEX_NAME):
        pictures, labels = load_digits(return_X_y=True)

        def enlarged(picture: np.ndarray) -> np.ndarray:
            small = Image.fromarray((picture.reshape(8, 8) * 255 / 16).astype(np.uint8))
            return np.pad(np.asarray(small.resize((24, 24), Image.Resampling.BICUBIC)), 2)[None]

        samples = ((enlarged(picture), int(label)) for picture, label in zip(pictures, labels, strict=True))
        pack(samples, folder, shard_samples=500, classes=10)
    return folder


def experiment_of(case: str, seed: int, options: argparse.Namespace) -> Experiment:
    """The run of a case."""
    changes: dict[str, Any] = {
        "training.seed": seed,
        "training.sample_every": 1_000_000_000,
        "training.checkpoint_every": 1_000_000_000,
        "training.pass_images": 32,
        "evaluation.samples": 0,
        **CASES[case],
        **dict(text.split("=", 1) for text in options.set),
    }
    if options.images:
        changes["training.total_images"] = options.images
    return config.overrides(find_preset(PRESET).experiment, changes.items())


def settings_of(case: str, digits: int, seed: int, options: argparse.Namespace) -> RunSettings:
    """Where it lives."""
    data = Store(options.storage) / ".data"
    few = small_digits(data) if case == SOURCE else builtin_dataset(f"digits:{digits}", "train", data)
    return RunSettings(
        name=f"{case.replace(',', '').replace(' ', '-')}{options.suffix}-{digits}-{seed}",
        storage=options.storage,
        preset=PRESET,
        job="little_data",
        data=few.url,
        validation=builtin_dataset("digits", "val", data).url,
        attempt=str(time.time_ns()),
        wandb_mode="disabled",
    )


@cache
def reference_of(storage: str) -> tuple[Reference, Dataset]:
    """The classifier of all 4,000 digits, and the held-out thousand."""
    data = Store(storage) / ".data"
    training, held_out = (Dataset.open(builtin_dataset("digits", split, data).url) for split in ("train", "val"))
    return build_reference(Store(storage) / ".cache", training, held_out, 80_000, World(), CPU, print), held_out


def figures_of(samples: Tensor, labels: Tensor, digits: Dataset, storage: str) -> dict[str, float]:
    """Figures of samples, uint8 [N, 1, 28, 28], and of the classes that were asked for."""
    reference, held_out = reference_of(storage)
    network = reference.network
    x = to_float(samples)
    assert network.logits is not None
    with torch.no_grad():
        distance = frechet_distance(feature_statistics(network, [x], CPU), reference.moments)
        agreed = agreement(network.logits(x), labels).mean()
    copies = find_copies(samples, digits, held_out, network, len(samples), CPU).figures
    return {"agreement": float(agreed), "frechet": distance, **copies}


def begun(settings: RunSettings, experiment: Experiment, options: argparse.Namespace) -> RunSettings:
    """A run that begins with the weights of one on scikit-learn's digits, which is trained first."""
    source = settings_of(SOURCE, 1_797, 0, options)
    execute(experiment_of("nothing", 0, options), source, World(), CPU, SilentEvents())
    place, index = source.folder.url, Dataset.open(settings.data).index
    networks = build_networks(experiment, index.shape, index.labels)
    return replace(settings, lineage=plan(place, read_source(place), experiment, index, networks))


def run(case: str, digits: int, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train a case and take its figures."""
    experiment, settings = experiment_of(case, seed, options), settings_of(case, digits, seed, options)
    settings = begun(settings, experiment, options) if case.startswith("transfer") else settings
    started = time.process_time()
    execute(experiment, settings, World(), CPU, SilentEvents())
    seconds = time.process_time() - started
    model = load(settings.folder.url)
    labels = model.labels(SAMPLES)
    assert labels is not None
    found = figures_of(
        model.sample(SAMPLES, classes=labels.tolist()), labels, Dataset.open(settings.data), options.storage
    )
    followed = last_values(read_rows(settings.folder), "augmentation/")
    row = {
        "case": case + options.suffix,
        "digits": digits,
        "seed": seed,
        **found,
        **followed,
        "seconds": round(seconds),
    }
    settings.folder.remove("checkpoints")
    return row


def bounds(digits: int, storage: str) -> dict[str, Any]:
    """Figures of a model that repeats the digits it has seen, and nothing else."""
    store = builtin_dataset(f"digits:{digits}", "train", Store(storage) / ".data")
    dataset = Dataset.open(store.url)
    samples, labels = dataset.read([number % digits for number in range(SAMPLES)])
    assert labels is not None
    return figures_of(samples, labels, dataset, storage)


FIGURES = {
    "agreement": ("label agreement", "{:.1%}"),
    "frechet": ("Fréchet", "{:.1f}"),
    "authenticity": ("authenticity", "{:.2f}"),
    "copied": ("copied", "{:.1%}"),
    "overfitting": ("r", "{:.2f}"),
    "p": ("p", "{:.2f}"),
    "seconds": ("CPU s", "{:.0f}"),
}


def report(rows: Sequence[Mapping[str, Any]], storage: str) -> str:
    """Markdown: for each number of digits a row a case, between the held-out digits and the few digits repeated."""
    reference, held_out = reference_of(storage)
    lines = [
        f"| digits | | seeds | {' | '.join(titles(FIGURES))} |",
        "|" + "---|" * (3 + len(FIGURES)),
    ]
    for digits in sorted({row["digits"] for row in rows}):
        repeated = bounds(digits, storage)
        real = {
            "agreement": reference.accuracy,
            "frechet": reference.real_frechet,
            "authenticity": repeated["authenticity_real"],
            "copied": repeated["copied_real"],
        }
        named: dict[str, list[Mapping[str, Any]]] = {f"{held_out.index.samples:,} held-out digits": [real]}
        for row in rows:
            if row["digits"] == digits:
                named.setdefault(row["case"], []).append(row)
        named["nothing but the digits"] = [repeated]
        for case, found in named.items():
            seeds = str(len(found)) if "seed" in found[0] else ""
            lines.append(f"| {digits} | {case} | {seeds} | {' | '.join(cells(found, FIGURES))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--digits", nargs="+", type=int, default=DIGITS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--images", type=int, default=0, help="images that each run sees; 0: the preset's")
    parser.add_argument("--set", nargs="*", default=[], metavar="PATH=VALUE", help="settings of all runs")
    parser.add_argument("--suffix", default="", help="added to the names of the cases, for runs with other settings")
    parser.add_argument("--storage", default="runs/little-data", help="directory of the runs")
    parser.add_argument("--rows", type=Path, default=Path("runs/little-data.jsonl"), help="a line a finished run")
    parser.add_argument("--report", action="store_true", help="print the tables of the rows, and train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    if options.report:
        print(f"{date.today()}, torch {torch.__version__}, preset {PRESET}\n\n{report(rows, options.storage)}")
        return
    done = {(row["case"], row["digits"], row["seed"]) for row in rows}
    for seed in options.seeds:
        for digits in options.digits:
            for case in options.cases:
                if (case + options.suffix, digits, seed) not in done:
                    row = run(case, digits, seed, options)
                    print(json.dumps(row), flush=True)
                    with options.rows.open("a") as file:
                        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
