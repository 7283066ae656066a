"""Parts of a model as ONNX, verified against PyTorch in ONNX Runtime; and as torch.export programs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from imagegen_dist.extras import install_hint
from imagegen_dist.inference import onnx_session
from imagegen_dist.inference.programs import Program, Value

TOLERANCE = 1e-4
"""The largest tolerated difference from PyTorch, in units of the samples' range [-1, 1]."""

_OPSET = 20

_TRIED = (1, 2, 5)
"""Batch sizes with which an exported program is compared with PyTorch."""


class ExportError(ValueError):
    """A part that cannot be exported, or whose export computes something else: one line."""


def check_installed() -> None:
    """Raise ExportError if ONNX and its runtime are not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(f"ONNX needs {error.name}: {install_hint('export')}") from None


def to_torch_program(program: Program) -> bytes:
    """The bytes of a torch.export program (.pt2) for any batch size, verified against PyTorch. Raises ExportError."""
    with _quiet():
        exported = torch.export.export(program.module, program.examples(2), dynamic_shapes=_dynamic(program))
        target = io.BytesIO()
        torch.export.save(exported, target)
    _check(program, exported.module(), "its torch.export program")
    return target.getvalue()


def to_onnx(program: Program) -> bytes:
    """The bytes of an ONNX model for any batch size, verified in ONNX Runtime against PyTorch. Raises ExportError."""
    check_installed()
    names = [value.name for value in program.inputs]
    made = _converted(program.module, program.examples(2), names, [program.output.name], _dynamic(program))
    model = _described(made, program).SerializeToString()
    _check(program, onnx_function(model, program.inputs), "its ONNX model in ONNX Runtime")
    return model


def onnx_of(module: torch.nn.Module, values: tuple[Tensor, ...], inputs: list[str], outputs: list[str]) -> bytes:
    """A module of constant shapes as ONNX; it is not verified."""
    return bytes(_converted(module, values, inputs, outputs, None).SerializeToString())


def _converted(
    module: torch.nn.Module, values: tuple[Tensor, ...], inputs: list[str], outputs: list[str], dynamic: Any
) -> Any:
    with _quiet():
        exported = torch.onnx.export(
            module,
            values,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic,
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    return exported.model_proto


def _described(model: Any, program: Program) -> Any:
    """The ONNX model with descriptions of its inputs and output, in its metadata and on each of them."""
    import onnx

    onnx.helper.set_model_props(model, program.metadata)
    values = {value.name: value for value in (*program.inputs, program.output)}
    for entry in (*model.graph.input, *model.graph.output):
        entry.doc_string = values[entry.name].about
    return model


def onnx_function(model: bytes, inputs: tuple[Value, ...], threads: int = 0) -> Callable[..., Tensor]:
    """An ONNX model as a function of tensors on the CPU. threads: 0 for as many as PyTorch has."""
    function = onnx_session.onnx_function(model, [value.name for value in inputs], threads or torch.get_num_threads())

    def run(*tensors: Tensor | None) -> Tensor:
        return torch.from_numpy(function(*(None if tensor is None else tensor.numpy() for tensor in tensors)))

    return run


def _dynamic(program: Program) -> tuple[Any, ...]:
    """Dynamic dimensions of the inputs: the batch. Nested as the module's arguments."""
    batch = torch.export.Dim("batch", min=1)
    return tuple({0: batch} for _ in program.inputs)


@torch.no_grad()
def _check(program: Program, exported: Callable[..., Tensor], said: str) -> float:
    """The largest difference of an exported program from PyTorch. Raises ExportError above the tolerance."""
    worst = 0.0
    for batch in _TRIED:
        inputs = program.examples(batch, seed=batch)
        ours, theirs = program.module(*inputs), exported(*inputs)
        if ours.shape != theirs.shape:
            raise ExportError(f"{program.name}: {said} gives {list(theirs.shape)}, and PyTorch {list(ours.shape)}")
        worst = max(worst, float((ours - theirs).abs().max()))
    if not worst <= TOLERANCE:
        raise ExportError(f"{program.name}: {said} differs from PyTorch by {worst:.2g}, above {TOLERANCE:g}")
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what exporters print and warn; errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
