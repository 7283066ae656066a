"""A model that is served: what it is, what it computes of a batch of rows, and its newest checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.conversion import Conversion, convert_picture
from imagegen_dist.data.modality import modality, stored_type
from imagegen_dist.data.picture import DecodeError
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.array_model import ArrayModel, Floats
from imagegen_dist.inference.engines import EngineName
from imagegen_dist.inference.onnx_model import OnnxModel, holds_programs
from imagegen_dist.inference.told import Labels
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.storage import StorageError, Store, reached

Pixels = NDArray[Any]


class NotOffered(Exception):
    """What this server does not do."""


_NPY = b"\x93NUMPY"


class Row(NamedTuple):
    """One sample to compute: a draw of the prior, or a latent to decode, and its label or conditions."""

    z: Floats
    label: Labels | None
    decoded: bool = False


@dataclass(frozen=True)
class Settings:
    """How models are served. device: of models in PyTorch. engine: "" for eager PyTorch, or ONNX Runtime for exported
    programs. most: samples of a batch, and of a request. follow_s: seconds between two looks for a newer checkpoint, 0
    for none. projections: of a model at once, at most; 0 for none. threads: of exported programs, 0 for all cores."""

    device: str = "cpu"
    engine: EngineName | Literal[""] = ""
    most: int = 64
    follow_s: float = 0.0
    projections: int = 8
    threads: int = 0


class Served:
    """A stored model in use. name: in paths. url: of a run, a checkpoint, or an exported folder.

    Everything that touches its networks runs in `thread`, one call after another. Raises CheckpointError.
    """

    def __init__(self, name: str, url: str, settings: Settings) -> None:
        self.name = name
        self.url = url
        self.settings = settings
        self.thread = ThreadPoolExecutor(1, f"model-{name}")
        self.model = self._load()

    def _load(self) -> ArrayModel:
        settings = self.settings
        model: ArrayModel
        if holds_programs(store := reached(self.url)):
            if settings.engine not in ("", "onnxruntime"):
                raise UsageError(
                    f"--engine {settings.engine}: {store} holds ONNX programs; leave it out, or serve a run"
                )
            model = OnnxModel.load(store, settings.threads)
        else:
            from imagegen_dist.inference.torch_model import TorchModel  # it imports torch

            model = TorchModel.load(self.url, settings.device, settings.engine or "eager")
        label = model.told.labels(1)
        model.generate(model.latents_of([0]), label)  # the first request does not wait for what is prepared once
        return model

    def refresh(self) -> bool:
        """Load a newer checkpoint of the run if there is one; true if there was. Of an export, there never is.

        A store that does not answer, or a checkpoint that is just being removed, is looked for again the next time.
        """
        if isinstance(self.model, OnnxModel):
            return False
        from imagegen_dist.training.checkpoint import newest_images  # it imports torch

        try:
            if newest_images(reached(self.url)) <= self.model.images:
                return False
            model = self._load()
        except (CheckpointError, StorageError, OSError):
            return False
        self.thread.submit(self._replace, model).result()
        return True

    def _replace(self, model: ArrayModel) -> None:
        self.model = model

    @property
    def decodes(self) -> bool:
        """True if latents are decoded and pictures encoded: the model is an autoencoder."""
        return self.model.encodes

    @property
    def latent_dims(self) -> tuple[int, ...]:
        """The shape of a sample's latents: what encoding gives, or the noise of a GAN."""
        return self.model.latent_dims

    def compute(self, rows: Sequence[Row]) -> list[Pixels]:
        """The samples of some rows, [C, *S] each, to one grey level those of `model.sample`."""
        results: list[Pixels | None] = [None] * len(rows)
        for decoded in (False, True):
            some = [number for number, row in enumerate(rows) if row.decoded == decoded]
            if some:
                samples = self._compute([rows[number] for number in some], decoded)
                for number, sample in zip(some, samples, strict=True):
                    results[number] = sample
        return [each for each in results if each is not None]

    def _compute(self, rows: Sequence[Row], decoded: bool) -> Pixels:
        z, label = np.stack([row.z for row in rows]), self._labels(rows)
        return self.model.decode(z, label) if decoded else self.model.generate(z, label)

    def _labels(self, rows: Sequence[Row]) -> Labels | None:
        """Labels of all rows alike: class numbers, or where some are blends the weights of all."""
        labels = [row.label for row in rows]
        given = [label for label in labels if label is not None]
        if len(given) < len(labels):
            return None
        if len({label.ndim for label in given}) == 1:
            return np.stack(given)
        return np.stack([self.model.told.weights(label) for label in given])

    def read(self, data: bytes) -> Pixels:
        """An uploaded sample, uint8 [1, C, *S]: a picture, cropped and resized, or an .npy of the model's shape.

        Raises DecodeError for anything else, which is not a sample of this model's modality.
        """
        shape, kind = self.model.shape, modality(self.model.modality)
        if data.startswith(_NPY):
            member, extension = data, "npy"
        elif self.model.modality == "image" and shape.channels in (1, 3, 4):
            conversion = Conversion((shape.spatial[0], shape.spatial[1]), shape.channels, bits=shape.bits)
            member, extension = convert_picture(data, conversion, "png").data, "png"
        else:
            raise DecodeError(f"is no .npy of {shape}, and this model's samples are {self.model.modality}")
        out = np.empty(shape.dims, stored_type(shape))
        kind.decode_into(member, extension, out)
        return out[None]

    def mask_of(self, data: bytes) -> Floats | None:
        """How opaque an uploaded picture is at each position, from 0 to 1, [H, W]; None for one that is opaque.

        None also for a model of pictures with transparency, and for an .npy. Raises DecodeError.
        """
        shape = self.model.shape
        if data.startswith(_NPY) or self.model.modality != "image" or shape.channels == 4:
            return None
        conversion = Conversion((shape.spatial[0], shape.spatial[1]), 4)
        rgba = np.empty((4, *shape.spatial), np.uint8)
        modality("image").decode_into(convert_picture(data, conversion, "png").data, "png", rgba)
        return None if (rgba[3] == 255).all() else rgba[3].astype(np.float32) / 255

    def description(self) -> dict[str, Any]:
        """What a page or a client has to know of it, as JSON."""
        model, told = self.model, self.model.told
        return {
            "name": self.name,
            "kind": "autoencoder" if self.decodes else "generator",
            "images": model.images,
            "modality": model.modality,
            "shape": list(model.shape.dims),
            "latent_shape": list(self.latent_dims),
            "gaussian": model.gaussian,
            "classes": told.classes,
            "class_names": told.class_names,
            "conditions": None if told.conditions is None else [part.name for part in told.conditions.parts],
            "label_width": told.width,
            "most_samples": self.settings.most,
            "engine": model.engine,
            "device": model.device,
        }


def named(urls: Sequence[str], settings: Settings) -> list[Served]:
    """The models at some URLs, each with a name of its own: the last part of its URL, numbered where two share it.

    Raises CheckpointError, and UsageError for an engine that a model cannot have.
    """
    found: list[Served] = []
    for url in urls:
        base = Store(url).url.rstrip("/").rpartition("/")[2] or "model"
        taken = {each.name for each in found}
        name = next(each for each in (base, *(f"{base}-{n}" for n in range(2, len(urls) + 2))) if each not in taken)
        found.append(Served(name, url, settings))
    return found
