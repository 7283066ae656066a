"""What a driver makes of a group of workers that has ended."""

import copy

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train import TrainingFailedError

from imagegen_dist.ray.failure import Failure, RestartPolicy, diagnose
from imagegen_dist.ray.memory import MEMORY_HELP
from imagegen_dist.storage import AccessError
from imagegen_dist.training.memory import PassTooLarge

KILLED_FOR_MEMORY = """1 worker(s) were killed due to the node running low on memory. \
Memory on the node (IP: 192.0.2.2, ID: 5f906306de9dd44b) was 22.40GB used / 23.54GB limit (0.951)
OOM kill reason: Memory usage 24051816857B exceeded threshold of 24012256665B (95.0% of 25276059648B limit)
Object store memory usage: [- objects spillable: 0"""
"""What Ray 2.60 says."""

KILLED_FOR_MEMORY_BEFORE = """Memory on the node (IP: 10.0.0.7, ID: c1c1c1c1d2d2) where the lease (actor ID: 1) was \
running was 27.50GB / 28.80GB (0.954), which exceeds the memory usage threshold of 0.95. Ray killed this worker"""

LOST = Failure("worker 1 was lost", died=True)
BUG = Failure("worker 0 raised ValueError: odd", "traceback")
NO_PLACE = Failure("the workers could no longer be placed", started=False)


class WorkerGroupError(TrainingFailedError):
    def __init__(self, failures):
        super().__init__("failed")
        self.worker_failures = failures


def test_losses_are_borne_while_checkpoints_come():
    policy = RestartPolicy(3)
    assert all(policy.allows(LOST, images) for images in range(10))


def test_losses_without_a_checkpoint_between_end_it():
    policy = RestartPolicy(3)
    assert [policy.allows(LOST, 5) for _ in range(4)] == [True, True, True, False]


def test_an_error_that_comes_back_ends_it_and_one_with_another_text_each_time_too():
    policy = RestartPolicy(3)
    assert [policy.allows(BUG, 5) for _ in range(2)] == [True, False]
    policy = RestartPolicy(3)
    assert [policy.allows(Failure(f"worker 0 raised {n}"), 5) for n in range(4)] == [True, True, True, False]


def test_passes_become_smaller_as_often_as_it_takes_but_not_the_same_one_twice():
    policy = RestartPolicy(3)
    for images in (128, 64, 32, 16, 8):
        too_large = PassTooLarge(f"a pass of {images} images does not fit into memory any more", before_update=True)
        sent = copy.copy(too_large)  # as pickle does it
        failure = diagnose(WorkerGroupError({0: RuntimeError("[gloo] closed"), 1: sent}))
        assert failure == Failure(f"worker 1: {too_large}", smaller=True)
        assert policy.allows(failure, 5)
    assert not policy.allows(failure, 5)


def test_waiting_for_a_place_is_no_loss():
    policy = RestartPolicy(3)
    assert all(policy.allows(NO_PLACE, -1) for _ in range(20))
    assert policy.allows(LOST, -1)


def test_a_store_that_refuses_is_the_cause_and_final():
    refused = AccessError("cannot write s3://b/x: no")
    failure = diagnose(WorkerGroupError({1: RuntimeError("[gloo] timed out"), 0: refused}))
    assert failure == Failure("cannot write s3://b/x: no", final=True, error=refused)
    assert not RestartPolicy(3).allows(failure, 5)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (KILLED_FOR_MEMORY, "machine 192.0.2.2 (5f906306) ran out of memory: 22.40 GB of 23.54 GB in use"),
        (KILLED_FOR_MEMORY_BEFORE, "machine 10.0.0.7 (c1c1c1c1) ran out of memory: 27.50 GB of 28.80 GB in use"),
    ],
)
def test_a_worker_that_was_killed_for_memory_has_its_machine_and_the_numbers_in_one_line(text, line):
    died = ActorDiedError()
    died.error_msg = text
    health = RuntimeError("A worker health check failed.")
    health.health_check_failure = died
    for failure in (died, OutOfMemoryError(text), health):
        found = diagnose(WorkerGroupError({0: RuntimeError("[gloo] closed"), 1: failure}))
        assert found.cause == f"worker 1 was killed: {line}, and Ray kills processes above 95 %"
        assert (found.detail, found.died, found.memory) == (MEMORY_HELP, True, True)
    starting = TrainingFailedError("failed")
    starting.controller_failure = OutOfMemoryError(text)
    assert diagnose(starting).cause.startswith(f"the workers could not be started: {line}")
    assert RestartPolicy(3).allows(found, -1)


def test_a_loader_that_the_system_killed_is_a_loss_for_want_of_memory():
    killed = RuntimeError("DataLoader worker (pid 4242) is killed by signal: Killed. ")
    found = diagnose(WorkerGroupError({0: killed}))
    assert found.died
    assert found.memory
    assert found.cause == (
        "worker 0 was lost: one of its data loader processes was killed, as the system does when memory runs out"
    )


def test_workers_that_could_not_start_are_told_from_those_that_were_lost():
    class WorkerGroupStartupTimeoutError(Exception):
        pass

    class ControllerError(TrainingFailedError):
        controller_failure = WorkerGroupStartupTimeoutError("no room")

    assert diagnose(ControllerError("failed")) == NO_PLACE
    assert diagnose(TrainingFailedError("failed")).died
