"""Volumes as solid bodies."""

import numpy as np
import pytest

from imagegen_dist.drawing import isosurface
from imagegen_dist.drawing.isosurface import View, isosurfaces, turntable


def ball(side: int, radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """A ball in a cube whose coordinates go from -1 to 1 along D, H and W: uint8 [1, 1, side, side, side]."""
    at = (np.arange(side) + 0.5) / side * 2 - 1
    away = np.stack(np.meshgrid(at, at, at, indexing="ij"), -1) - np.array(centre)
    distance = np.linalg.norm(away, axis=-1)
    return (255 * np.clip((radius - distance) * side / 4 + 0.5, 0, 1)).astype(np.uint8)[None, None]


def drawn(picture: np.ndarray) -> np.ndarray:
    """Where the body is, [H, W]: it is blue, the haze around it is grey."""
    return picture[2].astype(int) - picture[0] > 20


def test_a_ball_is_a_disc_of_its_radius_from_every_side() -> None:
    volume = ball(24, 0.7)
    for yaw, pitch in ((0, 0), (1, 0.5), (2.5, -0.4)):
        [picture] = isosurfaces(volume, View(140, yaw, pitch))
        assert drawn(picture).sum() == pytest.approx(np.pi * (0.7 * 140 / 2.8) ** 2, rel=0.03)


def test_the_axes_are_w_to_the_right_and_h_downwards() -> None:
    front = View(60, 0, 0)
    for centre, side in (((0, 0, 0.5), "right"), ((0, 0.5, 0), "below"), ((0.5, 0, 0), "away")):
        [picture] = isosurfaces(ball(16, 0.3, centre), front)
        row, column = np.argwhere(drawn(picture)).mean(0)
        assert (round((column - 29.5) / 10), round((row - 29.5) / 10)) == {"right": (1, 0), "below": (0, 1)}.get(
            side, (0, 0)
        )


def test_what_is_nearer_hides_what_is_behind_and_light_falls_from_above() -> None:
    near, far = ball(24, 0.3, (-0.5, 0, 0)), ball(24, 0.3, (0.5, 0, 0))
    both = isosurfaces(np.maximum(near, far), View(60, 0, 0))
    assert np.array_equal(both, isosurfaces(near, View(60, 0, 0)))
    [picture] = isosurfaces(ball(24, 0.7), View(60, 0, 0))
    assert picture[2, 18, 30] > picture[2, 41, 30] + 50


def test_a_view_from_above_shows_what_is_behind_higher_up() -> None:
    near, far = (isosurfaces(ball(16, 0.3, (side, 0, 0)), View(60, 0, 0.5))[0] for side in (-0.5, 0.5))
    assert np.argwhere(drawn(far)).mean(0)[0] < np.argwhere(drawn(near)).mean(0)[0] - 5


def test_a_turn_ends_where_it_began_and_a_quarter_turn_moves_depth_to_the_side() -> None:
    volume = ball(16, 0.25, (0.5, 0, 0))
    frames = list(turntable(volume, 48, 4))
    assert np.array_equal(frames[0], next(iter(turntable(volume, 48, 7))))
    columns = [np.argwhere(drawn(frame[0])).mean(0)[1] for frame in frames]
    assert max(columns) - min(columns) > 8


def test_colours_are_those_of_the_volume_and_what_has_no_surface_is_haze() -> None:
    red = np.concatenate([ball(12, 0.8), np.zeros((1, 2, 12, 12, 12), np.uint8)], 1)
    [picture] = isosurfaces(red, View(40))
    assert picture[0, 20, 20] > 60
    assert not picture[1:, 20, 20].any()
    [faint] = isosurfaces(ball(12, 0.8) // 3, View(40))
    assert 160 < faint[0, 20, 20] < 240
    assert (faint[0] == faint[2]).all()
    wide = isosurfaces(ball(12, 0.8).astype(np.uint16) * 257, View(40))
    assert np.array_equal(wide, isosurfaces(ball(12, 0.8), View(40)))


def test_a_large_picture_is_drawn_in_parts_without_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = np.concatenate([ball(8, 0.6, (0, 0.2, at)) for at in (-0.3, 0, 0.3)])
    whole = isosurfaces(volumes, View(50))
    monkeypatch.setattr(isosurface, "_POINTS_AT_ONCE", 50 * 28 * 7)
    assert np.array_equal(isosurfaces(volumes, View(50)), whole)
