"""A model's parts as functions of tensors: they can be compiled, exported, and run without this package.

generator       z, label -> samples                            of a GAN; of latents, with their decoder
encoder         samples, label -> latents without noise        of an autoencoder
decoder         latents, label -> samples
sampler         noise, label -> samples                        for several levels of latents, each with its own prior
discriminator   samples, label -> logits                       if the model was loaded with one; or of latents

Samples are float32 in [-1, 1]; stored ones are round((x + 1) * 127.5). Unconditional models take no label.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.model import Model
from imagegen_dist.objectives.variational import VariationalModel
from imagegen_dist.shape import SampleShape
from imagegen_dist.training.loop import keyed_draw

_CONDITIONS = (
    "float32: the parts of a condition in their order; a class as one-hot, attributes as 0 or 1, numbers less their "
    "mean and divided by their deviation"
)
_WEIGHTS = "float32: a weight for each class, which sum to 1"
_NORMAL = "float32, each element drawn independently from the standard normal distribution"


def stored_words(shape: SampleShape) -> str:
    """How the values x of a program's samples become stored ones."""
    highest = shape.levels - 1
    return f"round((x + 1) * {highest / 2}), clamped to [0, {highest}], is the stored uint{shape.bits}"


@dataclass(frozen=True)
class Value:
    """An input or the output of a program: [B, *dims]; classes: number of classes, if it is a label int64 [B].

    about: its dtype, range and distribution in words, for users of the exported file. names: of the classes. known: the
    parts of conditions, and some of the data's, if it is a vector of these.
    """

    name: str
    dims: tuple[int, ...] = ()
    classes: int = 0
    about: str = ""
    names: tuple[str, ...] = ()
    known: ConditionRows | None = None

    @property
    def described(self) -> dict[str, Any]:
        """The JSON form: name, shape, dtype, range and distribution."""
        kind: dict[str, Any] = {"dtype": "int64", "classes": self.classes} if self.classes else {"dtype": "float32"}
        named = {"class_names": list(self.names)} if self.names else {}
        told = {} if self.known is None else {"conditions": self.known.conditions.payload()}
        return {"name": self.name, "shape": ["batch", *self.dims], **kind, "about": self.about, **named, **told}

    def example(self, batch: int, seed: int) -> Tensor:
        """Values of this shape: labels, conditions of the data, or standard normal ones."""
        if self.known is not None:
            return torch.from_numpy(self.known.take(range(seed, seed + batch)))
        draw = keyed_draw(seed, 0, self.name, 0, torch.device("cpu"))
        return draw.integers(0, self.classes, batch) if self.classes else draw.normal(batch, *self.dims)


@dataclass(frozen=True)
class Program:
    """One part: a module on the CPU that takes its inputs by position, in float32 throughout."""

    name: str
    module: nn.Module
    inputs: tuple[Value, ...]
    output: Value

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of an ONNX file, which makes it self-describing; the names of classes are a JSON list."""
        names = next((value.names for value in self.inputs if value.names), ())
        return {
            "producer": "imagegen_dist",
            "program": self.name,
            "inputs": json.dumps([value.described for value in self.inputs], ensure_ascii=False),
            "output": json.dumps(self.output.described),
            **({"class_names": json.dumps(names, ensure_ascii=False)} if names else {}),
        }

    def examples(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Inputs for a batch of this size."""
        return tuple(value.example(batch, seed) for value in self.inputs)


def weighted(part: Program) -> Program:
    """The program with class weights [B, K] in place of class numbers [B]: it can blend classes."""
    inputs = tuple(
        Value(value.name, (value.classes,), about=_WEIGHTS, names=value.names) if value.classes else value
        for value in part.inputs
    )
    return replace(part, inputs=inputs)


class _Part(nn.Module):
    """A function of some networks as a module with them as children."""

    def __init__(self, networks: nn.Module, function: Callable[..., Tensor], classes: int) -> None:
        super().__init__()
        self.networks = networks
        self._function = function
        self._classes = classes

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        if label is None:
            return self._function(x)
        if not label.is_floating_point():
            # ONNX counts a negative index from the end. This index is out of bounds, which every runtime rejects.
            label = torch.where(label < 0, self._classes, label)
        return self._function(x, label)


class _Found(NamedTuple):
    """A part's function, its networks, inputs and output."""

    function: Callable[..., Tensor]
    roles: tuple[str, ...]
    inputs: tuple[Value, ...]
    output: Value


def programs(model: GeneratorModel | AutoencoderModel) -> dict[str, Program]:
    """Every part of a model by name. The model is not changed."""
    model = _in_float32(model)
    found = _generators(model) if isinstance(model, GeneratorModel) else _autoencoders(model)
    if "discriminator" in model.networks:
        found["discriminator"] = _discriminator(model)
    made = {}
    for name, part in found.items():
        used = nn.ModuleDict({role: model.networks[role] for role in part.roles if role in model.networks})
        made[name] = Program(name, _Part(used, part.function, model.classes), part.inputs, part.output)
    return made


def _generators(model: GeneratorModel) -> dict[str, _Found]:
    z = Value("z", tuple(model.latents(1).shape[1:]), about=_NORMAL)
    inputs = z, *_label(model)
    return {"generator": _Found(model.sampler.generate, tuple(model.sampler.modules()), inputs, _samples(model))}


def _autoencoders(model: AutoencoderModel) -> dict[str, _Found]:
    autoencoder, samples, label = model.autoencoder, _samples(model), _label(model)
    levels = autoencoder.group_dims
    z = Value("z", levels[0] if len(levels) == 1 else (sum(prod(dims) for dims in levels),), about=_latents(model))
    downward = "decoder", "likelihood"
    found = {
        # Below the highest level, a posterior also needs the decoder.
        "encoder": _Found(_Inference(autoencoder), ("encoder", *downward[: len(levels) - 1]), (samples, *label), z),
        "decoder": _Found(autoencoder.decode, downward, (z, *label), samples),
    }
    if len(levels) > 1:
        noise = Value("noise", z.dims, about=_NORMAL)
        found["sampler"] = _Found(autoencoder.generate, downward, (noise, *label), samples)
    return found


def _discriminator(model: GeneratorModel | AutoencoderModel) -> _Found:
    judged = model.latent or model if isinstance(model, GeneratorModel) else model
    discriminator, samples = model.networks["discriminator"], _samples(judged)
    label = _label(model) if getattr(discriminator, "classes", 0) else ()
    inputs = samples, *label
    logits = discriminator(*(value.example(1, 0) for value in inputs))
    return _Found(discriminator.forward, ("discriminator",), inputs, _logits(tuple(logits.shape[1:])))


def _label(model: Model) -> tuple[Value, ...]:
    if model.known is not None:
        return (Value("label", (model.known.conditions.width,), about=_CONDITIONS, known=model.known),)
    if not model.classes:
        return ()
    names = tuple(model.class_names or ())
    return (Value("label", (), model.classes, f"int64 from 0 to {model.classes - 1}: the class of each sample", names),)


def _samples(model: Model) -> Value:
    return Value("samples", model.shape.dims, about=f"float32 from -1 to 1; {stored_words(model.shape)}")


def _logits(dims: tuple[int, ...]) -> Value:
    return Value("logits", dims, about="float32, unbounded: above 0 for samples classified as real")


def _latents(model: AutoencoderModel) -> str:
    """The distribution of a decoder's latents."""
    autoencoder = model.autoencoder
    if not autoencoder.continuous:
        levels = getattr(getattr(autoencoder, "fsq", None), "levels", ())
        return (
            f"float32 codes from -1 to 1: a channel with L of the levels {list(levels)} has the values "
            "(k - L // 2) / (L // 2), k = 0 ... L - 1, drawn uniformly"
        )
    if len(autoencoder.group_dims) > 1:
        return "float32: latents of all levels, the highest first, from the encoder; to draw samples, use the sampler"
    return _NORMAL


class _Inference:
    """Samples and labels -> latents without noise."""

    def __init__(self, autoencoder: VariationalModel) -> None:
        self._autoencoder = autoencoder

    def __call__(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self._autoencoder.infer(x, label).code()


def _in_float32(model: Model) -> GeneratorModel | AutoencoderModel:
    """A copy on the CPU that computes in float32 throughout, since some runtimes do not support bfloat16."""
    copied = copy.deepcopy(model).cpu()
    for network in copied.networks.values():
        if hasattr(network, "bf16_stages"):
            cast(Any, network).bf16_stages = 0
    return copied  # type: ignore[return-value]  # the argument is one of these
