"""A linear decoder with Gaussian noise, whose log p(x) and posterior have closed forms (columns are orthogonal)."""

from math import expm1, log

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from imagegen_dist.objectives.base import Batch, Draw
from imagegen_dist.objectives.iwae import IWAE, IWAEConfig
from imagegen_dist.objectives.vae import VAE, VAEConfig
from imagegen_dist.objectives.variational import log_likelihood

LATENT, VALUES, SIGMA = 2, 4, 0.6
WEIGHT = torch.tensor([[1.0, 0.5, 0.0, -0.5], [0.0, 0.5, 2.0, 0.5]], dtype=torch.float64)
BIAS = torch.tensor([0.1, -0.2, 0.3, 0.0], dtype=torch.float64)
X = torch.tensor([[0.9, 0.2, -0.7, 0.4]], dtype=torch.float64)


class Encoder(nn.Module):
    """The exact posterior, or one that is `off` by so many in its means and log-variances."""

    latent_dims = (LATENT,)

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        self.off = nn.Parameter(torch.tensor(off, dtype=torch.float64))
        self.labels: list[Tensor | None] = []

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        self.labels.append(label)
        precision = (WEIGHT @ WEIGHT.T).diagonal() / SIGMA**2 + 1
        mean = (x.flatten(1) - BIAS) @ WEIGHT.T / SIGMA**2 / precision
        return torch.cat([mean + self.off, (-precision.log()).expand_as(mean) + self.off], 1)


class Table(nn.Module):
    """Parameters of its own for every sample, so that each has its own gradient."""

    latent_dims = (LATENT,)

    def __init__(self, count: int) -> None:
        super().__init__()
        off = Encoder(0.4)
        self.rows = nn.Parameter(off(X).detach().repeat(count, 1))

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return self.rows


class Decoder(nn.Module):
    latent_dims = (LATENT,)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())
        self.sizes: list[int] = []
        self.labels: list[Tensor | None] = []

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        self.sizes.append(len(z))
        self.labels.append(label)
        return (z @ self.weight + BIAS).unsqueeze(1)


def iwae(encoder: nn.Module, **settings) -> IWAE:
    objective = IWAE(encoder, Decoder(), IWAEConfig(likelihood="gaussian", **settings))
    sigma = objective.autoencoder.likelihood.double().raw_log_sigma
    sigma.data.fill_(log(expm1(log(SIGMA) + 6)) - 6)
    return objective


def draw(seed: int = 9) -> Draw:
    return Draw(0, torch.Generator().manual_seed(seed))


def batch(count: int) -> Batch:
    return Batch(X.repeat(count, 1).unsqueeze(1), None)


def log_evidence(x: Tensor) -> Tensor:
    covariance = WEIGHT.T @ WEIGHT + SIGMA**2 * torch.eye(VALUES, dtype=torch.float64)
    return MultivariateNormal(BIAS, covariance).log_prob(x.flatten(1))


def evaluate(objective: IWAE, x: Tensor, k: int, chunk: int) -> Tensor:
    return log_likelihood(objective.autoencoder.infer(x), x, draw(), k, chunk)


@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("gradient", ["iwae", "dreg"])
def test_with_the_exact_posterior_every_bound_is_log_p(k, gradient):
    x = torch.randn(6, 1, VALUES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss, terms = iwae(Encoder(), samples=k, gradient=gradient).loss(Batch(x, None), draw())
    torch.testing.assert_close(terms["vae/bound"], log_evidence(x))
    torch.testing.assert_close(loss.detach(), -log_evidence(x).mean())
    torch.testing.assert_close(terms["vae/effective_samples"], torch.full((6,), float(k), dtype=torch.float64))


def test_the_bound_tightens_with_k_from_the_elbo_towards_log_p():
    exact, found = log_evidence(X).item(), {}
    for k, count in ((1, 4000), (5, 4000), (50, 4000), (1000, 400)):
        _, terms = iwae(Encoder(0.4), samples=k).loss(batch(count), draw())
        found[k] = terms["vae/bound"].mean().item()
    assert found[1] + 0.5 < found[5]
    assert found[5] + 0.1 < found[50]
    assert found[50] + 0.01 < found[1000] < exact + 0.01
    assert abs(found[1000] - exact) < 0.01


def test_at_one_sample_the_bound_is_the_elbo_of_the_closed_form():
    """E[log w] = log p(x) - KL(q || p(z|x))."""
    off, right = Encoder(0.4)(X), Encoder()(X)
    gaussians = [Independent(Normal(p[:, :2], (p[:, 2:] / 2).exp()), 1) for p in (off, right)]
    expected = (log_evidence(X) - kl_divergence(*gaussians)).item()
    _, terms = iwae(Encoder(0.4), samples=1).loss(batch(20_000), draw())
    for name in ("vae/bound", "vae/elbo"):
        error = terms[name].std().item() / 20_000**0.5
        assert error < 0.02
        assert abs(terms[name].mean().item() - expected) < 4 * error


def test_at_one_sample_it_is_a_vae():
    """Equal distortion and rate of equal noise; the bound has log q(z|x) - log p(z) for the rate."""
    encoder = Encoder(0.4)
    _, ours = iwae(encoder, samples=1).loss(batch(4), draw())
    reference = VAE(encoder, Decoder(), VAEConfig(likelihood="gaussian"))
    reference.autoencoder.likelihood.load_state_dict(iwae(encoder).autoencoder.likelihood.state_dict())
    _, theirs = reference.loss(batch(4), draw())
    for name in ("vae/distortion", "vae/rate", "vae/elbo"):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-6)


def gradients(gradient: str, count: int, k: int) -> tuple[Tensor, Tensor]:
    """Of every replica's posterior parameters, [count, 2 * LATENT], and of the decoder's weight."""
    objective = iwae(Table(count), samples=k, gradient=gradient)
    loss, _ = objective.loss(batch(count), draw())
    networks = objective.autoencoder
    rows, weight = torch.autograd.grad(loss * count, (networks.encoder.rows, networks.decoder.weight))
    return rows, weight


@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_doubly_reparameterised_gradient_has_the_same_mean_and_a_lower_variance(k):
    count = 20_000
    (plain, plain_weight), (doubly, doubly_weight) = (gradients(kind, count, k) for kind in ("iwae", "dreg"))
    difference = plain - doubly
    error = difference.std(0) / count**0.5
    assert (difference.mean(0).abs() < 4.5 * error).all()
    assert (plain.mean(0).abs() > 10 * error).any()
    assert (doubly.var(0) < plain.var(0)).all()
    torch.testing.assert_close(doubly_weight, plain_weight)


def test_with_the_exact_posterior_the_doubly_reparameterised_gradient_is_0():
    """At the optimum every weight is constant in z, and only the score term that it drops has noise."""
    encoder = Encoder()
    loss, _ = iwae(encoder, samples=3, gradient="dreg").loss(batch(50), draw())
    (gradient,) = torch.autograd.grad(loss, encoder.off)
    assert gradient.abs() < 1e-12
    loss, _ = iwae(encoder, samples=3).loss(batch(50), draw())
    assert torch.autograd.grad(loss, encoder.off)[0].abs() > 1e-3


def test_the_plain_gradient_is_that_of_finite_differences():
    encoder = Encoder(0.4)
    objective = iwae(encoder, samples=4)
    (gradient,) = torch.autograd.grad(objective.loss(batch(10), draw())[0], encoder.off)
    losses = []
    for off in (0.4 + 1e-6, 0.4 - 1e-6):
        encoder.off.data.fill_(off)
        losses.append(objective.loss(batch(10), draw())[0].item())
    assert gradient.item() == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-6)


@pytest.mark.parametrize(("k", "chunk"), [(1, 1), (12, 12), (12, 5), (7, 100)])
def test_the_log_likelihood_accumulates_over_chunks_of_bounded_size(k, chunk):
    x = torch.randn(3, 1, VALUES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    objective = iwae(Encoder())
    found = evaluate(objective, x, k, chunk)
    torch.testing.assert_close(found, log_evidence(x))
    assert not found.requires_grad
    sizes = objective.autoencoder.decoder.sizes
    assert sum(sizes) == 3 * k
    assert max(sizes) <= 3 * chunk


def test_the_log_likelihood_approaches_log_p_with_an_inexact_posterior():
    x = torch.randn(5, 1, VALUES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = evaluate(iwae(Encoder(0.3)), x, k=20_000, chunk=3000)
    torch.testing.assert_close(found, log_evidence(x), rtol=0, atol=0.03)


def test_labels_go_to_the_encoder_once_and_to_the_decoder_for_every_sample():
    objective, label = iwae(Encoder(), samples=3), torch.tensor([4, 7])
    objective.loss(Batch(X.repeat(2, 1).unsqueeze(1), label), draw())
    assert objective.autoencoder.encoder.labels[-1].tolist() == [4, 7]
    assert objective.autoencoder.decoder.labels[-1].tolist() == [4, 4, 4, 7, 7, 7]


@pytest.mark.parametrize("gradient", ["iwae", "dreg"])
def test_what_is_logged_is_detached_and_per_sample(gradient):
    _, terms = iwae(Encoder(0.4), samples=3, gradient=gradient).loss(batch(5), draw())
    assert all(value.shape == (5,) and not value.requires_grad for value in terms.values())
    torch.testing.assert_close(terms["loss/autoencoder"], -terms["vae/bound"])


def test_one_phase_trains_all_networks():
    objective = iwae(Encoder())
    (phase,) = objective.phases()
    assert phase.name == "autoencoder"
    assert set(objective.modules()) == set(objective.averaged()) == {"encoder", "decoder", "likelihood"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"samples": 0}, "samples 0 is below 1; set --objective.samples"),
        ({"gradient": "stl"}, "gradient 'stl' is not known; set --objective.gradient to one of iwae, dreg"),
        ({"likelihood": "l1", "binarize": "dynamic"}, "needs the bernoulli likelihood"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_flag(fields, words):
    with pytest.raises(ValueError, match=words):
        IWAEConfig(**fields)
