"""Out of memory on a machine: Ray's message in one line, and advice. Loads without torch and Ray."""

from __future__ import annotations

import re

MEMORY_HELP = (
    "To use less memory: fewer workers on a machine (--cpus N with more cores each), a smaller\n"
    "--training.microbatch-size, fewer --data.workers; or machines with more memory. Ray's limit is\n"
    "RAY_memory_usage_threshold, where Ray is started."
)

_MEMORY = re.compile(
    r"Memory on the node \(IP: (?P<address>[^,\s]+), ID: (?P<node>\w+).*? was "
    r"(?P<used>[\d.]+ ?GB)(?: used)? / (?P<total>[\d.]+ ?GB)"
    r".*?threshold of (?:\d+B \()?(?P<limit>\d+(?:\.\d+)?)(?P<unit>%?)",
    re.DOTALL,
)
"""Ray's message about a process that it has killed because its machine ran out of memory."""


def memory_line(text: str) -> str:
    """The machine that ran out of memory and its numbers, from Ray's message; "" if it says nothing about memory."""
    found = _MEMORY.search(text)
    if found is None:
        return ""
    limit = float(found["limit"]) * (1 if found["unit"] else 100)
    return (
        f"machine {found['address']} ({found['node'][:8]}) ran out of memory: {_spaced(found['used'])} of "
        f"{_spaced(found['total'])} in use, and Ray kills processes above {limit:.3g} %"
    )


def _spaced(amount: str) -> str:
    return f"{amount.removesuffix('GB').strip()} GB"
