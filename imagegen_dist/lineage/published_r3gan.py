"""The published R3GAN networks (arXiv:2501.05441) by the names of their parameters, as docs/import.md converts them.

A file holds the tensors of one or both networks: `G_ema.` (or `G.`) before the names of the generator's, `D.` before
those of the discriminator's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from imagegen_dist.errors import UsageError

_GENERATOR = ("G_ema.", "G.")
_DISCRIMINATOR = "D."
_WRAPPER = "Model."

_BLOCK = {
    "LinearLayer1.Layer.weight": "expand.weight",
    "NonLinearity1.Bias": "act1.bias",
    "LinearLayer2.Layer.weight": "mix.weight",
    "NonLinearity2.Bias": "act2.bias",
    "LinearLayer3.Layer.weight": "project.weight",
}
"""A residual block's tensors: theirs and ours."""

_LAYER = re.compile(r"MainLayers\.(\d+)\.Layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Published:
    """The tensors of a file by our names, "network/name", and the SHA-256 of the file."""

    tensors: Mapping[str, Tensor]
    sha256: str


def read_file(data: bytes, place: str) -> Published:
    """The networks in the bytes of a safetensors file. Raises UsageError, naming `place`, if it holds none."""
    try:
        stored = load(data)
    except SafetensorError as error:
        raise UsageError(f"{place} is not a safetensors file ({error})") from error
    found: dict[str, Tensor] = {}
    for prefix in _GENERATOR:
        if generator := _below(stored, prefix):
            found |= {f"generator/{name}": tensor for name, tensor in generator_tensors(generator).items()}
            break
    if discriminator := _below(stored, _DISCRIMINATOR):
        found |= {f"discriminator/{name}": tensor for name, tensor in discriminator_tensors(discriminator).items()}
    if not found:
        raise UsageError(
            f"{place} holds no published R3GAN: the names of its tensors have to begin with G_ema., G. or D. "
            "(docs/import.md converts a checkpoint)"
        )
    return Published(found, hashlib.sha256(data).hexdigest())


def generator_tensors(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published generator's tensors by our names. Each of its stages begins with the transition into it."""
    ends = {"Basis": "basis", "LinearLayer.weight": "modulate.weight"}
    return _renamed(stored, {"AggregationLayer.Layer.weight": "to_pixels.weight"}, ends, before=1)


def discriminator_tensors(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published discriminator's tensors by our names. Each of its stages ends with the transition out of it."""
    ends = {"Basis.weight": "reduce.weight", "LinearLayer.weight": "head.weight"}
    return _renamed(stored, {"ExtractionLayer.Layer.weight": "from_pixels.weight"}, ends, before=0)


def _renamed(
    stored: Mapping[str, Tensor], whole: Mapping[str, str], ends: Mapping[str, str], before: int
) -> dict[str, Tensor]:
    """One network's tensors by our names; what has no name here, such as the resampling filters, is left out.

    whole: names of layers outside of the stages. ends: names within the stage at 4×4. before: layers of a stage before
    its residual blocks.
    """
    found = {ours: stored[theirs] for theirs, ours in whole.items() if theirs in stored}
    if (table := stored.get("EmbeddingLayer.weight")) is not None:
        # A linear layer over one-hot vectors there, [features, classes].
        found["embed.weight"] = table.T.contiguous()
    for name, tensor in stored.items():
        if not (layer := _LAYER.fullmatch(name)):
            continue
        stage, number, rest = int(layer[1]), int(layer[2]), layer[3]
        if rest in _BLOCK:
            found[f"stages.{stage}.{number - before}.{_BLOCK[rest]}"] = tensor
        elif rest in ends:
            found[ends[rest]] = tensor
        elif rest == "LinearLayer.Layer.weight":
            found[f"transitions.{stage}.weight"] = tensor
    return found


def _below(stored: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one network by their names in it, without the wrapper's of the published training code."""
    return {
        name.removeprefix(prefix).removeprefix(_WRAPPER): tensor
        for name, tensor in stored.items()
        if name.startswith(prefix)
    }
