"""Small data and a feature network for tests of evaluation."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch.distributed as dist
from torch import Tensor, nn

from imagegen_dist.data.pack import pack
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store

PIXELS = "tests.evaluation.small:coarse"
SAMPLES = 260


def coarse() -> nn.Module:
    """Means of 7×7 pixels: 16 features of a picture of 28×28."""
    return nn.Sequential(nn.AvgPool2d(7), nn.Flatten())


class Breakable(nn.Module):
    """`coarse`, which raises an error on one rank: that of `broken_rank`, or none."""

    broken_rank: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.network = coarse()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2 and self.broken_rank == (dist.get_rank() if dist.is_initialized() else 0):
            raise RuntimeError("it broke")
        return self.network(x)


class Deadly(Breakable):
    """Ends the process that measures with it, as the kernel does where memory is short."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


class BrokenOnRank1(Breakable):
    """Rank 1 alone fails."""

    broken_rank = 1


def pictures(folder: Path, count: int = SAMPLES, classes: int | None = 10, seed: int = 0) -> str:
    """URL of so many grey pictures of 28×28, each with a bright bar in a place of its class."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 120, (count, 1, 28, 28), np.uint8)
    for number, picture in enumerate(noise):
        place = 2 * (number % 10)
        picture[0, place : place + 4] += 130
    labelled = ((picture, number % 10 if classes else {}) for number, picture in enumerate(noise))
    pack(labelled, Store(folder), classes=classes)
    return Store(folder).url


def beside(where: RunSettings, folder: Path, classes: int | None = 10) -> RunSettings:
    """The run on such data, with others held out."""
    training, held_out = pictures(folder / "train", classes=classes), pictures(folder / "val", 120, classes, 1)
    return replace(where, data=training, validation=held_out)
