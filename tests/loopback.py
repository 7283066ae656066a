"""HTTP servers on loopback, which stand in for services in tests."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Reads bodies, sends answers, logs nothing, and lets clients go."""

    protocol_version = "HTTP/1.1"

    def body(self) -> bytes:
        """What the request carries."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send bytes as they are, and anything else as JSON."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/octet-stream" if data is content else "application/json"
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()


@contextmanager
def serving(handler: type[Handler], **state: Any) -> Iterator[str]:
    """The address of a server whose handlers have `state` as attributes."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), state))
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def wait_for(url: str, server: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Until a server, which has to stay alive, answers a request."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
