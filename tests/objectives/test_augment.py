"""Augmentation: each transformation by itself, determinism, probability, derivatives of both orders."""

from dataclasses import fields, replace
from math import pi

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from benchmarks.operators import Counting
from imagegen_dist.nn.grid import resample_grid
from imagegen_dist.objectives.augment import _AMOUNTS, _STRIKES, Augmentation, AugmentConfig, augment, random_flip
from imagegen_dist.objectives.base import Draw

NOTHING = AugmentConfig(**{field.name: 0.0 for field in fields(AugmentConfig) if field.name != "policy"})
GEOMETRY = replace(AugmentConfig(), brightness=0, contrast=0, luma_flip=0, hue=0, saturation=0, cutout=0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def apply_only(name: str, x: torch.Tensor, p: float = 1.0, seed: int = 0) -> torch.Tensor:
    return augment(x, p, replace(NOTHING, **{name: 1.0}), seeded(seed))


def measured_maps(name: str, batch: int = 64, extent: int = 32) -> torch.Tensor:
    """[B, 2, 3] affine maps (columns, rows, offset), fitted to what happens to an image of its own coordinates."""
    line = torch.arange(extent, dtype=torch.float64) - (extent - 1) / 2
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    y = apply_only(name, torch.stack([columns, rows]).expand(batch, 2, extent, extent))
    middle = slice(extent // 2 - 2, extent // 2 + 2)
    positions = torch.stack([columns, rows, torch.ones_like(rows)])[:, middle, middle].flatten(1)
    return y[:, :, middle, middle].flatten(2) @ torch.linalg.pinv(positions)


def grey_and_chroma(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    grey = x.mean(1, keepdim=True)
    return grey, x - grey


def test_probability_zero_returns_the_samples_themselves():
    x = noise(4, 3, 8, 8)
    assert augment(x, 0.0, AugmentConfig(), seeded()) is x


def test_no_transformation_returns_the_samples_themselves():
    x = noise(4, 3, 8, 8)
    assert augment(x, 1.0, NOTHING, seeded()) is x


def test_randomness_comes_from_the_generator_alone():
    x, before = noise(4, 3, 8, 8), torch.get_rng_state()
    a, b = (augment(x, 0.7, AugmentConfig(), seeded(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, augment(x, 0.7, AugmentConfig(), seeded(4)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 6, 10), (2, 3, 4, 8, 6), (2, 1, 4, 4, 4), (2, 5, 7, 7)])
def test_shape_and_type_are_kept(shape):
    y = augment(noise(*shape).float(), 0.8, AugmentConfig(), seeded())
    assert y.shape == shape
    assert y.dtype == torch.float32
    assert y.isfinite().all()


def test_flip_mirrors_the_last_axis_of_half_the_samples():
    x = noise(64, 3, 5, 8)
    y = apply_only("flip", x)
    kinds = [(torch.allclose(b, a), torch.allclose(b, a.flip(-1))) for a, b in zip(x, y, strict=True)]
    assert all(kept != mirrored for kept, mirrored in kinds)
    assert 20 < sum(mirrored for _, mirrored in kinds) < 44


def test_rotate90_turns_by_all_four_quarters():
    x = noise(64, 3, 8, 8)
    y = apply_only("rotate90", x)
    turns = [[torch.allclose(b, a.rot90(k, (-2, -1))) for k in range(4)] for a, b in zip(x, y, strict=True)]
    assert all(sum(turn) == 1 for turn in turns)
    assert {turn.index(True) for turn in turns} == {0, 1, 2, 3}


def test_integer_translation_moves_by_whole_pixels_and_mirrors_the_edge():
    x = noise(64, 1, 16, 24)
    y = apply_only("translate_integer", x)
    mirrored = torch.cat([x[:, :, :2].flip(2), x, x[:, :, -2:].flip(2)], dim=2)
    mirrored = torch.cat([mirrored[..., :3].flip(3), mirrored, mirrored[..., -3:].flip(3)], dim=3)
    moves = set()
    for index in range(64):
        found = [
            (row - 2, column - 3)
            for row in range(5)
            for column in range(7)
            if torch.allclose(y[index, 0], mirrored[index, 0, row : row + 16, column : column + 24])
        ]
        assert len(found) == 1
        moves.update(found)
    assert {row for row, _ in moves} == {-2, -1, 0, 1, 2}
    assert {column for _, column in moves} == {-3, -2, -1, 0, 1, 2, 3}


def test_scale_is_isotropic_about_the_centre():
    maps = measured_maps("scale")
    factor = maps[:, 0, 0]
    expected = torch.zeros_like(maps)
    expected[:, 0, 0] = expected[:, 1, 1] = factor
    torch.testing.assert_close(maps, expected)
    assert 0.12 < factor.log2().std() < 0.28


def test_rotation_keeps_lengths_and_orientation():
    maps = measured_maps("rotate")
    linear = maps[:, :, :2]
    torch.testing.assert_close(linear @ linear.transpose(1, 2), torch.eye(2, dtype=torch.float64).expand(64, 2, 2))
    torch.testing.assert_close(torch.linalg.det(linear), torch.ones(64, dtype=torch.float64))
    torch.testing.assert_close(maps[:, :, 2], torch.zeros(64, 2, dtype=torch.float64))
    assert linear[:, 0, 0].min() < -0.8


def test_anisotropy_scales_one_axis_against_the_other():
    maps = measured_maps("anisotropy")
    torch.testing.assert_close(maps[:, 0, 0] * maps[:, 1, 1], torch.ones(64, dtype=torch.float64))
    torch.testing.assert_close(maps[:, 0, 1:].abs() + maps[:, 1, ::2].abs(), torch.zeros(64, 2, dtype=torch.float64))
    assert 0.12 < maps[:, 0, 0].log2().std() < 0.28


def test_translation_moves_by_fractions_of_a_pixel():
    maps = measured_maps("translate")
    torch.testing.assert_close(maps[:, :, :2], torch.eye(2, dtype=torch.float64).expand(64, 2, 2))
    assert 2.5 < maps[:, :, 2].std() < 5.5
    assert (maps[:, :, 2] - maps[:, :, 2].round()).abs().max() > 0.3


def test_transformations_compose_in_their_order():
    x = noise(8, 1, 8, 8)
    both = augment(x, 1.0, replace(NOTHING, flip=1.0, rotate90=1.0), seeded())
    reached = [
        any(torch.allclose(b, c.rot90(k, (-2, -1))) for c in (a, a.flip(-1)) for k in range(4))
        for a, b in zip(x, both, strict=True)
    ]
    assert all(reached)


@pytest.mark.parametrize("extents", [(16, 16), (16, 40)])
def test_all_geometry_together_is_the_product_of_its_matrices(extents):
    height, width = extents
    x = noise(500, 3, height, width)
    augmentation = Augmentation(AugmentConfig())
    drawn = augmentation.draw(x, 0.6, Draw(0, seeded()))
    scale, shift = drawn.constants.scale, drawn.constants.shift
    numbers = scale * drawn.numbers + shift
    struck = dict(zip(_STRIKES, drawn.strikes.double().T, strict=True))
    value = {name: struck[_AMOUNTS[name]] * number for name, number in zip(_AMOUNTS, numbers.T, strict=True)}

    def affine(linear: list[list[torch.Tensor | float]], x0=0.0, y0=0.0) -> torch.Tensor:
        rows = [[*linear[0], x0], [*linear[1], y0], [0.0, 0.0, 1.0]]
        return torch.stack([torch.stack([torch.as_tensor(v).double().expand(500) for v in row], 1) for row in rows], 1)

    def rotation(angle: torch.Tensor) -> torch.Tensor:
        return affine([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])

    def scaling(sx: torch.Tensor, sy: torch.Tensor | float) -> torch.Tensor:
        return affine([[sx, 0.0], [0.0, sy]])

    one = [[1.0, 0.0], [0.0, 1.0]]
    stretch, narrow = value["scale"].exp2(), value["anisotropy"].exp2()
    pixels = (
        rotation(value["quarters"].round() * pi / 2)
        @ affine(one, value["shift_x"].round(), value["shift_y"].round())
        @ rotation(value["before"])
        @ scaling(value["flip"].cos(), 1.0)
        @ scaling(stretch, stretch)
        @ scaling(narrow, 1 / narrow)
        @ rotation(value["after"])
        @ affine(one, value["move_x"] * height / 2, value["move_y"] * height / 2)
    )
    half = torch.tensor([width / 2, height / 2, 1.0], dtype=torch.float64)
    expected = (pixels * half / half[:, None])[:, :2]
    torch.testing.assert_close(augmentation.transform(drawn, x).theta, expected)
    assert 0.5 < struck["translate"].mean() < 0.7


def test_a_call_is_at_most_60_operators():
    x = noise(8, 3, 16, 16).float()
    augmentation = Augmentation(AugmentConfig())
    augmentation.draw(x, 0.5, Draw(0, seeded()))  # makes the constants
    with Counting() as counting:
        augmentation.transform(augmentation.draw(x, 0.5, Draw(0, seeded())), x).apply(x)
    assert 40 < counting.operators().total <= 60


def test_views_are_the_transformations_of_each_sample_one_after_another():
    x, y = noise(4, 3, 8, 8), noise(4, 3, 8, 8, seed=2)
    augmentation = Augmentation(AugmentConfig())
    transform = augmentation.transform(augmentation.draw(x, 0.9, Draw(0, seeded()), views=2), x)
    together = transform.apply(torch.stack([x, y], 1).flatten(0, 1)).unflatten(0, (-1, 2))
    first, second = transform.views()
    torch.testing.assert_close(torch.stack([first.apply(x), second.apply(y)], 1), together)


def test_geometry_is_linear_in_the_samples():
    x, y = noise(4, 3, 8, 8), noise(4, 3, 8, 8, seed=2)
    mixed = augment(2 * x - 3 * y, 0.9, GEOMETRY, seeded())
    separate = 2 * augment(x, 0.9, GEOMETRY, seeded()) - 3 * augment(y, 0.9, GEOMETRY, seeded())
    torch.testing.assert_close(mixed, separate)


def test_geometry_keeps_constants():
    x = torch.full((16, 3, 8, 12), 0.3, dtype=torch.float64)
    torch.testing.assert_close(augment(x, 1.0, GEOMETRY, seeded()), x)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_brightness_adds_and_contrast_multiplies_one_number_a_sample(channels):
    x = noise(64, channels, 4, 4)
    added = (apply_only("brightness", x) - x).flatten(1)
    factor = (apply_only("contrast", x) / x).flatten(1)
    torch.testing.assert_close(added, added[:, :1].expand_as(added))
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    assert 0.14 < added[:, 0].std() < 0.26
    assert 0.35 < factor[:, 0].log2().std() < 0.65


def test_luma_flip_inverts_grey_and_keeps_chroma():
    x = noise(32, 3, 4, 4)
    grey, chroma = grey_and_chroma(x)
    new_grey, new_chroma = grey_and_chroma(apply_only("luma_flip", x))
    torch.testing.assert_close(new_chroma, chroma)
    torch.testing.assert_close(new_grey.abs(), grey.abs())
    assert 8 < sum(torch.allclose(a, -b) for a, b in zip(new_grey, grey, strict=True)) < 24


def test_hue_turns_chroma_and_keeps_grey():
    x = noise(32, 3, 4, 4)
    grey, chroma = grey_and_chroma(x)
    new_grey, new_chroma = grey_and_chroma(apply_only("hue", x))
    torch.testing.assert_close(new_grey, grey)
    torch.testing.assert_close(new_chroma.norm(dim=1), chroma.norm(dim=1))
    cosine = F.cosine_similarity(new_chroma, chroma, dim=1).flatten(1)
    torch.testing.assert_close(cosine, cosine[:, :1].expand_as(cosine))
    assert cosine[:, 0].min() < -0.8


def test_saturation_scales_chroma_and_keeps_grey():
    x = noise(32, 3, 4, 4)
    grey, chroma = grey_and_chroma(x)
    new_grey, new_chroma = grey_and_chroma(apply_only("saturation", x))
    factor = (new_chroma / chroma).flatten(1)
    torch.testing.assert_close(new_grey, grey)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    assert factor.min() > 0


@pytest.mark.parametrize("name", ["luma_flip", "hue", "saturation"])
def test_colour_rotations_leave_other_channel_counts_alone(name):
    x = noise(4, 1, 4, 4)
    assert torch.equal(apply_only(name, x), x)


def test_cutout_clears_one_rectangle_of_half_the_extent():
    y = apply_only("cutout", torch.ones(64, 2, 16, 8))
    assert set(y.unique().tolist()) == {0.0, 1.0}
    for sample in y:
        rows = (sample[0] == 0).any(1).sum().item()
        columns = (sample[0] == 0).any(0).sum().item()
        assert (sample[0] == 0).sum().item() == rows * columns
        assert torch.equal(sample[0], sample[1])
        assert 4 <= rows <= 8
        assert 2 <= columns <= 4


@pytest.mark.parametrize(("name", "p"), [("brightness", 0.3), ("cutout", 0.6), ("scale", 0.3), ("rotate", 0.5)])
def test_a_transformation_strikes_with_its_probability(name, p):
    x = 1 + noise(4000, 1, 4, 4).abs()
    struck = ((apply_only(name, x, p) - x).abs().flatten(1).amax(1) > 1e-6).double().mean().item()
    assert struck == pytest.approx(p, abs=0.03)


def test_multipliers_scale_the_probability():
    x = noise(4000, 1, 2, 2)
    y = augment(x, 0.8, replace(NOTHING, brightness=0.5), seeded())
    assert (y != x).flatten(1).any(1).double().mean().item() == pytest.approx(0.4, abs=0.03)


def test_frames_of_a_video_are_transformed_alike():
    frame = noise(4, 3, 8, 8)
    video = frame[:, :, None].expand(-1, -1, 5, -1, -1)
    expected = augment(frame, 0.9, AugmentConfig(), seeded())[:, :, None].expand_as(video)
    torch.testing.assert_close(augment(video, 0.9, AugmentConfig(), seeded()), expected)


@pytest.mark.parametrize("shape", [(3, 3, 4, 4), (2, 1, 2, 4, 3)])
def test_derivatives_of_first_and_second_order(shape):
    x = noise(*shape).requires_grad_()
    assert gradcheck(lambda x: augment(x, 0.9, AugmentConfig(), seeded()), (x,))
    assert gradgradcheck(lambda x: augment(x, 0.9, AugmentConfig(), seeded()).pow(3), (x,))


def test_gradient_penalty_goes_back_through_the_augmentation():
    weight = noise(3 * 64).requires_grad_()
    x = noise(2, 3, 8, 8).requires_grad_()

    def penalty(weight: torch.Tensor) -> torch.Tensor:
        logits = (augment(x, 0.9, GEOMETRY, seeded()).flatten(1) @ weight).pow(2)
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return gradient.square().sum()

    (analytic,) = torch.autograd.grad(penalty(weight), weight)
    direction = noise(3 * 64, seed=5)
    step = 1e-5 * direction
    numeric = (penalty(weight.detach() + step) - penalty(weight.detach() - step)) / 2e-5
    torch.testing.assert_close(analytic @ direction, numeric.detach(), rtol=1e-7, atol=1e-7)


def test_resampling_equals_torch_and_its_gradient_is_the_transpose():
    x, gradient = noise(2, 3, 5, 6).requires_grad_(), noise(2, 3, 4, 7)
    grid = 1.5 * noise(2, 4, 7, 2)
    expected = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    torch.testing.assert_close(resample_grid(x, grid), expected)
    for y in (resample_grid(x, grid), expected):
        (transposed,) = torch.autograd.grad(y, x, gradient)
        torch.testing.assert_close((y * gradient).sum(), (x * transposed).sum())


def test_random_flip_mirrors_about_half_of_the_samples():
    x = noise(64, 3, 2, 4, 5)
    y = random_flip(x, Draw(0, seeded()))
    kinds = [(torch.equal(b, a), torch.equal(b, a.flip(-1))) for a, b in zip(x, y, strict=True)]
    assert all(kept != mirrored for kept, mirrored in kinds)
    assert 20 < sum(mirrored for _, mirrored in kinds) < 44
    assert torch.equal(random_flip(x, Draw(0, seeded())), y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment(torch.zeros(1, 1, 4, 4), 1.2, AugmentConfig(), seeded()), "1.2 is outside"),
        (lambda: augment(torch.zeros(1, 1, 4), 0.5, AugmentConfig(), seeded()), "2 or 3 spatial axes, not 1"),
        (lambda: AugmentConfig(luma_flip=2.0), "--objective.augment.luma-flip"),
    ],
)
def test_values_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
