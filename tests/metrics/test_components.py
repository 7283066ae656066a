"""Principal components of standardised features, and the motion of a clip's centre."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imagegen_dist.metrics.components import Components
from imagegen_dist.metrics.frechet import Moments, frechet_distance
from imagegen_dist.metrics.motion import centroids, motion, velocities


def features(seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return torch.randn(300, 6, generator=generator, dtype=torch.float64) @ mixing + shift


def moments(rows: Tensor) -> Moments:
    found = Moments(rows.shape[1])
    found.add(rows)
    return found


def distance(a: Tensor, real: Tensor, count: int = 32) -> float:
    components = Components.of(moments(real), count)
    return frechet_distance(components.apply(moments(a)), components.apply(moments(real)))


def test_moments_of_coordinates_are_those_of_the_mapped_features() -> None:
    real, a = features(1), features(2, shift=0.5)
    components = Components.of(moments(real), 3)
    ours, theirs = components.apply(moments(a)), moments(components.rows(a))
    assert ours.dim == theirs.dim == 3
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.cov, theirs.cov)
    variances = [float(Components.of(moments(real), count).apply(moments(real)).cov.trace()) for count in (3, 32)]
    assert 3 < variances[0] < variances[1] == pytest.approx(6)  # the largest, and all, of 6 standardised features


def test_a_distance_depends_on_no_features_scale_within_a_hundredth_nor_on_one_that_never_varies() -> None:
    real, a = features(1), features(2, shift=0.5)
    scales = torch.tensor([20, 0.1, 1, 7, 0.3, 10], dtype=torch.float64)
    assert distance(a * scales, real * scales) == pytest.approx(distance(a, real), rel=1e-6)
    constant, varying = torch.full((300, 1), 3.0, dtype=torch.float64), features(3)[:, :1]
    widened = distance(torch.cat([a, varying], 1), torch.cat([real, constant], 1))
    assert widened == pytest.approx(distance(a, real), rel=1e-6)


def test_a_feature_that_one_real_sample_moves_does_not_decide_the_distance() -> None:
    real, a = features(1), features(2, shift=0.5)
    rare = torch.zeros(300, 1, dtype=torch.float64)
    rare[7] = 1e-3
    often = 1e-2 * features(3)[:, :1].relu()
    assert distance(torch.cat([a, often], 1), torch.cat([real, rare], 1)) == pytest.approx(distance(a, real), rel=1e-6)


def clip(track: list[tuple[int, int]], ground: float = -1.0) -> Tensor:
    """A square of 4 × 4 pixels at (row, column) in every frame, on an even ground."""
    x = torch.full((1, 2, len(track), 20, 30), ground)
    for frame, (row, column) in enumerate(track):
        x[:, :, frame, row : row + 4, column : column + 4] = -ground
    return x


@pytest.mark.parametrize("ground", [-1.0, 1.0])
def test_motion_is_that_of_an_object_bright_or_dark(ground: float) -> None:
    x = clip([(3, 5), (5, 5), (7, 8)], ground)
    torch.testing.assert_close(centroids(x)[0, 0], torch.tensor([4.5, 6.5]), atol=0.3, rtol=0)
    torch.testing.assert_close(velocities(x)[0], torch.tensor([[2.0, 0.0], [2.0, 3.0]]), atol=0.1, rtol=0)
    assert motion(x).shape == (1, 6)
    torch.testing.assert_close(motion(x)[0, 4:], torch.tensor([0.0, 3.0]), atol=0.1, rtol=0)
    assert motion(clip([(3, 5), (4, 5)])).shape == (1, 2)


def test_an_empty_clip_does_not_move() -> None:
    assert motion(torch.full((2, 1, 3, 5, 5), 0.25)).eq(0).all()
