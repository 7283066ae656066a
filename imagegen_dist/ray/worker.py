"""A training worker: the run, which is independent of Ray, with the means to tell the driver of its progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from imagegen_dist import config, extensions
from imagegen_dist.distributed import World
from imagegen_dist.experiment import Experiment
from imagegen_dist.ray.event_channel import Outbox
from imagegen_dist.records import RunSettings
from imagegen_dist.run import execute


def work(payload: dict[str, Any]) -> None:
    """Train on a worker of Ray Train. payload: as in `train`."""
    import ray.train.torch

    context = ray.train.get_context()
    world = World(
        context.get_world_rank(), context.get_world_size(), context.get_local_rank(), context.get_local_world_size()
    )
    train(payload, world, ray.train.torch.get_device(), _seconds_left if payload["cluster"] else _stays)


def _stays() -> None:
    """The answer of a machine that cannot be preempted (`event_channel.Outbox`)."""


def train(
    payload: dict[str, Any], world: World, device: torch.device, leaving: Callable[[], float | None] = _stays
) -> None:
    """Train as one of the processes of a world, whose process group exists.

    payload: "experiment" and "settings" as JSON, "modules": those that register the experiment's kinds, "threads", the
    event channel as "channel", "cluster": whether machines may be preempted, "waits": whether the run waits for the
    driver's decision at each checkpoint. leaving: as in `event_channel.Outbox`.
    """
    torch.set_num_threads(payload["threads"])
    events = Outbox(payload["channel"], world.is_main, leaving, payload["waits"])
    if world.is_main:
        events.phase("building networks and opening data")
    extensions.import_all(payload["modules"])
    experiment = config.decode(Experiment, payload["experiment"])
    settings = config.decode(RunSettings, payload["settings"])
    outcome = execute(experiment, settings, world, device, events)
    if world.is_main:
        events.ended(outcome.complete, outcome.missing)


def _seconds_left() -> float | None:
    """Seconds until a machine of this group is preempted, according to Ray; None without a notice.

    Called by all ranks, with the same result. A notice without a deadline counts as 0 s.
    """
    import ray.train

    info = ray.train.get_preemption_info()
    if info is None:
        return None
    return 0.0 if info.deadline_ms is None else max(0.0, info.deadline_ms / 1000 - time.time())
