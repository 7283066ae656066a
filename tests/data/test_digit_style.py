"""The measured styles of drawn strokes, whose slant and thickness are known."""

import numpy as np
import pytest

from imagegen_dist.data.digit_style import STYLES, measure_style


def stroke(slant: float, thickness: float, length: float = 60.0, side: int = 96) -> np.ndarray:
    """A straight stroke around the centre, uint8 [1, side, side], with smooth edges."""
    y, x = -(np.mgrid[:side, :side] - (side - 1) / 2)[0], (np.mgrid[:side, :side] - (side - 1) / 2)[1]
    across = np.abs(x - slant * y) / np.hypot(1, slant)
    ink = np.clip(thickness / 2 + 0.5 - across, 0, 1) * np.clip(length / 2 + 0.5 - np.abs(y), 0, 1)
    return (ink * 255).round().astype(np.uint8)[None]


@pytest.mark.parametrize("slant", [-0.5, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("thickness", [2.0, 3.0, 5.0])
def test_a_strokes_slant_and_thickness_are_measured(slant: float, thickness: float) -> None:
    measured = dict(zip(STYLES, measure_style(stroke(slant, thickness)[None])[0], strict=True))
    assert measured["slant"] == pytest.approx(slant, abs=0.01)
    # Crofton's formula with two directions is exact on average over all directions, and within a quarter for one.
    assert measured["weight"] == pytest.approx(thickness, rel=0.3)
    assert measured["height"] == pytest.approx(4 * 60 / np.sqrt(12), rel=0.03)


def test_thickness_grows_with_the_stroke_and_an_empty_picture_is_all_zeros() -> None:
    weights = measure_style(np.stack([stroke(0.2, thickness) for thickness in (1.5, 2, 3, 4, 6)]))[:, 1]
    assert (np.diff(weights) > 0).all()
    assert not measure_style(np.zeros((1, 1, 28, 28), np.uint8)).any()
