"""The picture at a run's end, on terminals that answer as sixel, kitty and plain ones do."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("textual_image", reason="pictures in terminals: pip install -e '.[demo]'")

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from imagegen_dist.metrics.console import Screen
Screen("digits").summary([("Figures", [("images", "640")])], lambda: Path(sys.argv[1]).read_bytes())
print("typed", sys.stdin.readline().strip() if "--read" in sys.argv else "")
"""
DEVICE, KITTY = b"\x1b[c", b"\x1b_G"
SIXEL_DATA, KITTY_DATA = b"\x1bP", b"f=100"


def shown(answers: dict[bytes, bytes], picture: Path, *words: str, typed: bytes = b"", term: str = "xterm") -> bytes:
    """What a terminal with these answers receives from the end of a run."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 800, 800))  # rows, columns, pixels
    environment = {**os.environ, "TERM": term, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(picture), *words]
    if typed:
        os.write(ours, typed)
    running = subprocess.Popen(  # in the foreground of a session of its own, as from a shell
        [sys.executable, "-c", FOREGROUND, *command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    received, answered, deadline = b"", set[bytes](), time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 0.05)[0]:
            continue
        try:
            received += os.read(ours, 1 << 16)
        except OSError:  # the last program has closed the terminal
            break
        for question in answers.keys() - answered:
            if question in received:
                answered.add(question)
                os.write(ours, answers[question])
    assert running.wait(timeout=20) == 0, received
    os.close(ours)
    return received


FOREGROUND = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "grid.png"
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(path)
    return path


def test_a_terminal_with_sixels_shows_the_picture_above_the_table(picture: Path) -> None:
    received = shown({DEVICE: b"\x1b[?62;4;22c"}, picture)
    assert SIXEL_DATA in received
    assert received.index(SIXEL_DATA) < received.index(b"Figures")


def test_kitty_shows_it_by_its_own_protocol(picture: Path) -> None:
    received = shown({DEVICE: b"\x1b[?62;c", KITTY: b"\x1b_Gi=1;OK\x1b\\"}, picture)
    assert KITTY_DATA in received
    assert SIXEL_DATA not in received


def test_other_terminals_show_the_table_alone(picture: Path) -> None:
    received = shown({DEVICE: b"\x1b[?62;c"}, picture)
    assert DEVICE in received
    assert not any(data in received for data in (SIXEL_DATA, KITTY_DATA))
    assert "Figures" in received.decode()


def test_nothing_is_asked_of_a_dumb_terminal_or_where_something_was_typed(picture: Path) -> None:
    assert DEVICE not in shown({}, picture, term="dumb")
    received = shown({DEVICE: b"\x1b[?62;4;22c"}, picture, "--read", typed=b"next\n")
    assert DEVICE not in received
    assert b"typed next" in received


def test_a_picture_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    received = shown({DEVICE: b"\x1b[?62;4;22c"}, tmp_path / "none.png")
    assert b"Figures" in received
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert b"Figures" in shown({DEVICE: b"\x1b[?62;4;22c"}, tmp_path / "broken.png")
