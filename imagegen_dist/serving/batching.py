"""Requests that wait while a batch is computed are the next batch: no timer, and no added wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from imagegen_dist.wording import counted

Row = TypeVar("Row")
Result = TypeVar("Result")

_MOST_WAITING = 4096


class Overloaded(Exception):
    """More rows wait than may."""


class Batcher(Generic[Row, Result]):
    """Computes rows in batches of at most `most`, in the order in which they came, one batch at a time.

    compute: the results of a batch, a result a row; called in `executor`. batched: told of each batch's size. A row
    whose future was cancelled before its batch began is not computed.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Row]], Sequence[Result]],
        executor: Executor,
        most: int,
        batched: Callable[[int], None] = lambda size: None,
        most_waiting: int = _MOST_WAITING,
    ) -> None:
        self._compute = compute
        self._executor = executor
        self._most = most
        self._batched = batched
        self._most_waiting = most_waiting
        self._waiting: deque[tuple[Row, asyncio.Future[Result]]] = deque()
        self._awake = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Rows that wait for a batch."""
        return len(self._waiting)

    async def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """The results of some rows. Raises Overloaded if too many wait already, and what `compute` raises."""
        if len(self._waiting) + len(rows) > self._most_waiting:
            raise Overloaded(f"{counted(len(self._waiting), 'sample')} in the queue already")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in rows]
        self._waiting.extend(zip(rows, futures, strict=True))
        self._awake.set()
        return list(await asyncio.gather(*futures))

    async def run(self) -> None:
        """Compute batches until cancelled."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            while batch := self._next():
                await self._answer(batch)

    def _next(self) -> list[tuple[Row, asyncio.Future[Result]]]:
        """The rows of the next batch that are still wanted."""
        batch: list[tuple[Row, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._most:
            row, future = self._waiting.popleft()
            if not future.done():
                batch.append((row, future))
        return batch

    async def _answer(self, batch: Sequence[tuple[Row, asyncio.Future[Result]]]) -> None:
        self._batched(len(batch))
        rows = [row for row, _ in batch]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._executor, self._compute, rows)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
