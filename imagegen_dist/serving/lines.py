"""An answer in lines of JSON, each sent as soon as it is known."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

MEDIA_TYPE = "application/x-ndjson"


class Lines(StreamingResponse):
    """Sends lines until there is none or the client has closed the connection. ended: is then called, once."""

    def __init__(self, lines: AsyncIterator[dict[str, Any]], ended: Callable[[], None]) -> None:
        super().__init__((json.dumps(line) + "\n" async for line in lines), media_type=MEDIA_TYPE)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()
