"""How a GPU computes in float32: settings of a process, for as long as a block of code runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Numerics:
    """Settings of CUDA that change float32 results and speed; without a GPU they have no effect.

    tf32: products of float32 matrices and convolutions round their factors to TensorFloat-32's 10 bits.
    cudnn_benchmark: cuDNN times its algorithms for each new shape and takes the fastest; None leaves it as it is.
    deterministic: only algorithms that give the same bits each time; operators without one raise RuntimeError.
    """

    tf32: bool = True
    cudnn_benchmark: bool | None = None
    deterministic: bool = False

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The settings hold within the block, in all threads; those before are restored after it."""
        convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
        before = convolutions.allow_tf32, products.allow_tf32, convolutions.benchmark
        was_deterministic = torch.are_deterministic_algorithms_enabled()
        convolutions.allow_tf32 = products.allow_tf32 = self.tf32
        if self.cudnn_benchmark is not None:
            convolutions.benchmark = self.cudnn_benchmark
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
            convolutions.benchmark = False
            torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            convolutions.allow_tf32, products.allow_tf32, convolutions.benchmark = before
            torch.use_deterministic_algorithms(was_deterministic)
