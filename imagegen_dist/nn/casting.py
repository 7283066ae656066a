"""Weights in the type that a layer computes in, cast once for as long as they do not change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class _Kept:
    casts: dict[tuple[int, torch.dtype, bool], Tensor] | None = None


@contextmanager
def constant_weights() -> Iterator[None]:
    """Within it no weight changes, nor whether it requires a gradient, so that each is cast once to a type.

    Every backward pass goes through the cast that all forward passes share, and adds to the weight's gradient.
    """
    before, _Kept.casts = _Kept.casts, {}
    try:
        yield
    finally:
        _Kept.casts = before


def cast_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in this type. What is not a parameter may be another tensor at every use, and is cast each time."""
    if weight.dtype == dtype:
        return weight
    if _Kept.casts is None or not isinstance(weight, nn.Parameter) or torch.compiler.is_compiling():
        return weight.to(dtype)
    key = id(weight), dtype, weight.requires_grad and torch.is_grad_enabled()
    if key not in _Kept.casts:
        _Kept.casts[key] = weight.to(dtype)
    return _Kept.casts[key]
