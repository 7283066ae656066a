"""Self-attention over all positions of a sample."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagegen_dist.nn.conv import Conv
from imagegen_dist.nn.norm import group_norm


class SelfAttention(nn.Module):
    """x + P softmax(Q Kᵀ / √C) V, with Q, K and V linear in GroupNorm(x): [B, C, *S] -> [B, C, *S].

    A single head over all positions, without positional encoding. (arXiv:1706.03762, Eq. 1)
    """

    def __init__(self, ndim: int, channels: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.queries_keys_values = Conv(ndim, channels, 3 * channels, 1, bias=True, generator=generator)
        self.project = Conv(ndim, channels, channels, 1, bias=True, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        positions = self.queries_keys_values(self.norm(x)).flatten(2).transpose(1, 2)  # [B, prod(S), 3C]
        # The fused attention kernels expect a head dimension.
        query, key, value = positions.unsqueeze(1).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(query, key, value).squeeze(1).transpose(1, 2)
        return x + self.project(mixed.unflatten(2, x.shape[2:]))
