"""How many CPU threads PyTorch uses for an operator, for as long as a block of code runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """PyTorch uses that number of threads within the block; the number before is restored after it.

    More threads than cores that are free cost much: each operator waits for the slowest, and those that wait spin.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
