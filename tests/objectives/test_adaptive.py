"""The augmentation probability that follows overfitting: what moves it, what does not, and what it measures."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from imagegen_dist.objectives.adaptive import AdaptiveConfig, AdaptiveProbability
from imagegen_dist.objectives.base import Batch, Draw
from imagegen_dist.objectives.gan import GAN, GANConfig

QUICK = AdaptiveConfig(every=64, half_life_images=1, rise_images=640, max_p=0.75)
"""The last measurement alone counts, but for 2^-64 of those before, and p moves by 0.1 at most."""


def probability(target: float = 0.5, start: float = 0.25, config: AdaptiveConfig = QUICK) -> AdaptiveProbability:
    return AdaptiveProbability(config, target, start, torch.device("cpu"))


def logits(train: float, held_out: float, fake: float) -> Tensor:
    return torch.tensor([train, held_out, fake], dtype=torch.float64)


def follow(p: AdaptiveProbability, *means: float, times: int = 1) -> tuple[float, float]:
    """(p, r) after equal measurements."""
    for _ in range(times):
        p.follow(logits(*means), 64)
    return p.p.item(), p.overfitting.item()


@pytest.mark.parametrize(
    ("held_out", "r", "moved"), [(1, 0, -0.1), (0.5, 0.25, -0.05), (0, 0.5, 0), (-0.5, 0.75, 0.05)]
)
def test_p_moves_with_the_distance_of_r_from_its_target(held_out: float, r: float, moved: float) -> None:
    assert follow(probability(), 1, held_out, -1) == pytest.approx((0.25 + moved, r))


def test_p_moves_at_one_speed_from_twice_the_target_on() -> None:
    assert follow(probability(), 1, -1, -1)[0] == follow(probability(), 1, -30, -1)[0] == pytest.approx(0.35)


def test_no_shift_of_the_discriminator_changes_anything() -> None:
    """Also if it changes between measurements: only differences are averaged."""
    ours, theirs = (probability(config=replace(QUICK, half_life_images=64)) for _ in range(2))
    for number, shift in enumerate((0.0, 1000.0, -250.0, 8.0)):
        means = logits(1, number / 8, -1)
        ours.follow(means, 64)
        theirs.follow(means + shift, 64)
    assert theirs.overfitting != 0
    assert torch.equal(ours.p, theirs.p)
    assert torch.equal(ours.overfitting, theirs.overfitting)


def test_p_stays_between_0_and_its_maximum() -> None:
    assert follow(probability(), 1, -1, -1, times=50)[0] == 0.75
    assert follow(probability(), 1, 1, -1, times=50)[0] == 0
    assert probability(start=1.0).p == 0.75


@pytest.mark.parametrize("means", [(0.0, -1.0, 1.0), (0.0, -1.0, 2.0), (1.0, 0.0, float("nan")), (float("inf"), 0, 0)])
def test_p_and_r_stay_where_r_has_no_meaning(means: tuple[float, float, float]) -> None:
    """The discriminator does not tell generated from training samples, or a logit is not finite."""
    p = probability()
    before = follow(p, 1, 0.5, -1)
    assert follow(p, *means) == before
    assert all(buffer.isfinite().all() for buffer in p.buffers())
    assert follow(p, 1, 0.5, -1) == pytest.approx((before[0] - 0.05, 0.25))


def test_r_is_bounded_where_its_denominator_comes_close_to_0() -> None:
    assert follow(probability(), 1, 0, 1 - 1e-9) == pytest.approx((0.35, 2))


def test_differences_are_averaged_over_a_half_life() -> None:
    p = probability(config=replace(QUICK, half_life_images=64))
    follow(p, 1, 0, -1)
    _, r = follow(p, 1, 1, 0)
    assert r == pytest.approx((1 / 4 + 0 / 2) / (2 / 4 + 1 / 2))


def test_p_settles_where_augmentation_brings_r_to_its_target() -> None:
    p = probability(target=0.3, start=0.0)
    for _ in range(200):
        follow(p, 1, p.p.item(), 0)  # r = 1 - p
    assert p.p.item() == pytest.approx(0.7, abs=1e-3)


def test_a_run_that_goes_on_from_one_without_a_following_p_begins_it_anew() -> None:
    p = probability()
    p.load_state_dict({})
    assert p.p == 0.25
    with pytest.raises(RuntimeError, match="gaps"):
        p.load_state_dict({"p": p.p, "overfitting": p.overfitting})


class _Generator(nn.Module):
    """Samples that show the latent and the class."""

    z_dim = 1

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return (z + label[:, None]).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)


class _Discriminator(nn.Module):
    """The mean of a sample, and ten times its class."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.weight * x.flatten(1).mean(1) + 10 * label


def measured(config: GANConfig) -> Tensor:
    gan = GAN(_Generator(), _Discriminator(), config)
    train = Batch(torch.full((6, 1, 4, 4), 0.5), torch.arange(6))
    held_out = Batch(torch.full((6, 1, 4, 4), -0.25), torch.full((6,), 7))
    return gan.measure(train, held_out, Draw(0, torch.Generator().manual_seed(0)))


def test_each_sample_is_measured_with_its_own_class() -> None:
    train, held_out, fake = measured(GANConfig(adaptive_augment=0.5))
    torch.testing.assert_close(train, 0.5 + 10 * torch.arange(6.0))
    torch.testing.assert_close(held_out, torch.full((6,), -0.25 + 70))
    z = torch.randn(6, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fake, z[:, 0] + 11 * torch.arange(6.0))


def test_all_three_are_augmented() -> None:
    plain = measured(GANConfig(adaptive_augment=0.5))
    config = GANConfig(adaptive_augment=0.5, augment_p=replace(GANConfig().augment_p, start=0.8, end=0.8))
    assert ((measured(config) - plain).abs() > 1e-3).double().mean(1).min() > 0.3


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda: GANConfig(adaptive_augment=1.0), "--objective.adaptive-augment"),
        (lambda: GANConfig(adaptive_augment=-0.1), "--objective.adaptive-augment"),
        (lambda: AdaptiveConfig(max_p=0.0), "--objective.adaptive.max-p"),
        (lambda: AdaptiveConfig(rise_images=0), "--objective.adaptive.rise-images"),
    ],
)
def test_values_out_of_range_are_refused(make, flag: str) -> None:
    with pytest.raises(ValueError, match=flag):
        make()
