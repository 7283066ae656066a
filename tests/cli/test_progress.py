"""What a job says of how far it is, without a terminal and with one."""

from __future__ import annotations

import os
import pty
import time
from contextlib import suppress

import pytest

from imagegen_dist.cli import progress as bar_module
from imagegen_dist.cli.progress import ProgressBar


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    seconds = [0.0]
    with ProgressBar("measuring", clock=lambda: seconds[0]) as bar:
        seconds[0] = 500
        bar.start(10_000, 4_000, "starting Ray")
        for second in range(501, 661):
            seconds[0] = second
            bar.advance(20)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 8
    assert lines[2::3] == [
        "measuring: 5,200 of 10,000, 20/s, 4:00 left",
        "measuring: 6,400 of 10,000, 20/s, 3:00 left",
    ]


def test_without_a_terminal_a_long_phase_is_said_though_nothing_is_counted(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bar_module, "_FIRST_LINE_S", 0.01, raising=False)
    monkeypatch.setattr(bar_module, "_LINE_EACH_S", 0.02)
    said = ""
    deadline = time.monotonic() + 20
    with ProgressBar("measuring") as bar:
        bar.phase("training a classifier")
        while said.count("training a classifier: 0:00") < 2 and time.monotonic() < deadline:
            said += capfd.readouterr().err
    assert said.count("training a classifier: 0:00") >= 2


def test_a_short_job_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("checking shards") as bar:
        bar.start(3, 0, "checking shards")
        bar.advance(3)
    assert capfd.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with ProgressBar("sampling") as bar:
            bar.start(8, 0, "starting Ray")
            bar.advance(6)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as screen, suppress(OSError):  # it ends in EIO: the writers have closed it
        while part := screen.read(1 << 16):  # a terminal hands over what has arrived, which need not be all
            shown += part
    assert b"sampling" in shown
    assert b"6/8" in shown
