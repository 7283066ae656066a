"""Augmentation along the first of three axes: only places change, each as often as the others."""

from collections import Counter
from dataclasses import fields, replace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from imagegen_dist.objectives.augment import Augmentation, AugmentConfig, augment
from imagegen_dist.objectives.base import Draw
from imagegen_dist.shape import SampleShape

NOTHING = AugmentConfig(**{field.name: 0.0 for field in fields(AugmentConfig) if field.name != "policy"})
CUBE = (3, 3, 3)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def augmented(x: torch.Tensor, p: float = 1.0, **shares: float) -> torch.Tensor:
    return augment(x, p, replace(NOTHING, **shares), seeded())


def test_flip_mirrors_the_first_axis_of_half_the_samples() -> None:
    x = noise(64, 2, 3, 4, 5)
    y = augmented(x, flip_depth=1.0)
    kinds = [(torch.equal(b, a), torch.equal(b, a.flip(-3))) for a, b in zip(x, y, strict=True)]
    assert all(kept != mirrored for kept, mirrored in kinds)
    assert 20 < sum(mirrored for _, mirrored in kinds) < 44


def test_translation_moves_by_whole_places_and_mirrors_the_ends() -> None:
    x = noise(1, 2, 16, 3, 4).expand(600, -1, -1, -1, -1)
    y = augmented(x, translate_depth=1.0)
    mirrored = torch.cat([x[0, :, :2].flip(1), x[0], x[0, :, -2:].flip(1)], dim=1)
    moves = {start - 2: mirrored[:, start : start + 16] for start in range(5)}
    found = Counter(next(move for move, moved in moves.items() if torch.equal(moved, sample)) for sample in y)
    assert found.keys() == moves.keys()
    assert max(abs(count - 120) for count in found.values()) < 40  # four deviations


@pytest.mark.parametrize(("flip", "expected"), [(0.0, 24), (1.0, 48)])
def test_with_turns_in_the_plane_every_rotation_of_a_cube_comes_equally_often(flip: float, expected: int) -> None:
    """And with flips each symmetry."""
    x = noise(1, 1, *CUBE).expand(expected * 100, -1, -1, -1, -1)
    y = augmented(x, rotate_depth=1.0, rotate90=1.0, flip_depth=flip)
    places = [tuple(sample.flatten().mul(1e6).round().long().tolist()) for sample in y]
    found = Counter(places)
    assert len(found) == expected
    assert max(abs(count - 100) for count in found.values()) < 45  # 4.5 deviations
    assert all(sorted(place) == sorted(places[0]) for place in found)


def test_turns_keep_orientation() -> None:
    """Three edges of different values go round their corner in one direction from wherever it is."""
    x = torch.zeros(1, 1, *CUBE, dtype=torch.float64)
    x[0, 0, 1, 0, 0], x[0, 0, 0, 1, 0], x[0, 0, 0, 0, 1] = 1.0, 2.0, 3.0
    for sample in augmented(x.expand(100, -1, -1, -1, -1), rotate_depth=1.0):
        edges = torch.stack([(sample[0] == value).nonzero()[0] for value in (1, 2, 3)]).double()
        corner = torch.where(edges == 1, 0, edges).sum(0) / 2  # along each axis, two of the edges begin there
        assert torch.linalg.det(edges - corner) == pytest.approx(1.0)


def test_a_probability_and_depth_without_other_transformations() -> None:
    x = noise(4000, 1, 4, 1, 1)
    struck = (augmented(x, 0.6, flip_depth=0.5) != x).flatten(1).any(1).double().mean().item()
    assert struck == pytest.approx(0.15, abs=0.03)


def test_views_are_the_transformations_of_each_sample_one_after_another() -> None:
    x = noise(4, 1, 4, 4, 4)
    augmentation = Augmentation(replace(NOTHING, flip_depth=1.0, translate_depth=1.0, rotate_depth=1.0))
    drawn = augmentation.draw(x, 1.0, Draw(0, seeded()), views=2)
    transform = augmentation.transform(drawn, x)
    together = transform.apply(x.repeat_interleave(2, 0)).unflatten(0, (-1, 2))
    assert torch.equal(torch.stack([view.apply(x) for view in transform.views()], 1), together)


def test_derivatives_of_first_and_second_order() -> None:
    x = noise(2, 2, 2, 2, 2).requires_grad_()
    shares = {"flip_depth": 1.0, "translate_depth": 1.0, "rotate_depth": 1.0, "brightness": 1.0}
    assert gradcheck(lambda x: augmented(x, 0.9, **shares), (x,))
    assert gradgradcheck(lambda x: augmented(x, 0.9, **shares).pow(3), (x,))


@pytest.mark.parametrize(
    ("shape", "share", "message"),
    [
        (SampleShape(3, (8, 8)), "flip_depth", "--objective.augment.flip-depth is for volumes and videos"),
        (SampleShape(3, (4, 8, 8)), "rotate_depth", "--objective.augment.rotate-depth turns cubes"),
    ],
)
def test_samples_that_have_no_such_axis_are_refused(shape: SampleShape, share: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(replace(NOTHING, **{share: 1.0})).check(shape)
