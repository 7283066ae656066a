"""What each Ray Train worker does: World from Ray's context, then the run, which knows nothing of Ray."""

from __future__ import annotations

from typing import Any

import ray.train
import ray.train.torch
import torch

from imagegen_dist import config
from imagegen_dist.distributed import World
from imagegen_dist.experiment import Experiment
from imagegen_dist.launch.relay import RelayedEvents
from imagegen_dist.records import RunSettings
from imagegen_dist.run import execute


def work(payload: dict[str, Any]) -> None:
    """Train on this worker. payload: "experiment" and "settings" as JSON, "threads", and the "relay"'s handle."""
    context = ray.train.get_context()
    world = World(
        context.get_world_rank(), context.get_world_size(), context.get_local_rank(), context.get_local_world_size()
    )
    torch.set_num_threads(payload["threads"])
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    events = RelayedEvents(payload["relay"], listens=world.is_main)
    if world.is_main:
        events.phase("building networks and opening data")
    experiment = config.decode(Experiment, payload["experiment"])
    settings = config.decode(RunSettings, payload["settings"])
    outcome = execute(experiment, settings, world, ray.train.torch.get_device(), events)
    if world.is_main:
        events.ended(outcome.complete)
