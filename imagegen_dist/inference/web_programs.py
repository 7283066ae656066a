"""The programs of a page: those of `programs` with labels as float weights, and the gradient of the projection.

A page mixes classes, so that its programs take weights [B, K] in place of class numbers. The gradient program is traced
by torch.func, with each operator of the backward pass decomposed into ones that ONNX has: the page needs no autograd.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.convert import ExportError, onnx_of, to_onnx
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.programs import programs, weighted
from imagegen_dist.nn.convolve import plain_convolutions

PROJECTOR = "projector"
_GRADIENT_TOLERANCE = 1e-5
_UNUSED = "discriminator"


def web_programs(model: GeneratorModel | AutoencoderModel) -> dict[str, bytes]:
    """ONNX files by name: what the page computes. Raises ExportError."""
    parts = {name: weighted(part) for name, part in programs(model).items() if name != _UNUSED}
    return {name: to_onnx(part) for name, part in parts.items()}


def made_by(model: GeneratorModel | AutoencoderModel) -> str:
    """The name of the program that maps draws of the prior to samples."""
    if isinstance(model, GeneratorModel):
        return "generator"
    return "decoder" if len(model.autoencoder.group_dims) == 1 else "sampler"


def has_projection(model: GeneratorModel | AutoencoderModel) -> bool:
    """True if what a projection finds is what the page decodes: not for latents of several levels, nor for codes."""
    return model.gaussian and made_by(model) != "sampler"


def projector(model: GeneratorModel | AutoencoderModel) -> bytes:
    """The gradient program of projection as ONNX, for one picture. Raises ExportError if it cannot be traced.

    z [1, *z], free [1, K] (logits of classes, or conditions), samples [1, C, *S], weight [1, C, *S] -> loss [1] and
    its gradients dz and dfree; without classes or conditions, there is no free and no dfree.
    """
    if not has_projection(model):
        raise ExportError("pictures are encoded into latents of several levels, and not searched")
    part = weighted(programs(model)[made_by(model)])
    told = len(part.inputs) > 1
    function = _gradient(part.module, is_class=bool(model.classes) and model.conditions is None, told=told)
    generator = torch.Generator().manual_seed(0)

    def drawn(*dims: int) -> Tensor:
        return torch.randn(1, *dims, generator=generator)

    names = ["z", *(["free"] if told else []), "samples", "weight"]
    dims = [value.dims for value in part.inputs] + [model.shape.dims, model.shape.dims]
    values = tuple(drawn(*each) for each in dims)
    outputs = ["loss", "dz", *(["dfree"] if told else [])]
    try:
        with warnings.catch_warnings(), plain_convolutions():
            warnings.simplefilter("ignore")
            graph = make_fx(function, decomposition_table=_TABLE)(*values)
        made = onnx_of(_Traced(graph), values, names, outputs)
    except ExportError:
        raise
    except Exception as error:  # an operator that cannot be traced or converted, of whatever kind
        operator = re.search(r"op='([\w.]+)'", str(error))
        said = operator[1] if operator else type(error).__name__
        raise ExportError(f"its gradient cannot be exported ({said})") from error
    _check(made, function, names, dims)
    return made


class _Traced(nn.Module):
    """A traced graph, which holds the weights as its own."""

    def __init__(self, graph: Any) -> None:
        super().__init__()
        self.graph_module = graph

    def forward(self, *values: Tensor) -> Any:
        return self.graph_module(*values)


def _gradient(module: nn.Module, is_class: bool, told: bool) -> Callable[..., tuple[Tensor, ...]]:
    """The projection's loss and its gradients as one function."""

    def gradient(*values: Tensor) -> tuple[Tensor, ...]:
        samples, weight = values[-2:]

        def loss(*free: Tensor) -> Tensor:
            label = [free[1].softmax(1) if is_class else free[1]] if told else []
            return ((module(free[0], *label) - samples) ** 2 * weight).flatten(1).mean(1).sum()

        free = values[:-2]
        gradients, value = torch.func.grad_and_value(loss, argnums=tuple(range(len(free))))(*free)
        return value.reshape(1), *gradients

    return gradient


def _check(made: bytes, function: Callable[..., tuple[Tensor, ...]], names: list[str], dims: list[Any]) -> None:
    """Raise ExportError if the program differs from PyTorch's gradient."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    values = [torch.randn(1, *each, generator=generator) for each in dims]
    found = session.run(None, {name: value.numpy() for name, value in zip(names, values, strict=True)})
    for ours, theirs in zip(function(*values), found, strict=True):
        off = float((ours.detach() - torch.from_numpy(theirs)).abs().max() / ours.detach().abs().max().clamp_min(1.0))
        if not off <= _GRADIENT_TOLERANCE:
            raise ExportError(f"its gradient in ONNX Runtime differs from PyTorch's by {off:.2g}")


def _convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    mask: list[bool],
) -> tuple[Tensor | None, None, None]:
    """The gradient of a convolution's input as a convolution: ONNX has no operator for it. Weights are constant."""
    convolution = torch.ops.aten.convolution.default
    if transposed:
        made = convolution(gradient, weight, None, stride, padding, dilation, False, [0] * len(stride), groups)
        return made, None, None
    sizes = zip(x.shape[2:], gradient.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True)
    missing = [i - ((o - 1) * s - 2 * p + d * (k - 1) + 1) for i, o, s, p, d, k in sizes]
    return convolution(gradient, weight, None, stride, padding, dilation, True, missing, groups), None, None


def _empty(size: list[int], *_: Any, **settings: Any) -> Tensor:
    """Memory that is overwritten, which ONNX has no operator for."""
    return torch.zeros(size, dtype=settings.get("dtype"))


def _upsample_backward(gradient: Tensor, output_size: list[int], input_size: list[int], *_: Any) -> Tensor:
    """The gradient of repeating each value: the sum over its copies, for whole factors."""
    dims = [*gradient.shape[:2]]
    for small, large in zip(input_size[2:], output_size, strict=True):
        if large % small:
            raise ExportError(f"its gradient cannot be exported (resampling by {large} / {small})")
        dims += [small, large // small]
    return gradient.reshape(dims).sum(list(range(3, len(dims), 2)))


_TABLE: dict[Any, Any] = {
    **core_aten_decompositions(),
    torch.ops.aten.empty_permuted.default: _empty,
    torch.ops.aten.upsample_nearest1d_backward.default: _upsample_backward,
    torch.ops.aten.upsample_nearest2d_backward.default: _upsample_backward,
    torch.ops.aten.upsample_nearest3d_backward.default: _upsample_backward,
    torch.ops.aten.convolution_backward.default: _convolution_backward,
}
