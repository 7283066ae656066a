"""KL autoencoders of diffusers: their AutoencoderKL's tensors by our names and back, and its folder.

Both have the same layers (arXiv:2112.10752). The queries, keys and values of attention are three linear layers there
and one 1×1 convolution here; `quant_conv` and `post_quant_conv` are the `quant` of encoder and decoder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from imagegen_dist.documents import parse_json
from imagegen_dist.errors import UsageError
from imagegen_dist.nn.norm import group_norm
from imagegen_dist.storage import Store

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
CLASS = "AutoencoderKL"
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""OWNER/NAME of a repository on the Hugging Face Hub."""

_PIPELINE_FOLDER = "vae"
_DEFAULT_SCALE = 0.18215
"""diffusers' own default of `scaling_factor`."""
_EARLIER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Layers of attention as diffusers called them before version 0.14, in files that are still published."""


@dataclass(frozen=True)
class Layout:
    """What decides the names and the meaning of an autoencoder's tensors.

    widths: channels of each stage, at the sample's resolution first. blocks: residual blocks of a stage of the encoder.
    quants: whether the encoder and the decoder have a 1×1 convolution of the latents.
    """

    widths: tuple[int, ...]
    blocks: int
    latent_channels: int
    channels: int
    attention: bool = True
    quants: tuple[bool, bool] = (True, True)

    @property
    def groups(self) -> set[int]:
        """Groups of the normalisation of our networks, which diffusers has one number of."""
        return {group_norm(width).num_groups for width in self.widths}


@dataclass(frozen=True)
class Found:
    """A diffusers autoencoder: its tensors by "network/name" as here, and what its config.json says."""

    tensors: Mapping[str, Tensor]
    sha256: str
    scaling_factor: float
    layout: Layout


def folder_of(store: Store) -> Store | None:
    """The folder of an autoencoder at `store`, or that of a pipeline's; None if there is no AutoencoderKL."""
    for folder in (store, store / _PIPELINE_FOLDER):
        if folder.exists(CONFIG):
            with suppress(ValueError, AttributeError):
                if parse_json(folder.read(CONFIG)).get("_class_name") == CLASS:
                    return folder
    return None


def read_folder(folder: Store) -> Found:
    """The autoencoder in a folder. Raises UsageError if it has other layers than ours, or no safetensors."""
    settings = parse_json(folder.read(CONFIG))
    layout = _layout(settings, folder)
    try:
        data = folder.read(WEIGHTS)
    except FileNotFoundError:
        raise UsageError(f"{folder} has no {WEIGHTS}: nothing is unpickled; save the model as safetensors") from None
    try:
        tensors = from_diffusers(load(data), layout)
    except SafetensorError as error:
        raise UsageError(f"{folder}/{WEIGHTS} is not a safetensors file ({error})") from error
    except KeyError as error:
        raise UsageError(f"{folder}/{WEIGHTS} has no tensor {error.args[0]}, which its {CONFIG} requires") from error
    scale = float(settings.get("scaling_factor") or _DEFAULT_SCALE)
    return Found(tensors, hashlib.sha256(data).hexdigest(), scale, layout)


def _layout(settings: Mapping[str, Any], folder: Store) -> Layout:
    """The layout that a config.json describes. Raises UsageError if our networks differ from it."""
    try:
        layout = Layout(
            tuple(int(width) for width in settings["block_out_channels"]),
            int(settings.get("layers_per_block", 1)),
            int(settings["latent_channels"]),
            int(settings["in_channels"]),
            bool(settings.get("mid_block_add_attention", True)),
            (bool(settings.get("use_quant_conv", True)), bool(settings.get("use_post_quant_conv", True))),
        )
        groups = int(settings.get("norm_num_groups", 32))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder}/{CONFIG} does not give the sizes of an autoencoder ({error})") from error
    if settings.get("act_fn", "silu") != "silu":
        raise UsageError(f"{folder}: act_fn is {settings['act_fn']}; the networks of this package have silu")
    if layout.groups != {groups}:
        ours = ", ".join(map(str, sorted(layout.groups)))
        raise UsageError(f"{folder}: norm_num_groups is {groups}; networks of these widths have {ours} here")
    return layout


def from_diffusers(stored: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Our tensors, "network/name", of diffusers'. Raises KeyError for a tensor that is missing."""
    stored = {_present_name(name): tensor for name, tensor in stored.items()}
    found = {}
    for ours, theirs in _layers(layout):
        for kind in ("weight", "bias"):
            whole = torch.cat([stored[f"{name}.{kind}"] for name in theirs])
            found[f"{ours}.{kind}"] = whole[:, :, None, None] if _is_linear(theirs) and whole.ndim == 2 else whole
    for network, has in zip(("encoder", "decoder"), layout.quants, strict=True):
        if not has:
            channels = layout.latent_channels * (2 if network == "encoder" else 1)
            found[f"{network}/quant.weight"] = torch.eye(channels)[:, :, None, None]
            found[f"{network}/quant.bias"] = torch.zeros(channels)
    return found


def to_diffusers(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The tensors of diffusers' AutoencoderKL, of ours by "network/name"."""
    found = {}
    for ours, theirs in _layers(layout):
        for kind in ("weight", "bias"):
            whole = tensors[f"{ours}.{kind}"]
            whole = whole.flatten(1) if _is_linear(theirs) and kind == "weight" else whole
            for name, part in zip(theirs, whole.chunk(len(theirs)), strict=True):
                found[f"{name}.{kind}"] = part.detach().cpu().clone().contiguous()
    return found


def settings_of(layout: Layout, scaling_factor: float, size: int) -> dict[str, Any]:
    """The config.json of an AutoencoderKL. size: extent of its samples. Raises ValueError if diffusers has no such."""
    if len(layout.groups) > 1:
        raise ValueError(
            f"diffusers has one number of groups in all normalisations, and a network of widths "
            f"{', '.join(map(str, layout.widths))} has {', '.join(map(str, sorted(layout.groups)))}: train one whose "
            "widths are 128 or more, or all equal"
        )
    stages = len(layout.widths)
    return {
        "_class_name": CLASS,
        "act_fn": "silu",
        "block_out_channels": list(layout.widths),
        "down_block_types": ["DownEncoderBlock2D"] * stages,
        "in_channels": layout.channels,
        "latent_channels": layout.latent_channels,
        "layers_per_block": layout.blocks,
        "mid_block_add_attention": layout.attention,
        "norm_num_groups": layout.groups.pop(),
        "out_channels": layout.channels,
        "sample_size": size,
        "scaling_factor": scaling_factor,
        "up_block_types": ["UpDecoderBlock2D"] * stages,
    }


def _layers(layout: Layout) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(our name, diffusers' names) of every layer with a weight and a bias."""
    yield "encoder/stages.0", ("encoder.conv_in",)
    previous, at = layout.widths[0], 1
    for stage, width in enumerate(layout.widths):
        if stage:
            yield f"encoder/stages.{at}.conv", (f"encoder.down_blocks.{stage - 1}.downsamplers.0.conv",)
            at += 1
        for block in range(layout.blocks):
            theirs = f"encoder.down_blocks.{stage}.resnets.{block}"
            yield from _block(f"encoder/stages.{at}", theirs, previous != width)
            previous, at = width, at + 1
    yield from _ends("encoder", layout)
    if layout.quants[0]:
        yield "encoder/quant", ("quant_conv",)
    if layout.quants[1]:
        yield "decoder/quant", ("post_quant_conv",)
    yield "decoder/input", ("decoder.conv_in",)
    at = 0
    for stage, width in enumerate(layout.widths[::-1]):
        if stage:
            yield f"decoder/stages.{at}.conv", (f"decoder.up_blocks.{stage - 1}.upsamplers.0.conv",)
            at += 1
        for block in range(layout.blocks + 1):
            theirs = f"decoder.up_blocks.{stage}.resnets.{block}"
            yield from _block(f"decoder/stages.{at}", theirs, previous != width)
            previous, at = width, at + 1
    yield from _ends("decoder", layout)


def _ends(network: str, layout: Layout) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The layers that both networks have: their middle, the last normalisation and the last convolution."""
    middle = f"{network}.mid_block"
    yield from _block(f"{network}/middle.0", f"{middle}.resnets.0", False)
    if layout.attention:
        attention = f"{middle}.attentions.0"
        yield f"{network}/middle.1.norm", (f"{attention}.group_norm",)
        parts = tuple(f"{attention}.{name}" for name in ("to_q", "to_k", "to_v"))
        yield f"{network}/middle.1.queries_keys_values", parts
        yield f"{network}/middle.1.project", (f"{attention}.to_out.0",)
    yield from _block(f"{network}/middle.{2 if layout.attention else 1}", f"{middle}.resnets.1", False)
    yield f"{network}/norm", (f"{network}.conv_norm_out",)
    yield f"{network}/output", (f"{network}.conv_out",)


def _block(ours: str, theirs: str, widens: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The layers of a residual block. widens: whether its number of channels changes."""
    for name in ("norm1", "conv1", "norm2", "conv2"):
        yield f"{ours}.{name}", (f"{theirs}.{name}",)
    if widens:
        yield f"{ours}.shortcut", (f"{theirs}.conv_shortcut",)


def _is_linear(theirs: Sequence[str]) -> bool:
    """True for the layers of attention that are linear there and 1×1 convolutions here."""
    return len(theirs) > 1 or theirs[0].endswith(".to_out.0")


def _present_name(name: str) -> str:
    """A tensor's name in present versions of diffusers."""
    path, _, kind = name.rpartition(".")
    layer = path.rpartition(".")[2]
    if layer not in _EARLIER_NAMES:
        return name
    return f"{path.removesuffix(layer)}{_EARLIER_NAMES[layer]}.{kind}"
