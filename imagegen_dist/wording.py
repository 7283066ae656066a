"""Words for messages: numbers with nouns (1 shard, 2 shards) and errors in one line."""

from __future__ import annotations


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
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def one_line(text: str) -> str:
    """A text in one line without control characters, which names of untrusted files may contain."""
    return "".join(
        letter if letter >= " " and not "\x7f" <= letter <= "\x9f" else "?" for letter in " ".join(text.split())
    )
