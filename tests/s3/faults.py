"""A network that fails: a proxy before an HTTP server that spoils a share of its answers, the same ones each time.

Requests pass unchanged, so that signatures over them hold.
"""

from __future__ import annotations

import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import BinaryIO

FAULTS = ("slow_down", "reset", "stall", "truncate", "flip", "slow")
"""503 SlowDown; connection reset; half a body, then silence; half a body, then the end; a flipped bit; few bytes/s."""

_ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{}</Code><Message>{}</Message></Error>"
_REFUSALS = {
    "slow_down": (b"503 Slow Down", _ERROR.format("SlowDown", "Slow down").encode()),
    "denied": (b"403 Forbidden", _ERROR.format("AccessDenied", "Access Denied").encode()),
    "skewed": (b"403 Forbidden", _ERROR.format("RequestTimeTooSkewed", "The times differ too much.").encode()),
    "expired": (b"400 Bad Request", _ERROR.format("ExpiredToken", "The provided token has expired.").encode()),
}
_SLOW_PIECES = 20
_HEAD_END = (b"\r\n", b"\n", b"")


class FaultyProxy:
    """Passes HTTP on to a port of this machine; `inject` says what goes wrong, `done` counts what did, by kind.

    `requests` counts all requests, by their first line.

    Beside FAULTS there are "denied", 403, which is for good, "skewed", 403 for a clock that differs, and "expired", 400
    for credentials that ran out. `go_away` refuses every connection until `come_back`, on
    the same port.
    """

    def __init__(self, upstream_port: int) -> None:
        self.done: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self._upstream_port = upstream_port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = _listen(0)
        self.port = int(self._listener.getsockname()[1])
        self.heal()
        self._accept()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inject(
        self, *kinds: str, share: float, seed: int = 0, match: str = "^GET ", bytes_per_s: int = 100_000
    ) -> None:
        """From now on, of every 1/share requests whose first line matches, one gets a fault, the kinds in turn."""
        with self._lock:
            self._kinds, self._period, self._seed = kinds, round(1 / share), seed
            self._match, self._bytes_per_s, self._matched = re.compile(match), bytes_per_s, 0

    def heal(self) -> None:
        """Pass everything on as it is."""
        self.inject(share=1.0)

    def go_away(self) -> None:
        """Cut all connections and refuse new ones."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread that accepts
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @property
    def gone(self) -> bool:
        """Whether nobody listens now."""
        return self._listener.fileno() < 0

    def come_back(self) -> None:
        """Listen on the same port again."""
        self._listener = _listen(self.port)
        self._accept()

    def _accept(self) -> None:
        threading.Thread(target=self._take_connections, args=(self._listener,), daemon=True).start()

    def _take_connections(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Answer the requests of one connection, until a side ends it."""
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._upstream_port)) as server:
            with self._lock:
                self._open |= {client, server}
            try:
                self._relay(client, server)
            finally:
                with self._lock:
                    self._open -= {client, server}

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        requests, answers = client.makefile("rb"), server.makefile("rb")
        with requests, answers:
            while request := _read_head(requests):
                server.sendall(request)
                head = b""
                if b"100-continue" in request.lower():
                    head = _read_head(answers)
                    if head.startswith(b"HTTP/1.1 100"):
                        client.sendall(head)
                        head = b""
                if not head:
                    server.sendall(_read_body(requests, request, by_length=True))
                    head = _read_head(answers)
                body = b"" if request.startswith(b"HEAD") else _read_body(answers, head)
                asks_for_head = request.startswith(b"HEAD")
                if not head or not self._answer(client, self._draw(request, body), head, body, asks_for_head):
                    return

    def _draw(self, request: bytes, body: bytes) -> str:
        """The fault of this request; "" for none."""
        line = request.partition(b"\r\n")[0].decode()
        with self._lock:
            self.requests[line] += 1
            if not self._kinds or not self._match.search(line):
                return ""
            turn, place = divmod(self._matched, self._period)
            self._matched += 1
            kind = self._kinds[turn % len(self._kinds)]
            if place != random.Random(f"{self._seed}/{turn}").randrange(self._period):
                return ""
            if not body and kind not in (*_REFUSALS, "reset"):
                return ""
            self.done[kind] += 1
            return kind

    def _answer(self, client: socket.socket, kind: str, head: bytes, body: bytes, asks_for_head: bool) -> bool:
        """Send the answer, spoiled by the fault; whether the connection can go on."""
        half = len(body) // 2
        if kind in _REFUSALS:
            told = b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%s"
            status, text = _REFUSALS[kind]
            client.sendall(told % (status, len(text), b"" if asks_for_head else text))
        elif kind == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif kind == "stall":
            client.sendall(head + body[:half])
            client.recv(1)  # until the client gives up
        elif kind == "truncate":
            client.sendall(head + body[:half])
        elif kind == "flip":
            client.sendall(head + body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :])
        elif kind == "slow":
            client.sendall(head)
            self._drip(client, body)
        else:
            client.sendall(head + body)
        return kind in ("", *_REFUSALS, "flip", "slow") and b"\r\nconnection: close" not in head.lower()

    def _drip(self, client: socket.socket, body: bytes) -> None:
        piece = max(1, self._bytes_per_s // _SLOW_PIECES)
        for start in range(0, len(body), piece):
            client.sendall(body[start : start + piece])
            time.sleep(piece / self._bytes_per_s)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    return listener


def _read_head(file: BinaryIO) -> bytes:
    """First line and headers of a message; b"" where the other side has ended."""
    lines = []
    while (line := file.readline()) not in _HEAD_END:
        lines.append(line)
    return b"".join([*lines, b"\r\n"]) if lines else b""


def _read_body(file: BinaryIO, head: bytes, by_length: bool = False) -> bytes:
    """A message's body, as it is sent. by_length: without a length there is none, as in requests."""
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if length:
        return file.read(int(length[1]))
    if re.search(rb"\r\ntransfer-encoding: *chunked", head, re.IGNORECASE):
        return _read_chunks(file)
    bodyless = by_length or re.match(rb"HTTP/1\.[01] (1..|204|304)", head)
    return b"" if bodyless else file.read()


def _read_chunks(file: BinaryIO) -> bytes:
    """A chunked body with its framing. (RFC 9112, 7.1)"""
    pieces = []
    while True:
        size = file.readline()
        pieces += [size, file.read(int(size.split(b";")[0], 16)), file.readline()]
        if int(size.split(b";")[0], 16) == 0:
            return b"".join(pieces)
