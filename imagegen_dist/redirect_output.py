"""Keep what others print out of the user's sight: the process's output goes to a file, the console keeps the screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO


@contextmanager
def output_to(path: Path) -> Iterator[TextIO]:
    """Within the block, everything that this process and its libraries print goes to the file at `path`.

    Yields a stream on what was standard output, for the console. Works on file descriptors, so that what C++ code and
    child processes print is caught as well, and on Python's streams where these are others, as in a notebook.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    screen = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    kept = os.dup(1), os.dup(2)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        with (
            open(log, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False) as text,
            ExitStack() as stack,
        ):
            if sys.stdout is not sys.__stdout__:
                stack.enter_context(redirect_stdout(text))
            if sys.stderr is not sys.__stderr__:
                stack.enter_context(redirect_stderr(text))
            yield screen
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        screen.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for descriptor in (*kept, log):
            os.close(descriptor)
        screen.close()
