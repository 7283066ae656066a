"""The Inception network of FID, KID and the inception score: TensorFlow's of 2015-12-05, as in torch-fidelity.

Weights come from a safetensors file with torch-fidelity's tensor names; docs/evaluation.md says how to make it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagegen_dist.nn.conv import Conv, Linear
from imagegen_dist.nn.resize import resize_bicubic, resize_like_tensorflow

SIDE, FEATURES, CLASSES = 299, 2048, 1008

RESIZES = {
    "tensorflow": "bilinear as in TensorFlow 1, no smoothing",
    "bicubic": "bicubic with smoothing, as Pillow",
}
"""How samples are resized to 299×299: the first as published, the second as in arXiv:2104.11222 (clean-fid)."""

_EPSILON = 1e-3

Chain = list["str | tuple[str, str]"]
"""A sequence of convolutions, by name; a pair is a fork whose outputs are concatenated."""


class Inception(nn.Module):
    """x [B, 3, H, W] with values 0 to 255 -> features [B, 2048]; `head` gives logits without the bias.

    The inception score uses logits without the bias, as in the original code.
    """

    def __init__(self, resize: str = "tensorflow") -> None:
        super().__init__()
        self.resize = resize
        random = torch.Generator()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2, generator=random)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3, generator=random)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1, generator=random)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1, generator=random)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3, generator=random)
        self.Mixed_5b = _mixed_35(192, 32, random)
        self.Mixed_5c = _mixed_35(256, 64, random)
        self.Mixed_5d = _mixed_35(288, 64, random)
        self.Mixed_6a = _mixed_35_to_17(288, random)
        self.Mixed_6b = _mixed_17(768, 128, random)
        self.Mixed_6c = _mixed_17(768, 160, random)
        self.Mixed_6d = _mixed_17(768, 160, random)
        self.Mixed_6e = _mixed_17(768, 192, random)
        self.Mixed_7a = _mixed_17_to_8(768, random)
        self.Mixed_7b = _mixed_8(1280, "average", random)
        self.Mixed_7c = _mixed_8(2048, "largest", random)  # max pooling, where the other blocks average
        self.fc = Linear(FEATURES, CLASSES, bias=True, generator=random)

    def forward(self, x: Tensor) -> Tensor:
        resize = resize_like_tensorflow if self.resize == "tensorflow" else resize_bicubic
        x = (resize(x, (SIDE, SIDE)) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))

    def head(self, features: Tensor) -> Tensor:
        """Logits of 1,008 classes without their bias: [B, 2048] -> [B, 1008]."""
        return features @ self.fc.weight.T

    def load(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Load the weights. Raises ValueError, naming `source`, if a tensor is missing or has another shape."""
        for name, expected in self.state_dict().items():
            found = tensors.get(name)
            if found is None or found.shape != expected.shape:
                has = "lacks the tensor" if found is None else f"has {list(found.shape)} for the tensor"
                raise ValueError(
                    f"{source} {has} {name} {list(expected.shape)}: it does not hold FID's Inception network; "
                    "docs/evaluation.md says how to make the file"
                )
        self.load_state_dict({name: tensors[name].float() for name in self.state_dict()})


class ConvNorm(nn.Module):
    """Convolution, frozen normalisation, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.conv = Conv(2, in_channels, out_channels, kernel, stride, padding, gain=2**0.5, generator=generator)
        self.bn = FixedNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class FixedNorm(nn.Module):
    """Batch normalisation with the fixed mean and variance of training."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=_EPSILON)


class Mixed(nn.Module):
    """Parallel chains of convolutions and a pooled one, whose outputs are concatenated."""

    def __init__(self, chains: list[Chain], convolutions: dict[str, ConvNorm], pool: str) -> None:
        super().__init__()
        for name, convolution in convolutions.items():
            self.add_module(name, convolution)
        self._chains, self._pool = chains, pool

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self._run(chain, x) for chain in self._chains]
        if self._pool == "halve":
            outputs.append(F.max_pool2d(x, 3, 2))
        elif self._pool == "largest":
            outputs.append(self.get_submodule("branch_pool")(F.max_pool2d(x, 3, 1, 1)))
        else:  # zero padding is not counted
            outputs.append(self.get_submodule("branch_pool")(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)))
        return torch.cat(outputs, 1)

    def _run(self, chain: Chain, x: Tensor) -> Tensor:
        for link in chain:
            if isinstance(link, tuple):
                x = torch.cat([self.get_submodule(name)(x) for name in link], 1)
            else:
                x = self.get_submodule(link)(x)
        return x


def _mixed_35(channels: int, pooled: int, generator: torch.Generator) -> Mixed:
    """Block at 35×35 positions: [B, channels] -> [B, 224 + pooled]."""
    convolutions = {
        "branch1x1": ConvNorm(channels, 64, 1, generator=generator),
        "branch5x5_1": ConvNorm(channels, 48, 1, generator=generator),
        "branch5x5_2": ConvNorm(48, 64, 5, padding=2, generator=generator),
        "branch3x3dbl_1": ConvNorm(channels, 64, 1, generator=generator),
        "branch3x3dbl_2": ConvNorm(64, 96, 3, padding=1, generator=generator),
        "branch3x3dbl_3": ConvNorm(96, 96, 3, padding=1, generator=generator),
        "branch_pool": ConvNorm(channels, pooled, 1, generator=generator),
    }
    chains: list[Chain] = [
        ["branch1x1"],
        ["branch5x5_1", "branch5x5_2"],
        ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"],
    ]
    return Mixed(chains, convolutions, "average")


def _mixed_35_to_17(channels: int, generator: torch.Generator) -> Mixed:
    convolutions = {
        "branch3x3": ConvNorm(channels, 384, 3, stride=2, generator=generator),
        "branch3x3dbl_1": ConvNorm(channels, 64, 1, generator=generator),
        "branch3x3dbl_2": ConvNorm(64, 96, 3, padding=1, generator=generator),
        "branch3x3dbl_3": ConvNorm(96, 96, 3, stride=2, generator=generator),
    }
    return Mixed([["branch3x3"], ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]], convolutions, "halve")


def _mixed_17(channels: int, inner: int, generator: torch.Generator) -> Mixed:
    """Block at 17×17 positions: [B, channels] -> [B, 768]."""

    def across(in_channels: int, out_channels: int) -> ConvNorm:
        return ConvNorm(in_channels, out_channels, (1, 7), padding=(0, 3), generator=generator)

    def down(in_channels: int, out_channels: int) -> ConvNorm:
        return ConvNorm(in_channels, out_channels, (7, 1), padding=(3, 0), generator=generator)

    convolutions = {
        "branch1x1": ConvNorm(channels, 192, 1, generator=generator),
        "branch7x7_1": ConvNorm(channels, inner, 1, generator=generator),
        "branch7x7_2": across(inner, inner),
        "branch7x7_3": down(inner, 192),
        "branch7x7dbl_1": ConvNorm(channels, inner, 1, generator=generator),
        "branch7x7dbl_2": down(inner, inner),
        "branch7x7dbl_3": across(inner, inner),
        "branch7x7dbl_4": down(inner, inner),
        "branch7x7dbl_5": across(inner, 192),
        "branch_pool": ConvNorm(channels, 192, 1, generator=generator),
    }
    chains: list[Chain] = [
        ["branch1x1"],
        [f"branch7x7_{number}" for number in (1, 2, 3)],
        [f"branch7x7dbl_{number}" for number in (1, 2, 3, 4, 5)],
    ]
    return Mixed(chains, convolutions, "average")


def _mixed_17_to_8(channels: int, generator: torch.Generator) -> Mixed:
    convolutions = {
        "branch3x3_1": ConvNorm(channels, 192, 1, generator=generator),
        "branch3x3_2": ConvNorm(192, 320, 3, stride=2, generator=generator),
        "branch7x7x3_1": ConvNorm(channels, 192, 1, generator=generator),
        "branch7x7x3_2": ConvNorm(192, 192, (1, 7), padding=(0, 3), generator=generator),
        "branch7x7x3_3": ConvNorm(192, 192, (7, 1), padding=(3, 0), generator=generator),
        "branch7x7x3_4": ConvNorm(192, 192, 3, stride=2, generator=generator),
    }
    chains: list[Chain] = [
        ["branch3x3_1", "branch3x3_2"],
        [f"branch7x7x3_{number}" for number in (1, 2, 3, 4)],
    ]
    return Mixed(chains, convolutions, "halve")


def _mixed_8(channels: int, pool: str, generator: torch.Generator) -> Mixed:
    """Block at 8×8 positions: [B, channels] -> [B, 2048]."""
    convolutions = {
        "branch1x1": ConvNorm(channels, 320, 1, generator=generator),
        "branch3x3_1": ConvNorm(channels, 384, 1, generator=generator),
        "branch3x3_2a": ConvNorm(384, 384, (1, 3), padding=(0, 1), generator=generator),
        "branch3x3_2b": ConvNorm(384, 384, (3, 1), padding=(1, 0), generator=generator),
        "branch3x3dbl_1": ConvNorm(channels, 448, 1, generator=generator),
        "branch3x3dbl_2": ConvNorm(448, 384, 3, padding=1, generator=generator),
        "branch3x3dbl_3a": ConvNorm(384, 384, (1, 3), padding=(0, 1), generator=generator),
        "branch3x3dbl_3b": ConvNorm(384, 384, (3, 1), padding=(1, 0), generator=generator),
        "branch_pool": ConvNorm(channels, 192, 1, generator=generator),
    }
    chains: list[Chain] = [
        ["branch1x1"],
        ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")],
        ["branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")],
    ]
    return Mixed(chains, convolutions, pool)
