"""Whether a change of the code changes what is computed: `python benchmarks/parity.py [--json FILE] [--against FILE]`

Every objective, with its important variants, trains a small model for 20 steps on one worker and on two, is stopped
after step 10 and resumed from its checkpoint, and is evaluated at the end. A line a run shows three hashes: of every
tensor of the last checkpoint (averaged weights, raw weights, optimizer state), of the rows of metrics without those
that measure time, and of the evaluation's figures. `--json` keeps them for every tensor and metric, `--against`
compares with such a file, names what differs, and then exits with 1.

Hashes are equal between two runs on one machine with the same versions of PyTorch and NumPy, and no further.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing
from safetensors.torch import load_file

from imagegen_dist import config
from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.data.pack import pack
from imagegen_dist.distributed import World, process_group
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.run import execute
from imagegen_dist.storage import Store

# Below the imports, Events, train and make_data are all that this script knows of the package.

PRELOADED = "imagegen_dist.run"


class Events:
    """Who started the run: ignores what it reports, and stops it at the first look where it is to be interrupted."""

    def __init__(self, interrupt: bool) -> None:
        self.interrupt = interrupt

    def row(self, row: object) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def checkpoint(self, published: object) -> None:
        pass

    def stop_requested(self) -> bool:
        return self.interrupt

    def interrupted(self) -> bool:
        return False


def train(
    preset: str, changes: Mapping[str, Any], data: tuple[str, str], folder: str, rank: int = 0, ranks: int = 1
) -> None:
    """One rank's part in the run FOLDER/run of a preset with settings changed: interrupted once, and resumed.

    data: URLs of training and held-out shards. Runs below sibling folders share the classifier of their evaluation.
    """
    experiment = config.overrides(find_preset(preset).experiment, changes.items())
    world = World(rank, ranks)
    for attempt in (0, 1):
        settings = RunSettings(
            name="run",
            storage=folder,
            preset=preset,
            job="train",
            data=data[0],
            validation=data[1],
            attempt=str(attempt),
            wandb_mode="disabled",
            cache=str(Path(folder).parent / "cache"),
        )
        events = Events(interrupt=attempt == 0)
        if ranks == 1:
            execute(experiment, settings, world, torch.device("cpu"), events)
        else:
            with process_group(world, f"{folder}-meeting-{attempt}"):
                execute(experiment, settings, world, torch.device("cpu"), events)


def make_data(name: str, folder: Path) -> tuple[str, str]:
    """URLs of training and held-out shards: the built-in digits, or generated samples, packed below a folder."""
    if name == "digits":
        train, val = (builtin_dataset(name, split, Store(folder)) for split in ("train", "val"))
        return train.url, val.url
    modality, samples = GENERATED[name]
    for split, seed in (("train", 0), ("val", 1)):
        extension = "png" if modality == "image" else "npy"
        pack(samples(np.random.default_rng(seed)), Store(folder / name / split), modality, extension, shard_samples=50)
    return Store(folder / name / "train").url, Store(folder / name / "val").url


STEPS, BATCH, MICROBATCH = 20, 24, 4
WORKERS = (1, 2)
AT_ONCE = 2

Samples = Iterator[tuple[np.ndarray, Any]]


def _noise(*shape: int) -> Any:
    def samples(random: np.random.Generator) -> Samples:
        for number in range(120):
            low = 60 * (number % 2)
            yield random.integers(low, low + 190, shape, dtype=np.uint8), number % 2

    return samples


def _bars(random: np.random.Generator) -> Samples:
    """Pictures whose row and brightness are the factors."""
    for _ in range(200):
        row, level = int(random.integers(8)), int(random.integers(4))
        picture = np.zeros((1, 8, 8), np.uint8)
        picture[:, row] = 60 + 60 * level
        yield picture, {"factors": {"row": row, "level": level}}


GENERATED = {
    "colour": ("image", _noise(3, 16, 16)),
    "video": ("video", _noise(3, 4, 16, 16)),
    "voxels": ("voxels", _noise(1, 8, 8, 8)),
    "bars": ("image", _bars),
}
"""Modality and samples of data that are made here."""

COURSE: dict[str, Any] = {
    "training.batch_size": BATCH,
    "training.microbatch_size": MICROBATCH,
    "training.total_images": STEPS * BATCH,
    "training.ema_half_life": "0:100:480",
    "training.report_every": 4 * BATCH,
    "training.listen_every": STEPS * BATCH // 2,
    "training.sample_every": 1000 * BATCH,
    "training.checkpoint_every": 1000 * BATCH,
    "training.compile": False,
    "data.workers": 0,
    "evaluation.every": 0,
    "evaluation.samples": 60,
    "evaluation.classifier_images": 640,
    "evaluation.searched": 100,
    "evaluation.importance_samples": 3,
}
"""Of every run."""

R3GAN = {"model.widths": (16,), "model.pixel_channels": 2, "model.mapping_units": 8, "model.head_units": 8}
MLP_GAN = {"model": {"kind": "mlp", "hidden": [24, 24], "z_dim": 8}}
STAGES = {"model": {"kind": "r3gan", "widths": [16, 8], "group_channels": 8, "z_dim": 8, "embed_dim": 8}}
DCGAN = {"model": {"kind": "dcgan", "widths": [16, 8], "z_dim": 8, "embed_dim": 8}}
MLP_VAE = {"model.hidden": (24,), "model.latent": 4}
CONV_VAE = {"model": {"kind": "convvae", "channels": [8, 8], "kernels": [4], "hidden": [16], "latent": 4}}
RES_VAE = {"model": {"kind": "resvae", "channels": 8, "multipliers": [1, 1], "blocks": 1, "latent_channels": 4}}
LADDER = {"model": {"kind": "laddervae", "channels": [], "latents": [], "units": [24, 12], "vectors": [3, 1]}}
LADDER_OF_MAPS = {"model": {"kind": "laddervae", "channels": [8, 8], "latents": [0, 2], "units": [16], "vectors": [4]}}
FACTOR_VAE = {
    "objective": {"kind": "factorvae", "discriminator_hidden": [32, 32]},
    "optim": {"kind": "factorvaeoptim"},
}


def _vae_gan(**changes: Any) -> dict[str, Any]:
    sizes = {"discriminator_channels": 4, "discriminator_layers": 1, "perceptual": "random", "beta": 0.1}
    return {"objective": {"kind": "vaegan", **sizes, **changes}, "optim": {"kind": "vaeganoptim"}}


Case = tuple[str, str, dict[str, Any]]
CASES: dict[str, Case] = {
    # preset, data, settings
    "gan-relativistic": ("digits", "digits", {**R3GAN, "objective.gamma": "1:0.1:480", "data.flip": True}),
    "gan-non-saturating-r1": (
        "digits",
        "digits",
        {**R3GAN, "objective.loss": "non-saturating", "objective.penalty": "r1"},
    ),
    "gan-non-saturating-plain": ("article-gan", "digits", {"model.hidden": (24, 24), "model.z_dim": 8}),
    "gan-hinge-r2": ("digits", "digits", {**R3GAN, "objective.loss": "hinge", "objective.penalty": "r2"}),
    "gan-wasserstein-gp": (
        "digits",
        "digits",
        {**MLP_GAN, "objective.loss": "wasserstein", "objective.penalty": "wgan-gp", "objective.critic_steps": 2},
    ),
    "gan-finite-difference": ("digits", "digits", {**R3GAN, "objective.estimator": "finite-difference"}),
    "gan-augmented": ("digits", "digits", {**R3GAN, "objective.augment_p": 0.6}),
    "gan-adaptive": (
        "digits",
        "digits",
        {**R3GAN, "objective.adaptive_augment": 0.3, "objective.adaptive.every": 48, "objective.augment_p": 0.2},
    ),
    "gan-policies": (
        "digits",
        "digits",
        {**R3GAN, "objective.augment_p": 0.6, "objective.augment.policy": ("color", "translation", "cutout:0.5")},
    ),
    "gan-voxels-depth": (
        "digits",
        "voxels",
        {**DCGAN, "objective.augment_p": 0.6}
        | {f"objective.augment.{name}_depth": 0.8 for name in ("flip", "translate", "rotate")},
    ),
    "gan-bf16": ("digits", "digits", {**R3GAN, "training.bf16": True}),
    "gan-dcgan": ("dcgan", "colour", {**DCGAN, "data.conditional": True, "objective.augment_p": 0.6}),
    "gan-video": ("digits", "video", STAGES),
    "gan-voxels": ("digits", "voxels", DCGAN),
    "vae": ("digits-vae", "digits", {**MLP_VAE, "objective.beta": 2.0, "objective.warmup_images": 240}),
    "vae-free-bits": ("digits-vae", "digits", {**MLP_VAE, "objective.free_bits": 0.2}),
    "vae-capacity": ("digits-vae", "digits", {**MLP_VAE, "objective.capacity": 3.0, "objective.capacity_images": 240}),
    "vae-tc-mws": ("digits-vae", "digits", {**MLP_VAE, "objective.decomposition": "mws", "objective.beta": 3.0}),
    "vae-tc-mss": ("digits-vae", "digits", {**MLP_VAE, "objective.decomposition": "mss", "objective.beta": 3.0}),
    "vae-gaussian": ("digits-vae", "digits", {**MLP_VAE, "objective.likelihood": "gaussian"}),
    "vae-logistic": ("digits-vae", "colour", {**CONV_VAE, "objective.likelihood": "logistic"}),
    "vae-l1": ("digits-vae", "digits", {**MLP_VAE, "objective.likelihood": "l1"}),
    "vae-mse": ("digits-vae", "digits", {**MLP_VAE, "objective.likelihood": "mse"}),
    "vae-binarized": ("mnist-400", "digits", {**MLP_VAE, "data.conditional": True}),
    "vae-fsq": (
        "digits-vae",
        "digits",
        {"model.hidden": (24,), "model.latent": 3, "objective.latent": "fsq", "objective.levels": (5, 5, 5)},
    ),
    "vae-fsq-maps": (
        "digits-vae",
        "colour",
        {**RES_VAE, "objective.latent": "fsq", "objective.levels": (5, 5, 4, 4), "objective.likelihood": "l1"},
    ),
    "vae-factors": ("beta-vae-dsprites", "bars", CONV_VAE),
    "vae-res-video": ("digits-vae", "video", {**RES_VAE, "data.conditional": True}),
    "iwae": ("iwae-50", "digits", {**MLP_VAE, "objective.samples": 3}),
    "iwae-dreg": ("digits-vae", "digits", {**MLP_VAE, "objective": {"kind": "iwae", "samples": 3, "gradient": "dreg"}}),
    "factor-vae": ("digits-vae", "digits", {**MLP_VAE, **FACTOR_VAE}),
    "factor-vae-maps": ("digits-vae", "colour", {**RES_VAE, **FACTOR_VAE}),
    "ladder": ("ladder-vae", "digits", {**LADDER, "objective.warmup_images": 240}),
    "ladder-free-bits": (
        "digits-vae",
        "colour",
        {**LADDER_OF_MAPS, "objective": {"kind": "hierarchicalvae", "free_bits": [0.0, 5.0]}},
    ),
    "ladder-voxels": ("digits-vae", "voxels", {**LADDER_OF_MAPS, "objective": "hierarchicalvae"}),
    "vae-gan": ("digits-vae", "digits", {**MLP_VAE, **_vae_gan(adversarial_from_images=6 * BATCH)}),
    "vae-gan-mse": ("digits-vae", "colour", {**RES_VAE, **_vae_gan(likelihood="mse", perceptual="none")}),
    "vae-gan-video": ("vae-gan", "video", {**CONV_VAE, **_vae_gan()}),
}


Parts = dict[str, dict[str, str]]
"""Hashes of one run, by what it leaves ("weights", "rows", "figures") and by tensor or metric."""


def parts(folder: Path) -> Parts:
    """The hashes of what a run left in its directory."""
    newest = sorted((folder / "checkpoints").glob("step-*/*"))[-1]
    tensors = {
        f"{file}/{name}": tensor
        for file in ("model", "state")
        for name, tensor in load_file(newest / f"{file}.safetensors").items()
    }
    weights = {
        name: _hash(
            f"{tensor.dtype} {tuple(tensor.shape)}".encode(), tensor.contiguous().view(-1).view(torch.uint8).numpy()
        )
        for name, tensor in tensors.items()
    }
    columns: dict[str, list[tuple[float, str]]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if not name.startswith("system/") and (name == "data/epoch" or not name.startswith("data/")):
                columns.setdefault(name, []).append((row["images"], float(value).hex()))
    hashes = {name: _hash(repr(values).encode()) for name, values in columns.items()}
    return {
        "weights": weights,
        "rows": {name: value for name, value in hashes.items() if not name.startswith("eval/")},
        "figures": {name: value for name, value in hashes.items() if name.startswith("eval/")},
    }


def _hash(*chunks: Any) -> str:
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()[:16]


def total(hashes: Mapping[str, str]) -> str:
    """One hash of many by name."""
    return _hash(json.dumps(sorted(hashes.items())).encode())


def differences(name: str, ours: Parts, theirs: Parts | None) -> list[str]:
    """A line for each of the three hashes in which a run differs from a kept one, with the parts that do."""
    if theirs is None:
        return [f"{name}: is not in the file"]
    found = []
    for kind in ("weights", "rows", "figures"):
        now, before = ours[kind], theirs[kind]
        unequal = [part for part in sorted({*now, *before}) if now.get(part) != before.get(part)]
        if unequal:
            more = ", ..." if len(unequal) > 3 else ""
            found.append(f"{name}: {kind} differ in {len(unequal)} of {len(now)}: {', '.join(unequal[:3])}{more}")
    return found


def _rank(rank: int, case: Case, data: tuple[str, str], folder: str, ranks: int) -> None:
    torch.set_num_threads(1)
    preset, _, changes = case
    train(preset, {**COURSE, **changes}, data, folder, rank, ranks)


def run(case: Case, workers: int, data: tuple[str, str], folder: Path) -> Parts:
    """Train a case in processes of its own, below a new folder, and hash what it left."""
    torch.multiprocessing.start_processes(_rank, (case, data, str(folder), workers), workers, start_method="forkserver")
    return parts(folder / "run")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="keep the hashes in this file")
    parser.add_argument("--against", type=Path, help="compare with the hashes in this file")
    parser.add_argument("--only", default="", help="names of runs, joined by commas")
    given = parser.parse_args(arguments)
    chosen = given.only.split(",") if given.only else list(CASES)
    if unknown := [name for name in chosen if name not in CASES]:
        parser.error(f"there is no {', '.join(unknown)}; there is {', '.join(CASES)}")
    before = json.loads(given.against.read_text()) if given.against else {}
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload([PRELOADED])
    found: dict[str, Parts] = {}
    unequal: list[str] = []
    began = time.perf_counter()
    print(f"{'run':26} {'workers':>7}  {'weights':16}  {'rows':16}  {'figures':16}")
    with tempfile.TemporaryDirectory() as scratch:
        data = {name: make_data(name, Path(scratch, "data")) for name in {CASES[case][1] for case in chosen}}
        wanted = [(name, workers) for name in chosen for workers in WORKERS]

        def one(name: str, workers: int) -> Parts:
            return run(CASES[name], workers, data[CASES[name][1]], Path(scratch, f"{name}-{workers}"))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for (name, workers), hashes in zip(wanted, pool.map(one, *zip(*wanted, strict=True)), strict=True):
                key = f"{name} on {workers}"
                found[key] = hashes
                totals = "  ".join(total(hashes[kind]) for kind in ("weights", "rows", "figures"))
                lines = differences(key, hashes, before.get(key)) if given.against else []
                mark = "" if not given.against else "  DIFFERS" if lines else "  equal"
                print(f"{name:26} {workers:>7}  {totals}{mark}", flush=True)
                unequal += lines
    if not given.only:
        unequal += [f"{key}: was not run" for key in before if key not in found]
    print(f"{len(found)} runs in {time.perf_counter() - began:.0f} s")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    for line in unequal:
        print(line)
    return 1 if unequal else 0


if __name__ == "__main__":
    sys.exit(main())
