"""A model's parts as functions of tensors alone: what can be compiled, exported, and run without this package.

generator       z, label -> samples                            of a GAN
encoder         samples, label -> latents without noise        of an autoencoder
decoder         latents, label -> samples
sampler         noise, label -> samples                        of levels of latents, each with a prior of its own
discriminator   samples, label -> logits                       where the model came with one

Samples are float32 in [-1, 1]; stored ones are round((x + 1) * 127.5). Models that know no classes take no label.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from imagegen_dist.inference.model import AutoencoderModel, GeneratorModel, Model
from imagegen_dist.objectives.variational import VariationalModel
from imagegen_dist.training.loop import keyed_draw


@dataclass(frozen=True)
class Value:
    """An input or the output of a program: [B, *dims]; classes: how many there are, where it is a label int64 [B]."""

    name: str
    dims: tuple[int, ...] = ()
    classes: int = 0

    def example(self, batch: int, seed: int) -> Tensor:
        """Values of that shape: labels, or standard normal ones."""
        draw = keyed_draw(seed, 0, self.name, 0, torch.device("cpu"))
        return draw.integers(0, self.classes, batch) if self.classes else draw.normal(batch, *self.dims)


@dataclass(frozen=True)
class Program:
    """One part: a module on the CPU that takes its inputs by position, in float32 throughout."""

    name: str
    module: nn.Module
    inputs: tuple[Value, ...]
    output: Value
    metadata: Mapping[str, str] = field(default_factory=dict)  # kept in an ONNX file: "class_names" as a JSON list

    def examples(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Inputs for a batch of that size."""
        return tuple(value.example(batch, seed) for value in self.inputs)


class _Part(nn.Module):
    """A function of some networks as a module that has them as children."""

    def __init__(self, networks: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.networks = networks
        self._function = function

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self._function(x) if label is None else self._function(x, label)


class _Found(NamedTuple):
    """What a part computes, with which networks, from what to what."""

    function: Callable[..., Tensor]
    roles: tuple[str, ...]
    inputs: tuple[Value, ...]
    output: Value


def programs(model: GeneratorModel | AutoencoderModel) -> dict[str, Program]:
    """Every part of a model by name. The model itself stays as it is."""
    model = in_float32(model)
    found = _generators(model) if isinstance(model, GeneratorModel) else _autoencoders(model)
    if "discriminator" in model.networks:
        found["discriminator"] = _discriminator(model)
    made = {}
    for name, part in found.items():
        used = nn.ModuleDict({role: model.networks[role] for role in part.roles if role in model.networks})
        metadata = _metadata(model) if any(value.classes for value in part.inputs) else {}
        made[name] = Program(name, _Part(used, part.function), part.inputs, part.output, metadata)
    return made


def _generators(model: GeneratorModel) -> dict[str, _Found]:
    z = Value("z", tuple(model.latents(1).shape[1:]))
    inputs = z, *_label(model)
    return {"generator": _Found(model.generator.forward, ("generator",), inputs, Value("samples", model.shape.dims))}


def _autoencoders(model: AutoencoderModel) -> dict[str, _Found]:
    autoencoder, samples, label = model.autoencoder, Value("samples", model.shape.dims), _label(model)
    levels = autoencoder.group_dims
    z = Value("z", levels[0] if len(levels) == 1 else (sum(prod(dims) for dims in levels),))
    downward = "decoder", "likelihood"
    found = {
        # Below the highest level a posterior also needs the decoder.
        "encoder": _Found(_Inference(autoencoder), ("encoder", *downward[: len(levels) - 1]), (samples, *label), z),
        "decoder": _Found(autoencoder.decode, downward, (z, *label), samples),
    }
    if len(levels) > 1:
        noise = Value("noise", z.dims)
        found["sampler"] = _Found(autoencoder.generate, downward, (noise, *label), samples)
    return found


def _discriminator(model: GeneratorModel | AutoencoderModel) -> _Found:
    discriminator, samples = model.networks["discriminator"], Value("samples", model.shape.dims)
    label = _label(model) if isinstance(model, GeneratorModel) else ()  # a VAE-GAN's is not told the class
    inputs = samples, *label
    logits = discriminator(*(value.example(1, 0) for value in inputs))
    return _Found(discriminator.forward, ("discriminator",), inputs, Value("logits", tuple(logits.shape[1:])))


def _metadata(model: Model) -> dict[str, str]:
    """What a program that takes labels says of them."""
    return {} if model.class_names is None else {"class_names": json.dumps(model.class_names, ensure_ascii=False)}


def _label(model: Model) -> tuple[Value, ...]:
    return (Value("label", classes=model.classes),) if model.classes else ()


class _Inference:
    """Samples and labels to latents without noise."""

    def __init__(self, autoencoder: VariationalModel) -> None:
        self._autoencoder = autoencoder

    def __call__(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self._autoencoder.infer(x, label).code()


def in_float32(model: Model) -> GeneratorModel | AutoencoderModel:
    """A copy on the CPU that computes in float32 throughout: exported programs run where bfloat16 is not at hand."""
    copied = copy.deepcopy(model).cpu()
    for network in copied.networks.values():
        if hasattr(network, "bf16_stages"):
            cast(Any, network).bf16_stages = 0
    return copied  # type: ignore[return-value]  # what was given is one of these
