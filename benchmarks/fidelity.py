"""Our figures of generated samples beside torch-fidelity's and prdc's: `python benchmarks/fidelity.py [--folder DIR]`

Both sides get the same features: drawn from two mixtures of 2,048 dimensions and 2,000 samples a side, in float64; and
the same pictures for Inception, ours and theirs with the same random weights. KID is over one subset of all samples, so
that both take the same one; the inception score over the samples in their order.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

import torch
from peers.environments import PACKAGES, environment
from peers.server import measure
from safetensors.torch import load_file, save_file
from torch import Tensor

from imagegen_dist.metrics.class_scores import ClassScores
from imagegen_dist.metrics.frechet import Moments, frechet_distance
from imagegen_dist.metrics.kernel_distance import kernel_distance
from imagegen_dist.metrics.neighbourhoods import DENSITY_K, PRECISION_K, neighbourhoods
from imagegen_dist.models.inception import Inception

SAMPLES, DIM, CLASSES = 2000, 2048, 100
TOLERANCE = 1e-5
"""Relative difference that float32 on their side accounts for."""


def mixture(seed: int, shift: float) -> Tensor:
    """Features [N, F] as Inception's are: not negative, correlated, in clusters."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(64, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centres = torch.randn(20, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cluster = torch.randint(20, (SAMPLES,), generator=generator)
    inner = torch.randn(SAMPLES, 64, generator=generator, dtype=torch.float64) + 2 * centres[cluster] + shift
    own = torch.randn(SAMPLES, DIM, generator=generator, dtype=torch.float64)
    return (inner @ mixing / 8 + 0.3 * own).relu() * 0.4


def moments(features: Tensor) -> Moments:
    """Theirs, as ranks would sum them: in batches of 50."""
    found = Moments(DIM)
    for batch in features.split(50):
        found.add(batch)
    return found


def ours(x: Tensor, y: Tensor, logits: Tensor) -> dict[str, float]:
    """Our figures by the peers' names for them."""
    scores = ClassScores(len(logits), CLASSES)
    for start in range(0, len(logits), 50):
        scores.add(logits[start : start + 50], start)
    found = neighbourhoods(x, y)
    return {
        "frechet_inception_distance": frechet_distance(moments(x), moments(y)),
        "kernel_inception_distance_mean": kernel_distance(x, y, subsets=1, subset_size=SAMPLES)[0],
        "precision": found.precision,
        "recall": found.recall,
        "density": found.density,
        "coverage": found.coverage,
        "inception_score_mean": scores.score()[0],
        "inception_score_std": scores.score()[1],
    }


def inception(folder: Path) -> tuple[Path, Inception]:
    """A file of random weights, with normalisations that do something, and our network with them."""
    torch.manual_seed(0)
    network = Inception()
    for name, tensor in network.state_dict().items():
        if ".bn." in name:
            noise = torch.rand(tensor.shape)
            tensor.copy_(noise + 0.5 if name.endswith(("weight", "var")) else noise - 0.5)
    path = folder / "inception.safetensors"
    save_file(network.state_dict(), path)
    return path, network.eval().requires_grad_(False)


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, over the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/fidelity"), help="tensors and environments")
    folder = parser.parse_args().folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    x, y = mixture(1, 0.3), mixture(2, 0.0)
    logits = torch.randn(SAMPLES, CLASSES, generator=torch.Generator().manual_seed(3)) * 3
    pictures = torch.randint(0, 256, (4, 3, 64, 80), generator=torch.Generator().manual_seed(4)).to(torch.uint8)
    tensors = folder / "tensors.safetensors"
    save_file({"generated": x, "real": y, "logits": logits, "pictures": pictures}, tensors)
    weights, network = inception(folder)
    python = environment("torch_fidelity", folder)
    task = {"tensors": str(tensors), "subset_size": SAMPLES, "k": PRECISION_K, "weights": str(weights)}
    theirs = measure("peers.fidelity", task, python=python)
    if "failed" in theirs:
        raise SystemExit(f"the peers failed: {theirs['failed']}")

    found = ours(x, y, logits)
    print(f"\n{date.today()}, {', '.join(PACKAGES['torch_fidelity'][:2])}, torch {torch.__version__}, k {PRECISION_K}")
    print(f"for precision and recall, {DENSITY_K} for density and coverage\n")
    print("| | ours | torch-fidelity, prdc | relative difference |\n|---|---|---|---|")
    apart = {name: abs(value / theirs[name] - 1) for name, value in found.items()}
    for name, value in found.items():
        print(f"| {name.replace('_', ' ')} | {value:.9g} | {theirs[name]:.9g} | {apart[name]:.1e} |")
    peer = load_file(f"{tensors}.peer")
    features = network(pictures.float())
    for name, tensor in (("features", features), ("logits", network.head(features))):
        apart[name] = gap(tensor, peer[name])
        print(f"| Inception's {name} of 4 pictures, random weights | | | {apart[name]:.1e} |")
    if wrong := [name for name, difference in apart.items() if not difference <= TOLERANCE]:
        raise SystemExit(f"further apart than {TOLERANCE:g}: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
