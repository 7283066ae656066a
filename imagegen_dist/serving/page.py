"""The page of a served model: that of `imagegen export --to web`, with the server computing instead of the browser."""

from __future__ import annotations

from typing import Any

from imagegen_dist.inference.convert import ExportError
from imagegen_dist.inference.web import page_files, subtitle_of
from imagegen_dist.inference.web_document import describe_model
from imagegen_dist.inference.web_programs import has_projection
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
            "subtitle": subtitle_of(model, _WHERE),
            "bits": model.shape.bits,
            "encodes": served.decodes,
            "programs": {},
            "runtime": {
                "server": True,
                "follow_s": served.settings.follow_s,
                "projects": served.settings.projections > 0 and has_projection(model),
            },
        }
        if not model.gaussian:
            return known
        try:
            return {**describe_model(model, served.url, []), **known}
        except ExportError:
            return known

    def files(self) -> dict[str, bytes]:
        """The page's files by name. Raises LookupError if a page cannot steer this model."""
        if "streams" not in self.document():
            raise LookupError("this model's latents are codes, or are no plain noise: it has no page, only /generate")
        return page_files(self._served.name, subtitle_of(self._served.model, _WHERE))
