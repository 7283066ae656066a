"""A stand-in for W&B's server: it knows every run, and takes no data."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.loopback import Handler, serving

_RUN = {"id": "b", "config": "{}", "project": {"id": "p", "name": "p", "entity": {"id": "e", "name": "u"}}}


class _Handler(Handler):
    released: threading.Event

    def do_HEAD(self) -> None:
        self.answer(200, b"")

    def do_PUT(self) -> None:
        self.body()
        self.released.wait()
        self.answer(200, b"")

    def do_POST(self) -> None:
        if self.path != "/graphql":
            return self.do_PUT()
        asked = json.loads(self.body())
        run = {**_RUN, "name": asked["variables"].get("name")}
        data: dict[str, object] = {"upsertBucket": {"bucket": run, "inserted": True}}
        if "createRunFiles" in asked["query"]:
            address = f"http://{self.headers['Host']}/upload"
            files = [{"name": name, "uploadUrl": address} for name in asked["variables"]["files"]]
            data = {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        self.answer(200, {"data": data})


@contextmanager
def stalled_server() -> Iterator[str]:
    """The address of a server at which a run can be started, and where every upload waits until the block ends."""
    released = threading.Event()
    with serving(_Handler, released=released) as address:
        try:
            yield address
        finally:
            released.set()
