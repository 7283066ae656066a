"""The exported folder: config.json and model.safetensors, the layout of models on the Hugging Face Hub.

config.json         what the model is: experiment, data, training, metrics; the weights' size and SHA-256
model.safetensors   its weights, named as in a checkpoint
README.md           the model card
samples.png         the picture in it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from imagegen_dist.documents import parse_json
from imagegen_dist.run_folder import MANIFEST, CheckpointError
from imagegen_dist.storage import Store
from imagegen_dist.wording import counted

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

_FORMAT = 1
_FACTS = ("images", "seconds", "world_size", "preset", "versions", "data", "latents", "directions")
"""Facts of a checkpoint that an exported model keeps, besides the experiment."""

_PLACES = (("data", "url"), ("data", "validation"), ("objective", "lpips_weights"))


def is_exported(store: Store) -> bool:
    """True if a directory is an exported model, and not a run or a checkpoint."""
    return store.exists(WEIGHTS) and store.exists(CONFIG) and not store.exists(MANIFEST)


def write_exported(
    store: Store, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], more: Mapping[str, Any]
) -> None:
    """Write weights and then config.json, which holds their hash. more: further facts. Raises StorageError."""
    weights = weights_file(tensors)
    store.write(WEIGHTS, weights)
    document = {
        "library_name": "imagegen_dist",
        "format": _FORMAT,
        **{name: facts[name] for name in _FACTS if name in facts},
        "experiment": _without_places(facts["experiment"]),
        **more,
        "weights": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
    }
    store.write(CONFIG, json.dumps(document, indent=1).encode())


def weights_file(tensors: Mapping[str, Tensor]) -> bytes:
    """The content of model.safetensors, which depends only on the tensors."""
    return save_tensors({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, {"format": "pt"})


def _without_places(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """The experiment's JSON with paths reduced to their last component: users' directories are not published."""
    kept = json.loads(json.dumps(experiment))
    for group, name in _PLACES:
        if kept.get(group, {}).get(name):
            kept[group][name] = str(kept[group][name]).rstrip("/").rpartition("/")[2]
    kept["data"].get("cache", {}).pop("directory", None)
    return kept


def read_exported(store: Store) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(facts, tensors) of an exported model, whose weights are verified against config.json. Raises CheckpointError."""
    try:
        facts = parse_json(store.read(CONFIG))
        if facts["format"] != _FORMAT:
            raise CheckpointError(f"{store.url}: format {facts['format']} is not known to this version")
        bytes_, digest = facts["weights"]["bytes"], facts["weights"]["sha256"]
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{store.url}: {CONFIG} is not of a model that jobs/export.py wrote ({type(error).__name__})"
        ) from None
    weights = store.read(WEIGHTS)
    if len(weights) != bytes_:
        raise CheckpointError(f"{store.url}: {WEIGHTS} has {counted(len(weights), 'byte')}, not {bytes_:,}")
    if hashlib.sha256(weights).hexdigest() != digest:
        raise CheckpointError(f"{store.url}: {WEIGHTS} does not have the sha256 of {CONFIG}")
    try:
        return facts, load_tensors(weights)
    except SafetensorError as error:
        raise CheckpointError(f"{store.url}: {WEIGHTS} cannot be read ({error})") from None
