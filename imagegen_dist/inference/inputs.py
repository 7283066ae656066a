"""Validation of a model's inputs: types, shapes and ranges, with one convention for all methods.

Samples are uint8 [B, C, *S], from 0 to 255, or uint16, from 0 to 65535, as stored and as `sample` returns them. Latents
are floating-point, [B, Z, *s]. Labels are int64 [B], class weights [B, K], or conditions [B, K].
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from imagegen_dist.shape import SampleShape


def check_samples(samples: Tensor, shape: SampleShape) -> None:
    """Raise ValueError unless this is a batch of stored samples of this shape."""
    _check_tensor("samples", samples)
    wanted, highest = (torch.uint8, 255) if shape.bits == 8 else (torch.uint16, 65535)
    if samples.dtype is not wanted:
        scaled = (
            f"for values in [0, 1] give (x * {highest}).round().to({wanted}), for [-1, 1] ((x + 1) * {highest / 2})"
        )
        advice = f"; {scaled}.round() likewise" if samples.is_floating_point() else ""
        raise ValueError(f"samples are {_type(samples)}: integers from 0 to {highest} in {wanted} are needed{advice}")
    _check_shape("samples", samples, [shape.dims])


def check_latents(z: Tensor, dims: Collection[tuple[int, ...]], codes: bool = False) -> None:
    """Raise ValueError unless this is a batch of latents with one of these shapes. codes: they must be in [-1, 1]."""
    _check_tensor("latents", z)
    if not z.is_floating_point():
        raise ValueError(
            f"latents are {_type(z)}: floating-point values are needed, as `latents` and `encode` return them"
        )
    _check_shape("latents", z, dims)
    if not z.isfinite().all():
        raise ValueError("latents have values that are not finite (nan or inf)")
    if codes and z.numel() and float(z.abs().max()) > 1 + 1e-3:
        raise ValueError(
            f"latents of this model are codes in [-1, 1], and one has the absolute value {float(z.abs().max()):.3g}"
        )


def check_conditions(label: Tensor | None, batch: int, width: int) -> None:
    """Raise ValueError unless labels are the conditions of a batch as vectors, [B, width]."""
    if label is None:
        raise ValueError(f"this model is conditional: give labels, e.g. model.labels({batch})")
    _check_tensor("labels", label)
    if label.shape != (batch, width) or not label.is_floating_point():
        raise ValueError(
            f"labels are {_type(label)} {list(label.shape)}: conditions float32 [{batch}, {width}] are needed, as "
            "`labels` returns them"
        )
    if not label.isfinite().all():
        raise ValueError("labels have numbers that are not finite (nan or inf)")


def check_label(label: Tensor | None, batch: int, classes: int) -> None:
    """Raise ValueError if labels do not fit the number of samples and of the model's classes."""
    if label is None:
        if classes:
            raise ValueError(
                f"this model is conditioned on one of {classes} classes: give labels, e.g. model.labels({batch}, 0)"
            )
        return
    _check_tensor("labels", label)
    if not classes:
        raise ValueError("this model is unconditional: leave the labels out")
    if label.shape == (batch, classes) and label.is_floating_point():
        if not label.isfinite().all():
            raise ValueError("labels have weights that are not finite (nan or inf)")
        return
    if label.shape != (batch,) or label.dtype not in (torch.int64, torch.int32, torch.uint8):
        raise ValueError(
            f"labels are {_type(label)} {list(label.shape)}: int64 [{batch}] is needed, or weights of classes "
            f"[{batch}, {classes}]"
        )
    if batch and not 0 <= int(label.min()) <= int(label.max()) < classes:
        wrong = int(label.min()) if label.min() < 0 else int(label.max())
        raise ValueError(f"class {wrong}: the model's classes are 0 to {classes - 1}")


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} are a {type(value).__name__}: give a torch.Tensor (torch.from_numpy of an array)")


def _check_shape(name: str, value: Tensor, dims: Collection[tuple[int, ...]]) -> None:
    if value.ndim < 1 or tuple(value.shape[1:]) not in dims or not len(value):
        needed = " or ".join(f"[B, {', '.join(map(str, each))}]" for each in dims)
        alone = ", a batch of one is x[None]" if tuple(value.shape) in dims else ""
        raise ValueError(f"{name} have the shape {list(value.shape)}: {needed} is needed{alone}")


def _type(value: Tensor) -> str:
    return str(value.dtype)
