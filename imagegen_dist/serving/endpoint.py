"""What one served model answers, without HTTP: batches, uploads, streams, and a run that is still being trained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from torch import Tensor

from imagegen_dist.inference.sought import Search
from imagegen_dist.serving.batching import Batcher
from imagegen_dist.serving.formats import check_format, write_samples
from imagegen_dist.serving.page import ServedPage
from imagegen_dist.serving.projecting import Asked, Place, Projector
from imagegen_dist.serving.requests import Decode, Generate, columns_of, rows_of, rows_of_bytes, samples_of_bytes
from imagegen_dist.serving.served import Pixels, Row, Served
from imagegen_dist.serving.stats import Stats

Result = TypeVar("Result")


class Endpoint:
    """A model, its batches, and the streams that are open."""

    def __init__(self, served: Served, stats: Stats) -> None:
        self.served = served
        self.batcher: Batcher[Row, Pixels] = Batcher(
            served.compute, served.thread, served.settings.most, lambda size: stats.batched(served.name, size)
        )
        self.projector = Projector(served, self.in_thread)
        self.page = ServedPage(served)
        self.renewed = asyncio.Condition()
        """Notified when a newer checkpoint is served."""

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What runs while the server does."""
        return [self.batcher.run(), self.projector.run(), *([self._follow()] if self.served.settings.follow_s else [])]

    async def generate(self, body: Generate | Decode) -> bytes:
        """Samples as a file. Raises ValueError for what cannot be made, Overloaded."""
        check_format(body.format, self.served.model.modality)
        samples = await self.batcher(rows_of(body, self.served))
        model, columns = self.served.model, columns_of(body, len(samples))
        how = model.modality, model.drawing, columns, body.scale
        return await asyncio.to_thread(write_samples, samples, body.format, *how)

    async def encode(self, data: bytes, label: Tensor | None) -> list[float]:
        """The latents of an uploaded sample, flat. Raises ValueError for one that cannot be read, and for a GAN."""
        sample = await asyncio.to_thread(self.served.read, data)
        latents = await self.in_thread(self.served.encode, sample, label)
        return [float(value) for value in latents.flatten()]

    async def project(self, data: bytes, label: Tensor | None, search: Search, each: bool) -> Place:
        """A place for the projection of an uploaded sample. Raises as `encode`, and Overloaded."""
        self.projector.check()
        sample = await asyncio.to_thread(self.served.read, data)
        mask = await asyncio.to_thread(self.served.mask_of, data)
        return await self.projector.open(Asked(sample, mask, label, search, each))

    async def rows(self, body: bytes, decoded: bool) -> bytes:
        """The stored values of the samples of a page, one after another. Raises ValueError, Overloaded."""
        samples = await self.batcher(rows_of_bytes(body, self.served, decoded))
        return b"".join(sample.tobytes() for sample in samples)

    async def encode_rows(self, body: bytes) -> bytes:
        """The latents of the samples of a page, float32. Raises ValueError."""
        samples, label = samples_of_bytes(body, self.served)
        latents = await self.in_thread(self.served.encode, samples, label)
        return latents.float().numpy().astype("<f4").tobytes()

    async def in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function that touches the networks, after the batch that is computed now."""
        return await asyncio.get_running_loop().run_in_executor(self.served.thread, function, *arguments)

    async def _follow(self) -> None:
        """Serve each newer checkpoint of the run."""
        while True:
            await asyncio.sleep(self.served.settings.follow_s)
            if await asyncio.to_thread(self.served.refresh):
                async with self.renewed:
                    self.renewed.notify_all()
