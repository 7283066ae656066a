"""Numbers with their nouns, as messages say them: 1 shard, 2 shards, 1,000 classes."""

from __future__ import annotations


def counted(number: int, noun: str, nouns: str = "") -> str:
    """A number with the noun that it counts. nouns: the plural, where an "s" does not make it (es after s, x, ch)."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {nouns or noun + ('es' if noun.endswith(('s', 'x', 'ch')) else 's')}"
