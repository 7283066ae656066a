"""What the page needs to be driven: Chromium, node and two npm packages. Without them its tests are skipped."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_PACKAGES = HERE / "node_modules"
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path."""
    found = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(_CHROMIUM)} is installed (apt-get install chromium)")
    return found


@pytest.fixture(scope="session")
def packages() -> Path:
    """node_modules with playwright-core and onnxruntime-web, installed on first use."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed (apt-get install nodejs npm)")
    if not all((_PACKAGES / name).is_dir() for name in ("playwright-core", "onnxruntime-web")):
        words = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        done = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=240)
        if done.returncode:
            pytest.skip(f"npm cannot install playwright-core and onnxruntime-web: {done.stderr.strip()[-200:]}")
    return _PACKAGES


class _Handler(http.server.SimpleHTTPRequestHandler):
    headers_sent: Mapping[str, str] = {}

    def end_headers(self) -> None:
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _serve(folder: Path, headers: Mapping[str, str]) -> Iterator[str]:
    handler = type("Handler", (_Handler,), {"headers_sent": headers})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def file_server() -> Callable[[Path, Mapping[str, str]], AbstractContextManager[str]]:
    """A function of a folder and of headers that all answers have, which serves its files at an address."""
    return _serve


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """(a folder, the address at which its files are)."""
    folder = tmp_path_factory.mktemp("served")
    with _serve(folder, {}) as address:
        yield folder, address
