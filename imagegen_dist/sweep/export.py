"""Prints the results of a sweep as lines of JSON, for a machine that reaches nothing but the cluster's job server.

python -m imagegen_dist.sweep.export FOLDER
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys

from imagegen_dist.run_folder import CONFIG, MANIFEST, METRICS, REPORT, RESULT
from imagegen_dist.storage import Store
from imagegen_dist.sweep.plan import PLAN, TRIALS, read_plan
from imagegen_dist.sweep.results import BEST, ROWS, TABLE, best
from imagegen_dist.sweep.trial_store import TRIALS_FILE, TrialStore
from imagegen_dist.training.checkpoint import FILES, newest

_PART_BYTES = 192 << 10


def files(folder: Store) -> list[str]:
    """The files that are sent: tables, report, the best config, and the best trial's run with its newest checkpoint."""
    names = [name for name in (BEST, TABLE, ROWS, REPORT, PLAN, TRIALS_FILE) if folder.exists(name)]
    chosen = best(TrialStore.read(folder).trials, read_plan(folder, folder.url).goals)
    if chosen is None:
        return names
    run = f"{TRIALS}/{chosen.run}"
    kept = (CONFIG, METRICS, RESULT, REPORT)
    names += [f"{run}/{name}" for name in kept if (folder / TRIALS / chosen.run).exists(name)]
    checkpoint = newest(folder / TRIALS / chosen.run, lambda why: None)
    if checkpoint is not None:
        where = checkpoint.url.removeprefix(f"{folder.url}/")
        names += [f"{where}/{name}" for name in (*FILES, MANIFEST)]
    return names


def send(folder: Store) -> None:
    """Print each file in parts, followed by its name and sha256."""
    for name in files(folder):
        data = folder.read(name)
        for start in range(0, len(data), _PART_BYTES):
            part = base64.b64encode(data[start : start + _PART_BYTES]).decode()
            print(json.dumps({"event": "part", "data": part}), flush=True)
        print(json.dumps({"event": "file", "name": name, "sha256": hashlib.sha256(data).hexdigest()}), flush=True)


if __name__ == "__main__":
    send(Store(sys.argv[1]))
