"""Numbers with their nouns, and errors in words, as messages say them: 1 shard, 2 shards, no such file."""

from __future__ import annotations


def counted(number: int, noun: str, nouns: str = "") -> str:
    """A number with the noun that it counts. nouns: the plural, where an "s" does not make it (es after s, x, ch)."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {nouns or noun + ('es' if noun.endswith(('s', 'x', 'ch')) else 's')}"


def reason(error: BaseException) -> str:
    """An error in one line, without the number and the path that those of the system carry."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return " ".join(str(error).split()) or type(error).__name__


def one_line(text: str) -> str:
    """A text in one line, without what a terminal obeys: names in it may be those of others' files."""
    return "".join(
        letter if letter >= " " and not "\x7f" <= letter <= "\x9f" else "?" for letter in " ".join(text.split())
    )
