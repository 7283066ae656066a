"""Whole runs in this process, one thread each, and their figures over seeds: what several benchmarks share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch

from imagegen_dist.distributed import World
from imagegen_dist.experiment import Experiment
from imagegen_dist.records import RunSettings
from imagegen_dist.run import SilentEvents, execute
from imagegen_dist.run_folder import RESULT

CPU = torch.device("cpu")


def run_to_end(
    experiment: Experiment, settings: RunSettings, events: SilentEvents, device: torch.device = CPU
) -> dict[str, Any]:
    """Train, or what is left of it; the run's figures. RunError: it cannot go on."""
    images = experiment.training.total_images
    if not settings.folder.exists(RESULT) or read_result(settings)["images"] < images:
        execute(experiment, settings, World(), device, events)
    return read_result(settings)


def read_result(settings: RunSettings) -> dict[str, Any]:
    """A run's figures."""
    return json.loads(settings.folder.read(RESULT))


def over_seeds(values: Sequence[float], form: str) -> str:
    """The mean of a figure over seeds and, where they differ, the least and the largest: "0.16 (0.12–0.21)".

    form: of a number, as str.format takes it; "" for no values.
    """
    if not values:
        return ""
    low, high = form.format(min(values)), form.format(max(values))
    return form.format(fmean(values)) + (f" ({low}–{high})" if low != high else "")
