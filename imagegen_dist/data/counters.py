"""Counters of data loading, which any thread of a process may update."""

from collections import Counter
from threading import Lock

COUNTED = ("bytes", "fetched", "cache_hits", "cache_misses", "decoded_hits", "retries", "bad")
"""bytes: of encoded samples; fetched: bytes from remote storage; cache_hits, cache_misses: shards that were or were not
on the node when they were needed; decoded_hits: samples that were in memory; retries: repeated fetches; bad: damaged
samples."""


class Counters:
    """Counts since the last `take`."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, name: str, amount: int = 1) -> None:
        """Add to one of the names in COUNTED."""
        with self._lock:
            self._sums[name] += amount

    def take(self) -> dict[str, int]:
        """Return all counts, including zeros, and reset them."""
        with self._lock:
            taken = {name: self._sums[name] for name in COUNTED}
            self._sums.clear()
        return taken
