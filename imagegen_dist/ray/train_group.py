"""A group of workers of Ray Train: on a cluster, or on GPUs."""

from __future__ import annotations

from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.config import LoggingConfig

from imagegen_dist.ray.cluster import Share
from imagegen_dist.ray.worker import work


class _Trainer(TorchTrainer):
    """Without Ray Train's own cleaner of placement groups, which the driver replaces (`placement.free_abandoned`).

    Ray's cleaner asks the dashboard once a second whether the controller is alive. Without a dashboard, or with a slow
    one, it logs an error each time and frees nothing; and it outlives the job.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [each for each in callbacks if type(each).__name__ != "PlacementGroupCleanerCallback"]


def fit(payload: dict[str, Any], share: Share, workers: int, name: str, folder: str, timeout_s: float) -> None:
    """Train on one group of workers to its end. Raises the errors of `TorchTrainer.fit`.

    Ray does not restart the group by itself: the driver chooses the number of workers anew each time. name: of the run.
    folder: for Ray Train's own files. timeout_s: of a collective operation.
    """
    _Trainer(
        work,
        train_loop_config=payload,
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=share.gpu,
            resources_per_worker=share.resources,
        ),
        torch_config=TorchConfig(backend="nccl" if share.gpu else "gloo", timeout_s=int(timeout_s)),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=folder,
            failure_config=ray.train.FailureConfig(
                max_failures=0, controller_failure_limit=0, max_preemption_failures=0
            ),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    ).fit()
