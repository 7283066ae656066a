"""torch.compile for whole losses, those that contain gradients included."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn

Function = TypeVar("Function", bound=Callable[..., Any])

_IN_GRAPH: list[Callable[..., Any]] = []


def in_graph(function: Function) -> Function:
    """Decorates a function that calls a torch.autograd.Function: compiled callers have that call in their graphs.

    Where torch.compile traces into such a call below torch.func.vjp, gradients are wrong without an error (PyTorch
    issue 193279).
    """
    _IN_GRAPH.append(function)
    return function


def compiled(function: Callable[..., Any], backend: str = "inductor") -> Callable[..., Any]:
    """A function of tensors, compiled as one graph for each shape of its inputs; an error where it cannot be.

    Gradients within it have to be taken by torch.func: torch.compile refuses those of torch.autograd.grad.
    """
    _prepare()
    # DistributedDataParallel would cut the graph at its buckets, and with it the functions that torch.func transforms.
    torch._dynamo.config.optimize_ddp = False
    return torch.compile(function, fullgraph=True, dynamic=False, backend=backend)


def compile_(network: nn.Module) -> None:
    """Compile a network in place, for passes that no gradient passes through twice."""
    _prepare()
    network.compile()


def uncompiled() -> AbstractContextManager[object]:
    """Within it, compiled networks compute as they are: for what depends on more than their inputs."""
    # Without this module nothing is compiled, and its import takes a second.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _prepare() -> None:
    import torch._dynamo  # takes a second, which only those spend who compile

    for function in _IN_GRAPH:
        torch.compiler.allow_in_graph(function)
