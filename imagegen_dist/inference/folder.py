"""A model as an exported folder: weights, config.json, model card and a picture of samples."""

from __future__ import annotations

import hashlib
import re

from imagegen_dist.errors import UsageError
from imagegen_dist.exported import is_exported, read_exported, weights_file, write_exported
from imagegen_dist.inference.card import Card, write_card
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.origin import figures_at, run_config, run_of
from imagegen_dist.storage import Store
from imagegen_dist.training.state import Tensors, flatten

_CARD = "README.md"
LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""A licence identifier on the Hub. The card's metadata is YAML, into which other text could be injected."""
_PICTURE = "samples.png"

_ROWS = 6
_COLUMNS = 10
_MOST_COLUMNS = 20


def card_of(model: Model, url: str = "", licence: str = "") -> Card:
    """The card of a model. url: of the checkpoint that it was loaded from, whose run has metrics and settings."""
    facts = model.facts
    figures, about = facts.get("figures", {}), facts.get("run", {})
    if run := run_of(url):
        figures, about = figures_at(run, model.images), run_config(run)
    parameters = {
        name: sum(parameter.numel() for parameter in network.parameters()) for name, network in model.networks.items()
    }
    stated = str(facts.get("license", ""))
    return Card(facts, figures, about, parameters, licence or (stated if LICENCE.fullmatch(stated) else ""))


def write_folder(model: Model, card: Card, store: Store, directions: bool = False) -> None:
    """Write the exported folder of a model, config.json last. directions: find these, and write them too.

    Raises StorageError, and ValueError for latents without directions.
    """
    found = {"directions": model.directions().payload()} if directions else {}
    columns = min(model.classes, _MOST_COLUMNS) or _COLUMNS
    drawn = model.sample(columns * _ROWS, range(columns) if model.classes else None)
    store.write(_PICTURE, model.drawing.as_file(drawn.cpu().numpy(), columns, "png"))
    store.write(_CARD, write_card(card).encode())
    tensors = _tensors(model)
    run = {name: card.run[name] for name in ("git_commit", "launch") if name in card.run}
    more = {"figures": dict(card.figures), "run": run, "license": card.licence, **found}
    write_exported(store, card.facts, tensors, more)


def write_autoencoder(model: Model, store: Store) -> str:
    """Write weights and config.json of an autoencoder beside the latents that it made; `load` reads them as a model.

    Returns the SHA-256 of the weights. Raises UsageError if another autoencoder is there, StorageError.
    """
    fingerprint = fingerprint_of(model)
    if is_exported(store) and read_exported(store)[0]["weights"]["sha256"] != fingerprint:
        raise UsageError(f"{store} is another autoencoder, of other latents: choose another DEST")
    write_exported(store, model.facts, _tensors(model), {})
    return fingerprint


def fingerprint_of(model: Model) -> str:
    """The SHA-256 of the model's exported weights."""
    return hashlib.sha256(weights_file(_tensors(model))).hexdigest()


def _tensors(model: Model) -> Tensors:
    """All weights by "network/name"."""
    return flatten({name: network.state_dict() for name, network in model.networks.items()})
