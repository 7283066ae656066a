"""Arcs between latents, and latents that swing."""

from math import cos, pi, sin

import pytest
import torch

from imagegen_dist.evaluation.traversal import traverse
from imagegen_dist.inference.interpolation import blend, latent_path, slerp, swing

T = torch.linspace(0, 1, 7)


def test_an_arc_of_the_plane_is_a_rotation() -> None:
    found = slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0]), T)
    expected = [[2 * cos(t * pi / 2), 2 * sin(t * pi / 2)] for t in T.tolist()]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_an_arc_begins_and_ends_at_its_latents_and_turns_evenly() -> None:
    start, end = torch.randn(2, 3, 4, 4)
    arc = slerp(start, end, T)
    torch.testing.assert_close(arc[0], start)
    torch.testing.assert_close(arc[-1], end)
    unit = slerp(start / start.norm(), end / end.norm(), T).flatten(1)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(7))
    steps = torch.acos((unit[1:] * unit[:-1]).sum(1))
    torch.testing.assert_close(steps, steps[:1].expand(6), rtol=1e-3, atol=1e-4)


def test_the_middle_of_an_arc_is_as_long_as_what_a_gaussian_draws() -> None:
    start, end = torch.randn(2, 4096)
    [middle] = slerp(start, end, torch.tensor([0.5]))
    assert middle.norm() / 64 == pytest.approx(1, abs=0.05)
    assert ((start + end) / 2).norm() / 64 < 0.75


def test_latents_of_one_direction_are_joined_by_a_line() -> None:
    z = torch.ones(4)
    torch.testing.assert_close(slerp(z, 3 * z, torch.tensor([0.25])), 1.5 * z[None])
    assert slerp(z, -z, T).isfinite().all()


def test_a_walk_passes_every_latent_and_comes_back() -> None:
    keys = torch.randn(3, 5)
    path = latent_path(keys, 4)
    assert path.shape == (12, 5)
    torch.testing.assert_close(path[::4], keys)
    torch.testing.assert_close(path[11], slerp(keys[2], keys[0], torch.tensor([0.75]))[0])


def test_class_weights_go_in_straight_lines_and_sum_to_one() -> None:
    weights = blend(torch.eye(3), 2)
    assert weights.tolist() == [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1], [0.5, 0, 0.5]]


def test_a_swing_is_closed_and_reaches_both_ends() -> None:
    values = swing(8)
    torch.testing.assert_close(values[[0, 2, 4, 6]], torch.tensor([0, 2.5, 0, -2.5]), rtol=0, atol=1e-6)


def test_a_traversal_changes_one_latent_a_row() -> None:
    z = torch.tensor([9.0, 8.0, 7.0])
    assert traverse(z, [2, 0], torch.tensor([-1.0, 1.0])).tolist() == [[9, 8, -1], [9, 8, 1], [-1, 8, 7], [1, 8, 7]]
