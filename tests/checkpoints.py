"""Checkpoints of every family of models, small and untrained, written in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imagegen_dist import config
from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.conditions.tally import ConditionScan
from imagegen_dist.experiment import Experiment, build_networks
from imagegen_dist.presets import find_preset
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import Snapshot, publish
from imagegen_dist.training.state import flatten


@dataclass(frozen=True)
class Family:
    """A model by its preset, what is changed of it, and its samples."""

    preset: str
    changes: dict[str, Any]
    dims: tuple[int, ...] = (1, 12, 12)
    modality: str = "image"
    classes: int | None = None
    class_names: tuple[str, ...] | None = None

    known: ConditionRows | None = None

    @property
    def experiment(self) -> Experiment:
        return config.overrides(find_preset(self.preset).experiment, self.changes.items())


def known_conditions(records: Iterable[dict[str, Any]]) -> ConditionRows:
    """The conditions of samples with these records."""
    scan = ConditionScan()
    for record in records:
        scan.add(record)
    conditions = scan.conditions()
    return ConditionRows(conditions, scan.vectors(conditions))


_R3GAN = {"kind": "r3gan", "widths": [16, 8], "group_channels": 8, "resample": "fir", "z_dim": 8, "embed_dim": 4}
_CONV = {"kind": "convvae", "channels": [8, 8], "kernels": [4], "hidden": [16], "latent": 4, "embed_dim": 4}
_RES = {"kind": "resvae", "channels": 8, "multipliers": [1, 1], "blocks": 1, "latent_channels": 3}
_LADDER = {"kind": "laddervae", "channels": [8, 8], "latents": [0, 2], "units": [16], "vectors": [3]}
_FSQ = {"kind": "vae", "latent": "fsq", "levels": [5, 5, 5], "likelihood": "logistic"}

_CLIPS = {"strides": ["1x2x2"], "convolutions": "factorised"}
_MOVING = {**_R3GAN, **_CLIPS, "patch": [1, 2, 2], "patch_kernel": [1, 4, 4], "pixel_channels": 2}
_CAUSAL = {**_RES, **_CLIPS, "multipliers": [1, 1, 1], "strides": ["1x2x2", "2"], "causal": True}
_NARROW = {"model.widths": (8,), "model.mapping_units": 8, "model.head_units": 8}
_FRAMES = {"norm_over": "frames", "attention_over": "frames"}

_ANIMALS = ("ant", "bee", "cat", "dog", "eel, electric")

KNOWN = known_conditions(
    {"digit": number % 4, "style": ("serif", "sans")[number % 2], "bold": number % 3 == 0, "age": number / 10}
    for number in range(60)
)
"""Conditions of some samples: two classes, an attribute and a number, K = 8."""

FAMILIES: dict[str, Family] = {
    "r3gan": Family("digits", {"model": _R3GAN}, classes=5, class_names=_ANIMALS),
    "r3gan-patch": Family("digits", {"model.widths": (8,), "model.patch": 6, "model.patch_kernel": 8}, classes=3),
    "dcgan": Family("dcgan", {"model": {"kind": "dcgan", "widths": [16, 8], "z_dim": 8}}, dims=(3, 16, 8)),
    "mlp": Family("article-gan", {"model.hidden": (16,), "model.z_dim": 6}),
    "mlp-vae": Family("digits-vae", {"model.hidden": (16,), "model.latent": 4}),
    "conv-vae": Family("digits-vae", {"model": _CONV, "data.conditional": True}, classes=4),
    "res-vae": Family("digits-vae", {"model": _RES, "objective.likelihood": "gaussian"}, dims=(3, 8, 8)),
    "fsq": Family("digits-vae", {"model": _RES, "objective": _FSQ}, dims=(3, 8, 8)),
    "ladder": Family("ladder-vae", {"model": _LADDER}, dims=(1, 8, 8)),
    "vae-gan": Family(
        "vae-gan",
        {"model": _CONV, "objective.discriminator_channels": 4, "objective.discriminator_layers": 1},
        dims=(1, 16, 16),
    ),
    "video": Family(
        "digits", {"model": {**_MOVING, "pixel_kernel": [1, 3, 3]}}, dims=(3, 4, 8, 8), modality="video", classes=2
    ),
    "video-vae": Family("digits-vae", {"model": {**_CAUSAL, **_FRAMES}}, dims=(1, 4, 8, 8), modality="video"),
    "r3gan-styled": Family("digits", {"model": _R3GAN}, known=KNOWN),
    "vae-styled": Family("digits-vae", {"model": _CONV, "data.conditional": True}, known=KNOWN),
    "voxels": Family("digits-vae", {"model": _CONV}, dims=(1, 8, 8, 8), modality="voxels"),
    "moving-digits-gan": Family("moving-digits-gan", _NARROW, dims=(1, 4, 16, 16), modality="video", known=KNOWN),
    "moving-digits-vae": Family(
        "moving-digits-vae", {"model.channels": (4, 8), "model.units": (16,)}, dims=(1, 4, 8, 8), modality="video"
    ),
    "solids-gan": Family("solids-gan", {"model.widths": (8, 8)}, dims=(1, 8, 8, 8), modality="voxels", classes=6),
    "solids-vae": Family(
        "solids-vae", {"model.channels": (4, 8), "model.hidden": (16,)}, dims=(1, 8, 8, 8), modality="voxels"
    ),
}


def write_checkpoint(folder: Path, family: str | Family, images: int = 480) -> str:
    """A run's directory with one checkpoint of a family, whose weights are all moved away from 0."""
    chosen = FAMILIES[family] if isinstance(family, str) else family
    experiment, shape = chosen.experiment, SampleShape(chosen.dims[0], chosen.dims[1:])
    networks = build_networks(experiment, shape, chosen.known.conditions if chosen.known else chosen.classes)
    averaged = experiment.objective.sampler(networks).modules()
    generator = torch.Generator().manual_seed(7)
    for network in {**networks, **averaged}.values():
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    model = flatten({name: network.state_dict() for name, network in averaged.items()})
    weights = flatten({name: network.state_dict() for name, network in networks.items()})
    facts = {
        "images": images,
        "seconds": 12.5,
        "preset": chosen.preset,
        "world_size": 2,
        "versions": {"torch": torch.__version__},
        "data": {
            "fingerprint": "0" * 64,
            "modality": chosen.modality,
            "shape": config.encode(shape),
            "classes": chosen.classes,
            **({"class_names": list(chosen.class_names)} if chosen.class_names else {}),
            "samples": 100,
            **(chosen.known.payload() if chosen.known else {}),
        },
        "experiment": config.encode(experiment),
    }
    state = {f"weights/{name}": tensor for name, tensor in weights.items()}
    publish(Store(folder), Snapshot(images, model, state, facts), "0", "0" * 64)
    return str(folder)
