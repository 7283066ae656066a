"""latents.json, the file beside the shards of a dataset of latents: their statistics, and their origin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from imagegen_dist.documents import parse_json
from imagegen_dist.storage import Store

NAME = "latents.json"
FOLDER = "autoencoder"
"""The exported autoencoder, below the dataset."""

_ORIGIN = "origin"


@dataclass(frozen=True)
class Origin:
    """What latents are of.

    autoencoder: SHA-256 of the exported autoencoder's weights. pictures: URL of the encoded dataset; fingerprint: that
    of its index.
    """

    autoencoder: str
    pictures: str
    fingerprint: str


def read_document(store: Store) -> dict[str, Any]:
    """The content of latents.json. Raises ValueError if it is not one, FileNotFoundError, StorageError."""
    text = store.read(NAME)
    try:
        payload = parse_json(text)
        if not isinstance(payload, dict):
            raise ValueError("it is not a JSON object")
    except ValueError as error:
        raise ValueError(f"{store / NAME} is corrupt ({error})") from error
    return payload


def write_document(store: Store, statistics: Mapping[str, Any], origin: Origin | None = None) -> None:
    """Write latents.json. Raises StorageError."""
    known = {} if origin is None else {_ORIGIN: asdict(origin)}
    store.write(NAME, json.dumps({**statistics, **known}, indent=1).encode())


def read_origin(store: Store) -> Origin | None:
    """The origin of a dataset's latents; None if it is not a dataset of latents, or an older one that has no origin.

    Raises ValueError if latents.json is not one, StorageError.
    """
    if not store.exists(NAME):
        return None
    payload = read_document(store)
    if _ORIGIN not in payload:
        return None
    try:
        return Origin(**{name: str(value) for name, value in payload[_ORIGIN].items()})
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{store / NAME} is corrupt ({error})") from error
