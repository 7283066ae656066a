"""A stand-in for W&B's server: it knows every run, and takes no data."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_RUN = {"id": "b", "config": "{}", "project": {"id": "p", "name": "p", "entity": {"id": "e", "name": "u"}}}


@contextmanager
def stalled_server() -> Iterator[str]:
    """The address of a server at which a run can be started, and where every upload waits until the block ends."""
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            released.wait()
            self._answer(b"")

        def do_POST(self) -> None:
            if self.path != "/graphql":
                return self.do_PUT()
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            run = {**_RUN, "name": asked["variables"].get("name")}
            data: dict[str, object] = {"upsertBucket": {"bucket": run, "inserted": True}}
            if "createRunFiles" in asked["query"]:
                address = f"http://127.0.0.1:{self.server.server_address[1]}/upload"
                files = [{"name": name, "uploadUrl": address} for name in asked["variables"]["files"]]
                data = {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
            self._answer(json.dumps({"data": data}).encode())

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *parts: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # whoever waited for an upload may have gone
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            released.set()
            server.shutdown()
            thread.join()
