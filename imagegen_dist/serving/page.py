"""The page of a served model: that of `imagegen export --to web`, with the server computing instead of the browser."""

from __future__ import annotations

from typing import Any

from imagegen_dist.inference.web import page_files, subtitle_of
from imagegen_dist.serving.served import Served

_WHERE = "A server computes it."


class ServedPage:
    """The page of a model. Its methods touch the networks: they are called in the model's thread."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._of: object = None
        self._document: dict[str, Any] = {}

    def document(self) -> dict[str, Any]:
        """The content of model.json: what the model is, and what the page shows of it, made once for a checkpoint."""
        if self._of is not self._served.model:
            self._document, self._of = self._made(), self._served.model
        return self._document

    def _made(self) -> dict[str, Any]:
        served, model = self._served, self._served.model
        known = served.description()
        known |= {
            "subtitle": self._subtitle(),
            "bits": model.shape.bits,
            "encodes": served.decodes,
            "programs": {},
            "runtime": {
                "server": True,
                "follow_s": served.settings.follow_s,
                "projects": served.settings.projections > 0 and model.searches,
            },
        }
        return {**model.page(served.url), **known}

    def files(self) -> dict[str, bytes]:
        """The page's files by name. Raises LookupError if a page cannot steer this model."""
        if "streams" not in self.document():
            raise LookupError("this model's latents are codes, or are no plain noise: it has no page, only /generate")
        return page_files(self._served.name, self._subtitle())

    def _subtitle(self) -> str:
        model = self._served.model
        return subtitle_of(model.encodes, model.shape, model.modality, model.images, _WHERE)
