from math import log

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World
from imagegen_dist.objectives.base import Batch, Draw
from imagegen_dist.objectives.factor_vae import FactorVAE, FactorVAEConfig, permute_dims
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.training.ema import EMA
from imagegen_dist.training.loop import Batching, Trainer
from imagegen_dist.training.optim import AdamConfig, ScheduledAdam

LATENT, VALUES = 2, 6


class Encoder(nn.Module):
    latent_dims = (LATENT,)

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(VALUES, 2 * LATENT, generator=generator, dtype=dtype) / 3)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return x.flatten(1) @ self.weight


class Decoder(nn.Module):
    latent_dims = (LATENT,)

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(LATENT, VALUES, generator=generator, dtype=dtype))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return (z @ self.weight).unflatten(1, (1, 2, 3))


class Quadratic(nn.Module):
    """Logits that are quadratic in z: between Gaussians they hold the exact log ratio."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(4, 2, generator=generator, dtype=dtype) / 10)

    def forward(self, z: Tensor) -> Tensor:
        features = torch.stack([torch.ones_like(z[:, 0]), z[:, 0] ** 2, z[:, 1] ** 2, z[:, 0] * z[:, 1]], dim=1)
        return features @ self.weight


def factor_vae(gamma: Schedule = constant(10.0), dtype: torch.dtype = torch.float64, **settings) -> FactorVAE:
    config = FactorVAEConfig(gamma=gamma, **settings)
    return FactorVAE(Encoder(dtype), Decoder(dtype), Quadratic(dtype), config)


def batch(size: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(8)
    return Batch(torch.rand(size, 1, 2, 3, generator=generator, dtype=torch.float64) * 2 - 1, None)


def draw(images: int = 0, seed: int = 9) -> Draw:
    return Draw(images, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("images", "gamma"), [(0, 4.0), (50, 7.0), (100, 10.0)])
def test_the_autoencoder_pays_gamma_times_the_discriminators_log_ratio(images, gamma):
    objective = factor_vae(Schedule(4.0, 10.0, 100))
    posterior = objective.autoencoder.posterior(batch().sample)
    z = posterior.sample(draw())
    distortion = objective.autoencoder.distortion(batch().sample, z, None)
    probabilities = objective.tc_discriminator(z).softmax(1)
    ratio = (probabilities[:, 0] / probabilities[:, 1]).log()
    loss, terms = objective.loss(batch(), draw(images))
    torch.testing.assert_close(loss, (distortion + posterior.kl().sum(1) + gamma * ratio).mean())
    torch.testing.assert_close(terms["vae/total_correlation"], ratio)
    torch.testing.assert_close(terms["vae/rate"], posterior.kl().sum(1))
    torch.testing.assert_close(terms["loss/autoencoder"].mean(), loss)


def test_the_discriminator_tells_latents_from_permuted_ones_by_cross_entropy():
    objective, noise = factor_vae(), draw()
    posterior = objective.autoencoder.posterior(batch().sample)
    joint = posterior.sample(noise)
    permuted = permute_dims(posterior.sample(noise), noise)
    logits = objective.tc_discriminator(torch.cat([joint, permuted]))
    target = torch.tensor([0] * 5 + [1] * 5)
    loss, terms = objective.tc_discriminator_loss(batch(), draw())
    torch.testing.assert_close(loss, cross_entropy(logits, target))
    right = (logits.argmax(1) == target).double().mean()
    torch.testing.assert_close(terms["tc_discriminator/accuracy"].mean(), right)


def test_permuting_keeps_each_latents_values_and_parts_them_from_the_others():
    z = torch.arange(300.0)[:, None].expand(300, 3)
    permuted = permute_dims(z, draw())
    assert torch.equal(permuted.sort(0).values, z)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (permuted[:, one] == permuted[:, other]).float().mean() < 0.05
    assert torch.equal(permuted, permute_dims(z, draw()))
    assert not torch.equal(permuted, permute_dims(z, draw(seed=1)))


def test_a_permuted_batch_has_no_correlation_left():
    common = torch.randn(5000, 1, generator=torch.Generator().manual_seed(0))
    z = common + 0.1 * torch.randn(5000, 2, generator=torch.Generator().manual_seed(1))
    assert torch.corrcoef(z.T)[0, 1] > 0.9
    assert torch.corrcoef(permute_dims(z, draw()).T)[0, 1].abs() < 0.05


class Correlated(nn.Module):
    """A posterior that does not look at x beyond its first value: z_1 and z_2 share it, with noise of their own."""

    latent_dims = (LATENT,)

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.tensor(2 * log(noise), dtype=torch.float64))

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        shared = x.flatten(1)[:, :1].expand(-1, LATENT)
        return torch.cat([shared, self.log_variance.expand(len(x), LATENT)], dim=1)


def test_a_trained_discriminator_knows_the_total_correlation():
    """z ~ N(0, [[1, r], [r, 1]]) with r = 0.75, whose total correlation is -log(1 - r^2) / 2."""
    objective = FactorVAE(Correlated(0.5), Decoder(), Quadratic(), FactorVAEConfig())
    generator = torch.Generator().manual_seed(4)
    optimizer = torch.optim.Adam(objective.tc_discriminator.parameters(), lr=0.05)

    def fresh() -> Batch:
        return Batch(0.75**0.5 * torch.randn(2000, 1, 2, 3, generator=generator, dtype=torch.float64), None)

    for step in range(150):
        optimizer.zero_grad()
        objective.tc_discriminator_loss(fresh(), draw(seed=step))[0].backward()
        optimizer.step()
    estimates = torch.cat([objective.loss(fresh(), draw(seed=seed))[1]["vae/total_correlation"] for seed in range(10)])
    assert estimates.mean().item() == pytest.approx(-0.5 * log(1 - 0.75**2), abs=0.06)


def test_each_turn_gives_gradients_to_its_own_network():
    objective = factor_vae()
    objective.tc_discriminator_loss(batch(), draw())[0].backward()
    assert objective.tc_discriminator.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in objective.autoencoder.trained.parameters())
    objective.tc_discriminator.requires_grad_(False).zero_grad()
    objective.loss(batch(), draw())[0].backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in objective.autoencoder.trained.parameters())
    assert objective.tc_discriminator.weight.grad is None


def test_the_loop_takes_both_turns():
    objective = factor_vae(dtype=torch.float32, likelihood="gaussian")
    assert [phase.name for phase in objective.phases()] == ["autoencoder", "tc_discriminator"]
    assert list(objective.modules()) == ["encoder", "decoder", "likelihood", "tc_discriminator"]
    before = {
        name: value.clone()
        for name, module in objective.modules().items()
        for name, value in module.state_dict().items()
    }
    trainer = Trainer(
        objective,
        {phase.name: ScheduledAdam(phase.trains, AdamConfig()) for phase in objective.phases()},
        EMA(objective.modules(), objective.averaged(), constant(100)),
        Batching(8, 4),
        World(),
        torch.device("cpu"),
        seed=5,
    )
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        sample = torch.randint(0, 256, (2, 2, 4, 1, 2, 3), generator=generator, dtype=torch.uint8)
        trainer.step(Item(step, sample, None, torch.zeros(2, 2, 4, dtype=torch.int64), {}, []))
    means = trainer.means()
    assert {"loss/autoencoder", "loss/tc_discriminator", "vae/distortion"} <= means.keys()
    assert trainer.skipped_steps == 0
    for module in objective.modules().values():
        assert all(not torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_what_is_logged_is_detached_and_per_sample():
    objective = factor_vae()
    for turn in (objective.loss, objective.tc_discriminator_loss):
        _, terms = turn(batch(), draw())
        assert all(value.shape == (5,) and not value.requires_grad for value in terms.values())


def test_one_sample_cannot_be_permuted():
    with pytest.raises(ValueError, match="a single sample cannot be permuted; set"):
        factor_vae().tc_discriminator_loss(batch(1), draw())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gamma": constant(-1.0)}, "gamma -1 is negative; set --objective.gamma to 0 or more"),
        ({"likelihood": "l1", "binarize": "threshold"}, "needs the bernoulli likelihood"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_flag(fields, words):
    with pytest.raises(ValueError, match=words):
        FactorVAEConfig(**fields)
