"""What a driver makes of a group of workers that has ended."""

from ray.train import TrainingFailedError

from imagegen_dist.launch.failure import Failure, RestartPolicy, diagnose
from imagegen_dist.storage import AccessError

LOST = Failure("worker 1 was lost", died=True)
BUG = Failure("worker 0 raised ValueError: odd", "traceback")
NO_PLACE = Failure("the workers found no place any more", started=False)


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


def test_waiting_for_a_place_is_no_loss():
    policy = RestartPolicy(3)
    assert all(policy.allows(NO_PLACE, -1) for _ in range(20))
    assert policy.allows(LOST, -1)


def test_a_store_that_refuses_is_the_cause_and_final():
    refused = AccessError("cannot write s3://b/x: no")
    failure = diagnose(WorkerGroupError({1: RuntimeError("[gloo] timed out"), 0: refused}))
    assert failure == Failure("cannot write s3://b/x: no", final=True, error=refused)
    assert not RestartPolicy(3).allows(failure, 5)


def test_workers_that_could_not_start_are_told_from_those_that_were_lost():
    class WorkerGroupStartupTimeoutError(Exception):
        pass

    class ControllerError(TrainingFailedError):
        controller_failure = WorkerGroupStartupTimeoutError("no room")

    assert diagnose(ControllerError("failed")) == NO_PLACE
    assert diagnose(TrainingFailedError("failed")).died
