"""Memory of clips and volumes: of a training step and of decoding, whole and with what makes it smaller.

    python -m benchmarks.memory             # the tables of docs/BENCHMARKS.md

Bytes are counted on tensors without memory, as `--dry-run` does: the largest sum of all tensors that are alive during a
step, beyond weights, averages and optimizers, for one sample of a microbatch; and during a pass of the decoder for one
sample. --check compares the smallest sample's count with the largest size of the process in which a real step and a
real pass are taken.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from imagegen_dist import config
from imagegen_dist.experiment import Experiment, build_networks
from imagegen_dist.nn.causal import stream
from imagegen_dist.nn.tiles import Tiling, tiled
from imagegen_dist.prediction.counting import OperatorCounter, count_step
from imagegen_dist.prediction.predict import Samples
from imagegen_dist.presets import PRESETS
from imagegen_dist.shape import SampleShape

SHAPES = {
    "16×64×64, 3 channels": SampleShape(3, (16, 64, 64)),
    "64³": SampleShape(1, (64, 64, 64)),
    "128³": SampleShape(1, (128, 128, 128)),
}
AUTOENCODER: dict[str, Any] = {
    "model": {"kind": "resvae", "channels": 32, "multipliers": [1, 2, 4], "attention": False},
    "objective.likelihood": "gaussian",
}
CAUSAL: dict[str, Any] = {"model.causal": True, "model.norm_over": "frames"}
GAN: dict[str, Any] = {"model": {"kind": "r3gan", "widths": [128, 64, 32, 16], "group_channels": 16}}
TILE, HALO, BLEND = 8, 1, 2
"""Of the decoder's tiles, in latent positions, of which each is four voxels wide."""


def experiment(preset: str, changes: dict[str, Any], **training: Any) -> Experiment:
    small = {"training.microbatch_size": 2, "training.batch_size": 2, "data.conditional": False}
    more = {f"training.{name}": value for name, value in training.items()}
    return config.overrides(PRESETS[preset].experiment, {**small, **changes, **more}.items())


def step_bytes(chosen: Experiment, shape: SampleShape) -> float:
    """Bytes of a sample in a training step."""
    count = count_step(chosen, Samples.of_preset(shape, 0, "").index, 2)
    return (count.peak_bytes - count.state_bytes) / 2


def decoder_of(shape: SampleShape, is_causal: bool) -> nn.Module:
    changes = {**AUTOENCODER, **(CAUSAL if is_causal else {})}
    return build_networks(experiment("digits-vae", changes), shape, None)["decoder"]


def whole(decoder: nn.Module, z: Tensor) -> None:
    decoder(z)


def in_tiles(decoder: nn.Module, z: Tensor) -> None:
    tiled(decoder, z, [Tiling(TILE, HALO, BLEND)] * 3, (1,) * 3, decoder.factors)


def in_pieces(decoder: nn.Module, z: Tensor) -> None:
    for _ in stream(decoder, z.split(1, 2)):
        pass


DECODES = {"whole": whole, "tiles": in_tiles}


@torch.no_grad()
def pass_bytes(shape: SampleShape, decode: Callable[[nn.Module, Tensor], None]) -> int:
    """Bytes of decoding one sample."""
    counter = OperatorCounter()
    with FakeTensorMode(allow_non_fake_inputs=True), counter:
        decoder = decoder_of(shape, decode is in_pieces)
        z = torch.zeros(1, *decoder.latent_dims)
        with counter.counting():
            decode(decoder, z)
    return counter.peak_bytes - counter.state_bytes


def mib(count: float) -> str:
    return f"{count / 2**20:,.0f}"


def tables() -> str:
    lines = ["| MiB a sample, training | kept | recomputed | FLOPs |", "|---|---|---|---|"]
    for name, shape in SHAPES.items():
        for family, preset, changes in (("resvae", "digits-vae", AUTOENCODER), ("r3gan", "digits", GAN)):
            kept, again = (experiment(preset, changes, recompute_from=least) for least in (0, 1))
            index = Samples.of_preset(shape, 0, "").index
            more = count_step(again, index, 2).flops / count_step(kept, index, 2).flops
            lines.append(
                f"| {name}, {family} | {mib(step_bytes(kept, shape))} | {mib(step_bytes(again, shape))} | ×{more:.2f} |"
            )
    lines += ["", "| MiB a sample, decoding | whole | tiles | pieces of four frames |", "|---|---|---|---|"]
    for name, shape in SHAPES.items():
        found = [mib(pass_bytes(shape, decode)) for decode in (whole, in_tiles, in_pieces)]
        lines.append(f"| {name} | {' | '.join(found)} |")
    return "\n".join(lines)


class _Grown:
    """By how much a block lets the largest size of this process grow."""

    bytes = 0

    def __enter__(self) -> None:
        self.bytes = -_largest_bytes()

    def __exit__(self, *_: object) -> None:
        self.bytes += _largest_bytes()


def _largest_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def measured(what: str) -> int:
    """In a process of its own: the growth during a real step, or while one sample is decoded."""
    shape, found = SHAPES["16×64×64, 3 channels"], _Grown()
    torch.set_num_threads(1)
    if what in DECODES:
        decoder = decoder_of(shape, False)
        z = torch.zeros(1, *decoder.latent_dims)
        with torch.no_grad(), found:
            DECODES[what](decoder, z)
    else:
        chosen = experiment("digits-vae", AUTOENCODER, recompute_from=int(what == "recomputed"))
        count_step(chosen, Samples.of_preset(shape, 0, "").index, 2, fake=False, watch=found)
    return found.bytes


def check() -> str:
    """The counts of the smallest sample beside the growth of a process."""
    lines = ["| | counted | process |", "|---|---|---|"]
    shape = SHAPES["16×64×64, 3 channels"]
    counted = {
        "kept": 2 * step_bytes(experiment("digits-vae", AUTOENCODER), shape),
        "recomputed": 2 * step_bytes(experiment("digits-vae", AUTOENCODER, recompute_from=1), shape),
        **{what: pass_bytes(shape, decode) for what, decode in DECODES.items()},
    }
    for what, expected in counted.items():
        command = [sys.executable, "-m", "benchmarks.memory", "--measure", what]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        lines.append(f"| {what} | {mib(expected)} | {mib(int(found.split()[-1]))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure the smallest sample in processes of their own")
    parser.add_argument("--measure", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.measure:
        print(measured(chosen.measure))
    else:
        print(check() if chosen.check else tables())


if __name__ == "__main__":
    main()
