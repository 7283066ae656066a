"""An ONNX program in ONNX Runtime, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def onnx_function(model: bytes, inputs: Sequence[str], threads: int = 0) -> Callable[..., Array]:
    """An ONNX program as a function of its inputs on the CPU, by position; None for one that is left out.

    threads: 0 for as many as the machine has cores. Raises ImportError if ONNX Runtime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(*arrays: Array | None) -> Array:
        given = {
            name: np.ascontiguousarray(array) for name, array in zip(inputs, arrays, strict=False) if array is not None
        }
        found: Array = session.run(None, given)[0]
        return found

    return run
