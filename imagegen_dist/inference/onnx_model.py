"""A model that was exported as ONNX programs, in ONNX Runtime: without PyTorch, and in a third of its memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imagegen_dist.commands import name_of
from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.data.modality import array_to_float, array_to_stored
from imagegen_dist.data.volume_space import VolumeSpace
from imagegen_dist.documents import parse_json
from imagegen_dist.extras import install_hint
from imagegen_dist.inference.array_model import ArrayModel, Floats, Stored
from imagegen_dist.inference.onnx_session import Array, onnx_function
from imagegen_dist.inference.prior import Prior
from imagegen_dist.inference.told import Labels, Told
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store

DESCRIPTION = "export.json"
"""The file that describes a folder of programs."""

_CODES = 1 + 1e-3  # how large codes may be, which are in [-1, 1]


def holds_programs(store: Store) -> bool:
    """True for a folder of `imagegen export --to onnx`, or of another form of programs."""
    return store.exists(DESCRIPTION)


class OnnxModel(ArrayModel):
    """document: the content of export.json. files: its programs by name. threads: of ONNX Runtime, 0 for all cores.

    Raises ValueError, KeyError and TypeError for a document that does not describe a model.
    """

    engine, device, searches = "onnxruntime", "cpu", False

    def __init__(self, document: Mapping[str, Any], files: Mapping[str, bytes], threads: int = 0) -> None:
        channels, *spatial = document["shape"]
        self.shape = SampleShape(channels, tuple(spatial), document["bits"])
        self.modality, self.images = document["modality"], document["images"]
        names = document["class_names"]
        self.told = Told(document["classes"], names and tuple(names), ConditionRows.from_payload(document))
        self.space = VolumeSpace.from_payload(document["space"]) if document["space"] else None
        self._prior = Prior.from_payload(document["prior"])
        self.gaussian, self.drawn_dims = self._prior.gaussian, self._prior.dims
        self.encodes = "encoder" in files
        self._page: dict[str, Any] = document["page"]
        inputs = {name: [each["name"] for each in document["programs"][name]["inputs"]] for name in files}
        self._programs = {name: onnx_function(data, inputs[name], threads) for name, data in files.items()}
        self._made = next(name for name in ("generator", "sampler", "decoder") if name in files)
        decoder = "decoder" if self.encodes else self._made
        self.latent_dims = tuple(document["programs"][decoder]["inputs"][0]["shape"][1:])

    @classmethod
    def load(cls, store: Store, threads: int = 0) -> OnnxModel:
        """The model of an exported folder, whose programs are verified against export.json. Raises CheckpointError."""
        try:
            document = parse_json(store.read(DESCRIPTION))
            form, described = document["format"], document["programs"]
            again = f"export the run again with `{name_of('export')} RUN DEST --to onnx`, or serve the run"
            if form != "onnx":
                raise CheckpointError(f"{store.url}: holds programs of the form {form}: {again}")
            if "prior" not in document:
                raise CheckpointError(f"{store.url}: an older version exported it, without its prior: {again}")
            if document["prior"] is None:
                raise CheckpointError(f"{store.url}: its draws are no plain noise: serve the run that it was made from")
            needed = {"generator", "sampler", "encoder", "decoder"} & set(described)
            files = {name: _verified(store, f"{name}.onnx", described[name]["sha256"]) for name in sorted(needed)}
            return cls(document, files, threads)
        except CheckpointError:
            raise
        except ImportError as error:
            raise CheckpointError(f"{store.url}: {error.name} is not installed: {install_hint('export')}") from None
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise CheckpointError(
                f"{store.url}: {DESCRIPTION} is not of a model that `{name_of('export')}` wrote "
                f"({type(error).__name__}: {str(error)[:80]})"
            ) from None

    def latents_of(self, seeds: Sequence[int]) -> Floats:
        """See ArrayModel."""
        return self._prior.draws(seeds)

    def generate(self, drawn: Floats, label: Labels | None = None) -> Stored:
        """See ArrayModel."""
        return self._stored(self._made, self._checked(drawn), label)

    def decode(self, z: Floats, label: Labels | None = None) -> Stored:
        """See ArrayModel."""
        return self._stored("decoder" if self.encodes else self._made, self._checked(z), label)

    def encode(self, samples: Stored, label: Labels | None = None) -> Floats:
        """See ArrayModel."""
        if not self.encodes:
            raise ValueError("a GAN has no encoder: only autoencoders encode samples")
        return self._computed("encoder", array_to_float(samples), label)

    def page(self, url: str) -> dict[str, Any]:
        """See ArrayModel."""
        return self._page

    def _stored(self, program: str, z: Floats, label: Labels | None) -> Stored:
        return array_to_stored(self._computed(program, z, label), self.shape.bits)

    def _computed(self, program: str, rows: Floats, label: Labels | None) -> Array:
        return self._programs[program](rows, None if label is None else self.told.weights(label))

    def _checked(self, z: Floats) -> Floats:
        if not self.gaussian and float(np.abs(z).max()) > _CODES:
            raise ValueError("latents of this model are codes in [-1, 1], and some lie outside")
        return z


def _verified(store: Store, name: str, digest: str) -> bytes:
    """A program's file. Raises CheckpointError if it is not the one that was exported."""
    data = store.read(name)
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{store.url}: {name} does not have the sha256 of {DESCRIPTION}")
    return data
