"""Feature networks in which samples are compared: their origin, and how samples are prepared for them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.modality import to_uint8
from imagegen_dist.data.stream import StreamConfig
from imagegen_dist.distributed import World
from imagegen_dist.evaluation.reference import Reference, build_reference
from imagegen_dist.evaluation.weightless import WEIGHTLESS, weightless_network
from imagegen_dist.extensions import record
from imagegen_dist.metrics.features import FeatureNetwork
from imagegen_dist.models import dinov2, inception
from imagegen_dist.models.dinov2 import DINOv2
from imagegen_dist.models.inception import RESIZES, Inception
from imagegen_dist.models.weights import hash_of_weights, read_weights
from imagegen_dist.numerics import Numerics
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store

INCEPTION, CLASSIFIER, MODULE = "inception", "classifier", "module"
DINOV2 = tuple(f"dinov2-{size}" for size in dinov2.SIZES)

FEATURES = (INCEPTION, "dinov2", *DINOV2, CLASSIFIER, *WEIGHTLESS, "module:PACKAGE.MODULE:FUNCTION")
"""What a user may request besides registered networks; dinov2 is dinov2-l."""

Network = TypeVar("Network", Inception, DINOv2)


@dataclass(frozen=True)
class Labels:
    """Labelled samples on which a classifier is trained, and where it is cached."""

    # URL of the training samples.
    training: str
    # URL of held-out samples; empty for none.
    held_out: str
    # How both are read.
    reading: StreamConfig
    # Number of training images.
    images: int
    # URL of the cache directory.
    cache: str
    # Conditions of a model, as which the samples' conditions are told.
    told_as: ConditionRows | None = None


@dataclass(frozen=True)
class FeatureSource:
    """The origin of a feature network: a value, which can be sent to tasks. Raises ValueError for an unknown kind."""

    # "inception", "dinov2-s", -b, -l or -g, "classifier", or "module".
    kind: str
    # Path or URL of its safetensors file.
    weights: str = ""
    # SHA-256 of that file.
    sha256: str = ""
    # How samples are resized for Inception: "tensorflow" or "bicubic".
    resize: str = "tensorflow"
    # "package.module:function", which returns a network: x [B, C, *S] in [-1, 1] -> features [B, F].
    function: str = ""
    # The training data of a classifier, as for `build_reference`.
    labels: Labels | None = None
    # Prefix of the user's flags for all this: "--" of a job, "--evaluation." of a run.
    flags: str = "--"

    def __post_init__(self) -> None:
        if self.kind not in _OPENERS:
            known = dict.fromkeys([*FEATURES, *_OPENERS.keys() - {MODULE}])
            raise ValueError(f"{self.flags}features {self.kind} is not known; set it to one of {', '.join(known)}")
        if self.resize not in RESIZES:
            raise ValueError(f"{self.flags}resize {self.resize} is not known; set it to one of {', '.join(RESIZES)}")

    @classmethod
    def parse(cls, text: str, resize: str = "tensorflow", flags: str = "--") -> FeatureSource:
        """What a user requests, still without weights. Raises ValueError."""
        kind, _, function = text.partition(":")
        if kind == MODULE:
            if ":" not in function:
                raise ValueError(f"{flags}features {text}: give module:PACKAGE.MODULE:FUNCTION")
            return cls(MODULE, function=function, flags=flags)
        return cls("dinov2-l" if text == "dinov2" else text, resize=resize, flags=flags)

    @property
    def has_weights(self) -> bool:
        """True if the user must provide a file of weights."""
        return self.kind == INCEPTION or self.kind in DINOV2

    def read(self, needed: str) -> dict[str, Tensor]:
        """The tensors of its file, after verification of its hash; `needed` as for `read_weights`."""
        return read_weights(self.weights, self.sha256, f"{self.flags}weights", f"{self.flags}weights-sha256", needed)


Opener = Callable[[FeatureSource, SampleShape, torch.device], FeatureNetwork]

_OPENERS: dict[str, Opener] = {}


def register_features(*kinds: str) -> Callable[[Opener], Opener]:
    """Decorator of a function that opens the feature networks of these kinds for samples of a shape on a device.

    Your own feature network is one such function in your own package: `--features KIND`, with `--package` naming its
    module, or `evaluation.features` in your own preset.
    """

    def register(opener: Opener) -> Opener:
        _OPENERS.update(dict.fromkeys(kinds, opener))
        record(opener.__module__)
        return opener

    return register


def open_network(source: FeatureSource, shape: SampleShape, device: torch.device) -> FeatureNetwork:
    """The network on a device, for samples of this shape.

    Its file is parsed only after verification of its hash; a module runs the user's code. Raises ValueError if the file
    is not available or does not fit, and if the network does not support such samples.
    """
    return _OPENERS[source.kind](source, shape, device)


@register_features(INCEPTION)
def _inception(source: FeatureSource, shape: SampleShape, device: torch.device) -> FeatureNetwork:
    _check_pictures(source, shape)
    network = _with_weights(Inception(source.resize), source, device)
    resize = f"{RESIZES[source.resize]}, to {inception.SIDE}×{inception.SIDE}"
    return FeatureNetwork(
        name="Inception of 2015-12-05, pool3",
        sha256=source.sha256.lower(),
        dim=inception.FEATURES,
        features=_of_values(network),
        head=network.head,
        classes=inception.CLASSES,
        resize=resize,
    )


@register_features(*DINOV2)
def _dinov2(source: FeatureSource, shape: SampleShape, device: torch.device) -> FeatureNetwork:
    _check_pictures(source, shape)
    size = source.kind.removeprefix("dinov2-")
    network = _with_weights(DINOv2(size), source, device)
    resize = f"{dinov2.RESIZE}, to {dinov2.SIDE}×{dinov2.SIDE}"
    name = f"DINOv2 ViT-{size.upper()}/14 by timm, class token"
    return FeatureNetwork(name, source.sha256.lower(), network.dim, _of_values(network), resize=resize)


@register_features(CLASSIFIER)
def _classifier(source: FeatureSource, shape: SampleShape, device: torch.device) -> FeatureNetwork:
    return trained_classifier(source, device, lambda text: None).network


@register_features(*WEIGHTLESS)
def _weightless(source: FeatureSource, shape: SampleShape, device: torch.device) -> FeatureNetwork:
    try:
        return weightless_network(source.kind, shape, device)
    except ValueError as error:
        raise ValueError(f"{source.flags}{error}; choose other features") from error


def trained_classifier(source: FeatureSource, device: torch.device, say: Callable[[str], None]) -> Reference:
    """A classifier of a dataset's own labels, from the cache or trained now, which is announced by `say`."""
    labels = source.labels
    assert labels is not None
    training = Dataset.open(labels.training, labels.reading).told_as(labels.told_as)
    held_out = None
    if labels.held_out:
        held_out = Dataset.open(labels.held_out, labels.reading).told_as(training.index.known_conditions)
    return build_reference(Store(labels.cache), training, held_out, labels.images, World(), device, say)


@register_features(MODULE)
def _module(source: FeatureSource, shape: SampleShape, device: torch.device) -> FeatureNetwork:
    """The network that a user's function returns. This runs the user's code, with the user's permissions."""
    asked = f"{source.flags}features module:{source.function}"
    place, _, name = source.function.partition(":")
    try:
        function: Callable[[], object] = getattr(importlib.import_module(place), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{asked} cannot be imported ({error}); its directory must be on PYTHONPATH") from error
    network = function()
    if not isinstance(network, nn.Module):
        raise ValueError(f"{asked} returned a {type(network).__name__}; it must return a torch.nn.Module")
    network.to(device).eval().requires_grad_(False)
    with torch.no_grad():
        found = network(torch.zeros(2, *shape.dims, device=device))
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 2:
        has = list(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(f"{asked}: samples [2, {', '.join(map(str, shape.dims))}] became {has}; [2, F] is needed")
    return FeatureNetwork(source.function, hash_of_weights(network), found.shape[1], network, resize="its own")


def _with_weights(network: Network, source: FeatureSource, device: torch.device) -> Network:
    """The network on its device with the weights of its file."""
    needed = _needed(source)
    if not source.weights:
        raise ValueError(f"features {source.kind} need weights: {needed}, or {source.flags}features to another network")
    network.load(source.read(needed), source.weights)
    network.to(device).eval().requires_grad_(False)
    return network


def _needed(source: FeatureSource) -> str:
    made_of = (
        "torch-fidelity's weights-inception-2015-12-05-6726825d.pth"
        if source.kind == INCEPTION
        else "the published weights, e.g. timm's model.safetensors of vit_large_patch14_dinov2.lvd142m"
    )
    return (
        f"set {source.flags}weights to the path or URL of a safetensors file of {made_of} "
        "(docs/evaluation.md says how to get it)"
    )


def _check_pictures(source: FeatureSource, shape: SampleShape) -> None:
    if shape.ndim != 2 or shape.channels not in (1, 3):
        raise ValueError(
            f"features {source.kind} need images with 1 or 3 channels, not {shape}; "
            f"set {source.flags}features to classifier or module:..."
        )


def _of_values(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network on samples [B, 1 or 3, H, W] in [-1, 1], quantised to integers from 0 to 255 as stored images are."""

    def features(x: Tensor) -> Tensor:
        with Numerics(tf32=False).applied():  # as published figures have it
            return network(to_uint8(x).float().expand(-1, 3, -1, -1))

    return features
