"""A limit on the networks that a stored model may declare."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.shape import SampleShape

_FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones, torch.randn, torch.rand, torch.full})
_LARGEST_RATIO = 16
"""Maximum ratio of the parameters of all networks of an objective to the stored ones."""

_ANY_NUMBER = 1 << 24
"""Parameters that are always allowed, whatever is stored: 64 MiB of float32."""

_MOST_VALUES = 1 << 28
"""Maximum number of values of a sample."""


class Bounded(TorchFunctionMode):
    """While active, limits the size of new tensors to what networks of the stored weights' size need.

    A few kilobytes can declare networks of any size. url: of the stored model; tensors: its weights by name; shape: of
    its samples. Raises CheckpointError before memory is allocated.
    """

    def __init__(self, url: str, tensors: Mapping[str, Tensor], shape: SampleShape) -> None:
        super().__init__()
        self._url = url
        self._stored = sum(tensor.numel() for tensor in tensors.values())
        self._made = 0
        if shape.numel > _MOST_VALUES:
            raise CheckpointError(f"{self._url} declares samples of {shape}, more than {_MOST_VALUES:,} values each")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FACTORIES:
            size = args[0] if args and isinstance(args[0], tuple | list) else (kwargs or {}).get("size", args)
            self._made += prod(size)
            if self._made > _LARGEST_RATIO * self._stored + _ANY_NUMBER:
                raise CheckpointError(
                    f"{self._url} declares networks of more than {self._made:,} parameters, but stores only "
                    f"{self._stored:,}: it is damaged, or made to exhaust memory"
                )
        return func(*args, **(kwargs or {}))
