import numpy as np
import pytest

from imagegen_dist.data.solids import FACTORS, SAMPLES, SHAPES, body, factors_of, render

SIZES = tuple(FACTORS.values())
GRID = np.arange(SAMPLES).reshape(SIZES)


def centre(volumes):
    weights = volumes / volumes.sum((1, 2, 3), keepdims=True)
    steps = np.arange(volumes.shape[-1])
    return np.stack([(weights.sum(other) * steps).sum(1) for other in ((2, 3), (1, 3), (1, 2))], -1)


def test_numbers_count_the_grid_of_factors():
    assert np.prod(SIZES) == SAMPLES
    assert factors_of(np.array([0, 1, 64, SAMPLES - 1])).tolist() == [
        [0] * 6,
        [0, 0, 0, 0, 0, 1],
        [0, 0, 1, 0, 0, 0],
        [size - 1 for size in SIZES],
    ]
    with pytest.raises(ValueError, match="there is no solid 18432; there are 0 to 18431"):
        factors_of(np.array([SAMPLES]))


def test_places_are_a_sixteenth_apart_and_nothing_is_cut_off():
    first = render(GRID[:, -1, 1, 0, 0, 0], 16)[:, 0]
    last = render(GRID[:, -1, 1, 3, 2, 1], 16)[:, 0]
    moved = centre(last.astype(float)) - centre(first.astype(float))
    assert moved == pytest.approx(np.tile(np.array([3, 2, 1]), (len(SHAPES), 1)))
    assert np.array_equal(first.sum((1, 2, 3), dtype=np.int64), last.sum((1, 2, 3), dtype=np.int64))


@pytest.mark.parametrize("shape", SHAPES)
def test_bodies_turn_about_the_axis_h_and_stay_within_the_cube(shape):
    at_first, turned = (body(shape, 1.0, yaw, 26) for yaw in (0.0, np.pi / 2))
    assert not np.array_equal(at_first, turned)
    assert np.array_equal(turned, np.rot90(at_first, -1, (0, 2)))
    large, small = (body(shape, size, np.pi / 6, 26).sum(dtype=np.int64) for size in (1.0, 0.5))
    assert small / large == pytest.approx(1 / 8, rel=0.04)


def test_all_solids_of_one_place_differ_but_for_half_turns():
    drawn = render(np.ravel(GRID[:, :, :, 0, 0, 0]), 16)
    kinds = [len({volume.tobytes() for volume in some}) for some in drawn.reshape(6, 48, -1)]
    assert dict(zip(SHAPES, kinds, strict=True)) == {
        **dict.fromkeys(("box", "cross", "ellipsoid", "torus"), 24),
        **dict.fromkeys(("cone", "step"), 48),
    }
