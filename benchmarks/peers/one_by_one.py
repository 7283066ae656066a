"""Trainings of a sweep as one would do them by hand, one after another in this process, without Ray.

python -m peers.one_by_one SWEEP RUNS NUMBER [NUMBER ...]; SWEEP: URL of its directory; RUNS: where the runs go
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from imagegen_dist import records
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.distributed import World
from imagegen_dist.run import SilentEvents, execute
from imagegen_dist.storage import Store
from imagegen_dist.sweep.plan import SweepPlan, read_plan


def train(plan: SweepPlan, runs: str, number: int) -> None:
    """Train what the sweep's trial of that number trains."""
    settings = replace(plan.trial_settings(f"{number:04d}", ""), storage=Store(runs).url)
    experiment = plan.space.apply(plan.experiment, plan.point(number))
    records.write_config(settings, experiment, DatasetIndex.load(Store(settings.data)), {})
    execute(experiment, settings, World(), torch.device("cpu"), SilentEvents())


if __name__ == "__main__":
    torch.set_num_threads(1)
    sweep, runs, *numbers = sys.argv[1:]
    for number in numbers:
        train(read_plan(Store(sweep), sweep), runs, int(number))
