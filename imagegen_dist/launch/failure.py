"""What ended a group of workers, in a user's words, and whether to start it again."""

from __future__ import annotations

from dataclasses import dataclass

from ray.exceptions import RayActorError, RayError
from ray.train import TrainingFailedError

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.run import RunError
from imagegen_dist.storage import StorageError
from imagegen_dist.training.checkpoint import CheckpointError

_FINAL = (RunError, CheckpointError, DatasetError, ShardError, StorageError)
_FOLLOWING = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "processgroup", "socket")


@dataclass(frozen=True)
class Failure:
    """Why workers ended.

    cause: one line. detail: the traceback, empty where the line says all. died: a process was lost, not a bug raised.
    final: starting again cannot help. started: whether all workers were there; where not, their places were gone.
    error: what was raised, where it is final.
    """

    cause: str
    detail: str = ""
    died: bool = False
    final: bool = False
    started: bool = True
    error: BaseException | None = None


def diagnose(error: BaseException) -> Failure:
    """The one failure that the others followed from, out of what `TorchTrainer.fit` raised."""
    workers: dict[int, BaseException] = getattr(error, "worker_failures", {})
    if not workers:
        cause = getattr(error, "controller_failure", error)
        if "Startup" in type(cause).__name__:
            return Failure("the workers found no place any more", started=False)
        return Failure(_line(cause), died=isinstance(error, TrainingFailedError | RayError))
    died = {rank: failure for rank, failure in workers.items() if _is_death(failure)}
    raised = {rank: failure for rank, failure in workers.items() if rank not in died and not _follows(failure)}
    for rank, failure in sorted(raised.items()):
        cause = _cause(failure)
        if isinstance(cause, _FINAL):
            return Failure(str(cause), final=True, error=cause)
        return Failure(f"worker {rank} raised {_line(cause)}", _traceback(failure))
    rank, failure = min((died or workers).items())
    return Failure(f"worker {rank} was lost ({type(_cause(failure)).__name__})", died=True)


class RestartPolicy:
    """Whether to start workers again: not for an error that comes back with no new checkpoint between.

    deaths: how often workers may fail in any way without a new checkpoint between.
    """

    def __init__(self, deaths: int) -> None:
        self._allowed_deaths = deaths
        self._deaths = 0
        self._before: tuple[str, int] | None = None

    def allows(self, failure: Failure, checkpoint_images: int) -> bool:
        """Decide on one failure. checkpoint_images: of the newest checkpoint now, -1 for none."""
        progressed = self._before is None or checkpoint_images > self._before[1]
        same = self._before is not None and self._before[0] == failure.cause
        self._before = (failure.cause, checkpoint_images)
        if failure.final:
            return False
        if not failure.started:
            return True
        self._deaths = 1 if progressed else self._deaths + 1
        return self._deaths <= self._allowed_deaths and (failure.died or progressed or not same)


def _cause(failure: BaseException) -> BaseException:
    """The exception that the training function raised, out of Ray's wrappers."""
    for name in ("_base_exc", "cause"):
        inner = getattr(failure, name, None)
        if isinstance(inner, BaseException):
            return _cause(inner)
    return failure


def _is_death(failure: BaseException) -> bool:
    cause = _cause(failure)
    return isinstance(cause, RayActorError | RayError) or "Worker" in type(cause).__name__


def _follows(failure: BaseException) -> bool:
    """Whether this is what a rank sees when another one is gone."""
    text = str(_cause(failure)).lower()
    return isinstance(_cause(failure), RuntimeError) and any(word in text for word in _FOLLOWING)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _traceback(failure: BaseException) -> str:
    return str(getattr(failure, "_traceback_str", "") or failure).strip()
