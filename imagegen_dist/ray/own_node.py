"""The processes of a Ray that a command starts on its own machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import ray
from ray._private import node, utils


@contextmanager
def address_known(lean: bool) -> Iterator[None]:
    """Give the processes of the Ray that is started in the block its address in their environment.

    Without it, processes of Ray Train that query the cluster's state use any Ray that runs on the machine. If that one
    does not know this run's controller, they consider it dead and release the workers' resources. This process's own
    environment stays as it is, since another thread may read it.

    lean: leave out the dashboard and the autoscaler's monitor, and run the node's agent as an installation without the
    dashboard does. They take a tenth of the time of a start on two cores, and a single machine needs none of them. A
    version of Ray that does not have a function that is replaced here starts all of its processes.
    """
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    address = f"{ray.util.get_node_ip_address()}:{port}"
    start_gcs, start_raylet = node.Node.start_gcs_server, node.Node.start_raylet

    def start_gcs_server(self: Any, *arguments: Any, **named: Any) -> Any:
        self._ray_params.gcs_server_port = port
        return start_gcs(self, *arguments, **named)

    def start_raylet_(self: Any, *arguments: Any, **named: Any) -> Any:
        self._ray_params.env_vars = {**(self._ray_params.env_vars or {}), "RAY_ADDRESS": address}
        return start_raylet(self, *arguments, **named)

    replaced: list[tuple[Any, str, Any]] = [
        (node.Node, "start_gcs_server", start_gcs_server),
        (node.Node, "start_raylet", start_raylet_),
    ]
    if lean:
        replaced += [
            (node.Node, "start_monitor", _nothing),
            (node.Node, "start_api_server", _nothing),
            (utils, "get_dashboard_dependency_error", lambda: ImportError("a local Ray has no dashboard")),
        ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced if hasattr(owner, name)]
    for owner, name, replacement in replaced:
        if hasattr(owner, name):
            setattr(owner, name, replacement)
    try:
        yield
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)


def _nothing(*arguments: Any, **named: Any) -> None:
    """Start nothing."""


def kill_children() -> None:
    """Kill the processes that this one has started, and theirs."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
