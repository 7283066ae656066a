"""Why a group of workers ended, in a user's terms, and whether to restart it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ray.exceptions import RayActorError, RayError

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.ray.memory import MEMORY_HELP, memory_line
from imagegen_dist.run import RunError
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.storage import StorageError
from imagegen_dist.training.memory import PassTooLarge
from imagegen_dist.wording import described

_FINAL = (RunError, CheckpointError, DatasetError, ShardError, StorageError)
_FOLLOWING = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "processgroup", "socket")


_KILLED_LOADER = "is killed by signal: Killed"


@dataclass(frozen=True)
class Failure:
    """Why workers ended.

    cause: one line. detail: the traceback; empty if the cause says all. died: a process was lost; no exception was
    raised. final: a restart cannot help. started: all workers had been placed. memory: a machine ran out of memory.
    smaller: the workers continue with smaller passes, which cannot recur without end. error: the exception, if the
    failure is final.
    """

    cause: str
    detail: str = ""
    died: bool = False
    final: bool = False
    started: bool = True
    memory: bool = False
    smaller: bool = False
    error: BaseException | None = None


def diagnose(error: BaseException) -> Failure:
    """The root cause among the failures that a group of workers raised (`local_group.fit`, `train_group.fit`)."""
    workers: dict[int, BaseException] = getattr(error, "worker_failures", {})
    if not workers:
        cause = getattr(error, "controller_failure", error)
        if memory := next(filter(None, map(memory_line, _texts(cause))), ""):
            return Failure(f"the workers could not be started: {memory}", MEMORY_HELP, died=True, memory=True)
        if "Startup" in type(cause).__name__:
            return Failure("the workers could no longer be placed", started=False)
        of_train = any(each.__name__ == "TrainingFailedError" for each in type(error).__mro__)  # not imported for this
        return Failure(described(cause), died=of_train or isinstance(error, RayError))
    died = {rank: failure for rank, failure in workers.items() if _is_death(failure)}
    raised = {rank: failure for rank, failure in workers.items() if rank not in died and not _follows(failure)}
    for rank, failure in sorted(raised.items()):
        cause = _cause(failure)
        if isinstance(cause, _FINAL):
            return Failure(str(cause), final=True, error=cause)
        if isinstance(cause, PassTooLarge):
            return Failure(f"worker {rank}: {cause}", smaller=True)
        return Failure(f"worker {rank} raised {described(cause)}", _traceback(failure))
    for rank, failure in sorted(died.items()):
        if memory := next(filter(None, map(memory_line, _texts(failure))), ""):
            return Failure(f"worker {rank} was killed: {memory}", MEMORY_HELP, died=True, memory=True)
    rank, failure = min((died or workers).items())
    if _KILLED_LOADER in str(_cause(failure)):
        why = "one of its data loader processes was killed, as the system does when memory runs out"
        return Failure(f"worker {rank} was lost: {why}", MEMORY_HELP, died=True, memory=True)
    return Failure(f"worker {rank} was lost: {_end(_cause(failure))}", died=True)


class RestartPolicy:
    """Decides about restarts: no restart for an error that recurs without a new checkpoint in between.

    deaths: the number of failures of any kind that are allowed without a new checkpoint in between.
    """

    def __init__(self, deaths: int) -> None:
        self._allowed_deaths = deaths
        self._deaths = 0
        self._before: tuple[str, int] | None = None

    def allows(self, failure: Failure, checkpoint_images: int) -> bool:
        """True if workers may restart after this failure. checkpoint_images: of the newest checkpoint, -1 for none."""
        progressed = self._before is None or checkpoint_images > self._before[1]
        same = self._before is not None and self._before[0] == failure.cause
        self._before = (failure.cause, checkpoint_images)
        if failure.final:
            return False
        if not failure.started or (failure.smaller and not same):
            return True
        self._deaths = 1 if progressed else self._deaths + 1
        return self._deaths <= self._allowed_deaths and (failure.died or progressed or not same)


def _cause(failure: BaseException) -> BaseException:
    """The exception that the training function raised, without Ray's wrappers."""
    for name in ("_base_exc", "cause", "health_check_failure"):
        inner = getattr(failure, name, None)
        if isinstance(inner, BaseException):
            return _cause(inner)
    return failure


def _texts(failure: BaseException) -> Iterator[str]:
    """The text of an exception and of all that it wraps or was caused by."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [failure]
    while waiting:
        error = waiting.pop()
        if error is None or error in seen:
            continue
        seen.append(error)
        yield f"{error} {getattr(error, 'error_msg', '')}"
        inner = [getattr(error, name, None) for name in ("_base_exc", "cause", "health_check_failure")]
        waiting += [each for each in inner if isinstance(each, BaseException)]
        waiting += [error.__cause__, error.__context__]


def _is_death(failure: BaseException) -> bool:
    cause = _cause(failure)
    if _KILLED_LOADER in str(cause):
        return True
    return isinstance(cause, RayActorError | RayError) or "Worker" in type(cause).__name__


def _follows(failure: BaseException) -> bool:
    """True if this error follows from the loss of another rank."""
    text = str(_cause(failure)).lower()
    return isinstance(_cause(failure), RuntimeError) and any(word in text for word in _FOLLOWING)


def _end(death: BaseException) -> str:
    """How a process was lost, as far as Ray knows."""
    text = str(death)
    found = re.search(r"^\s*ip: (\S+)", text, re.MULTILINE)
    place = f" on {found[1]}" if found else ""
    if "node has died" in text or "node was terminated" in text:
        return f"its machine{f' {found[1]}' if found else ''} is gone"
    if isinstance(death, RayActorError):
        return f"its process{place} ended unexpectedly"
    return type(death).__name__


def _traceback(failure: BaseException) -> str:
    return str(getattr(failure, "_traceback_str", "") or failure).strip()
