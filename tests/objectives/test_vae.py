from math import log

import pytest
import torch
from torch import Tensor, nn

from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World
from imagegen_dist.objectives.base import Batch, Draw
from imagegen_dist.objectives.likelihoods import binarize
from imagegen_dist.objectives.total_correlation import decompose
from imagegen_dist.objectives.vae import VAE, VAEConfig
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.training.ema import EMA
from imagegen_dist.training.loop import Batching, Trainer
from imagegen_dist.training.optim import AdamConfig, ScheduledAdam

SAMPLE, LATENT, CLASSES = (2, 3, 4), 3, 4
VALUES = 24


class Encoder(nn.Module):
    """One linear layer, plus the label's number."""

    def __init__(self, parameters: int = 2, latent: tuple[int, ...] = (LATENT,), dtype: torch.dtype = torch.float64):
        super().__init__()
        self.latent_dims, self._dims = latent, (parameters * latent[0], *latent[1:])
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(torch.Size(self._dims).numel(), VALUES, generator=generator, dtype=dtype) / 10
        self.weight = nn.Parameter(weight)
        self.labels: list[Tensor | None] = []

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        self.labels.append(label)
        return (x.flatten(1) @ self.weight.T).unflatten(1, self._dims)


class Decoder(nn.Module):
    def __init__(self, outputs: int = 1, latent: tuple[int, ...] = (LATENT,), dtype: torch.dtype = torch.float64):
        super().__init__()
        self.latent_dims = latent
        generator = torch.Generator().manual_seed(2)
        size = (torch.Size(latent).numel(), outputs * VALUES)
        self.weight = nn.Parameter(torch.randn(size, generator=generator, dtype=dtype))
        self.labels: list[Tensor | None] = []

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        self.labels.append(label)
        return (z.flatten(1) @ self.weight).unflatten(1, (-1, *SAMPLE[1:]))


def vae(dataset_size: int = 0, latent: tuple[int, ...] = (LATENT,), **settings) -> VAE:
    config = VAEConfig(**settings)
    return VAE(Encoder(config.parameters, latent), Decoder(config.outputs, latent), config, dataset_size)


def batch(size: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(8)
    levels = torch.randint(0, 256, (size, *SAMPLE), generator=generator)
    return Batch(levels.double() / 127.5 - 1, torch.arange(size) % CLASSES)


def draw(images: int = 0) -> Draw:
    return Draw(images, torch.Generator().manual_seed(9))


def parts(objective: VAE) -> tuple[Tensor, Tensor, Tensor]:
    """Distortion [B], KL of each latent [B, Z], and z, by the same noise as that of the loss."""
    posterior = objective.autoencoder.posterior(batch().sample)
    z = posterior.sample(draw())
    return objective.autoencoder.distortion(batch().sample, z, None), posterior.kl(), z


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "logistic", "l1"])
@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_the_loss_is_distortion_plus_beta_times_rate_summed_over_a_sample(likelihood, beta):
    objective = vae(likelihood=likelihood, beta=constant(beta))
    distortion, kl, _ = parts(objective)
    loss, terms = objective.loss(batch(), draw())
    torch.testing.assert_close(terms["vae/distortion"], distortion)
    torch.testing.assert_close(terms["vae/rate"], kl.sum(1))
    torch.testing.assert_close(terms["vae/elbo"], -distortion - kl.sum(1))
    torch.testing.assert_close(terms["loss/autoencoder"], distortion + beta * kl.sum(1))
    torch.testing.assert_close(loss, (distortion + beta * kl.sum(1)).mean())
    torch.testing.assert_close(terms["vae/beta"], torch.full((5,), beta, dtype=torch.float64))
    torch.testing.assert_close(
        terms["vae/beta_normalized"], torch.full((5,), beta * LATENT / VALUES, dtype=torch.float64)
    )


def test_a_samples_rate_does_not_depend_on_the_microbatch_that_it_is_in():
    objective, whole = vae(beta=constant(2.0)), batch(4)
    halves = [Batch(whole.sample[part], None) for part in (slice(0, 2), slice(2, 4))]
    rates = torch.cat([objective.loss(half, draw())[1]["vae/rate"] for half in halves])
    torch.testing.assert_close(rates, objective.loss(whole, draw())[1]["vae/rate"])


def test_beta_and_the_warm_up_follow_the_clock():
    objective = vae(beta=Schedule(1.0, 3.0, 1000), warmup_images=2000)
    for images, expected in ((0, 0.0), (500, 0.25 * 2.0), (1000, 0.5 * 3.0), (2000, 3.0), (9000, 3.0)):
        _, terms = objective.loss(batch(), draw(images))
        assert terms["vae/beta"][0].item() == pytest.approx(expected)
        weighted = terms["vae/distortion"] + expected * terms["vae/rate"]
        torch.testing.assert_close(terms["loss/autoencoder"], weighted)


def test_free_bits_take_the_place_of_smaller_rates():
    objective = vae(free_bits=0.068, beta=constant(2.0))
    distortion, kl, _ = parts(objective)
    loss, terms = objective.loss(batch(), draw())
    assert (kl.mean(0) < 0.068).any()
    assert (kl.mean(0) > 0.068).any()
    torch.testing.assert_close(loss, distortion.mean() + 2 * kl.mean(0).clamp_min(0.068).sum())
    torch.testing.assert_close(terms["vae/rate"], kl.sum(1))
    torch.testing.assert_close(terms["loss/autoencoder"].mean(), loss.detach())


@pytest.mark.parametrize(("images", "capacity"), [(0, 0.0), (250, 2.5), (1000, 10.0), (5000, 10.0)])
def test_the_capacity_grows_with_the_clock_and_holds_each_samples_rate(images, capacity):
    objective = vae(capacity=10.0, capacity_images=1000, capacity_gamma=100.0)
    distortion, kl, _ = parts(objective)
    loss, terms = objective.loss(batch(), draw(images))
    torch.testing.assert_close(loss, (distortion + 100 * (kl.sum(1) - capacity).abs()).mean())
    assert terms["vae/capacity"].tolist() == [capacity] * 5


@pytest.mark.parametrize("estimator", ["mws", "mss"])
def test_beta_tcvae_weighs_the_total_correlation_alone(estimator):
    objective = vae(decomposition=estimator, beta=constant(6.0), dataset_size=50)
    distortion, _, z = parts(objective)
    posterior = objective.autoencoder.posterior(batch().sample)
    information, correlation, dimension_wise = decompose(z, posterior.mean, posterior.log_variance, 50, estimator)
    loss, terms = objective.loss(batch(), draw())
    torch.testing.assert_close(loss, (distortion + information + 6 * correlation + dimension_wise).mean())
    torch.testing.assert_close(terms["vae/mutual_information"], information.detach())
    torch.testing.assert_close(terms["vae/total_correlation"], correlation.detach())
    torch.testing.assert_close(terms["vae/dimension_wise_kl"], dimension_wise.detach())


def test_a_warm_up_weighs_every_part_of_a_decomposition():
    objective = vae(decomposition="mss", beta=constant(6.0), dataset_size=50, warmup_images=100)
    loss, terms = objective.loss(batch(), draw(images=0))
    torch.testing.assert_close(loss.detach(), terms["vae/distortion"].mean())


def test_a_decomposition_needs_the_datasets_size():
    with pytest.raises(ValueError, match="decomposition 'mss' needs the dataset's size"):
        vae(decomposition="mss")


@pytest.mark.parametrize("latent", [(3,), (3, 2, 2)])
def test_fsq_has_codes_and_a_constant_rate(latent):
    config = VAEConfig(likelihood="l1", latent="fsq", levels=(8, 6, 5))
    objective = VAE(Encoder(config.parameters, latent), Decoder(config.outputs, latent), config)
    loss, terms = objective.loss(batch(), draw())
    rate = log(8 * 6 * 5) * torch.Size(latent[1:]).numel()
    z = objective.autoencoder.encode(batch().sample)
    assert z.shape == (5, *latent)
    for channel, levels in enumerate((8, 6, 5)):
        steps = z[:, channel] * (levels // 2)
        torch.testing.assert_close(steps, steps.round())
    distortion = (batch().sample - objective.autoencoder.decoder(z)).abs().flatten(1).sum(1)
    torch.testing.assert_close(loss, distortion.mean() + rate)
    torch.testing.assert_close(terms["vae/rate"], torch.full((5,), rate, dtype=torch.float64))
    loss.backward()
    assert objective.autoencoder.encoder.weight.grad.abs().max() > 0


def test_levels_have_to_be_one_for_each_latent_channel():
    config = VAEConfig(latent="fsq", levels=(8, 6))
    with pytest.raises(ValueError, match=r"levels \(8, 6\) are for 2 latent channels, and the model has 3; set"):
        VAE(Encoder(1), Decoder(), config)


@pytest.mark.parametrize("how", ["threshold", "dynamic"])
def test_a_binarised_sample_is_what_both_networks_see(how):
    objective = vae(binarize=how)
    seen = binarize(batch().sample, how, draw())
    later = draw()
    binarize(batch().sample, how, later)
    posterior = objective.autoencoder.posterior(seen)
    distortion = objective.autoencoder.distortion(seen, posterior.sample(later), None)
    _, terms = objective.loss(batch(), draw())
    torch.testing.assert_close(terms["vae/distortion"], distortion.detach())
    torch.testing.assert_close(terms["vae/rate"], posterior.kl().sum(1).detach())


def test_derivatives_of_the_loss_by_finite_differences():
    for settings in (
        {},
        {"decomposition": "mss", "beta": constant(3.0)},
        {"capacity": 2.0},
        {"likelihood": "logistic"},
    ):
        objective = vae(dataset_size=50, **settings)
        weight = objective.autoencoder.encoder.weight
        (gradient,) = torch.autograd.grad(objective.loss(batch(), draw())[0], weight)
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        at, step, losses = weight.detach().clone(), 1e-6, []
        for sign in (1, -1):
            weight.data = at + sign * step * direction
            losses.append(objective.loss(batch(), draw())[0].item())
        assert (gradient * direction).sum().item() == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-6)


def test_both_networks_are_told_the_labels():
    objective = vae()
    objective.loss(batch(), draw())
    for network in (objective.autoencoder.encoder, objective.autoencoder.decoder):
        assert torch.equal(network.labels[-1], batch().label)


def test_what_is_logged_is_detached_and_per_sample():
    for settings in ({}, {"free_bits": 0.1}, {"capacity": 1.0}, {"decomposition": "mws"}):
        _, terms = vae(dataset_size=50, **settings).loss(batch(), draw())
        assert all(value.shape == (5,) and not value.requires_grad for value in terms.values())


def test_a_likelihood_with_weights_trains_and_is_kept():
    objective = vae(likelihood="gaussian")
    (phase,) = objective.phases()
    assert set(objective.modules()) == set(objective.averaged()) == {"encoder", "decoder", "likelihood"}
    assert "likelihood.raw_log_sigma" in dict(phase.trains.named_parameters())
    objective.loss(batch(), draw())[0].backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in phase.trains.parameters())
    assert set(vae().modules()) == {"encoder", "decoder"}


def test_samples_come_from_prior_and_decoder():
    objective = vae(likelihood="l1")
    z = objective.autoencoder.prior(1000, draw())
    assert z.shape == (1000, LATENT)
    assert abs(z.mean().item()) < 0.1
    assert objective.autoencoder.decode(z.double()).shape == (1000, *SAMPLE)
    config = VAEConfig(latent="fsq", levels=(4, 3, 2))
    fsq = VAE(Encoder(1, (3, 2)), Decoder(1, (3, 2)), config).autoencoder
    codes = fsq.prior(500, draw())
    assert codes.shape == (500, 3, 2)
    assert len(fsq.fsq.indices(codes).unique()) == 24


def trained_rate(beta: float) -> float:
    """Mean rate after a short training of a linear VAE on samples of one varying brightness, by the one loop."""
    config = VAEConfig(likelihood="gaussian", beta=constant(beta))
    encoder, decoder = Encoder(2, dtype=torch.float32), Decoder(1, dtype=torch.float32)
    objective = VAE(encoder, decoder, config)
    trained = objective.phases()[0].trains
    trainer = Trainer(
        objective,
        {"autoencoder": ScheduledAdam(trained, AdamConfig(lr=constant(0.01), beta1=0.9))},
        EMA(objective.modules(), objective.averaged(), constant(100)),
        Batching(32, 16),
        World(),
        torch.device("cpu"),
        seed=5,
    )
    generator = torch.Generator().manual_seed(0)
    for step in range(200):
        brightness = torch.randint(0, 256, (1, 2, 16, 1, 1, 1), generator=generator, dtype=torch.uint8)
        sample = brightness.expand(1, 2, 16, *SAMPLE)
        trainer.step(Item(step, sample, None, torch.zeros(1, 2, 16, dtype=torch.int64), {}, []))
        if step == 149:
            trainer.means()
    assert trainer.skipped_steps == 0
    return trainer.means()["vae/rate"]


def test_a_larger_beta_ends_with_a_smaller_rate():
    small, middle, large = (trained_rate(beta) for beta in (0.1, 1.0, 30.0))
    assert small > 1.2 * middle
    assert middle > 1.2 * large


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"beta": constant(-1.0)}, "beta -1 is negative; set --objective.beta to 0 or more"),
        ({"beta": Schedule(-1.0, 1.0, 10)}, "is negative"),
        ({"warmup_images": -1}, "warmup_images -1 is negative; set --objective.warmup-images"),
        ({"free_bits": -0.5}, "free_bits -0.5 is negative; set --objective.free-bits"),
        ({"capacity": -1.0}, "set --objective.capacity to 0 or more"),
        ({"capacity_gamma": -1.0}, "set --objective.capacity-gamma to 0 or more"),
        (
            {"likelihood": "poisson"},
            "likelihood 'poisson' is not known; set --objective.likelihood to one of",
        ),
        ({"binarize": "otsu"}, "binarize 'otsu' is not known; set --objective.binarize to one of none, threshold"),
        ({"latent": "vq"}, "latent 'vq' is not known; set --objective.latent to one of gaussian, fsq"),
        ({"decomposition": "tc"}, "decomposition 'tc' is not known; set --objective.decomposition to one of none"),
        ({"capacity_images": 10}, "capacity_images 10 has no effect; set --objective.capacity"),
        ({"binarize": "dynamic", "likelihood": "gaussian"}, "binarize 'dynamic' needs the bernoulli likelihood"),
        ({"capacity": 5.0, "beta": constant(4.0)}, "capacity 5 replaces .*--objective.beta would have no effect"),
        (
            {"capacity": 5.0, "free_bits": 1.0, "warmup_images": 5},
            "--objective.warmup-images and --objective.free-bits",
        ),
        ({"free_bits": 1.0, "decomposition": "mss"}, "free_bits 1 has no effect with a decomposition"),
        ({"latent": "fsq", "beta": constant(2.0)}, "constant rate: --objective.beta would have no effect"),
        ({"latent": "fsq", "decomposition": "mss"}, "constant rate: --objective.decomposition"),
        ({"latent": "fsq", "levels": (8, 1)}, "give 2 or more for each latent channel, as --objective.levels"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_flag(fields, words):
    with pytest.raises(ValueError, match=words) as error:
        VAEConfig(**fields)
    assert "\n" not in str(error.value)
