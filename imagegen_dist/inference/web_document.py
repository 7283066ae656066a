"""model.json of a page: what the model is, what steers it, its noise, its programs, and how fast it is."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.convert import ExportError, onnx_function
from imagegen_dist.inference.folder import card_of
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.programs import programs
from imagegen_dist.inference.web_programs import PROJECTOR, made_by
from imagegen_dist.inference.web_runtime import WASM, WEBGPU
from imagegen_dist.noise import SampleNoise

_LATENTS = 24  # sliders, at most
_TIMED = 5
_CHECKED = 1 << 16  # values of a sample


def describe(
    model: GeneratorModel | AutoencoderModel,
    made: Mapping[str, bytes],
    runtime: Mapping[str, bytes],
    url: str,
    notes: list[str],
) -> dict[str, Any]:
    """The content of model.json. made: ONNX files by program; notes: gets a line on what is missing.

    Raises ExportError.
    """
    wasm = {part: f"ort/{name}" for part, name in WASM.items()}
    webgpu = {part: f"ort/{name}" for part, name in WEBGPU.items()}
    return {
        **describe_model(model, url, notes),
        "programs": {name: _described(model, name, data) for name, data in made.items()},
        "runtime": {
            "wasm": wasm,
            **({"webgpu": webgpu} if WEBGPU["main"] in runtime else {}),
            "bytes": len(runtime[WASM["wasm"]]),
        },
        "ms": round(_time_of(model, made[made_by(model)]), 3),
        "check": base64.b64encode(_first_picture(model)).decode(),
    }


def describe_model(
    model: GeneratorModel | AutoencoderModel, url: str, notes: list[str], directions: bool = True
) -> dict[str, Any]:
    """What the page has to know of a model, whatever computes it. Arguments and errors as for `describe`.

    directions: find these if the model was exported without.
    """
    label = _weights(model)
    rates, rate_name, rate_unit = _rates(model, url)
    return {
        "format": 1,
        "name": str(model.facts.get("preset") or "model").rpartition(":")[2],
        "images": model.images,
        "modality": model.modality,
        "shape": list(model.shape.dims),
        "z": list(model.latents(1).shape[1:]),
        "streams": streams_of(model),
        "parts": _parts(model),
        "label": [] if label is None else [round(value, 4) for value in label[0].tolist()],
        "made": made_by(model),
        "directions": _directions(model, notes) if directions or model.facts.get("directions") else [],
        "latents": [{"index": int(i), "rate": float(rates[i])} for i in np.argsort(-rates, kind="stable")[:_LATENTS]],
        "rate_name": rate_name,
        "rate_unit": rate_unit,
    }


def _weights(model: Model) -> Tensor | None:
    """The label that the page begins with, [1, K]."""
    label = model.labels(1)
    return label if label is None or label.is_floating_point() else _one_hot(label, model.classes)


def _first_picture(model: GeneratorModel | AutoencoderModel) -> bytes:
    """The first values of the sample of seed 0 in grey levels, which tell a page whether its backend draws rightly."""
    part = programs(model)[made_by(model)]
    label = _weights(model)
    with torch.inference_mode():
        made = part.module(model.latents_of([0]), *([] if label is None else [label]))
    levels = (made.flatten()[:_CHECKED].clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8).numpy().tobytes()


def _one_hot(label: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(label, classes).float()


def _described(model: GeneratorModel | AutoencoderModel, name: str, data: bytes) -> dict[str, Any]:
    """A program's file and its inputs; class labels are weights."""
    z, shape = list(model.latents(1).shape[1:]), list(model.shape.dims)
    told = [model.label_width] if model.label_width else []
    if name == PROJECTOR:
        free = [{"name": "free", "shape": told}] if told else []
        inputs = [
            {"name": "z", "shape": z},
            *free,
            {"name": "samples", "shape": shape},
            {"name": "weight", "shape": shape},
        ]
    else:
        inputs = [
            {"name": value.name, "shape": [value.classes] if value.classes else list(value.dims)}
            for value in programs(model)[name].inputs
        ]
    digest = hashlib.sha256(data).hexdigest()
    return {"file": f"{name}.onnx", "bytes": len(data), "sha256": digest, "inputs": inputs}


def _parts(model: Model) -> list[dict[str, Any]]:
    """The parts of the label in their order; numbers' ranges are in units of the label."""
    if model.conditions is None:
        names = list(model.class_names or map(str, range(model.classes)))
        return [{"name": "class", "kind": "class", "size": model.classes, "names": names}] if model.classes else []
    found = []
    for part in model.conditions.parts:
        each: dict[str, Any] = {"name": part.name, "kind": part.kind, "size": part.size}
        if part.kind == "vector":
            mean, deviation = np.array(part.mean), np.array(part.deviation)
            each |= {"mean": list(part.mean), "deviation": list(part.deviation)}
            each |= {"low": ((np.array(part.low) - mean) / deviation).tolist()}
            each |= {"high": ((np.array(part.high) - mean) / deviation).tolist()}
        else:
            each["names"] = list(part.names or (part.name,))
        found.append(each)
    return found


class _Streams(SampleNoise):
    """Noise that notes how many values each call draws for a sample."""

    def __init__(self) -> None:
        super().__init__([0], [0])
        self.sizes: list[int] = []

    def normal(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        drawn = super().normal(*size, dtype=dtype)
        self.sizes.append(drawn[0].numel())
        return drawn


def streams_of(model: Model) -> list[int]:
    """Values of each stream of a sample's noise, which together are its draw of the prior. Raises ExportError."""
    noise = _Streams()
    drawn = model.sampler.prior(1, noise)
    again = SampleNoise([0], [0])
    if not torch.equal(torch.cat([again.normal(1, size) for size in noise.sizes], 1), drawn.flatten(1)):
        raise ExportError("its prior is not the noise itself, which a page needs")
    return noise.sizes


def _directions(model: Model, notes: list[str]) -> list[dict[str, Any]]:
    try:
        return (model.directions_for([]) if model.facts.get("directions") else model.directions()).payload()
    except ValueError as error:
        notes.append(f"without directions: {error}")
        return []


def _rates(model: GeneratorModel | AutoencoderModel, url: str) -> tuple[np.ndarray, str, str]:
    """(a figure of each of an autoencoder's latents, its name, its unit): the rate, or else what the latent changes."""
    if not isinstance(model, AutoencoderModel) or len(dims := model.latents(1).shape[1:]) != 1:
        return np.zeros(0), "", ""
    known = card_of(model, url).figures.get("rate_of_latent") if url else None
    if isinstance(known, dict) and len(known) >= dims[0]:
        values = np.array([float(known.get(f"{latent:03}", np.nan)) for latent in range(dims[0])])
        if np.isfinite(values).all():
            return values, "rate", "nats"
    if len(model.autoencoder.group_dims) > 1:
        return np.zeros(0), "", ""
    axes = torch.eye(dims[0])
    label = None if not model.label_width else model.labels(1)
    told = None if label is None else label.expand(dims[0], *label.shape[1:])
    change = (model.decode(axes, told).float() - model.decode(-axes, told).float()).abs().flatten(1).mean(1) / 255
    return change.numpy(), "change of the picture", "of the range of values"


def _time_of(model: Model, data: bytes) -> float:
    """Milliseconds of one picture in ONNX Runtime, in one thread: the median of a few."""
    part = programs(model)[made_by(model)]  # type: ignore[arg-type]  # a model is one of the two kinds
    values = [value.example(1, 0) for value in part.inputs]
    if len(values) > 1 and not values[1].is_floating_point():
        values[1] = _one_hot(values[1], model.classes)
    run = onnx_function(data, part.inputs, threads=1)
    times = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        run(*values)
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times)[_TIMED // 2]
