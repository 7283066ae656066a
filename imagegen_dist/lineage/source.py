"""Weights to begin from: of a run, a checkpoint or an exported folder of this package, or of another library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from imagegen_dist import config
from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.documents import parse_json
from imagegen_dist.errors import UsageError
from imagegen_dist.experiment import Experiment, Labels
from imagegen_dist.exported import is_exported, read_exported
from imagegen_dist.lineage import diffusers, published_r3gan
from imagegen_dist.lineage.record import INIT
from imagegen_dist.run_folder import CHECKPOINTS, CONFIG, MANIFEST, CheckpointError
from imagegen_dist.storage import StorageError, Store, file_at, reached
from imagegen_dist.training.checkpoint import find_checkpoint
from imagegen_dist.training.state import WEIGHTS, below

_SAFETENSORS = ".safetensors"


@dataclass(frozen=True)
class Source:
    """Weights by "network/name", and what is known of them.

    model: kind of the model that they belong to. experiment: that trained them; None for other libraries' weights,
    whose labels are not known either. scaling_factor: as in Lineage.
    """

    url: str
    fingerprint: str
    model: str
    tensors: Mapping[str, Tensor]
    images: int = 0
    experiment: Mapping[str, Any] | None = None
    labels: Labels = None
    class_names: tuple[str, ...] | None = None
    scaling_factor: float | None = None


def read_source(place: str) -> Source:
    """The weights at a path, a URL or, for diffusers, a name on the Hugging Face Hub.

    Raises UsageError or CheckpointError if there are none, or if they do not verify; StorageError.
    """
    if place.endswith(_SAFETENSORS):
        return _published_r3gan(place)
    store = _store(place)
    if folder := diffusers.folder_of(store):
        return _diffusers(folder)
    if is_exported(store):
        facts, tensors = read_exported(store)
        return _own(store.url, str(facts["weights"]["sha256"]), facts, tensors)
    if not (store.exists(MANIFEST) or store.exists(CHECKPOINTS)):
        raise _no_source(place)
    checkpoint = find_checkpoint(store)
    tensors = dict(checkpoint.model)
    averaged = {name.partition("/")[0] for name in tensors}
    weights = below(checkpoint.state, WEIGHTS)
    tensors |= {name: weight for name, weight in weights.items() if name.partition("/")[0] not in averaged}
    return _own(checkpoint.url, config.fingerprint(checkpoint.manifest["files"]), checkpoint.facts, tensors)


def _store(place: str) -> Store:
    """The folder at a path or URL; a name OWNER/NAME that is no local folder is one on the Hub. Raises UsageError."""
    store = reached(place)
    if store.protocol != "file" or store.exists() or not diffusers.HUB_NAME.fullmatch(place):
        return store
    try:
        return reached(f"hf://{place}")
    except StorageError as error:
        raise UsageError(f"--{INIT} {place} is no folder here, and no repository that can be read: {error}") from error


def _own(url: str, fingerprint: str, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Source:
    try:
        data, experiment = facts["data"], facts["experiment"]
        rows, names = ConditionRows.from_payload(data), data.get("class_names")
        return Source(
            url,
            fingerprint,
            str(experiment["model"]["kind"]),
            tensors,
            int(facts["images"]),
            experiment,
            data["classes"] if rows is None else rows.conditions,
            None if names is None else tuple(names),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{url}: what it is cannot be read ({type(error).__name__})") from error


def _diffusers(folder: Store) -> Source:
    found = diffusers.read_folder(folder)
    return Source(folder.url, found.sha256, "resvae", found.tensors, scaling_factor=found.scaling_factor)


def _published_r3gan(place: str) -> Source:
    store, name = file_at(place)
    try:
        data = store.read(name)
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"--{INIT} {place}: there is no such file") from None
    found = published_r3gan.read_file(data, place)
    return Source(f"{store.url.rstrip('/')}/{name}", found.sha256, "r3gan", found.tensors)


def configuration(place: str) -> tuple[str, Experiment]:
    """(preset, experiment) that trained the weights at `place`, which are not read.

    Raises UsageError, CheckpointError, StorageError.
    """
    store = Store(place) if place.endswith(_SAFETENSORS) else _store(place)
    facts: Mapping[str, Any] = {}
    if store.exists(CONFIG):
        found = parse_json(store.read(CONFIG))
        facts = found if isinstance(found, dict) else {}
    elif store.exists(MANIFEST) or store.exists(CHECKPOINTS):
        facts = find_checkpoint(store, ("state.json",)).facts
    elif not place.endswith(_SAFETENSORS):
        raise _no_source(place)
    if "experiment" not in facts:
        raise UsageError(f"--{INIT} {place} does not say how to train: give a PRESET that has the same networks")
    try:
        return str(facts.get("preset", "")), without_modules(config.decode(Experiment, facts["experiment"]))
    except ValueError as error:
        raise CheckpointError(f"{store.url}: its experiment cannot be read ({error})") from error


def _no_source(place: str) -> UsageError:
    return UsageError(
        f"--{INIT} {place}: this is no run, checkpoint, exported folder, diffusers autoencoder or .safetensors file"
    )


def without_modules(experiment: Experiment) -> Experiment:
    """An experiment of others without a feature network of a module, whose import would run code."""
    if ":" not in experiment.evaluation.features:
        return experiment
    return replace(experiment, evaluation=replace(experiment.evaluation, features="", weights="", weights_sha256=""))


def run_at(place: str, storage: str) -> str:
    """The URL of what `place` names: a path or URL, or the name of a run in a storage."""
    here = Store(storage) / place if "/" not in place else None
    if here is not None and not Store(place).exists() and here.exists(CONFIG):
        return here.url
    return place
