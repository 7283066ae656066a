"""A stream of samples while a slider is dragged: of the latents that came meanwhile, the newest alone is computed.

A message from the client is a sample to compute (`requests.stream_row`); the answer has its number and the sample's
bytes, uint8 [C, *S]. Text messages from the server are JSON: {"images": N} when a newer checkpoint is served.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress

from fastapi import WebSocket, WebSocketDisconnect

from imagegen_dist.serving.batching import Overloaded
from imagegen_dist.serving.endpoint import Endpoint
from imagegen_dist.serving.requests import stream_row
from imagegen_dist.serving.stats import Stats

_UNUSABLE, _BUSY = 1008, 1013  # RFC 6455 7.4, and the registry of close codes


class _Newest:
    """The client's newest message."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._message: bytes | None = None
        self._came = asyncio.Event()
        self.closed = False

    async def receive(self) -> None:
        """Receive messages until the client is gone; one that is no bytes is an empty message."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                self.closed = True
                self._came.set()
                return
            self._message = message.get("bytes") or b""
            self._came.set()

    async def take(self) -> bytes | None:
        """The newest message, once there is one that was not taken; None if the client is gone."""
        await self._came.wait()
        self._came.clear()
        return None if self.closed else self._message


async def stream(socket: WebSocket, endpoint: Endpoint, stats: Stats) -> None:
    """Answer a client's messages until it is gone or sends what cannot be read."""
    await socket.accept()
    newest = _Newest(socket)
    helpers = [asyncio.create_task(newest.receive()), asyncio.create_task(_tell_renewals(socket, endpoint))]
    try:
        while (message := await newest.take()) is not None:
            began = time.perf_counter()
            try:
                number, row = stream_row(message, endpoint.served)
                sample = (await endpoint.batcher([row]))[0]
            except ValueError as error:
                await socket.close(_UNUSABLE, str(error)[:120])
                return
            except Overloaded as error:
                await socket.close(_BUSY, str(error))
                return
            await socket.send_bytes(number + sample.tobytes())
            stats.answered("stream", 200, time.perf_counter() - began)
    except (WebSocketDisconnect, RuntimeError):  # the client left while an answer was sent
        return
    finally:
        for task in helpers:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)


async def _tell_renewals(socket: WebSocket, endpoint: Endpoint) -> None:
    """Tell the client of each newer checkpoint that is served."""
    with suppress(WebSocketDisconnect, RuntimeError):
        while True:
            async with endpoint.renewed:
                await endpoint.renewed.wait()
            await socket.send_text(json.dumps({"images": endpoint.served.model.images}))
