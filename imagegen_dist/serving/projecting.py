"""Projections that a server computes: those under way are one batch, and each step is told as it is done.

A step is one call in the model's thread, so that other requests are answered between two steps. A client that closes
its connection gives up its place before the next step.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from imagegen_dist.inference.array_model import Floats
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.projection import projection_of
from imagegen_dist.inference.sought import Search, Sought, advance, begin, label_of
from imagegen_dist.inference.told import Labels
from imagegen_dist.inference.torch_model import TorchModel
from imagegen_dist.serving.batching import Overloaded
from imagegen_dist.serving.formats import write_samples
from imagegen_dist.serving.served import NotOffered, Pixels, Served
from imagegen_dist.wording import counted, first_line

Line = dict[str, Any]
InThread = Callable[..., Coroutine[Any, Any, Any]]


class Place:
    """One of the places of a `Projector`, for one projection. each: tell the latents of each step, too."""

    def __init__(self, search: Search, each: bool, beginning: Generator[int, None, Sought]) -> None:
        self.search = search
        self.each = each
        self.beginning = beginning
        self.compared = 0
        """Samples among which the first guess is, as far as they were compared."""
        self.sought: Sought | None = None
        self.left = search.steps
        self.told: asyncio.Queue[float | Exception] = asyncio.Queue()
        """The PSNR of each step, in dB, or what went wrong."""

    def begin(self) -> None:
        """Compare some more samples, and start from the nearest once all are compared. Raises ValueError."""
        try:
            self.compared = next(self.beginning)
        except StopIteration as end:
            self.sought = end.value


class Projector:
    """The projections of one model. in_thread: calls a function in the model's thread."""

    def __init__(self, served: Served, in_thread: InThread) -> None:
        self._served = served
        self._in_thread = in_thread
        self._places: set[Place] = set()
        self._awake = asyncio.Event()

    @property
    def _live(self) -> GeneratorModel | AutoencoderModel:
        """The model in PyTorch, whose gradients are needed."""
        assert isinstance(self._served.model, TorchModel)
        return self._served.model.live

    @property
    def taken(self) -> int:
        """Projections that are under way."""
        return len(self._places)

    def check(self) -> None:
        """Raise Overloaded if all places are taken, and NotOffered if there are none."""
        if not self._served.settings.projections:
            raise NotOffered("this server searches no pictures: it was started with --projections 0")
        if self.taken >= (most := self._served.settings.projections):
            raise Overloaded(f"{counted(most, 'projection')} at once, and all places are taken")

    async def open(
        self,
        sample: Pixels,
        mask: Floats | None,
        label: Labels | None,
        steps: int,
        seed: int | None = None,
        each: bool = False,
    ) -> Place:
        """Take a place, which has to be given back by `close`. Raises as `check`, and ValueError.

        sample: as stored, [1, C, *S]. mask: weights [*S] or None. label: held if given. seed: of the samples among
        which the start is. each: tell the latents of each step, too.
        """
        self.check()
        search = Search(steps) if seed is None else Search(steps, seed=seed)
        beginning = begin(self._live, torch.from_numpy(sample), search, _tensor(mask), _tensor(label))
        place = Place(search, each, beginning)
        self._places.add(place)
        try:
            await self._in_thread(place.begin)
        except BaseException:
            self.close(place)
            raise
        return place

    def close(self, place: Place) -> None:
        """Give a place back: the projection is computed no further."""
        self._places.discard(place)

    async def lines(self, place: Place) -> AsyncIterator[Line]:
        """What a projection tells: samples that were compared, steps, and what was found; or an error."""
        search = place.search
        try:
            while place.sought is None:
                yield {"guesses": place.compared, "of": search.guesses}
                await self._in_thread(place.begin)
            self._awake.set()
            for step in range(1, search.steps + 1):
                psnr = await place.told.get()
                if isinstance(psnr, Exception):
                    raise psnr
                latents = self._latents(place.sought) if place.each else {}
                yield {"step": step, "of": search.steps, "psnr": round(psnr, 3), **latents}
            yield await self._in_thread(self._found, place.sought)
        except (ValueError, RuntimeError) as error:
            yield {"error": first_line(error)}

    async def run(self) -> None:
        """Compute steps until cancelled."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            while searching := [place for place in self._places if place.sought is not None and place.left]:
                await self._step_all(searching)

    async def _step_all(self, searching: Sequence[Place]) -> None:
        """One step of some projections together."""
        try:
            results = await self._in_thread(self._step, [place.sought for place in searching])
        except Exception as error:
            for place in searching:
                place.left = 0
                place.told.put_nowait(error)
            return
        for place, (sought, psnr) in zip(searching, results, strict=True):
            place.sought = sought
            place.left -= 1
            place.told.put_nowait(psnr)

    def _step(self, several: Sequence[Sought]) -> list[tuple[Sought, float]]:
        together, psnr = advance(self._live, Sought.joined(several))
        return list(zip(together.rows(), psnr.tolist(), strict=True))

    def _latents(self, sought: Sought) -> Line:
        label = label_of(self._live, sought, sought.free)
        return {"latents": _rounded(sought.z), "label": None if label is None else _rounded(label)}

    def _found(self, sought: Sought) -> Line:
        """The last line: latents, weights of classes or conditions, and the picture."""
        found, kind = projection_of(self._live, sought), self._served.model.modality
        picture = write_samples(list(found.samples.numpy()), "png", kind, self._served.model.drawing, 1, 1)
        psnr, label = round(float(found.psnr[0]), 3), None if found.label is None else _rounded(found.label)
        shown = base64.b64encode(picture).decode()
        return {"psnr": psnr, "latents": _rounded(found.z), "label": label, "picture": shown}


def _tensor(values: Labels | None) -> Tensor | None:
    return None if values is None else torch.from_numpy(values)


def _rounded(values: Tensor) -> list[float]:
    """The numbers of a tensor as float32 has them, flat."""
    return [float(f"{value:.8g}") for value in values.flatten().tolist()]
