"""Self-attention over the positions of a sample, or over those of each of its frames."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagegen_dist.nn.conv import Conv
from imagegen_dist.nn.layers import EVERYTHING, Layers


class SelfAttention(nn.Module):
    """x + P softmax(Q Kᵀ / √C) V, with Q, K and V linear in GroupNorm(x): [B, C, *S] -> [B, C, *S].

    A single head over all positions, without positional encoding. (arXiv:1706.03762, Eq. 1) per_frame: over the
    positions with the same index along the first axis. layers: another normalisation.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        per_frame: bool = False,
        layers: Layers = EVERYTHING,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.per_frame = per_frame
        self.norm = layers.norm(channels)
        self.queries_keys_values = Conv(ndim, channels, 3 * channels, 1, bias=True, generator=generator)
        self.project = Conv(ndim, channels, channels, 1, bias=True, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        mapped = self.queries_keys_values(self.norm(x))
        if self.per_frame:
            frames = _attend(mapped.transpose(1, 2).flatten(0, 1))  # [B T, C, *S]
            return x + self.project(frames.unflatten(0, (-1, x.shape[2])).transpose(1, 2))
        return x + self.project(_attend(mapped))


def _attend(mapped: Tensor) -> Tensor:
    """Queries, keys and values of every position, [B, 3 C, *S] -> the mixed values, [B, C, *S]."""
    positions = mapped.flatten(2).transpose(1, 2)  # [B, prod(S), 3C]
    # The fused attention kernels expect a head dimension.
    query, key, value = positions.unsqueeze(1).chunk(3, dim=-1)
    mixed = F.scaled_dot_product_attention(query, key, value).squeeze(1).transpose(1, 2)
    return mixed.unflatten(2, mapped.shape[2:])
