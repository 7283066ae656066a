import time

import numpy as np
import pytest

from imagegen_dist.data.dsprites import FACTORS, SAMPLES, SIZE, factors_of, render, sprite, subset

SIZES = tuple(FACTORS.values())
SHAPES = ("square", "ellipse", "heart")
SCALES = np.linspace(0.5, 1, 6)


def pictures(**fixed):
    """All pictures of the named factors' values, the others at their first: [N, 64, 64] in the grid's order."""
    grid = np.arange(SAMPLES).reshape(SIZES)
    chosen = grid[tuple(fixed.get(name, 0) for name in FACTORS)]
    return render(np.ravel(chosen))[:, 0]


def centres_of_mass(drawn):
    weights = drawn / drawn.sum((1, 2), keepdims=True)
    steps = np.arange(SIZE)
    return (weights.sum(1) * steps).sum(1), (weights.sum(2) * steps).sum(1)


@pytest.fixture(scope="module")
def in_a_corner():
    """Every shape, scale and orientation at the first position: [720, 64, 64]."""
    return pictures(shape=slice(None), scale=slice(None), orientation=slice(None))


def test_the_order_is_the_published_one():
    assert np.prod(SIZES) == SAMPLES
    numbers = np.array([0, 1, 32, 32 * 32, 40 * 32 * 32, 6 * 40 * 32 * 32, SAMPLES - 1])
    last = [size - 1 for size in SIZES]
    assert factors_of(numbers).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 1, 0],
        [0, 0, 1, 0, 0],
        [0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0],
        last,
    ]


def test_pictures_are_binary_and_the_same_each_time():
    numbers = subset(200, 3)
    drawn = render(numbers)
    assert (drawn.shape, drawn.dtype) == ((200, 1, SIZE, SIZE), np.uint8)
    assert np.unique(drawn).tolist() == [0, 255]
    assert np.array_equal(drawn, render(numbers))


def test_the_statistics_are_the_published_ones(in_a_corner):
    scaled = in_a_corner / 255
    assert scaled.mean() == pytest.approx(0.042494, rel=0.01)
    assert scaled.std((1, 2)).mean() == pytest.approx(0.195166, rel=0.005)


def test_areas_grow_with_the_square_of_the_scale():
    for shape in range(3):
        areas = (pictures(shape=shape, scale=slice(None), orientation=slice(None)) > 0).sum((1, 2))
        areas = areas.reshape(6, 40).mean(1)
        np.testing.assert_allclose(areas / areas[-1], SCALES**2, rtol=0.02)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.1])
@pytest.mark.parametrize("scale", [0.5, 0.9, 1.0])
def test_symmetries_of_rotation(scale, angle):
    square, ellipse, heart = (sprite(shape, scale, angle) for shape in SHAPES)
    assert np.array_equal(sprite("square", scale, angle + np.pi / 2), square)
    assert np.array_equal(sprite("ellipse", scale, angle + np.pi), ellipse)
    assert not np.array_equal(sprite("ellipse", scale, angle + np.pi / 2), ellipse)
    assert not np.array_equal(sprite("heart", scale, angle + np.pi), heart)
    for shape, drawn in zip(SHAPES, (square, ellipse, heart), strict=True):
        assert np.array_equal(sprite(shape, scale, angle + 2 * np.pi), drawn)
        assert np.array_equal(np.rot90(drawn, -1), sprite(shape, scale, angle + np.pi / 2))  # clockwise
        assert np.array_equal(drawn[:, ::-1], sprite(shape, scale, -angle))


def test_the_heart_is_upright_and_the_ellipse_lies():
    heart, ellipse = sprite("heart", 1.0, 0.0) > 0, sprite("ellipse", 1.0, 0.0) > 0
    widths = heart.sum(1)[heart.any(1)]
    assert widths.argmax() < len(widths) / 2
    assert widths[-1] <= 2
    top = heart[np.flatnonzero(heart.any(1))[0]]
    assert not top[heart.shape[1] // 2]  # between the lobes
    assert top.any()
    assert (ellipse.any(0).sum(), ellipse.any(1).sum()) == pytest.approx((23.8, 11.9), abs=1.5)


def test_shapes_have_their_centre_of_mass_at_their_position():
    for shape in range(3):
        right, down = centres_of_mass(pictures(shape=shape, scale=slice(None), orientation=slice(None)))
        np.testing.assert_allclose(right, 16, atol=0.3)
        np.testing.assert_allclose(down, 16, atol=0.3)


def test_positions_move_the_centre_of_mass_a_pixel_each():
    for shape in range(3):
        for orientation in (0, 7):
            along_x = pictures(shape=shape, orientation=orientation, position_x=slice(None))
            along_y = pictures(shape=shape, orientation=orientation, position_y=slice(None))
            for (moving, still), drawn in (
                (centres_of_mass(along_x), along_x),
                (centres_of_mass(along_y)[::-1], along_y),
            ):
                np.testing.assert_allclose(moving - moving[0], np.arange(len(drawn)), atol=1e-9)
                np.testing.assert_allclose(still, still[0], atol=1e-9)


def test_the_grid_lies_in_the_middle_of_the_picture():
    ends = [pictures(position_x=end, position_y=end)[0] for end in (0, 31)]
    centres = np.concatenate(centres_of_mass(np.stack(ends)))
    assert centres.mean() == pytest.approx((SIZE - 1) / 2)


def test_nothing_is_cut(in_a_corner):
    far = pictures(shape=slice(None), scale=slice(None), orientation=slice(None), position_x=31, position_y=31)
    for drawn in (in_a_corner, far):
        assert drawn.any((1, 2)).all()
        assert not drawn[:, [0, -1], :].any()
        assert not drawn[:, :, [0, -1]].any()
    assert np.array_equal(in_a_corner[:, :33, :33], far[:, 31:, 31:])


def test_neighbours_differ_but_the_two_ends_of_orientation_are_one(in_a_corner):
    sprites = in_a_corner.reshape(3, 6, 40, -1)
    assert np.array_equal(sprites[:, :, 0], sprites[:, :, -1])
    for axis in range(3):
        assert np.diff(sprites.astype(np.int16), axis=axis).any(-1).all()


def test_several_thousand_pictures_a_second():
    numbers = subset(2000, 0)
    render(numbers[:1])
    before = time.process_time()
    render(numbers)
    assert time.process_time() - before < 0.4


def test_a_subset_is_distinct_even_and_fixed():
    numbers = subset(7200, 5)
    assert np.unique(numbers).size == numbers.size
    assert np.array_equal(numbers, subset(7200, 5))
    assert not np.array_equal(numbers, subset(7200, 6))
    factors = factors_of(numbers)
    for column, size in zip(factors.T[:3], SIZES, strict=False):
        assert np.bincount(column, minlength=size).tolist() == [7200 // size] * size
    for column, size in zip(factors.T[3:], SIZES[3:], strict=True):
        assert np.abs(np.bincount(column, minlength=size) / (7200 / size) - 1).max() < 0.3
    halves = factors[:3600], factors[3600:]
    assert abs(halves[0].mean(0) / halves[1].mean(0) - 1).max() < 0.05  # in random order


def test_the_subset_of_all_is_the_grid():
    assert np.array_equal(np.sort(subset(SAMPLES, 1)), np.arange(SAMPLES))


def test_pictures_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="no picture 737280; dSprites has 0 to 737279"):
        render(np.array([5, SAMPLES]))
    with pytest.raises(ValueError, match="no picture -1"):
        factors_of(np.array([-1]))
    with pytest.raises(ValueError, match="subset of 0 samples; it must have 1 to 737280"):
        subset(0, 0)
