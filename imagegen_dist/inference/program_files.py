"""A directory of exported programs, one file per part, and export.json, which describes inputs and outputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Literal

from imagegen_dist.inference.convert import to_onnx, to_torch_program
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.programs import Program, Value, stored_words
from imagegen_dist.storage import Store

_DESCRIPTION = "export.json"

ProgramFormat = Literal["torch", "onnx"]

_FORMATS: Mapping[ProgramFormat, tuple[str, Callable[[Program], bytes]]] = {
    "torch": ("pt2", to_torch_program),
    "onnx": ("onnx", to_onnx),
}


def write_programs(model: Model, parts: Mapping[str, Program], form: ProgramFormat, store: Store) -> list[str]:
    """Write every part, and the description last; returns a line on each. Raises ExportError, StorageError."""
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
        **({} if model.conditions is None else {"conditions": model.conditions.payload()}),
        "samples": f"[-1, 1]; {stored_words(model.shape)}",
        "programs": described,
    }
    store.write(_DESCRIPTION, json.dumps(document, indent=1).encode())
    return lines


def _words(value: Value) -> str:
    return f"{value.name} [{', '.join(['B', *map(str, value.dims)])}]"
