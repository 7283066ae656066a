"""`imagegen export --to web`: write the page, and say how fast it will be and how to open it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagegen_dist.data.modality import modality
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.convert import ExportError
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.web import INTERACTIVE_MS, Page, build_page
from imagegen_dist.inference.web_runtime import runtime_files
from imagegen_dist.storage import Store

if TYPE_CHECKING:
    from imagegen_dist.cli.export import Options

_OPEN = "python -m http.server --bind 127.0.0.1 --directory"


def export_page(model: GeneratorModel | AutoencoderModel, url: str, dest: Store, options: Options) -> str:
    """Write the page of a model; what to print. Raises UsageError before anything is written, StorageError."""
    runtime = runtime_files(options.ort, options.webgpu)
    try:
        page = build_page(model, runtime, url, options.single_file)
    except ExportError as error:
        raise UsageError(f"--to web: {error}") from None
    page.write(dest)
    size = sum(map(len, page.files.values())) / 1e6
    opened = f"open {dest}/index.html" if options.single_file else f"{_OPEN} {dest}"
    speed = _speed(page, modality(model.modality).noun, options.webgpu)
    return "\n".join([*page.notes, speed, f"{size:.1f} MB: {dest}", f"  {opened}"])


def _speed(page: Page, noun: str, webgpu: bool) -> str:
    """How fast the page will be, in a line."""
    said = f"a {noun} takes {page.ms:.2g} ms here, and about {page.browser_ms:.2g} ms in a browser, in one thread"
    if page.browser_ms <= INTERACTIVE_MS:
        return said
    more = "a GPU through WebGPU" if webgpu else "--webgpu, and a visitor with a GPU"
    return f"{said}: too slow to steer by hand; it wants {more}"
