"""Features that are shifted and scaled by functions of a vector."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from imagegen_dist.data import moving_digits
from imagegen_dist.models.dcgan import DCGANConfig
from imagegen_dist.models.dcgan import Generator as DCGANGenerator
from imagegen_dist.models.r3gan import Discriminator, Generator, R3GANConfig
from imagegen_dist.nn.placement import Path, Placement
from imagegen_dist.shape import SampleShape


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def placement(spatial: tuple[int, ...], frames: int = 0, whole_shifts: bool = False, path: bool = False) -> Placement:
    made = Placement(spatial, 5, frames, whole_shifts, path, generator=seeded()).double()
    torch.nn.init.normal_(made.scale.weight, std=0.1, generator=seeded(2))
    return made


def by_points(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """PyTorch's sampler at points: x [B, C, *S], shift and scale in positions, [B, axes]."""
    theta = torch.zeros(len(x), x.ndim - 2, x.ndim - 1, dtype=x.dtype)
    for axis, extent in enumerate(x.shape[2:]):
        row = x.ndim - 3 - axis  # the sampler counts axes from the last
        theta[:, row, row] = 1 / scale[:, axis]
        theta[:, row, -1] = -shift[:, axis] / scale[:, axis] * 2 / (extent - 1)
    points = F.affine_grid(theta, list(x.shape), align_corners=True)
    return F.grid_sample(x, points, mode="bilinear", padding_mode="border", align_corners=True)


@pytest.mark.parametrize("spatial", [(9,), (6, 8), (4, 5, 7)])
def test_it_is_a_spatial_transformer_without_rotation(spatial: tuple[int, ...]) -> None:
    layer, x, features = placement(spatial), noise(3, 2, *spatial), noise(3, 5, seed=3)
    shifts, scales = layer.amounts(features)
    assert shifts.abs().max() > 0.2
    assert (scales - 1).abs().max() > 0.05
    placed = layer(x, features)
    if len(spatial) == 1:  # the sampler has two axes or three
        x, shifts, scales = x[:, :, None], F.pad(shifts, (1, 0)), F.pad(scales, (1, 0), value=1.0)
        x, placed = x.expand(-1, -1, 2, -1), placed[:, :, None].expand(-1, -1, 2, -1)
    torch.testing.assert_close(placed, by_points(x, shifts[:, 0], scales))


def test_every_frame_has_a_place_of_its_own() -> None:
    layer, x, features = placement((6, 8), frames=3), noise(2, 4, 6, 8), noise(2, 5, seed=3)
    shifts, scales = layer.amounts(features)
    clip = layer(x, features)
    assert clip.shape == (2, 4, 3, 6, 8)
    for frame in range(3):
        torch.testing.assert_close(clip[:, :, frame], by_points(x, shifts[:, frame], scales))
    assert (clip[:, :, 0] - clip[:, :, 1]).abs().max() > 0.1


def test_whole_shifts_are_rounded_and_have_the_gradient_of_those_that_are_not() -> None:
    between, whole = placement((9,)), placement((9,), whole_shifts=True)
    features = noise(3, 5, seed=3).requires_grad_()
    x, factor = noise(3, 2, 9), noise(3, 2, 9, seed=4)
    shifts, scales = whole.amounts(features)
    rounded, scales = F.pad(shifts[:, 0].round(), (1, 0)), F.pad(scales, (1, 0), value=1.0)
    placed = whole(x, features)
    torch.testing.assert_close(placed, by_points(x[:, :, None].expand(-1, -1, 2, -1), rounded, scales)[:, :, 0])
    assert (placed - between(x, features)).abs().max() > 0.1
    (ours,), (theirs,) = (
        torch.autograd.grad((layer(x, features) * factor).sum(), features) for layer in (whole, between)
    )
    torch.testing.assert_close(ours, theirs)
    assert ours.abs().max() > 0.01


def even(path: Path, first: float, move: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A path whose gate is closed: shares of one sample on one axis, and no hidden values."""
    last = path.rule[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([-100.0, 0.0], dtype=torch.float64)
    shares = (torch.tensor([[value]], dtype=torch.float64).atanh().requires_grad_() for value in (first, move))
    return *shares, torch.zeros(1, 5, dtype=torch.float64)


def test_along_a_path_every_frame_moves_on_from_the_one_before_it() -> None:
    path = Path((12,), 5, 4, whole=False, generator=seeded()).double()
    shifts = path(*even(path, first=-0.5, move=0.4))
    assert shifts.flatten().tolist() == pytest.approx([-3, -1.8, -0.6, 0.6])  # of 12 positions, half and a quarter
    assert shifts.round().flatten().tolist() == [-3, -2, -1, 1]


def test_whole_moves_keep_an_even_motion_even_and_their_gradient_is_taken_where_the_frame_is() -> None:
    path = Path((32,), 5, 8, whole=True, generator=seeded()).double()
    first, move, hidden = even(path, first=0, move=0.35)  # of a largest move of 4
    shifts = path(first, move, hidden)
    assert shifts.round().flatten().tolist() == list(range(8))  # 1.4 t would be rounded to 0, 1, 3, 4
    assert shifts.flatten().tolist() == pytest.approx([0, *(frame + 0.4 for frame in range(1, 8))])
    gradients = torch.autograd.grad(shifts[0, 7, 0], (first, move))
    assert [float(each) for each in gradients] == pytest.approx([16, 7 * 4 * (1 - 0.35**2)])


def test_a_paths_gate_turns_a_move_back_and_adds_a_summand() -> None:
    path = Path((8, 16), 5, 4, whole=False, generator=seeded()).double()
    gated: list[torch.Tensor] = []
    path.rule.register_forward_hook(lambda _, __, output: gated.append(output.unflatten(0, (3, 2))))
    first, move, hidden = noise(3, 2), noise(3, 2, seed=2), noise(3, 5, seed=3)
    shifts = path(first, move, hidden)
    largest = torch.tensor([2.0, 4.0], dtype=torch.float64)
    place = first.tanh() * torch.tensor([4.0, 8.0], dtype=torch.float64)
    torch.testing.assert_close(shifts[:, 0], place)
    for frame in range(1, 4):
        if frame > 1:
            gate, summand = torch.sigmoid(4 * gated[frame - 2][..., 0] - 3), gated[frame - 2][..., 1]
            move = (1 - gate) * move - gate * move + gate * summand
        place = place + largest * move.tanh()
        torch.testing.assert_close(shifts[:, frame], place)
    assert len(gated) == 2


def test_a_paths_rule_is_the_same_along_all_axes() -> None:
    path = Path((8, 16), 5, 6, whole=False, generator=seeded()).double()
    with torch.no_grad():
        path.of_hidden.weight[5:] = path.of_hidden.weight[:5]
    first, move, hidden = noise(3, 2), noise(3, 2, seed=2), noise(3, 5, seed=3)
    shares = path(first, move, hidden) / torch.tensor([8.0, 16.0], dtype=torch.float64)
    swapped = path(first.flip(1), move.flip(1), hidden) / torch.tensor([8.0, 16.0], dtype=torch.float64)
    torch.testing.assert_close(swapped, shares.flip(2))


def test_a_path_learns_to_turn_back_at_an_edge() -> None:
    """Positions of moving digits, of starts and velocities that are given; a third of them are behind a turn."""
    every = list(product(range(moving_digits.PLACES), moving_digits.SPEEDS))
    starts, velocities = torch.tensor(every).unbind(1)
    paths = torch.stack([torch.from_numpy(moving_digits.path(*each)) for each in every])
    path, known = Path((32,), 32, 8, whole=True, generator=seeded()), torch.stack([starts / 6 - 1, velocities], 1)
    first, moves = ((starts - 6) / 16).atanh()[:, None], torch.nn.Parameter(torch.zeros(len(starts), 1))
    optimizer = torch.optim.Adam([*path.parameters(), moves], lr=1e-2)
    for _ in range(300):
        shifts = path(first, moves, F.pad(known, (0, 30)))
        optimizer.zero_grad()
        (shifts[..., 0] - (paths - 6)).square().mean().backward()
        optimizer.step()
    straight = starts[:, None] + velocities[:, None] * torch.arange(8)
    turned = straight != paths
    assert 0.3 < turned.double().mean() < 0.5
    assert (shifts[..., 0].round() == paths - 6)[turned].double().mean() > 0.8


def test_gradients_are_those_of_differences() -> None:
    layer, x, features = placement((4, 5), frames=2), noise(2, 1, 4, 5), noise(2, 5, seed=3)
    assert torch.autograd.gradcheck(layer, (x.requires_grad_(), features.requires_grad_()))
    layer = placement((4, 5), frames=3, path=True)
    assert torch.autograd.gradcheck(layer, (x, features))


def test_a_frame_is_drawn_once_and_moves() -> None:
    config = R3GANConfig(
        **{"widths": (16, 8), "blocks_per_stage": 1, "group_channels": 0, "expansion": 1, "patch": (4, 4, 4)},
        **{"patch_kernel": (4, 8, 8), "strides": ("1x2x2",), "placement": "frames"},
    )
    clips = SampleShape(1, (8, 16, 16))
    generator = Generator(clips, 3, config, generator=seeded())
    assert (
        Discriminator(clips, 3, config, generator=seeded())(torch.zeros(1, 1, 8, 16, 16), torch.tensor([0])).ndim == 1
    )
    assert generator.basis.shape[1:] == (2, 2)
    assert generator.placement is not None
    torch.nn.init.zeros_(generator.placement.shift.weight)
    z, label = torch.randn(2, 64, generator=seeded(1)), torch.tensor([0, 2])
    still = generator(z, label)
    assert still.std() > 0
    assert (still == still[:, :, :1]).all()
    with torch.no_grad():
        generator.placement.shift.bias.copy_(torch.tensor([[0.0, t / 8] for t in range(8)]).flatten())
    moving = generator(z, label)
    step = round(8 * torch.tanh(torch.tensor(1.0 / 8)).item(), 3)  # pixels of the second frame; 8 is half an axis
    assert 0.9 < step < 1.1
    torch.testing.assert_close(moving[:, :, 0], still[:, :, 0])
    before, after = still[:, :, 0, :, :-2], moving[:, :, 1, :, 1:-1]
    assert (after - before).abs().mean() < 0.2 * (still[:, :, 0, :, 1:-1] - before).abs().mean()


def test_dcgan_too_places_what_it_draws() -> None:
    config, shape = DCGANConfig(widths=(16, 8), z_dim=8, placement="whole"), SampleShape(1, (16, 16))
    network = DCGANGenerator(shape, 3, config, generator=seeded()).double()
    z, label = noise(4, 8), torch.tensor([0, 1, 2, 0])
    features = torch.cat([z, network.embed(label)], 1)
    drawn = network.layers(network.input(features).unflatten(1, network.base))
    shifts, scales = network.placement.amounts(features)
    assert shifts.abs().max() > 0.5
    torch.testing.assert_close(network(z, label), by_points(drawn, shifts[:, 0], scales).tanh())


def test_stacked_frames_are_channels_of_a_picture_and_single_ones_are_judged_beside_them() -> None:
    clips, label = SampleShape(2, (4, 16, 16)), torch.tensor([0, 2])
    common: dict[str, Any] = {"group_channels": 0, "expansion": 1, "pixel_channels": 4, "head_units": 8}
    config = R3GANConfig(widths=(16,), patch=(2, 8, 8), patch_kernel=(4, 14, 14), stacked_frames=True, **common)
    x = torch.randn(2, 2, 4, 16, 16, generator=seeded(1))
    network = Discriminator(clips, 3, config, generator=seeded())
    picture = R3GANConfig(widths=(16,), patch=8, patch_kernel=14, **common)
    of_pictures = Discriminator(SampleShape(8, (16, 16)), 3, picture, generator=seeded())
    assert torch.equal(network(x, label), of_pictures(x.flatten(1, 2), label))
    judging = Discriminator(clips, 3, replace(config, judged_frames=2), generator=seeded())
    assert judging.frames is not None
    single = torch.stack([judging.frames(x[:, :, at], label) for at in (1, 3)]).mean(0)
    torch.testing.assert_close(judging(x, label), network(x, label) + single)


@pytest.mark.parametrize(
    ("settings", "spatial", "message"),
    [
        ({"placement": "each"}, (8, 8), "placement 'each' is not known"),
        ({"placement": "frames"}, (8, 8), "placement frames is for videos"),
        ({"placement": "path"}, (8, 8), "placement path is for videos"),
        ({"whole_shifts": True}, (8, 8), "whole_shifts without a placement"),
        ({"stacked_frames": True}, (8, 8), "stacked_frames is for videos"),
        ({"judged_profiles": True}, (8, 8), "judged_profiles is for videos"),
    ],
)
def test_mistakes_have_a_line(settings: dict[str, str], spatial: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        both(SampleShape(1, spatial), settings)


def both(shape: SampleShape, settings: dict[str, Any]) -> tuple[Generator, Discriminator]:
    config = R3GANConfig(widths=(16,), **settings)
    return Generator(shape, 0, config, generator=seeded()), Discriminator(shape, 0, config, generator=seeded())
