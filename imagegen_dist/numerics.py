"""How a GPU computes in float32: settings of a process, for as long as a block of code runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Numerics:
    """Settings of CUDA that change float32 results and speed; without a GPU they have no effect.

    tf32: products of float32 matrices and convolutions round their factors to TensorFloat-32's 10 bits.
    cudnn_benchmark: cuDNN times its algorithms for each new shape and takes the fastest; None leaves it as it is.
    """

    tf32: bool = True
    cudnn_benchmark: bool | None = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The settings hold within the block, in all threads; those before are restored after it."""
        convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
        before = convolutions.allow_tf32, products.allow_tf32, convolutions.benchmark
        convolutions.allow_tf32 = products.allow_tf32 = self.tf32
        if self.cudnn_benchmark is not None:
            convolutions.benchmark = self.cudnn_benchmark
        try:
            yield
        finally:
            convolutions.allow_tf32, products.allow_tf32, convolutions.benchmark = before
