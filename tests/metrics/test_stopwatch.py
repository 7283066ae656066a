import pytest

from imagegen_dist.metrics.stopwatch import Stopwatch


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stopwatch(clock):
    watch = Stopwatch(clock)
    watch.start(0)
    return watch


def test_speed_is_images_of_the_lap_over_its_seconds(clock, stopwatch):
    clock.now += 4
    assert stopwatch.lap(200, 0)["system/images_per_s"] == 50
    clock.now += 10
    assert stopwatch.lap(300, 0)["system/images_per_s"] == 10


def test_pauses_do_not_count_as_training(clock, stopwatch):
    clock.now += 2
    with stopwatch.paused():
        clock.now += 100
    assert stopwatch.lap(20, 0)["system/images_per_s"] == 10


def test_a_pause_ends_with_an_error_too(clock, stopwatch):
    def fail() -> None:
        with stopwatch.paused():
            clock.now += 100
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    clock.now += 1
    assert stopwatch.lap(7, 0)["system/images_per_s"] == 7


def test_a_pause_counts_in_its_own_lap_alone(clock, stopwatch):
    with stopwatch.paused():
        clock.now += 100
    stopwatch.lap(0, 0)
    clock.now += 4
    assert stopwatch.lap(20, 0)["system/images_per_s"] == 5


def test_waiting_is_the_time_until_each_item(clock, stopwatch):
    def slow_items():
        for item in "ab":
            clock.now += 3
            yield item

    found = []
    for item in stopwatch.waiting(slow_items()):
        found.append(item)
        clock.now += 1
    assert found == ["a", "b"]
    assert stopwatch.lap(8, 0)["data/wait_fraction"] == 6 / 8
    clock.now += 1
    assert stopwatch.lap(9, 0)["data/wait_fraction"] == 0


def test_seconds_go_on_from_earlier_attempts(clock):
    watch = Stopwatch(clock)
    clock.now += 50
    watch.start(1000, seconds=500)
    clock.now += 2
    assert watch.seconds == 502
    assert watch.lap(1100, 0)["system/images_per_s"] == 50


def test_seconds_count_pauses_and_laps(clock, stopwatch):
    with stopwatch.paused():
        clock.now += 3
    stopwatch.lap(0, 0)
    clock.now += 4
    assert stopwatch.seconds == 7


def test_a_lap_of_no_time_has_finite_figures(stopwatch):
    row = stopwatch.lap(0, 0)
    assert row == {"system/images_per_s": 0, "data/bytes_per_s": 0, "data/wait_fraction": 0}
