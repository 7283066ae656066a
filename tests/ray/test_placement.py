"""When a number of places has settled; tests/cluster has real ones."""

from imagegen_dist.ray.placement import Steady


def test_a_number_is_steady_once_it_has_not_changed_for_the_time():
    now = [0.0]
    steady = Steady(5.0, lambda: now[0])
    seen = []
    for second, number in enumerate([0, 2, 2, 3, 3, 3, 3, 3, 3, 3, 1, 1]):
        now[0] = float(second)
        seen.append(steady.see(number))
    assert seen == [False] * 8 + [True, True, False, False]
