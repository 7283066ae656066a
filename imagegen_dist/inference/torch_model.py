"""A model in PyTorch, as a server uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from imagegen_dist.inference.array_model import ArrayModel, Floats, Stored
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.convert import ExportError
from imagegen_dist.inference.engines import EngineName, use_engine_
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.loading import build_model, read_trained
from imagegen_dist.inference.told import Labels
from imagegen_dist.inference.web_document import describe_model
from imagegen_dist.inference.web_programs import has_projection


class TorchModel(ArrayModel):
    """live: the model. The networks see the next power of two of rows, so that engines prepare few sizes."""

    def __init__(self, live: GeneratorModel | AutoencoderModel, engine: EngineName = "eager") -> None:
        use_engine_(live, engine)
        self.live = live
        self.encodes = isinstance(live, AutoencoderModel)
        self.shape, self.modality, self.images = live.shape, live.modality, live.images
        self.told, self.gaussian, self.space = live.told, live.gaussian, live.space
        self.drawn_dims = live.drawn_dims
        self.latent_dims = live.latent_dims[-1] if isinstance(live, AutoencoderModel) else live.drawn_dims
        self.searches = has_projection(live)
        self.engine, self.device = engine, str(live.device)

    @classmethod
    def load(cls, url: str, device: str, engine: EngineName) -> TorchModel:
        """The model at a URL. Raises CheckpointError."""
        return cls(build_model(read_trained(url)).to(device), engine)

    def latents_of(self, seeds: Sequence[int]) -> Floats:
        """See ArrayModel."""
        return _array(self.live.latents_of(seeds))

    def generate(self, drawn: Floats, label: Labels | None = None) -> Stored:
        """See ArrayModel."""
        return self._computed(self.live.generate, drawn, label)

    def decode(self, z: Floats, label: Labels | None = None) -> Stored:
        """See ArrayModel."""
        return self._computed(self.live.decode, z, label)

    def encode(self, samples: Stored, label: Labels | None = None) -> Floats:
        """See ArrayModel."""
        return self._computed(self.live.encode, samples, label)

    def page(self, url: str) -> dict[str, Any]:
        """See ArrayModel."""
        return page_of(self.live, url)

    def _computed(self, function: Callable[[Tensor, Tensor | None], Tensor], rows: Any, label: Labels | None) -> Any:
        """A function of rows in one batch; what a page or a projection computes keeps the model's own size."""
        own, self.live.batch = self.live.batch, 1 << (len(rows) - 1).bit_length()
        try:
            found = function(torch.from_numpy(rows), None if label is None else torch.from_numpy(label))
        finally:
            self.live.batch = own
        return _array(found.float() if found.is_floating_point() else found)


def page_of(model: GeneratorModel | AutoencoderModel, url: str, directions: bool = True) -> dict[str, Any]:
    """What a page shows of a model; {} if a page cannot steer it. Arguments as for `describe_model`."""
    if not model.gaussian:
        return {}
    try:
        return describe_model(model, url, [], directions)
    except ExportError:
        return {}


def _array(values: Tensor) -> Any:
    return values.cpu().numpy()
