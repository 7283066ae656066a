"""A directory of exported programs, one file per part, and export.json, which describes inputs and outputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.convert import ExportError, to_onnx, to_torch_program
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.onnx_model import DESCRIPTION
from imagegen_dist.inference.prior import Prior
from imagegen_dist.inference.programs import Program, Value, stored_words
from imagegen_dist.inference.web_document import streams_of
from imagegen_dist.storage import Store

_TRIED = (0, 1, 2**40 + 3, 2**64 - 1)
"""Seeds whose draws are compared."""

ProgramFormat = Literal["torch", "onnx"]

_FORMATS: Mapping[ProgramFormat, tuple[str, Callable[[Program], bytes]]] = {
    "torch": ("pt2", to_torch_program),
    "onnx": ("onnx", to_onnx),
}


def write_programs(
    model: Model, parts: Mapping[str, Program], form: ProgramFormat, store: Store, page: Mapping[str, Any] | None = None
) -> list[str]:
    """Write every part, and the description last; returns a line on each. Raises ExportError, StorageError.

    page: what a page shows of the model, for a server of the programs.
    """
    extension, to_bytes = _FORMATS[form]
    made = {f"{name}.{extension}": to_bytes(part) for name, part in parts.items()}
    described, lines = {}, []
    for (name, data), part in zip(made.items(), parts.values(), strict=True):
        store.write(name, data)
        described[part.name] = {
            "file": name,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "inputs": [value.described for value in part.inputs],
            "output": part.output.described,
        }
        inputs = ", ".join(_words(value) for value in part.inputs)
        lines.append(f"{name}  {inputs} -> {_words(part.output)}")
    document = {
        "library_name": "imagegen_dist",
        "format": form,
        "preset": model.facts.get("preset"),
        "images": model.images,
        "modality": model.modality,
        "class_names": None if model.class_names is None else list(model.class_names),
        "classes": model.classes,
        **({} if model.known is None else model.known.payload()),
        "shape": list(model.shape.dims),
        "bits": model.shape.bits,
        "space": model.space.payload() if model.modality == "voxels" else None,
        "samples": f"[-1, 1]; {stored_words(model.shape)}",
        "prior": None if (prior := prior_of(model)) is None else prior.payload(),
        "programs": described,
        "page": dict(page or {}),
    }
    store.write(DESCRIPTION, json.dumps(document, indent=1).encode())
    return lines


def prior_of(model: Model) -> Prior | None:
    """The model's prior in NumPy, which has been compared with it; None for a prior that this does not describe."""
    dims = model.drawn_dims
    try:
        if model.gaussian:
            found = Prior(dims, streams=tuple(streams_of(model)))
        elif isinstance(model, AutoencoderModel) and (fsq := getattr(model.autoencoder, "fsq", None)):
            found = Prior(dims, levels=tuple(fsq.levels))
        else:
            return None
    except ExportError:
        return None
    return found if np.array_equal(found.draws(_TRIED), model.latents_of(_TRIED).numpy()) else None


def _words(value: Value) -> str:
    return f"{value.name} [{', '.join(['B', *map(str, value.dims)])}]"
