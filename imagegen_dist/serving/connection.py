"""Requests as connections: how long each took, and an end to work that nobody waits for any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, MutableMapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from imagegen_dist.serving.stats import Stats

Result = TypeVar("Result")

_TIMED = ("generate", "decode", "encode", "project", "rows")


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of some work, which is cancelled if the client leaves: then raises ClientDisconnect.

    The request's body has been read.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    """Wait until the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Timed:
    """Counts and times the answers of an application, by the last part of their path."""

    def __init__(self, app: ASGIApp, stats: Stats) -> None:
        self.app = app
        self._stats = stats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer."""
        kind = scope.get("path", "").rpartition("/")[2]
        if scope["type"] != "http" or kind not in _TIMED:
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 499  # of a client that left, as nginx counts it

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            self._stats.answered(kind, status, time.perf_counter() - began)
