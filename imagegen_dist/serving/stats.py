"""What a server has done: latencies, batch sizes and failures, for people and for Prometheus."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as Count

_KEPT = 2048
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Stats:
    """Counted since the server began; quantiles are of the last 2,048 requests of a kind."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "imagegen_request_seconds", "Seconds from a request to its answer", ["kind"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._rows = Histogram(
            "imagegen_batch_samples", "Samples of a batch", ["model"], buckets=_ROWS, registry=self._registry
        )
        self._answers = Count(
            "imagegen_answers", "Answers by kind of request and HTTP status", ["kind", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._latest: dict[str, deque[float]] = {}
        self._sizes: Counter[int] = Counter()
        self._statuses: Counter[str] = Counter()

    def answered(self, kind: str, status: int, seconds: float) -> None:
        """A request of this kind (generate, encode, stream, ...) was answered."""
        self._seconds.labels(kind).observe(seconds)
        self._answers.labels(kind, str(status)).inc()
        self._statuses[f"{kind} {status}"] += 1
        self._latest.setdefault(kind, deque(maxlen=_KEPT)).append(seconds)

    def batched(self, model: str, size: int) -> None:
        """A batch of this size is computed."""
        self._rows.labels(model).observe(size)
        self._sizes[size] += 1

    def summary(self) -> dict[str, object]:
        """Answers by status, p50 and p95 in milliseconds by kind, and how often batches had each size."""
        quantiles = {kind: np.quantile(list(found), [0.5, 0.95]) * 1000 for kind, found in self._latest.items()}
        return {
            "answers": dict(self._statuses),
            "milliseconds": {
                kind: {"p50": round(float(p50), 3), "p95": round(float(p95), 3), "of": len(self._latest[kind])}
                for kind, (p50, p95) in quantiles.items()
            },
            "batches": {str(size): count for size, count in sorted(self._sizes.items())},
        }

    def prometheus(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)
