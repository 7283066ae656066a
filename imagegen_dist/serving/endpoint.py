"""What one served model answers, without HTTP: batches, uploads, streams, and a run that is still being trained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from imagegen_dist.inference.onnx_model import OnnxModel
from imagegen_dist.inference.told import Labels
from imagegen_dist.serving.batching import Batcher
from imagegen_dist.serving.formats import check_format, write_samples
from imagegen_dist.serving.page import ServedPage
from imagegen_dist.serving.requests import Decode, Generate, columns_of, rows_of, rows_of_bytes, samples_of_bytes
from imagegen_dist.serving.served import NotOffered, Pixels, Row, Served
from imagegen_dist.serving.stats import Stats

if TYPE_CHECKING:
    from imagegen_dist.serving.projecting import Projector

Result = TypeVar("Result")


class Endpoint:
    """A model, its batches, and the streams that are open."""

    def __init__(self, served: Served, stats: Stats) -> None:
        self.served = served
        self.batcher: Batcher[Row, Pixels] = Batcher(
            served.compute, served.thread, served.settings.most, lambda size: stats.batched(served.name, size)
        )
        self._projector = None if isinstance(served.model, OnnxModel) else self._of_gradients()
        self.page = ServedPage(served)
        self.renewed = asyncio.Condition()
        """Notified when a newer checkpoint is served."""

    def _of_gradients(self) -> Projector:
        from imagegen_dist.serving.projecting import Projector  # it imports torch

        return Projector(self.served, self.in_thread)

    @property
    def projector(self) -> Projector:
        """The projections of a model in PyTorch. Raises NotOffered for exported programs, which have no gradients."""
        if self._projector is None:
            raise NotOffered("this server searches no pictures: an ONNX export has no gradients; serve the run itself")
        return self._projector

    @property
    def projecting(self) -> int:
        """Projections that are under way."""
        return 0 if self._projector is None else self._projector.taken

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What runs while the server does."""
        projector = [] if self._projector is None else [self._projector.run()]
        return [self.batcher.run(), *projector, *([self._follow()] if self.served.settings.follow_s else [])]

    async def generate(self, body: Generate | Decode) -> bytes:
        """Samples as a file. Raises ValueError for what cannot be made, Overloaded."""
        check_format(body.format, self.served.model.modality)
        samples = await self.batcher(rows_of(body, self.served))
        model, columns = self.served.model, columns_of(body, len(samples))
        how = model.modality, model.drawing, columns, body.scale
        return await asyncio.to_thread(write_samples, samples, body.format, *how)

    async def encode(self, data: bytes, label: Labels | None) -> list[float]:
        """The latents of an uploaded sample, flat. Raises ValueError for one that cannot be read, and for a GAN."""
        sample = await asyncio.to_thread(self.served.read, data)
        latents = await self.in_thread(self.served.model.encode, sample, label)
        return [float(value) for value in latents.flatten()]

    async def project(
        self, data: bytes, label: Labels | None, steps: int, seed: int | None, each: bool
    ) -> tuple[AsyncIterator[dict[str, Any]], Callable[[], None]]:
        """(what the projection of an uploaded sample tells, what ends it).

        Arguments as of the route. Raises as `encode`, Overloaded and NotOffered.
        """
        projector = self.projector
        projector.check()
        sample = await asyncio.to_thread(self.served.read, data)
        mask = await asyncio.to_thread(self.served.mask_of, data)
        place = await projector.open(sample, mask, label, steps, seed, each)
        return projector.lines(place), lambda: projector.close(place)

    async def rows(self, body: bytes, decoded: bool) -> bytes:
        """The stored values of the samples of a page, one after another. Raises ValueError, Overloaded."""
        samples = await self.batcher(rows_of_bytes(body, self.served, decoded))
        return b"".join(sample.tobytes() for sample in samples)

    async def encode_rows(self, body: bytes) -> bytes:
        """The latents of the samples of a page, float32. Raises ValueError."""
        samples, label = samples_of_bytes(body, self.served)
        latents = await self.in_thread(self.served.model.encode, samples, label)
        return latents.astype("<f4").tobytes()

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
