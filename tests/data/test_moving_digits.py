import numpy as np
import pytest

from imagegen_dist.data.moving_digits import BOX, FRAMES, PLACES, SIDE, SPEEDS, moving_digits, path

COUNT = 480


@pytest.fixture(scope="module")
def clips():
    """Clips of squares of 4 × 4 pixels in the middle of the box, which show where it is, with their records."""
    images = np.zeros((10, 1, 28, 28), np.uint8)
    images[:, :, 12:16, 12:16] = 255
    drawn = list(moving_digits(images, np.arange(10), COUNT, seed=0))
    return np.stack([clip for clip, _ in drawn]), [record for _, record in drawn]


def centres(clips):
    """Centres of mass of frames, [N, 1, T, H, W] -> [N, T, 2], from the upper left corner of the box."""
    mass = clips[:, 0].astype(float)
    ends = np.arange(SIDE) + 0.5 - BOX / 2
    total = mass.sum((2, 3))
    return np.stack([mass.sum(3) @ ends / total, mass.sum(2) @ ends / total], -1)


def test_a_path_turns_back_at_both_ends():
    assert path(0, -1).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert path(PLACES - 2, 2).tolist() == [11, 11, 9, 7, 5, 3, 1, 1]
    assert path(5, 0).tolist() == [5] * FRAMES


def test_a_digit_moves_as_its_record_says(clips):
    drawn, records = clips
    there = centres(drawn)
    for track, record in zip(there, records, strict=True):
        for axis, name in enumerate(("y", "x")):
            start, speed = record["factors"][f"position_{name}"], record["condition"][f"velocity_{name}"]
            assert SPEEDS[record["factors"][f"velocity_{name}"]] == speed
            assert track[:, axis] == pytest.approx(path(start, speed), abs=0.02)


def test_every_digit_has_every_velocity_and_none_stands_still(clips):
    conditions = [tuple(record["condition"].values()) for record in clips[1]]
    assert len(set(conditions)) == 240
    assert all(conditions.count(each) == COUNT // 240 for each in set(conditions))
    assert not any(down == right == 0 for _, down, right in conditions)


def test_frames_are_one_picture_at_other_places(clips):
    for clip in clips[0][:50, 0]:
        assert len(np.unique(clip.reshape(FRAMES, -1).sum(1))) == 1
