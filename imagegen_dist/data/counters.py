"""What happens to the data, counted by any thread of a process."""

from collections import Counter
from threading import Lock

COUNTED = ("bytes", "fetched", "cache_hits", "cache_misses", "decoded_hits", "retries", "bad")
"""bytes: of encoded samples; fetched: bytes from remote storage; cache_hits, cache_misses: shards that were on the node
when they were needed, or had to be waited for; decoded_hits: samples that were in memory; retries: of fetches; bad:
damaged samples."""


class Counters:
    """Sums since they were last taken."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, name: str, amount: int = 1) -> None:
        """Count one of the names in COUNTED."""
        with self._lock:
            self._sums[name] += amount

    def take(self) -> dict[str, int]:
        """All sums, zeros included, which begin anew."""
        with self._lock:
            taken = {name: self._sums[name] for name in COUNTED}
            self._sums.clear()
        return taken
