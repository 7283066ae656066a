"""A pytest plugin that shows how far apart compared tensors were: `pytest -n 0 -p tests.differences FILE::TEST`

After the tests it prints, for each of them, the largest difference that `torch.testing.assert_close` and
`numpy.testing.assert_allclose` met, and how many tensors they compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch


@dataclass
class Seen:
    """What a test has compared."""

    largest: float = 0.0
    compared: int = 0

    def add(self, actual: Any, expected: Any) -> None:
        try:
            apart = np.abs(np.asarray(_array(actual), np.float64) - np.asarray(_array(expected), np.float64))
        except (TypeError, ValueError):
            return
        self.compared += 1
        self.largest = max(self.largest, float(apart.max(initial=0.0)))


_SEEN: dict[str, Seen] = {}


def _array(value: Any) -> Any:
    return value.detach().double().cpu().numpy() if isinstance(value, torch.Tensor) else value


@pytest.fixture(autouse=True)
def _compared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    seen = Seen()

    def watched(compare: Callable[..., None]) -> Callable[..., None]:
        def call(actual: Any, expected: Any, *given: Any, **named: Any) -> None:
            seen.add(actual, expected)
            compare(actual, expected, *given, **named)

        return call

    monkeypatch.setattr(torch.testing, "assert_close", watched(torch.testing.assert_close))
    monkeypatch.setattr(np.testing, "assert_allclose", watched(np.testing.assert_allclose))
    yield
    if seen.compared:
        _SEEN[request.node.nodeid] = seen


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("largest differences")
    for name, seen in _SEEN.items():
        terminalreporter.write_line(f"{seen.largest:.1e} of {seen.compared} compared: {name}")
