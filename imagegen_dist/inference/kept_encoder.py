"""The trained encoder of a projection as a file beside its model, so that the next picture does not train it again.

projection-encoder.safetensors   its tensors; the header names the SHA-256 of the model's weights, and the training
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from imagegen_dist.documents import parse_json
from imagegen_dist.inference.folder import fingerprint_of
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.origin import run_of
from imagegen_dist.inference.pair_encoder import PairEncoder, PairTraining, new_encoder, train_encoder
from imagegen_dist.storage import PATIENCE_S, StorageError, Store

NAME = "projection-encoder.safetensors"
_FORMAT = "1"
_LENGTH = 8  # bytes of the header's length, with which a file of safetensors begins


@dataclass(frozen=True, eq=False)
class KeptEncoder:
    """An encoder, and the place of its file.

    trained: number of pairs it was trained on now, 0 if it was read. lost: why it could not be written, or "".
    """

    encoder: PairEncoder
    place: str
    trained: int = 0
    lost: str = ""


def encoder_beside(
    model: Model, url: str, training: PairTraining | None = None, tell: Callable[[int], None] | None = None
) -> KeptEncoder:
    """The encoder of a model, read from the run or the exported folder at its URL, or trained and written there.

    A file of other weights, of another training, or that is damaged is written anew. Nothing is written to the Hugging
    Face Hub, where a file is a commit. tell and errors as for `train_encoder`.
    """
    training, store = training or PairTraining(), run_of(url) or Store(url, PATIENCE_S)
    origin = _origin(model, training)
    place = f"{store / NAME}"
    if (found := _read(model, store, origin)) is not None:
        return KeptEncoder(found.to(model.device), place)
    encoder, pairs = train_encoder(model, training, tell), training.steps * training.batch
    if store.protocol == "hf":
        return KeptEncoder(encoder, place, pairs, "nothing is written to the Hub; export the model to a folder")
    data = save({name: tensor.cpu().contiguous() for name, tensor in encoder.state_dict().items()}, origin)
    try:
        store.write(NAME, data)
    except StorageError as error:
        return KeptEncoder(encoder, place, pairs, f"{error}")
    return KeptEncoder(encoder, place, pairs)


def _origin(model: Model, training: PairTraining) -> dict[str, str]:
    """What the encoder is a function of, as the file's header has it."""
    return {
        "format": _FORMAT,
        "model_sha256": fingerprint_of(model),
        "pairs": f"{training.steps * training.batch}",
        "batch": f"{training.batch}",
    }


def _read(model: Model, store: Store, origin: dict[str, str]) -> PairEncoder | None:
    """The encoder that is there; None if there is none of this origin, or none that can be read."""
    encoder = new_encoder(model)
    try:
        data = store.read(NAME)
        header = parse_json(data[_LENGTH : _LENGTH + int.from_bytes(data[:_LENGTH], "little")])
        if header["__metadata__"] != origin:
            return None
        tensors = load(data)
        encoder.load_state_dict(tensors)
    except (FileNotFoundError, StorageError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError):
        return None
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        return None
    return encoder.eval().requires_grad_(False)
