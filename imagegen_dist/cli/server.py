"""Run the server of `imagegen serve`: load the models, listen, say where, and stop on a signal."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from imagegen_dist.cli.serve_token import check_token
from imagegen_dist.errors import DONE, UsageError
from imagegen_dist.extras import install_hint
from imagegen_dist.wording import counted, reason

if TYPE_CHECKING:
    from imagegen_dist.cli.serve import Options

_LAST_REQUESTS_S = 10


def run(options: Options) -> int:
    """Serve until a signal; the exit code. Raises UsageError, and CheckpointError for a model that cannot be loaded."""
    try:
        import uvicorn

        from imagegen_dist.serving.access import TOKEN, Access, is_loopback, names_of
        from imagegen_dist.serving.app import create_app
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: {install_hint('serve')}") from None
    from imagegen_dist.inference.onnx_model import holds_programs
    from imagegen_dist.serving.served import Settings, named
    from imagegen_dist.storage import reached

    began = time.monotonic()
    token = check_token(options.token or os.environ.get(TOKEN, ""))
    token = token or ("" if is_loopback(options.host) else secrets.token_urlsafe())
    with _listening(options.host, options.port) as listening:
        if all(holds_programs(reached(url)) for url in options.checkpoints):
            device = _of_programs(options.device)
        else:
            from imagegen_dist.cli.device import pick_device  # it imports torch

            device = pick_device(options.device)
        settings = Settings(
            device, options.engine, options.batch, options.follow, options.projections, threads=_threads()
        )
        models = named(options.checkpoints, settings)
        for model in models:
            print(f"{model.name}: {model.model.shape} after {model.model.images:,} images, from {model.url}")
        address = _address(options.host, listening.getsockname()[1], token)
        print(f"{counted(len(models), 'model')} ready in {time.monotonic() - began:.1f} s: {address}")
        print("stop with Ctrl-C", flush=True)
        config = uvicorn.Config(
            Access(create_app(models), token, names_of(options.host)),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws_max_size=1 << 20,
            timeout_graceful_shutdown=_LAST_REQUESTS_S,
        )
        uvicorn.Server(config).run(sockets=[listening])
    return DONE


def _of_programs(asked: str) -> str:
    """The device of exported programs. Raises UsageError for another."""
    if asked not in ("", "cpu"):
        raise UsageError(f"--device {asked}: ONNX programs run on the CPU; leave it out, or serve a run")
    return "cpu"


def _threads() -> int:
    """Threads of exported programs: as PyTorch takes them, OMP_NUM_THREADS; else 0, all cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() else 0


def _address(host: str, port: int, token: str) -> str:
    """What to open in a browser."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}" + (f"/?token={token}" if token else "")


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket: before the models are loaded, so that a mistake costs nothing. Raises UsageError."""
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listening = stack.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen()
        except OSError as error:
            raise UsageError(f"cannot listen on {host} port {port}: {reason(error)}; give another --port") from None
        yield listening
