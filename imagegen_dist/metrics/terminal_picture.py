"""A picture on a terminal that can show one, as sixels or by kitty's protocol: iTerm2, kitty, WezTerm, foot, Konsole.

What a terminal can do is asked by textual-image (extra `demo`), with control sequences that the terminal answers on
standard input. Nothing is asked where no person sits before it.
"""

from __future__ import annotations

import importlib
import logging
import os
import select
import sys
from importlib.util import find_spec
from io import BytesIO

from rich.console import RenderableType

ROWS = 20
"""Height of a picture in lines of text; its width follows."""


def terminal_picture(data: bytes) -> RenderableType | None:
    """A picture file as what rich prints on standard output, the first frame of a film; None if it cannot be shown."""
    if not _may_ask() or find_spec("textual_image") is None:
        return None
    logging.getLogger("textual_image").setLevel(logging.ERROR)
    kinds = importlib.import_module("textual_image.renderable")  # the import asks the terminal
    if kinds.Image not in (kinds.SixelImage, kinds.TGPImage):
        return None
    from PIL import Image  # not before a run's end

    with Image.open(BytesIO(data)) as picture:
        shown: RenderableType = kinds.Image(picture.convert("RGB"), width="auto", height=ROWS)
    return shown


def _may_ask() -> bool:
    """True in the foreground of a terminal whose user has typed nothing that an answer could be mixed up with."""
    streams = sys.__stdin__, sys.__stdout__
    if os.name != "posix" or not all(stream is not None and stream.isatty() for stream in streams):
        return False
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown", "linux"):
        return False
    assert sys.__stdin__ is not None
    place = sys.__stdin__.fileno()
    if not os.get_terminal_size(place).columns:
        return False
    return os.getpgrp() == os.tcgetpgrp(place) and not select.select([place], [], [], 0)[0]
