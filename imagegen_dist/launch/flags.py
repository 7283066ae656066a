"""Flags of a job from a dataclass, by tyro, with a user's mistake as one line."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from imagegen_dist.launch.misuse import UsageError as UsageError
from imagegen_dist.launch.secrets import check_words

Options = TypeVar("Options")


def flag(metavar: str) -> Any:
    """A flag whose help says its default in words."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def check_name(flag_name: str, name: str) -> None:
    """Raise UsageError where a run or a sweep cannot be called so."""
    if not all(character.isalnum() or character in "-_." for character in name) or name.startswith("."):
        raise UsageError(f"--{flag_name} {name!r}: letters, digits, '-', '_' and '.' make a name, the first not '.'")


def parse_flags(options: type[Options], job: str, words: Sequence[str]) -> Options:
    """The dataclass that the words describe. Raises UsageError, also for secrets on the command line."""
    check_words(words, os.environ)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(complaint):
            return tyro.cli(options, args=list(words), prog=f"{job}.py")
    except SystemExit:
        said = re.sub(r"[╭╮╰╯│─]+|-{4,}", " ", complaint.getvalue())  # the box that tyro draws around it
        line = " ".join(said.split("For full helptext")[0].split())
        raise UsageError(f"{line} (see {job}.py --help)") from None


def flags_help(options: type[Any], job: str, summary: str) -> str:
    """What --help says of the flags."""
    shown = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown):
        tyro.cli(options, args=["--help"], prog=f"{job}.py", description=summary)
    return shown.getvalue().rstrip()
