"""A GPU that computes nothing: tensors with shapes, types and a device that is not the CPU, on any machine.

A tensor on the wrong device is an error, as on a GPU. It is PyTorch's device for other makers' backends, because fake
CUDA tensors cannot go backward in a build without CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import Library, fallthrough_kernel
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from imagegen_dist import experiment as experiment_module
from imagegen_dist.training import loop

DEVICE = "fakegpu"

_IN_BF16 = (
    *(f"conv{kind}{axes}d" for kind in ("", "_transpose") for axes in (1, 2, 3) if (kind, axes) < ("_transpose", 2)),
    *("conv_transpose2d.input", "conv_transpose3d.input", "convolution", "linear", "matmul", "mm", "bmm", "mv"),
    *("addmm", "baddbmm", "einsum", "prelu", "scaled_dot_product_attention"),
)
_IN_FLOAT32 = (
    *("exp", "expm1", "log", "log1p", "log2", "reciprocal", "rsqrt", "softplus", "pow.Tensor_Scalar", "logsumexp"),
    *("layer_norm", "group_norm", "softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "prod", "cumsum"),
    *("mse_loss", "l1_loss", "cross_entropy_loss", "nll_loss", "binary_cross_entropy_with_logits"),
)
"""Operators for which CUDA's autocast chooses the type: those of them that a network or a loss may use."""


class _Backend:
    """What PyTorch asks of a device."""

    _dev = 0
    is_initialized = is_available = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    manual_seed_all = staticmethod(lambda seed: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])


class _Generator(torch.Generator):
    device = property(lambda self: torch.device(DEVICE, 0))


def _to(network: nn.Module, device: torch.device) -> nn.Module:
    """A network of fake tensors on another device."""
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    moved = torch.empty_like(tensor, device=device)
                    of_parameter = isinstance(tensor, nn.Parameter)
                    tensors[name] = nn.Parameter(moved, tensor.requires_grad) if of_parameter else moved
    return network


_libraries: list[Library] = []


@contextmanager
def fake_gpu() -> Iterator[torch.device]:
    """The device, within the block. A process has it from now on, and PyTorch has room for one of the kind."""
    if not hasattr(torch, DEVICE):
        _setup_privateuseone_for_python_backend(DEVICE, backend_module=_Backend())
        _libraries.extend(_register_autocast())
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(patch.object(nn.Module, "to", _to))
        stack.enter_context(patch.object(loop, "keyed_generator", lambda *_: _Generator()))
        stack.enter_context(patch.object(experiment_module, "keyed_generator", lambda *_: torch.Generator()))
        yield torch.device(DEVICE, 0)


def _register_autocast() -> list[Library]:
    """Autocast for the device: PyTorch has it for those that it knows."""
    others, aten = Library("_", "IMPL", _AUTOCAST), Library("aten", "IMPL", _AUTOCAST)
    others.fallback(fallthrough_kernel)
    for names, dtype in ((_IN_BF16, torch.bfloat16), (_IN_FLOAT32, torch.float32)):
        for name in names:
            packet, _, overload = name.partition(".")
            operator = getattr(getattr(torch.ops.aten, packet), overload or "default")
            aten.impl(name, partial(_cast, operator, dtype))
    return [others, aten]


_AUTOCAST = "AutocastPrivateUse1"


def _cast(operator: Callable[..., Any], dtype: torch.dtype, *arguments: Any, **settings: Any) -> Any:
    """The operator on tensors of this type, without autocast."""

    def cast(value: Any) -> Any:
        casts = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
        return value.to(dtype) if casts else value

    without = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, _AUTOCAST))
    with torch._C._ExcludeDispatchKeyGuard(without):
        return operator(*tree_map(cast, arguments), **tree_map(cast, settings))
