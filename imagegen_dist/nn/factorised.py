"""Convolutions over three axes as one in space and one in time: (2+1)-D (arXiv:1711.11248)."""

from __future__ import annotations

from torch import Tensor, nn


class FactorisedConv(nn.Module):
    """A convolution over the last two axes, an activation, one along the first axis: [B, C, *S] -> [B, C', *S'].

    space: C to C' channels, of extent 1 along the first axis. time: C' to C' channels, of extent 1 along the others.
    Together they read the same 3×3×3 positions with 12 weights per pair of channels in place of 27. (arXiv:1711.11248,
    Sec. 3.5, with C' channels between the two)
    """

    def __init__(self, space: nn.Module, activation: nn.Module, time: nn.Module) -> None:
        super().__init__()
        self.space, self.activation, self.time = space, activation, time

    @property
    def weight(self) -> nn.Parameter:
        """The weight of the convolution along the first axis, the last of the two."""
        weight = self.time.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """bias: [C'], added in place of the last convolution's own."""
        inner = self.activation(self.space(x))
        return self.time(inner) if bias is None else self.time(inner, bias)
