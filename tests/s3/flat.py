"""An S3 server whose keys are any text, as S3's are: rclone keeps files in folders, which cannot hold all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.s3.server import aws_environment

_KEY = "<Contents><Key>{}</Key><Size>0</Size></Contents>"
_PREFIX = "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>"
_PAGE = 3  # keys or prefixes in an answer, so that a listing takes several


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    seen: list[dict[str, str]]

    def do_PUT(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        key = unquote(urlsplit(self.path).path).removeprefix("/flat/")
        self.objects[key] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"")

    def do_GET(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).removeprefix("/").partition("/")
        if key:
            return self._answer(200, self.objects[key]) if key in self.objects else self._missing("NoSuchKey")
        if bucket != "flat":
            return self._missing("NoSuchBucket")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        return self._answer(200, self._list(query))

    do_HEAD = do_GET

    def _list(self, query: dict[str, str]) -> bytes:
        """ListObjectsV2."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found = set[tuple[str, str]]()
        for key in self.objects:
            if key.startswith(prefix):
                head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                tag = (
                    "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>"
                    if cut
                    else "<Contents><Key>{}</Key><Size>0</Size></Contents>"
                )
                found.add((prefix + head + cut if cut else key, tag))
        start = int(query.get("continuation-token", 0))
        page = sorted(found)[start : start + _PAGE]
        more = start + _PAGE < len(found)
        text = "".join(tag.format(escape(name)) for name, tag in page)
        text += f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        text += f"<NextContinuationToken>{start + _PAGE}</NextContinuationToken>" if more else ""
        return f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{text}</ListBucketResult>'.encode()

    def _missing(self, code: str) -> None:
        self._answer(404, f"<Error><Code>{code}</Code><Message>missing</Message></Error>".encode())

    def _answer(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(objects: dict[str, bytes], seen: list[dict[str, str]] | None = None) -> Iterator[str]:
    """The URL of a bucket with these objects by their keys, which the environment's credentials reach in the block.

    seen: takes the headers of each request.
    """
    handler = type("Handler", (_Handler,), {"objects": objects, "seen": [] if seen is None else seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        with aws_environment(f"http://127.0.0.1:{server.server_port}"):
            yield "s3://flat"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
