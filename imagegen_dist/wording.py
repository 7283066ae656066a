"""Words for messages: numbers with nouns (1 shard, 2 shards) and errors in one line."""

from __future__ import annotations

import re

_LONGEST_WORD = 1000
_NUMBER = re.compile(r"\[errno -?\d+\] ?", re.IGNORECASE)


def counted(number: int, noun: str, nouns: str = "") -> str:
    """A number with its noun. nouns: the plural, if it is not formed by "s" (or "es" after s, x, ch)."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {nouns or noun + ('es' if noun.endswith(('s', 'x', 'ch')) else 's')}"


def reason(error: BaseException) -> str:
    """An error in one line, without the number and the path in system errors."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return message(error) or type(error).__name__


def described(error: BaseException) -> str:
    """The type and the message of an error in one line, without the system's number ("[Errno 2]")."""
    return f"{type(error).__name__}: {message(error) or 'no message'}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message without the system's number, or its type if it has no message."""
    return _NUMBER.sub("", (str(error).strip().splitlines() or [""])[0]) or type(error).__name__


def message(error: BaseException) -> str:
    """What an error says in one line, without the system's number."""
    return _NUMBER.sub("", " ".join(str(error).split()))


def one_line(text: str) -> str:
    """A text in one line without control characters, which names of untrusted files may contain.

    A word longer than any path or URL that people type is shortened.
    """
    words = (word if len(word) <= _LONGEST_WORD else f"{word[:100]}...{word[-100:]}" for word in text.split())
    return "".join(letter if letter >= " " and not "\x7f" <= letter <= "\x9f" else "?" for letter in " ".join(words))
