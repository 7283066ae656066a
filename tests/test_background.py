"""Work in the background: the newest is done, failures are told where they are asked for."""

from __future__ import annotations

import threading

import pytest

from imagegen_dist.background import Background

_LONGEST_S = 30


def test_what_waits_gives_way_to_what_comes_after_it_and_draining_leaves_nothing() -> None:
    begun, may_end, done = threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        begun.set()
        assert may_end.wait(_LONGEST_S)
        done.append("first")

    background = Background(pytest.fail)
    background.submit(first)
    assert begun.wait(_LONGEST_S)
    background.submit(lambda: done.append("second"))
    background.submit(lambda: done.append("third"))
    assert done == []
    may_end.set()
    background.drain()
    assert done == ["first", "third"]
    background.submit(lambda: done.append("fourth"))
    background.drain()
    assert done[2:] == ["fourth"]


def test_a_failure_is_told_once_on_the_thread_that_asks() -> None:
    told: list[tuple[str, int]] = []
    background = Background(lambda error: told.append((str(error), threading.get_ident())))

    def fail() -> None:
        raise OSError("the disk is full")

    background.submit(fail)
    background.drain()
    background.drain()
    assert told == [("the disk is full", threading.get_ident())]


def test_nothing_to_drain_takes_no_time() -> None:
    Background(pytest.fail).drain()
