"""An S3 server whose keys are any text, as S3's are: rclone keeps files in folders, which cannot hold all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests import loopback
from tests.s3.server import aws_environment

_KEY = "<Contents><Key>{}</Key><Size>0</Size></Contents>"
_PREFIX = "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>"
_PAGE = 3  # keys or prefixes in an answer, so that a listing takes several


class _Handler(loopback.Handler):
    objects: dict[str, bytes]
    seen: list[dict[str, str]]

    def do_PUT(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        key = unquote(urlsplit(self.path).path).removeprefix("/flat/")
        self.objects[key] = self.body()
        self.answer(200, b"")

    def do_GET(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).removeprefix("/").partition("/")
        if key:
            return self.answer(200, self.objects[key]) if key in self.objects else self._missing("NoSuchKey")
        if bucket != "flat":
            return self._missing("NoSuchBucket")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        return self.answer(200, self._list(query))

    do_HEAD = do_GET

    def _list(self, query: dict[str, str]) -> bytes:
        """ListObjectsV2."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found = set[tuple[str, str]]()
        for key in self.objects:
            if key.startswith(prefix):
                head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                found.add((prefix + head + cut, _PREFIX) if cut else (key, _KEY))
        start = int(query.get("continuation-token", 0))
        page = sorted(found)[start : start + _PAGE]
        more = start + _PAGE < len(found)
        text = "".join(tag.format(escape(name)) for name, tag in page)
        text += f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        text += f"<NextContinuationToken>{start + _PAGE}</NextContinuationToken>" if more else ""
        return f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{text}</ListBucketResult>'.encode()

    def _missing(self, code: str) -> None:
        self.answer(404, f"<Error><Code>{code}</Code><Message>missing</Message></Error>".encode())


@contextmanager
def serving(objects: dict[str, bytes], seen: list[dict[str, str]] | None = None) -> Iterator[str]:
    """The URL of a bucket with these objects by their keys, which the environment's credentials reach in the block.

    seen: takes the headers of each request.
    """
    requests = [] if seen is None else seen
    with loopback.serving(_Handler, objects=objects, seen=requests) as endpoint, aws_environment(endpoint):
        yield "s3://flat"
