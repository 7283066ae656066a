"""What storing latents costs: `python benchmarks/latents.py AUTOENCODER --data URL`

PSNR in dB of decoded latents against the pictures, and against the decoding of the latents as they are: rounded to 8
and to 16 bits a value; and with latents mirrored instead of pictures, or moved by one position and the decoded sample
moved back, as augmenting a dataset of latents would do. Medians over the first samples of the dataset.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from imagegen_dist import load
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.modality import to_float
from imagegen_dist.inference.latents import LatentStatistics, check_latents, latent_statistics
from imagegen_dist.metrics.image_quality import psnr
from imagegen_dist.wording import counted


def rounded(z: Tensor, statistics: LatentStatistics, bits: int) -> Tensor:
    """Latents after storing them in so many bits a value."""
    mean, width = statistics.columns(z.ndim)
    half = (2**bits - 1) / 2
    steps = (((z - mean) / width + 1) * half).round().clamp(0, 2 * half)
    return (steps / half - 1) * width + mean


def line(name: str, decoded: Tensor, pictures: Tensor, as_they_are: Tensor) -> str:
    """One row of the table."""
    against = [f"{float(psnr(decoded, other).median()):.2f}" for other in (pictures, as_they_are)]
    return f"| {name} | {' | '.join(against)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("autoencoder")
    parser.add_argument("--data", required=True)
    parser.add_argument("--samples", type=int, default=500)
    options = parser.parse_args()
    model = check_latents(load(options.autoencoder))
    stored, labels = Dataset.open(options.data).read(range(options.samples))
    label = labels if model.label_width else None
    with torch.inference_mode():
        z, pictures = model.encode(stored, label), to_float(stored)

        def decode(latents: Tensor) -> Tensor:
            return model.autoencoder.decode(latents, label)

        statistics, plain = latent_statistics([z]), decode(z)
        step = pictures.shape[-1] // z.shape[-1]
        rows = {
            "as they are": (plain, pictures, plain),
            "8 bits": (decode(rounded(z, statistics, 8)), pictures, plain),
            "16 bits": (decode(rounded(z, statistics, 16)), pictures, plain),
            "mirrored pictures": (decode(model.encode(stored.flip(-1), label)), pictures.flip(-1), plain.flip(-1)),
            "mirrored latents": (decode(z.flip(-1)), pictures.flip(-1), plain.flip(-1)),
            "moved pictures": (
                decode(model.encode(stored.roll(step, -1), label)),
                pictures.roll(step, -1),
                plain.roll(step, -1),
            ),
            "moved latents": (decode(z.roll(1, -1)), pictures.roll(step, -1), plain.roll(step, -1)),
        }
        latents = f"latents {tuple(z.shape[1:])}, span {statistics.span:.2f}"
        print(f"{counted(len(stored), 'sample')} of {model.shape}, {latents}")
        print("| latents | dB to the pictures | dB to those as they are |\n|---|---|---|")
        for name, found in rows.items():
            print(line(name, *found))


if __name__ == "__main__":
    main()
