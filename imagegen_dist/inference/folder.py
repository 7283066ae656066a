"""A model as an exported folder: weights, config.json, model card and a picture of samples."""

from __future__ import annotations

import re

from imagegen_dist.data.modality import modality
from imagegen_dist.exported import write_exported
from imagegen_dist.inference.card import Card, write_card
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.origin import figures_at, run_config, run_of
from imagegen_dist.storage import Store

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


def write_folder(model: Model, card: Card, store: Store) -> None:
    """Write the exported folder of a model, config.json last. Raises StorageError."""
    columns = min(model.classes, _MOST_COLUMNS) or _COLUMNS
    drawn = model.sample(columns * _ROWS, range(columns) if model.classes else None)
    picture, _ = modality(model.modality).preview(drawn.cpu().numpy(), columns)
    store.write(_PICTURE, picture)
    store.write(_CARD, write_card(card).encode())
    tensors = {
        f"{name}/{key}": tensor
        for name, network in model.networks.items()
        for key, tensor in network.state_dict().items()
    }
    run = {name: card.run[name] for name in ("git_commit", "launch") if name in card.run}
    write_exported(store, card.facts, tensors, {"figures": dict(card.figures), "run": run, "license": card.licence})
