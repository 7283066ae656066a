"""Who may ask, and how much at once: a token, the names of the host, the length of a body, and no outside content.

A page of another site must not reach a server on the visitor's own machine. Browsers send its name as Origin and the
server's name as Host, and both are checked: the second against names that an attacker lets point to 127.0.0.1.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN = "IMAGEGEN_TOKEN"
"""The environment variable of the token."""

COOKIE = "imagegen_token"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_OPEN = ("/healthz",)
"""Paths that need no token: they tell nothing, and probes have none."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
        "img-src 'self' data: blob:; media-src 'self' blob:; style-src 'self' 'unsafe-inline'; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """True if only this machine reaches a server at that address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def names_of(host: str) -> tuple[str, ...]:
    """Host names by which a server at that address may be asked; () for any, where a token is needed anyway."""
    return _LOOPBACK if is_loopback(host) else ()


@dataclass(frozen=True)
class Access:
    """Wraps an application. token: "" for none. names: of the host, () for any. most_bytes: of a request's body."""

    app: Application
    token: str = ""
    names: tuple[str, ...] = _LOOPBACK
    most_bytes: int = 32_000_000

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400, 401, 403 or 413 itself, or let the application answer."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.names and _name_of(host) not in self.names:
            await _refuse(scope, receive, send, 403, f"this server is not {_name_of(host)!r}")
        elif (origin := headers.get("origin")) and urlsplit(origin).netloc != host:
            await _refuse(scope, receive, send, 403, "pages of other sites may not ask")
        elif not self._is_known(scope, headers):
            await _refuse(scope, receive, send, 401, "a token is needed: Authorization: Bearer TOKEN, or ?token=TOKEN")
        elif scope["type"] == "http" and self._brings_token(scope):
            await _keep_token(scope, send, self.token)
        elif not headers.get("content-length", "0").isdigit():
            await _refuse(scope, receive, send, 400, "the length of the body is no number")
        elif int(headers.get("content-length", "0")) > self.most_bytes:
            await _refuse(scope, receive, send, 413, f"a body has at most {self.most_bytes:,} bytes")
        else:
            await self.app(scope, _bounded(receive, self.most_bytes), _with_headers(send))

    def _is_known(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        if not self.token or scope["path"] in _OPEN:
            return True
        given = [headers.get("authorization", "").removeprefix("Bearer ")]
        given += parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        cookies: SimpleCookie = SimpleCookie(headers.get("cookie", ""))
        given += [cookies[COOKIE].value] if COOKIE in cookies else []
        return any(hmac.compare_digest(each.encode(), self.token.encode()) for each in given)

    def _brings_token(self, scope: Scope) -> bool:
        """True for a page that was opened with the token in its address: from there, a cookie has it."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        return bool(self.token) and scope["method"] == "GET" and scope["path"] == "/" and "token" in query


class BodyTooLarge(Exception):
    """A body that is longer than its header said, or than any may be."""


def _name_of(host: str) -> str:
    """The name in a Host header, without the port."""
    return host if host.endswith("]") else host.rpartition(":")[0] or host


def _bounded(receive: Receive, most: int) -> Receive:
    """Receive bodies that came without a length, too, only as far as allowed."""
    seen = 0

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > most:
                raise BodyTooLarge(f"a body has at most {most:,} bytes")
        return message

    return bounded


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            more = [(name.encode(), value.encode()) for name, value in _HEADERS.items() if name.encode() not in present]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sending


async def _keep_token(scope: Scope, send: Send, token: str) -> None:
    """Move the token from the address, which histories and logs keep, into a cookie that scripts cannot read."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    query.pop("token")
    rest = urlencode(query, doseq=True)
    cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
    headers = [(b"location", (f"/?{rest}" if rest else "/").encode()), (b"set-cookie", cookie.encode())]
    await _with_headers(send)({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()  # the request to connect
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{why}\n".encode()})
