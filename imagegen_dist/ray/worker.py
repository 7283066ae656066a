"""The training function of a Ray Train worker: World from Ray's context, then the run, which is independent of Ray."""

from __future__ import annotations

import time
from typing import Any

import ray.train
import ray.train.torch
import torch

from imagegen_dist import config, extensions
from imagegen_dist.distributed import World
from imagegen_dist.experiment import Experiment
from imagegen_dist.ray.event_channel import Outbox
from imagegen_dist.records import RunSettings
from imagegen_dist.run import execute


def work(payload: dict[str, Any]) -> None:
    """Train on this worker.

    payload: "experiment" and "settings" as JSON, "modules": those that register the experiment's kinds, "threads", the
    event channel as "channel", "cluster": whether machines may be preempted, "waits": whether the run waits for the
    driver's decision at each checkpoint.
    """
    context = ray.train.get_context()
    world = World(
        context.get_world_rank(), context.get_world_size(), context.get_local_rank(), context.get_local_world_size()
    )
    torch.set_num_threads(payload["threads"])
    leaving = _seconds_left if payload["cluster"] else lambda: None
    events = Outbox(payload["channel"], world.is_main, leaving, payload["waits"])
    if world.is_main:
        events.phase("building networks and opening data")
    extensions.import_all(payload["modules"])
    experiment = config.decode(Experiment, payload["experiment"])
    settings = config.decode(RunSettings, payload["settings"])
    outcome = execute(experiment, settings, world, ray.train.torch.get_device(), events)
    if world.is_main:
        events.ended(outcome.complete, outcome.missing)


def _seconds_left() -> float | None:
    """Seconds until a machine of this group is preempted, according to Ray; None without a notice.

    Called by all ranks, with the same result. A notice without a deadline counts as 0 s.
    """
    info = ray.train.get_preemption_info()
    if info is None:
        return None
    return 0.0 if info.deadline_ms is None else max(0.0, info.deadline_ms / 1000 - time.time())
