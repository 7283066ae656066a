"""VAEs on 4,000 digits beside pythae's: `python benchmarks/vae_likelihood.py [--seeds 3] [--epochs 50] [--folder DIR]`

The built-in digits of MNIST, 4,000 for training and 1,000 held out, black and white above half (static binarisation).
Both train 784-512-z-512-784 with Bernoulli outputs, of equal layers and numbers of parameters, each from initial
weights as it draws them, in one process of one thread, with Adam, batch, learning rate and epochs the same; in turn,
seed by seed. The losses are that of a VAE and the bounds of --importance samples (IWAE, arXiv:1509.00519).

-log p(x) of the held-out digits is by importance sampling from q(z|x), by `log_likelihood` of objectives/iwae.py
for both: pythae's weights are read into our networks. Its own get_nll, of as many samples and the first seed, stands
beside it. The averaged weights (half-life two epochs) are those that `load` gives a user of imagegen_dist; pythae has
none.
Seconds an epoch are medians over all epochs of a run, the first left out.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from peers.autoencoders import HIDDEN
from peers.environments import PACKAGES, environment
from peers.server import measure
from safetensors.torch import load_file, save_file
from torch import Tensor

from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import to_float
from imagegen_dist.data.stream import read_samples
from imagegen_dist.models.mlp_vae import Decoder, Encoder, MLPVAEConfig
from imagegen_dist.objectives.likelihoods import Bernoulli, binarize
from imagegen_dist.objectives.vae import Autoencoder
from imagegen_dist.objectives.variational import log_likelihood
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.training.loop import keyed_draw

CPU = torch.device("cpu")
NAMES = {"ours": "imagegen_dist", "pythae": "pythae"}
Run = tuple[int, str]
"""Importance samples of the loss, 0 for a VAE; and the contender."""


def read_digits(folder: Path, split: str) -> tuple[Tensor, str]:
    """(black and white digits as -1 and 1, [N, 1, 28, 28]; URL of the shards)."""
    store = builtin_dataset("digits", split, Store(folder / "data"))
    index = DatasetIndex.load(store)
    pixels, _ = read_samples(index, store, range(index.samples))
    return binarize(to_float(pixels), "threshold", keyed_draw(0, 0, "none", 0, CPU)), store.url


def negative_log_likelihood(weights: Path, x: Tensor, latent: int, k: int) -> tuple[float, int]:
    """(mean -log p(x) in nats, numbers of parameters) of trained weights under our names."""
    networks = MLPVAEConfig(hidden=(HIDDEN,), latent=latent)
    shape, generator = SampleShape(1, (28, 28)), torch.Generator()
    encoder = Encoder(shape, 0, networks, parameters=2, generator=generator)
    decoder = Decoder(shape, 0, networks, outputs=1, generator=generator)
    torch.nn.ModuleDict({"encoder": encoder, "decoder": decoder}).load_state_dict(load_file(weights))
    draw, model = keyed_draw(0, 0, "evaluate", 0, CPU), Autoencoder(encoder, decoder, Bernoulli())
    parts = [log_likelihood(model.infer(some), some, draw, k, 50) for some in x.split(50)]
    count = sum(parameter.numel() for network in (encoder, decoder) for parameter in network.parameters())
    return -float(torch.cat(parts).mean()), count


def title(run: Run) -> str:
    """As in "IWAE-50, pythae"."""
    samples, name = run
    return f"{f'IWAE-{samples}' if samples else 'VAE'}, {NAMES[name]}"


def train(run: Run, seed: int, python: str, task: dict[str, Any], x: Tensor, k: int) -> dict[str, float]:
    """Train in a process of its own; the figures."""
    weighted, name = run
    done = measure("peers.autoencoders", {"name": name, "seed": seed, "weighted": weighted, **task}, python=python)
    if "failed" in done:
        raise SystemExit(f"{title(run)} failed: {done['failed']}")
    nll, parameters = negative_log_likelihood(Path(task["weights"]), x, task["latent"], k)
    wall, cpu = (median(times) for times in zip(*done["epochs"][1:], strict=True))
    found = {"nll": nll, "parameters": parameters, "wall": wall, "cpu": cpu}
    if name == "ours":
        found["averaged"], _ = negative_log_likelihood(Path(task["averaged"]), x, task["latent"], k)
    if "own_nll" in done:
        found["own"] = done["own_nll"]
    print(f"{title(run)}, seed {seed}: {', '.join(f'{key} {value:.5g}' for key, value in found.items())}", flush=True)
    return found


def spread(values: list[float], digits: int) -> str:
    """Mean ± standard deviation; empty for none."""
    if not values:
        return ""
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def table(results: dict[Run, list[dict[str, float]]], k: int) -> str:
    """Markdown: a row a loss and package, and how much longer pythae takes."""
    kinds = {"nll": "-log p, last weights", "averaged": "-log p, averaged weights", "own": "-log p, own estimate"}
    lines = [
        f"| nats, k = {k} | {' | '.join(kinds.values())} | parameters | wall s an epoch | CPU s an epoch |",
        "|---|---|---|---|---|---|---|",
    ]
    for run, found in results.items():
        cells = [spread([each[kind] for each in found if kind in each], 2) for kind in kinds]
        times = {key: [each[key] for each in found] for key in ("wall", "cpu")}
        more = [f"{found[0]['parameters']:,}", *(spread(each, 3) for each in times.values())]
        lines.append(f"| {' | '.join([title(run), *cells, *more])} |")
        if run[1] == "pythae":
            ours = results[run[0], "ours"]
            ratios = [f"{mean(each) / mean(other[key] for other in ours):.2f}" for key, each in times.items()]
            lines.append(f"| pythae over ours | | | | | {' | '.join(ratios)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--latent", type=int, default=16)
    parser.add_argument("--importance", type=int, nargs="+", default=[0, 1, 50], help="samples of the loss; 0: a VAE")
    parser.add_argument("--samples", type=int, default=200, help="importance samples of a digit, held out")
    parser.add_argument("--folder", type=Path, default=Path("runs/vae-likelihood"), help="data and environments")
    options = parser.parse_args()
    torch.set_num_threads(1)

    folder = options.folder.resolve()
    (train_digits, shards), (x, _) = (read_digits(folder, split) for split in ("train", "val"))
    tensors = folder / "digits.safetensors"
    save_file({name: (digits + 1) / 2 for name, digits in (("train", train_digits), ("test", x))}, tensors)
    task = {name: getattr(options, name) for name in ("epochs", "batch", "lr", "latent")}
    task |= {"shards": shards, "tensors": str(tensors)}
    task |= {name: str(folder / f"{name}.safetensors") for name in ("weights", "averaged")}
    python = {"ours": sys.executable, "pythae": environment("pythae", folder)}
    results: dict[Run, list[dict[str, float]]] = {
        (samples, name): [] for samples in options.importance for name in NAMES
    }
    for seed in range(options.seeds):
        for run, found in results.items():
            samples = 0 if seed else options.samples
            found.append(train(run, seed, python[run[1]], task | {"samples": samples}, x, options.samples))

    print(
        f"\n{date.today()}, {options.seeds} seeds, {options.epochs} epochs of batches of {options.batch}, Adam "
        f"{options.lr:g}, {options.latent} latents, torch {torch.__version__}, {PACKAGES['pythae'][0]}, one thread\n"
    )
    print(table(results, options.samples))


if __name__ == "__main__":
    main()
