"""A request to stop is heard within seconds, however long the steps take."""

from collections.abc import Callable
from pathlib import Path

import pytest

from imagegen_dist.distributed import World, process_group
from imagegen_dist.records import RunSettings
from imagegen_dist.run import execute
from imagegen_dist.run.listening import LISTEN_S, MOST_STEPS, steps_until_check
from tests.ranks import run_ranks
from tests.runs import CPU, Listener, settings, tiny

ANY_TIME = {"training__listen_every": 0, "training__checkpoint_every": 24 * 1000, "training__report_every": 24 * 1000}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "digits"


def slow() -> Callable[[], float]:
    """A clock on which 540 s pass between any two looks."""
    seconds = 0.0

    def look() -> float:
        nonlocal seconds
        seconds += 540
        return seconds

    return look


def quick() -> float:
    """A clock on which no time passes."""
    return 0.0


class SecondLook(Listener):
    """Asked to stop from the second look on, by rank 1 where there are two."""

    def stop_requested(self) -> bool:
        self.reports += 1
        return self.reports >= 2


def _rank(rank: int, where: RunSettings, meeting: str) -> None:
    world = World(rank, 2)
    with process_group(world, meeting):
        outcome = execute(
            tiny(**ANY_TIME), where, world, CPU, SecondLook() if rank else Listener(), slow() if rank else quick
        )
    assert outcome.images == 48


def test_a_run_of_slow_steps_is_stopped_after_the_step_in_which_it_was_asked(data: Path, tmp_path: Path) -> None:
    slowly = execute(tiny(**ANY_TIME), settings(tmp_path, "slow", data), World(), CPU, SecondLook(), slow())
    assert slowly.images == 48
    quickly = execute(tiny(**ANY_TIME), settings(tmp_path, "quick", data), World(), CPU, SecondLook(), quick)
    assert quickly.complete


def test_ranks_of_unequal_clocks_check_after_the_same_steps(data: Path, tmp_path: Path) -> None:
    run_ranks(2, _rank, settings(tmp_path, "two", data), str(tmp_path / "meeting"))


@pytest.mark.parametrize("step_s", [1e-6, 0.01, 0.09, 0.5, 1.9])
def test_checks_are_at_most_so_many_seconds_apart(step_s: float) -> None:
    steps = steps_until_check(step_s)
    assert 1 <= steps <= MOST_STEPS
    assert steps == MOST_STEPS or (steps + 1) * step_s > LISTEN_S
