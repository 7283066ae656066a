"""A page that runs a model in the visitor's browser: a folder for any static server, or one HTML file.

index.html, page.css, page.js    the page: the files of page/, joined in a fixed order without a build chain
model.json                       what the model is: shape, conditions, directions, noise, programs
*.onnx                           its programs, and the gradient program of projection
ort/                             ONNX Runtime Web
README.md                        the card of a static Space of the Hugging Face Hub
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagegen_dist.data.modality import modality
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store

if TYPE_CHECKING:
    from imagegen_dist.inference.autoencoder import AutoencoderModel
    from imagegen_dist.inference.generator import GeneratorModel

_PAGE = Path(__file__).with_name("page")
_SCRIPTS = (
    *("noise", "runtime", "worker", "model", "remote", "state", "latents", "projection", "pictures", "zip"),
    *("widgets", "app", "panel", "picture_card", "main"),
)
_WASM_SLOWER = 7.0
"""A picture's time in a browser's WebAssembly over that of ONNX Runtime here, each in one thread."""

INTERACTIVE_MS = 100.0
"""The time of a picture up to which sliders feel direct."""


@dataclass(frozen=True)
class Page:
    """A page and what to say of it.

    files: by name; index.html is the last. notes: what it lacks, in lines. ms: of one picture here, in one thread.
    """

    files: Mapping[str, bytes]
    notes: tuple[str, ...]
    ms: float

    @property
    def browser_ms(self) -> float:
        """The time of a picture that WebAssembly is expected to take."""
        return self.ms * _WASM_SLOWER

    def write(self, store: Store) -> None:
        """Write all files. Raises StorageError."""
        for name, data in self.files.items():
            store.write(name, data)


def build_page(
    model: GeneratorModel | AutoencoderModel, runtime: Mapping[str, bytes], url: str = "", single: bool = False
) -> Page:
    """The page of a model. runtime: files of ONNX Runtime Web. url: of its checkpoint, whose run has its rates.

    single: one index.html that holds everything. Raises ExportError for what cannot be exported, ValueError for a model
    whose latents are codes.
    """
    from imagegen_dist.inference.autoencoder import AutoencoderModel  # they import torch
    from imagegen_dist.inference.convert import ExportError
    from imagegen_dist.inference.web_document import describe
    from imagegen_dist.inference.web_programs import PROJECTOR, projector, web_programs

    if not model.gaussian:
        raise ExportError("a page needs Gaussian latents, and this model's are codes: export it with --to onnx")
    made, notes = web_programs(model), []
    try:
        made[PROJECTOR] = projector(model)
    except ExportError as error:
        notes.append(f"without projection: {error}")
    document = describe(model, made, runtime, url, notes)
    parts = {f"ort/{name}": data for name, data in runtime.items()} | {f"{name}.onnx": made[name] for name in made}
    parts["model.json"] = json.dumps(document, separators=(",", ":")).encode()
    known = isinstance(model, AutoencoderModel), model.shape, model.modality, model.images
    title, subtitle = document["name"], subtitle_of(*known, "It runs in this browser.")
    if single:
        whole = _single(title, subtitle, (_PAGE / "page.css").read_text(), _script(), parts)
        return Page({"index.html": whole}, tuple(notes), document["ms"])
    files = {**parts, "README.md": _space_card(title, subtitle), **page_files(title, subtitle)}
    return Page(files, tuple(notes), document["ms"])


def page_files(title: str, subtitle: str) -> dict[str, bytes]:
    """The files of a page that a server has in a folder, by name, without the model: index.html is the last."""
    style = (_PAGE / "page.css").read_bytes()
    return {"page.css": style, "page.js": _script().encode(), "index.html": _folder(title, subtitle)}


def _script() -> str:
    return "\n".join((_PAGE / f"{name}.js").read_text() for name in _SCRIPTS)


def _folder(title: str, subtitle: str) -> bytes:
    """The page of a folder, whose script and style are files of its own."""
    policy = (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; worker-src 'self' blob:; base-uri 'none'; form-action 'none'"
    )
    style, script = '<link rel="stylesheet" href="page.css">', '<script type="module" src="page.js"></script>'
    return _filled(title, subtitle, policy, style, script, "")


def _single(title: str, subtitle: str, style: str, script: str, parts: Mapping[str, bytes]) -> bytes:
    """The page in one file: the hashes of its script and style are in its policy, and all other files are in base64."""
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}' blob: 'wasm-unsafe-eval'; style-src '{_hash(style)}'; "
        "connect-src blob: data:; img-src blob: data:; worker-src blob:; base-uri 'none'; form-action 'none'"
    )
    files = "\n".join(
        f'<script type="application/octet-stream" id="file:{name}">{base64.b64encode(data).decode()}</script>'
        for name, data in parts.items()
    )
    return _filled(
        title, subtitle, policy, f"<style>{style}</style>", f'<script type="module">{script}</script>', files
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _filled(title: str, subtitle: str, policy: str, style: str, script: str, files: str) -> bytes:
    page = (_PAGE / "index.html").read_text()
    values = {"title": html.escape(title), "subtitle": html.escape(subtitle), "policy": policy}
    for name, value in {**values, "style": style, "script": script, "files": files}.items():
        page = page.replace(f"{{{{{name}}}}}", value)
    return page.encode()


def subtitle_of(encodes: bool, shape: SampleShape, kind: str, images: int, where: str) -> str:
    """What a model is, in a line. where: the sentence that says what computes it."""
    sides = " × ".join(map(str, shape.spatial))
    family = "VAE" if encodes else "GAN"
    return f"{family}, {modality(kind).noun}s of {sides}, {images:,} images seen. {where}"


def _space_card(title: str, subtitle: str) -> bytes:
    """README.md of a static Space, with the headers that give its page threads."""
    return f"""---
title: {json.dumps(title)}
emoji: 🎛️
colorFrom: indigo
colorTo: gray
sdk: static
app_file: index.html
pinned: false
license: other
custom_headers:
  cross-origin-embedder-policy: require-corp
  cross-origin-opener-policy: same-origin
  cross-origin-resource-policy: cross-origin
---

{subtitle} Made by `imagegen export --to web` of imagegen_dist. It holds ONNX Runtime Web (MIT).
""".encode()
