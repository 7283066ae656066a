"""What all commands share: exit codes and errors of one line, and flags that tyro reads from a dataclass."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import math
import os
import re
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from imagegen_dist import __version__
from imagegen_dist.cli.secrets import check_words
from imagegen_dist.commands import name_of
from imagegen_dist.config import nearest
from imagegen_dist.errors import DONE, FAILED, INTERRUPTED, MISUSED, TaskError, UsageError
from imagegen_dist.extensions import import_named
from imagegen_dist.wording import one_line

Options = TypeVar("Options")

_CLOSED = 141
"""Exit code of a command whose reader has closed the pipe, as of one that SIGPIPE ends."""

_LONGEST_NAME = 128
"""Bytes: W&B's limit, which leaves room for what is put beside it in a file's name of 255."""

_TOO_LARGE = 2**64
"""The first whole number that no setting takes."""

_LIST = re.compile(r"LIST|.*,\.\.\.|.*\[,\w+\]")
"""Placeholders of flags that take several items in one text, joined by commas."""


Package = Annotated[str, tyro.conf.arg(metavar="MODULE", help_behavior_hint="")]
"""The type of the flag `--package`: a module to import, which registers the objective and networks of a model."""

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
"""The type of a flag that takes no value and is off by default."""


def run_command(
    job: str,
    arguments: Sequence[str] | None,
    help_text: Callable[[Sequence[str]], str],
    run: Callable[[Sequence[str]], int | None],
    interrupted: str = "interrupted",
) -> int:
    """Run a command from its command line, sys.argv by default; its exit code, as named in errors.py.

    help_text: receives the words, and returns what --help prints. run: receives the words, and returns the exit code,
    or None if all went well. A ValueError is a user's mistake, a TaskError a failure: each is one line on standard
    error. interrupted: what that line says after Ctrl-C, unless the KeyboardInterrupt has a text of its own.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if "-h" in words or "--help" in words:
            print(help_text(words))
            return DONE
        if list(words) == ["--version"]:
            print(f"{name_of(job)} {__version__}")
            return DONE
        code = run(words)
        sys.stdout.flush()
        return DONE if code is None else code
    except ValueError as error:
        return _complain(job, str(error), MISUSED)
    except TaskError as error:
        return _complain(job, str(error), FAILED)
    except KeyboardInterrupt as error:
        return _complain(job, str(error) or interrupted, INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is flushed at exit
        return _CLOSED


def _complain(job: str, line: str, code: int) -> int:
    print(f"{name_of(job)}: {one_line(line)}", file=sys.stderr)
    return code


def flag(metavar: str) -> Any:
    """A flag whose help says its default in words."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def check_name(flag_name: str, name: str) -> None:
    """Raise UsageError where a run or a sweep cannot be called so."""
    if not all(character.isalnum() or character in "-_." for character in name) or name.startswith((".", "-")):
        raise UsageError(
            f"--{flag_name} {name[:_LONGEST_NAME]!r}: letters, digits, '-', '_' and '.' make a name, which begins with "
            "neither '.' nor '-'"
        )
    if len(name.encode()) > _LONGEST_NAME:
        raise UsageError(
            f"--{flag_name} {name[:20]}...: {len(name.encode())} bytes; a name has {_LONGEST_NAME} at most, since "
            "folders and W&B take no longer ones"
        )


def check_range(options: Any, **ranges: tuple[float, float]) -> None:
    """Raise UsageError where a flag has a value outside its range (least, most); None is in every range."""
    for name, (least, most) in ranges.items():
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            shown = f"{value:g}" if isinstance(value, float) else value
            raise UsageError(f"--{name.replace('_', '-')} {shown}: from {least} to {most:,}")


def check_tasks(options: Any) -> None:
    """Raise UsageError for a number of Ray tasks below 0."""
    if options.workers is not None and options.workers < 0:
        raise UsageError(f"--workers {options.workers}: a number of tasks from 1, or 0 for this process")


def parse_flags(options: type[Options], job: str, words: Sequence[str]) -> Options:
    """The dataclass that the words describe. Raises UsageError, also for secrets on the command line.

    A flag that takes a list has its items in one word, joined by commas, or as words of their own. The module that a
    flag `--package` names is imported.
    """
    check_words(words, os.environ)
    try:
        parsed = options(**_Words(options).values(words))
    except UsageError as error:
        raise UsageError(f"{error} (see {name_of(job)} --help)") from None
    if package := getattr(parsed, "package", ""):
        import_named(package)
    return parsed


def flags_help(options: type[Any], job: str, summary: str) -> str:
    """What --help says of the flags."""
    shown = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown):
        tyro.cli(options, args=["--help"], prog=name_of(job), description="")
    usage, _, rest = shown.getvalue().partition("\n")
    flags = "\n".join(line.rstrip() for line in rest.strip("\n").splitlines())
    return f"{usage}\n\n{wrapped(summary, 0)}\n\n{flags}"


def listing(title: str, entries: Mapping[str, str]) -> str:
    """A titled list of names with what they are, as wide as the terminal at most."""
    column = max(map(len, entries)) + 4
    return "\n".join(
        [title, *(f"  {name:<{column - 2}}{wrapped(text, column).lstrip()}" for name, text in entries.items())]
    )


def wrapped(text: str, indent: int) -> str:
    """A text in lines that are as wide as the terminal at most, all indented."""
    width = max(shutil.get_terminal_size().columns, indent + 20)
    return textwrap.fill(text, width, initial_indent=" " * indent, subsequent_indent=" " * indent)


def meant(word: str, flags: Iterable[str], settings: Iterable[str] = ()) -> str:
    """`did you mean --X?` for a flag that is not known, or what there is.

    settings: dotted paths, whose last parts people write alone.
    """
    flags = list(flags)
    known = {path.rsplit(".", 1)[-1]: path for path in reversed(list(settings))} | {name: name for name in flags}
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean --{known[close[0]]}?"
    return nearest(word, flags).replace("did you mean ", "did you mean --")


class _Words:
    """Reads the words of a command line, one flag after another, as the fields of a dataclass."""

    def __init__(self, options: type[Any]) -> None:
        hints = typing.get_type_hints(options, include_extras=True)
        self._flags: dict[str, tuple[Any, str]] = {}
        self._positional: dict[str, str] = {}
        self._takes_many = False
        for field in dataclasses.fields(options):
            annotation, *marks = typing.get_args(hints[field.name])
            metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), "VALUE")
            if tyro.conf.Positional in marks:
                self._positional[field.name] = metavar
                self._takes_many = typing.get_origin(annotation) is tuple
            else:
                self._flags[field.name.replace("_", "-")] = annotation, metavar

    def values(self, words: Sequence[str]) -> dict[str, Any]:
        """The fields that the words give, by name. Raises UsageError."""
        found: dict[str, Any] = {}
        positional: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            name, given, value = word.removeprefix("--").partition("=")
            name = name.replace("_", "-")
            if not word.startswith("-") or word == "-":
                positional.append(word)
            elif not word.startswith("--") or name not in self._flags:
                raise UsageError(f"{word.partition('=')[0]}: no such flag; {meant(name.lstrip('-'), self._flags)}")
            else:
                found[name.replace("-", "_")] = self._value(name, [value] if given else None, rest)
        if self._takes_many:
            return found | {name: tuple(positional) for name in self._positional}
        if len(positional) > len(self._positional):
            *before, extra = positional[: len(self._positional) + 1]
            names = " and ".join(self._positional.values())
            said = f"{names} {'were' if len(before) > 1 else 'was'} given already ({' '.join(before)})"
            raise UsageError(f"{extra}: {said if before else 'only flags are taken, which begin with --'}")
        return found | dict(zip(self._positional, positional, strict=False))

    def _value(self, name: str, given: list[str] | None, rest: list[str]) -> Any:
        """The value of a flag, which is taken from the words that follow where it is not given with the flag."""
        annotation, metavar = self._flags[name]
        if annotation is bool:
            if given:
                raise UsageError(f"--{name} takes no value: leave {given[0] or 'the = '} out")
            return True
        several = typing.get_origin(annotation) is tuple
        values = given or []
        if given is None and rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        if not values:
            raise UsageError(f"--{name} needs a value: {metavar}")
        while several and given is None and rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        if _LIST.fullmatch(metavar):
            while rest and _goes_on(values[-1], rest[0]):
                values.append(rest.pop(0))
            values = [",".join(value.strip(",") if len(values) > 1 else value for value in values)]
        return tuple(values) if several else _converted(name, annotation, values[0])


_NUMBERS, _ITEM = re.compile(r"[\d,:.-]+"), re.compile(r"[A-Za-z_][\w-]*(:[\w.]+)?")


def _goes_on(before: str, word: str) -> bool:
    """True if a word is the next item of a list: it has a comma, is a number after a number, or a name after a name."""
    if word.startswith("--"):
        return False
    if before.endswith(",") or word.startswith(","):
        return True
    alike = [kind for kind in (_NUMBERS, _ITEM) if kind.fullmatch(before.split(",")[-1]) and kind.fullmatch(word)]
    return bool(alike) and not Path(word).exists()


def _converted(name: str, annotation: Any, text: str) -> Any:
    """The value of a flag of that type. Raises UsageError where the text is none."""
    kinds = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if typing.get_origin(annotation) is typing.Literal:
        allowed = [str(choice) for choice in typing.get_args(annotation)]
        if text not in allowed:
            raise UsageError(f"--{name} {text}: {nearest(text, filter(None, allowed))}")
    if int not in kinds and float not in kinds:
        return text
    kind = "whole number" if int in kinds else "number"
    try:
        value = int(text) if int in kinds else float(text)
    except ValueError:
        value = math.nan
    if abs(value) >= _TOO_LARGE:
        raise UsageError(f"--{name} {text}: give a {kind} below 2^64")
    if value != value:
        raise UsageError(f"--{name} {text}: give a {kind}")
    return value
