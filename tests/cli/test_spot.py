"""The watcher of a spot machine, against a metadata service on loopback that keeps the rules of IMDSv2."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from imagegen_dist.cli import spot
from imagegen_dist.cli.spot import InstanceMetadata, Notice, Watch, drain, main
from tests.cli.imds import FakeIMDS, serving

POLL_S = 0.02


@pytest.fixture
def imds() -> Iterator[FakeIMDS]:
    with serving() as service:
        yield service


class Node:
    """Is drained, or cannot be for the first `failures` times."""

    def __init__(self, failures: int = 0) -> None:
        self.notices: list[Notice] = []
        self.left_s: list[float] = []
        self.failures = failures

    def drain(self, notice: Notice) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionRefusedError("no Ray yet")
        self.notices.append(notice)
        self.left_s.append(notice.at - time.time())


def watched(imds: FakeIMDS, node: Node, told: threading.Event | None = None, **options: object) -> Watch:
    return Watch(InstanceMetadata(imds.endpoint), node.drain, told or threading.Event(), **options)


def later(seconds: float, action) -> None:
    threading.Timer(seconds, action).start()


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_a_notice_drains_the_node_with_its_deadline(imds: FakeIMDS, action: str) -> None:
    node = Node()
    later(0.1, lambda: imds.interrupt(120, action))
    assert watched(imds, node).run(POLL_S).reason == f"spot {action}"
    assert len(node.notices) == 1
    assert 118 <= node.left_s[0] <= 120  # EC2 says whole seconds
    assert imds.refused == 0
    assert len(imds.tokens) == 1


def test_without_a_notice_there_is_none(imds: FakeIMDS) -> None:
    metadata = InstanceMetadata(imds.endpoint)
    assert metadata.interruption() is None
    assert metadata.rebalance() is None


def test_a_token_that_has_run_out_is_renewed(imds: FakeIMDS) -> None:
    metadata = InstanceMetadata(imds.endpoint)
    metadata.interruption()
    imds.forget_tokens()
    imds.interrupt(60)
    assert metadata.interruption() is not None
    assert (imds.refused, len(imds.tokens)) == (1, 2)


def test_a_ray_that_is_not_up_yet_is_asked_again(imds: FakeIMDS, capsys: pytest.CaptureFixture[str]) -> None:
    node = Node(failures=3)
    imds.interrupt(60)
    watched(imds, node).run(POLL_S)
    assert len(node.notices) == 1
    assert capsys.readouterr().err.count("no Ray yet") == 1


def test_where_no_ray_comes_up_it_ends_with_the_machine(imds: FakeIMDS) -> None:
    node = Node(failures=10**9)
    imds.interrupt(1)
    watched(imds, node).run(POLL_S)
    assert not node.notices


def test_a_metadata_service_that_is_gone_for_a_while_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as service:
        node, told = Node(), threading.Event()
        watch = watched(service, node, told)
    later(0.2, told.set)
    assert watch.run(POLL_S).reason == "SIGTERM"
    assert capsys.readouterr().err.count("URLError") == 1


def test_sigterm_drains_with_the_grace_that_is_left(imds: FakeIMDS) -> None:
    node, told = Node(), threading.Event()
    later(0.1, told.set)
    began = time.monotonic()
    watched(imds, node, told, grace_s=25.0).run(poll_s=60)
    assert time.monotonic() - began < 10
    assert node.notices[0].reason == "SIGTERM"
    assert 24 <= node.left_s[0] <= 25


def test_a_recommendation_drains_once_and_the_watch_goes_on(imds: FakeIMDS) -> None:
    node = Node()
    watch = watched(imds, node)
    imds.recommend(seconds_ago=-1)
    later(0.2, lambda: imds.interrupt(90))
    watch.run(POLL_S)
    assert [notice.reason for notice in node.notices] == ["spot rebalance recommendation", "spot terminate"]
    assert node.left_s[0] == pytest.approx(spot.REBALANCE_S, abs=1)


@pytest.mark.parametrize(("seconds_ago", "heed"), [(3600, True), (-1, False)])
def test_an_old_recommendation_and_an_unwanted_one_drain_nothing(
    imds: FakeIMDS, seconds_ago: float, heed: bool
) -> None:
    node = Node()
    imds.recommend(seconds_ago)
    later(0.1, lambda: imds.interrupt(90))
    watched(imds, node, heed_rebalance=heed).run(POLL_S)
    assert [notice.reason for notice in node.notices] == ["spot terminate"]


def test_a_drain_that_ray_refuses_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="Ray did not drain the node: no message"):
        drain(Notice("spot terminate", time.time() + 60))


def test_the_command_ends_with_the_notice(imds: FakeIMDS, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, str, str]] = []
    monkeypatch.setattr(spot, "drain", lambda notice, *where: said.append((notice.reason, *where)))
    imds.interrupt(60)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        assert main(["--endpoint", imds.endpoint, "--poll", "0.02", "--node-id", "ab", "--address", "head:6379"]) == 0
        later(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        imds.documents.clear()
        assert main(["--endpoint", imds.endpoint, "--poll", "60", "--grace", "0.5"]) == 0
    finally:
        signal.signal(signal.SIGTERM, handlers[0])
        signal.signal(signal.SIGINT, handlers[1])
    assert said == [("spot terminate", "head:6379", "ab"), ("SIGTERM", "", "")]
