"""A group of workers on the CPU cores of this machine: plain Ray actors, without Ray Train's own processes.

Ray Train starts four processes beside the workers, and each process imports it for seconds: on two cores that is half
of a start. A single machine needs none of what they do. Loads without torch, which the workers import.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import ray

from imagegen_dist.ray.cluster import Share

_POLL_S = 5.0
_SILENCE = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
"""Ray Train's variable, also here: seconds after which a worker that does not answer counts as lost."""

_TOGETHER_S = 1.0
"""Seconds after a first failure within which those of other workers are heard: its cause may be among them."""


class GroupFailed(Exception):
    """One worker or several have failed. worker_failures: the exception of each of them, by rank."""

    def __init__(self, worker_failures: dict[int, BaseException]) -> None:
        super().__init__("; ".join(f"worker {rank}: {error}" for rank, error in worker_failures.items()))
        self.worker_failures = worker_failures


class WorkerSilent(Exception):
    """A worker's process exists and does not answer."""


class TrainWorker:
    """A worker; an actor, whose process imports what training needs when it is created."""

    def __init__(self) -> None:
        import imagegen_dist.ray.worker  # noqa: F401

    def answer(self) -> None:
        """Show that the process is alive, while it trains in another thread."""

    def train(self, payload: dict[str, Any], rank: int, size: int, meeting: str, timeout_s: float) -> None:
        """Train to the end of the run, or until asked to stop.

        payload: as in `worker.train`. meeting: a file where the workers' processes meet. timeout_s: of a collective.
        """
        from contextlib import nullcontext

        import torch

        from imagegen_dist.distributed import World, process_group
        from imagegen_dist.ray.worker import train

        world = World(rank, size, rank, size)
        with process_group(world, meeting, timeout_s=timeout_s) if size > 1 else nullcontext():
            train(payload, world, torch.device("cpu"))


def create(share: Share, workers: int) -> list[Any]:
    """Create workers, whose processes import torch from now on; does not wait for them."""
    remote = ray.remote(num_cpus=share.cpus, max_concurrency=2)(TrainWorker)
    return [remote.remote() for _ in range(workers)]


def fit(
    payload: dict[str, Any], share: Share, workers: int, meeting: str, timeout_s: float, ready: Sequence[Any] = ()
) -> None:
    """Train on one group of workers to its end. Raises GroupFailed.

    payload: as in `worker.train`. meeting: a path where no file is yet. timeout_s: of a collective operation. ready:
    workers of `create` with the same share; they are used as far as there are any.
    """
    actors = [*ready[:workers], *create(share, workers - len(ready[:workers]))]
    try:
        if failures := _failures(actors, [payload, workers, meeting, timeout_s]):
            raise GroupFailed(failures)
    finally:
        for actor in [*actors, *ready[workers:]]:
            ray.kill(actor)


def _failures(actors: Sequence[Any], arguments: Sequence[Any]) -> dict[int, BaseException]:
    """Train on the actors; what the first of them to fail have failed of, by rank."""
    payload, *rest = arguments
    training = {actor.train.remote(payload, rank, *rest): rank for rank, actor in enumerate(actors)}
    failures: dict[int, BaseException] = {}
    answers: dict[Any, int] = {}
    heard_s: dict[int, float] = {}
    while training and not failures:
        done, _ = ray.wait(list(training), timeout=_POLL_S)
        if done:  # one of them: a failure of one makes the others fail in the moments after
            done, _ = ray.wait(list(training), num_returns=len(training), timeout=_TOGETHER_S if _failed(done) else 0)
        for ended in done:
            rank = training.pop(ended)
            try:
                ray.get(ended)
            except ray.exceptions.RayError as error:
                failures[rank] = error
        if not done:
            failures |= _silent(actors, training.values(), answers, heard_s)
    return failures


def _failed(ended: Sequence[Any]) -> bool:
    try:
        ray.get(list(ended))
    except ray.exceptions.RayError:
        return True
    return False


def _silent(
    actors: Sequence[Any], ranks: Any, answers: dict[Any, int], heard_s: dict[int, float]
) -> dict[int, BaseException]:
    """Ask each worker for a sign; those that have given none for too long since their first.

    How long a start takes depends on the machine: a worker that has never answered is waited for.
    """
    now, longest_s = time.monotonic(), float(os.environ.get(_SILENCE, 90))
    for answered in ray.wait(list(answers), num_returns=len(answers), timeout=0)[0] if answers else ():
        heard_s[answers.pop(answered)] = now
    for rank in ranks:
        if rank not in answers.values():
            answers[actors[rank].answer.remote()] = rank
    silent = [rank for rank in ranks if now - heard_s.get(rank, now) > longest_s]
    return {rank: WorkerSilent(f"no answer for {longest_s:g} s") for rank in silent}
