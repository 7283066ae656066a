"""A ladder of two levels, against closed forms, other densities and Monte Carlo."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from imagegen_dist.models.ladder_vae import Decoder, Encoder, LadderVAEConfig
from imagegen_dist.objectives.base import Batch, Draw
from imagegen_dist.objectives.hierarchical_vae import HierarchicalVAE, HierarchicalVAEConfig
from imagegen_dist.objectives.latents import Gaussian, gaussian
from imagegen_dist.objectives.variational import log_likelihood
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.shape import SampleShape

SHAPE = SampleShape(1, (4, 6))
LEVELS = {
    "vectors": LadderVAEConfig((), (), (8, 6), (3, 2)),
    "maps": LadderVAEConfig((8,), (2,), (6,), (2,)),
}
every_ladder = pytest.mark.parametrize("levels", LEVELS)


def ladder(levels: str = "vectors", classes: int = 0, **settings) -> HierarchicalVAE:
    """In float64, with weights that nothing is close to zero in."""
    config, random = HierarchicalVAEConfig(**settings), torch.Generator().manual_seed(3)
    encoder = Encoder(SHAPE, classes, LEVELS[levels], parameters=2, generator=random)
    decoder = Decoder(SHAPE, classes, LEVELS[levels], outputs=config.outputs, generator=random)
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        parameter.data = parameter.data.double() + torch.randn(parameter.shape, generator=random).double() / 8
    objective = HierarchicalVAE(encoder, decoder, config)
    objective.autoencoder.likelihood.double()
    return objective


def batch(size: int = 4) -> Batch:
    levels = torch.randint(0, 256, (size, *SHAPE.dims), generator=torch.Generator().manual_seed(8))
    return Batch(levels.double() / 127.5 - 1, torch.arange(size) % 3)


def draw(images: int = 0, seed: int = 9) -> Draw:
    return Draw(images, torch.Generator().manual_seed(seed))


def normal(found: Gaussian) -> Normal:
    return Normal(found.mean, (0.5 * found.log_variance).exp())


@every_ladder
def test_each_levels_rate_is_the_divergence_of_its_posterior_from_the_prior_that_the_levels_above_give(levels):
    model, x = ladder(levels).autoencoder, batch().sample
    top, low = (gaussian(raw) for raw in model.encoder(x))
    drawn = model.infer(x).draw(draw())
    (z_top, z_low), priors = model._levels(drawn.z), []
    model.decoder(lambda level, prior: priors.append(prior) or (z_top, z_low)[level])
    q_top, p_low = normal(top), normal(gaussian(priors[1]))
    torch.testing.assert_close(
        drawn.kl[0], torch.distributions.kl_divergence(q_top, Normal(torch.zeros_like(top.mean), 1.0))
    )
    # The product of two Gaussian densities has the sum of their precisions.
    precision = low.log_variance.neg().exp() + p_low.variance.reciprocal()
    mean = (low.mean * low.log_variance.neg().exp() + p_low.mean / p_low.variance) / precision
    merged = Normal(mean, precision.rsqrt())
    torch.testing.assert_close(drawn.kl[1], torch.distributions.kl_divergence(merged, p_low))
    torch.testing.assert_close(drawn.rate, drawn.kl[0].flatten(1).sum(1) + drawn.kl[1].flatten(1).sum(1))


@every_ladder
def test_log_weights_are_log_joint_less_log_posterior(levels):
    model, x = ladder(levels).autoencoder, batch(3).sample
    weights = model.infer(x).log_weights(x, draw(), times=2)
    assert weights.shape == (3, 2)
    # The same noise again, and densities by torch.distributions.
    doubled = x.repeat_interleave(2, 0)
    evidence = [gaussian(raw).repeat(2) for raw in model.encoder(x)]
    raw, found = model.descend(evidence, draw(), None)
    expected = model.likelihood.log_prob(doubled, raw)
    for posterior, prior, z in found:
        dims = z.ndim - 1
        expected = (
            expected + Independent(normal(prior), dims).log_prob(z) - Independent(normal(posterior), dims).log_prob(z)
        )
    torch.testing.assert_close(weights.flatten(), expected)


def test_the_mean_log_ratio_of_many_draws_is_the_rate():
    model, x = ladder().autoencoder, batch(1).sample
    draws = model.infer(x.expand(20_000, *SHAPE.dims)).draw(draw())
    rate, error = draws.rate.mean(), draws.rate.std() / 20_000**0.5
    ratios = -model.infer(x).log_weights(x, draw(seed=1), 20_000) + model.likelihood.log_prob(
        x.expand(20_000, *SHAPE.dims), model.infer(x.expand(20_000, *SHAPE.dims)).draw(draw(seed=1)).raw
    )
    spread = ratios.std() / 20_000**0.5
    assert abs(ratios.mean() - rate) < 4 * (error + spread)


def test_importance_samples_tighten_the_bound():
    model, x = ladder().autoencoder, batch(8).sample
    drawn = model.infer(x.repeat(200, 1, 1, 1)).draw(draw())
    distortion = -model.likelihood.log_prob(x.repeat(200, 1, 1, 1), drawn.raw)
    elbo = (-distortion - drawn.rate).mean()
    likelihoods = [
        torch.stack([log_likelihood(model.infer(x), x, draw(seed=seed), k, 50).mean() for seed in range(20)]).mean()
        for k in (5, 500)
    ]
    assert elbo < likelihoods[0] < likelihoods[1]


@pytest.mark.parametrize(("images", "beta"), [(0, 0.0), (500, 1.0), (1000, 2.0), (5000, 2.0)])
def test_the_loss_is_distortion_plus_the_warmed_up_rate(images, beta):
    _, terms = ladder(beta=constant(2.0), warmup_images=1000).loss(batch(), draw(images))
    torch.testing.assert_close(terms["loss/autoencoder"], terms["vae/distortion"] + beta * terms["vae/rate"])
    torch.testing.assert_close(terms["vae/rate"], terms["vae/rate_level_0"] + terms["vae/rate_level_1"])
    torch.testing.assert_close(terms["vae/elbo"], -terms["vae/distortion"] - terms["vae/rate"])
    assert all(value.shape == (4,) and not value.requires_grad for value in terms.values())


@pytest.mark.parametrize("free", [(1e3,), (1e3, 0.0), (0.0, 1e3), (0.0,)])
def test_free_bits_take_the_place_of_a_levels_smaller_mean_rate(free):
    loss, terms = ladder(free_bits=free).loss(batch(), draw())
    least = free * 2 if len(free) == 1 else free
    rates = [terms[f"vae/rate_level_{level}"].mean().clamp_min(nats) for level, nats in enumerate(least)]
    torch.testing.assert_close(loss.detach(), terms["vae/distortion"].mean() + sum(rates))


def test_free_bits_bound_the_mean_over_samples_and_not_each_sample():
    _, terms = ladder().loss(batch(), draw())
    rates = [terms[f"vae/rate_level_{level}"] for level in range(2)]
    free = tuple(float(rate.mean()) - 1e-3 for rate in rates)  # some samples lie below, their mean does not
    assert all(rate.min() < nats for rate, nats in zip(rates, free, strict=True))
    loss, terms = ladder(free_bits=free).loss(batch(), draw())
    torch.testing.assert_close(loss.detach(), terms["vae/distortion"].mean() + sum(rate.mean() for rate in rates))


def test_derivatives_of_the_loss_by_finite_differences():
    for settings in ({"beta": constant(2.0)}, {"free_bits": (0.1, 5.0)}, {"likelihood": "gaussian"}):
        objective = ladder("maps", **settings)
        for network in (objective.autoencoder.encoder, objective.autoencoder.decoder):
            weights = list(network.parameters())
            gradients = torch.autograd.grad(objective.loss(batch(), draw())[0], weights)
            random, step, losses = torch.Generator().manual_seed(3), 1e-6, []
            directions = [torch.randn(weight.shape, generator=random).double() for weight in weights]
            at = [weight.detach().clone() for weight in weights]
            for sign in (1, -1):
                for weight, start, direction in zip(weights, at, directions, strict=True):
                    weight.data = start + sign * step * direction
                losses.append(objective.loss(batch(), draw())[0].item())
            for weight, start in zip(weights, at, strict=True):
                weight.data = start
            slope = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
            assert slope == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-5)


@every_ladder
def test_a_code_is_decoded_whole_or_from_the_highest_levels(levels):
    model, x = ladder(levels).autoencoder, batch().sample
    inferred = model.infer(x)
    code = inferred.code()
    assert code.shape == (4, sum(model.sizes))
    torch.testing.assert_close(code[:, :2], gaussian(model.encoder(x)[0]).mean)
    shown = model.decode(code[:, :2])
    assert shown.shape == x.shape
    assert not torch.equal(shown, model.decode(code))
    # What is left out is the prior's mean.
    means: list[Tensor] = []
    model.decoder(
        lambda level, prior: code[:, :2] if prior is None else means.append(gaussian(prior).mean) or means[-1]
    )
    torch.testing.assert_close(model.decode(torch.cat([code[:, :2], means[0].flatten(1)], 1)), shown)
    with pytest.raises(ValueError, match=r"\(4, 1\): expected \[B, n\] with n one of 2, "):
        model.decode(code[:, :1])


def test_samples_follow_the_chain_of_priors():
    model = ladder(likelihood="l1").autoencoder
    model.decoder.double()
    noise = draw().normal(5, sum(model.sizes)).double()
    top, low = noise.split(model.sizes, 1)
    shown = model.likelihood.mean(
        model.decoder(
            lambda level, prior: top if prior is None else gaussian(prior).mean + normal(gaussian(prior)).stddev * low
        )
    )
    model.decoder.float()
    torch.testing.assert_close(model.sample(5, draw()).double(), shown, rtol=1e-4, atol=1e-5)


def test_networks_are_told_the_labels():
    model, x = ladder(classes=3).autoencoder, batch().sample
    first, other = (model.infer(x, torch.full((4,), label)).draw(draw()) for label in (0, 1))
    assert (first.rate != other.rate).all()
    assert not torch.equal(model.sample(2, draw(), torch.tensor([0, 0])), model.sample(2, draw(), torch.tensor([1, 1])))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"beta": Schedule(-1.0, 1.0, 10)}, "is negative; set --objective.beta"),
        ({"warmup_images": -1}, "warmup_images -1 is negative; set --objective.warmup-images"),
        ({"free_bits": (1.0, -1.0)}, "has a negative value; set --objective.free-bits to 0 or more"),
        ({"binarize": "dynamic", "likelihood": "l1"}, "needs the bernoulli likelihood"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_flag(fields, words):
    with pytest.raises(ValueError, match=words):
        HierarchicalVAEConfig(**fields)


def test_free_bits_have_to_be_one_for_each_level():
    with pytest.raises(ValueError, match=r"are for 3 levels, and the model has 2; set --objective.free-bits"):
        ladder(free_bits=(1.0, 2.0, 3.0))
