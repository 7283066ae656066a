from math import exp, inf, log, pi
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World
from imagegen_dist.models import mlp
from imagegen_dist.models.dcgan import DCGANConfig
from imagegen_dist.models.mlp import MLPConfig
from imagegen_dist.models.r3gan import R3GANConfig
from imagegen_dist.objectives.base import Batch, Draw
from imagegen_dist.objectives.gan import GAN, GANConfig, discriminator_terms, generator_terms
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.shape import SampleShape
from imagegen_dist.training.ema import EMA
from imagegen_dist.training.loop import Batching, Trainer
from imagegen_dist.training.optim import AdamConfig, ScheduledAdam

logits = st.floats(-15, 15)


def softplus(x: float) -> float:
    return log(1 + exp(x))


DISCRIMINATOR = {
    "relativistic": lambda real, fake: softplus(fake - real),
    "non-saturating": lambda real, fake: softplus(fake) + softplus(-real),
    "hinge": lambda real, fake: max(0, 1 - real) + max(0, 1 + fake),
    "wasserstein": lambda real, fake: fake - real,
}
GENERATOR = {
    "relativistic": lambda real, fake: softplus(real - fake),
    "non-saturating": lambda real, fake: softplus(-fake),
    "hinge": lambda real, fake: -fake,
    "wasserstein": lambda real, fake: -fake,
}


def scalar(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


@given(real=logits, fake=logits)
@pytest.mark.parametrize("loss", DISCRIMINATOR)
def test_losses_are_those_of_the_papers(loss, real, fake):
    ours = discriminator_terms(loss, scalar(real), scalar(fake)).item()
    assert ours == pytest.approx(DISCRIMINATOR[loss](real, fake), rel=1e-7, abs=1e-9)
    ours = generator_terms(loss, scalar(real), scalar(fake)).item()
    assert ours == pytest.approx(GENERATOR[loss](real, fake), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("terms", [discriminator_terms, generator_terms])
def test_an_unknown_loss_is_refused(terms):
    with pytest.raises(ValueError, match="'least-squares' is not an adversarial loss"):
        terms("least-squares", torch.zeros(1), torch.zeros(1))


@given(real=logits, fake=logits)
def test_the_relativistic_game_is_symmetric_and_sees_differences_alone(real, fake):
    ours = discriminator_terms("relativistic", scalar(real), scalar(fake))
    torch.testing.assert_close(ours, generator_terms("relativistic", scalar(fake), scalar(real)))
    moved = discriminator_terms("relativistic", scalar(real + 5), scalar(fake + 5))
    torch.testing.assert_close(ours, moved, rtol=1e-9, atol=1e-9)


def test_relativistic_logits_come_in_pairs():
    with pytest.raises(RuntimeError, match="must match"):
        discriminator_terms("relativistic", torch.zeros(4), torch.zeros(3))


def test_relativistic_compares_each_fake_with_its_own_real():
    real, fake = torch.tensor([5.0, -5.0]), torch.tensor([4.0, -4.0])
    paired = discriminator_terms("relativistic", real, fake)
    crossed = discriminator_terms("relativistic", real, fake.flip(0))
    assert paired.max() < 1.5
    assert crossed.max() > 8.9


def test_the_articles_printed_loss_takes_logarithms_of_logits_that_may_be_negative():
    """-[log D(x) + log(1 - D(G(z)))] wants probabilities; the article's network ends in a linear layer.

    A logit is unbounded: below 0 the first logarithm is not a number, above 1 the second, and at the optimum that
    the formula does have, D(x) grows without bound. Its generator's log(1 - D(G(z))), to be minimised, is -inf
    at a logit of 1 and NaN beyond it, which is where a generator that wins arrives.
    """
    real, fake = torch.tensor([-0.5, 0.5, 2.0]), torch.tensor([0.5, 1.0, 2.0])
    printed = -(torch.log(real) + torch.log(1 - fake))
    assert printed[0].isnan()
    assert printed[1] == inf
    assert printed[2].isnan()
    assert torch.log(1 - fake)[1] == -inf
    assert discriminator_terms("non-saturating", real, fake).isfinite().all()
    assert generator_terms("non-saturating", real, fake).isfinite().all()


@given(real=logits, fake=logits)
def test_the_articles_loss_over_probabilities_and_with_its_sign_fixed_is_the_non_saturating_one(real, fake):
    probability_real, probability_fake = torch.sigmoid(scalar(real)), torch.sigmoid(scalar(fake))
    discriminator = -(torch.log(probability_real) + torch.log(1 - probability_fake))
    generator = -torch.log(probability_fake)
    ours = discriminator_terms("non-saturating", scalar(real), scalar(fake))
    torch.testing.assert_close(ours, discriminator, rtol=1e-7, atol=1e-9)
    ours = generator_terms("non-saturating", scalar(real), scalar(fake))
    torch.testing.assert_close(ours, generator, rtol=1e-7, atol=1e-9)


def test_the_non_saturating_generator_learns_where_the_discriminator_is_sure():
    fake = torch.tensor([-10.0], requires_grad=True)
    (ours,) = torch.autograd.grad(generator_terms("non-saturating", torch.zeros(1), fake).sum(), fake)
    (saturating,) = torch.autograd.grad(torch.log(1 - torch.sigmoid(fake)).sum(), fake)
    assert ours.item() == pytest.approx(-1, abs=1e-4)
    assert abs(saturating.item()) < 1e-4


SHAPE, CLASSES = SampleShape(2, (3,)), 4


class Shift(nn.Module):
    """z and the label's number, as samples: G(z) = z + shift."""

    z_dim = 6

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.labels: list[Tensor] = []

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        self.labels.append(label)
        return (z + self.shift).reshape(-1, *SHAPE.dims)


class Quadratic(nn.Module):
    """D(x) = slope · |x|² / 2, whose gradient is slope · x. Its classifier's logits are the first values of x."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.classifier = nn.Identity()
        self.inputs: list[Tensor] = []
        self.labels: list[Tensor] = []

    def forward(self, x: Tensor, label: Tensor | None, classify: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        self.inputs.append(x.detach())
        self.labels.append(label)
        logits = self.slope * x.flatten(1).square().sum(1) / 2
        return (logits, recognised(x)) if classify else logits


def recognised(x: Tensor) -> Tensor:
    return 3 * x.flatten(1)[:, :CLASSES]


def game(config: GANConfig) -> GAN:
    return GAN(Shift(), Quadratic(), config)


def batch(size: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(8)
    sample = torch.rand(size, *SHAPE.dims, generator=generator, dtype=torch.float64) * 2 - 1
    return Batch(sample, torch.arange(size) % CLASSES)


def draw(images: int = 0, step: int = 0) -> Draw:
    return Draw(images, torch.Generator().manual_seed(9), step=step)


def fakes() -> Tensor:
    return (draw().normal(5, 6, dtype=torch.float64) + 0.5).reshape(5, *SHAPE.dims)


def energy(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1)


@pytest.mark.parametrize(("penalty", "sides"), [("none", ""), ("r1", "r"), ("r2", "f"), ("r1+r2", "rf")])
def test_the_discriminators_loss_is_adversarial_plus_half_gamma_times_the_penalties(penalty, sides):
    x, slope, gamma = {"r": batch().sample, "f": fakes()}, 0.3, 0.7
    adversarial = torch.nn.functional.softplus(slope * (energy(x["f"]) - energy(x["r"])) / 2)
    names = {"r": "penalty/r1", "f": "penalty/r2"}
    penalties = {names[side]: slope**2 * energy(x[side]) for side in sides}
    loss, terms = game(GANConfig(penalty=penalty, gamma=constant(gamma))).discriminator_loss(batch(), draw())
    expected = adversarial + sum(gamma / 2 * value for value in penalties.values())
    torch.testing.assert_close(loss, expected.mean())
    torch.testing.assert_close(terms["loss/discriminator"], adversarial)
    assert {name for name in terms if name.startswith("penalty/")} == penalties.keys()
    for name, value in penalties.items():
        torch.testing.assert_close(terms[name], value)


@pytest.mark.parametrize("fields", [{"penalty": "r1"}, {"penalty": "wgan-gp"}, {"estimator": "finite-difference"}])
def test_a_lazy_penalty_weighs_in_one_step_as_much_as_in_those_that_have_none(fields):
    always, lazy = game(GANConfig(**fields)), game(GANConfig(**fields, penalty_every=3))
    plain, _ = game(GANConfig(penalty="none")).discriminator_loss(batch(), draw())
    (penalised, terms), (thrice, same) = (each.discriminator_loss(batch(), draw(step=3)) for each in (always, lazy))
    torch.testing.assert_close(thrice - plain, 3 * (penalised - plain))
    assert all(torch.equal(same[name], terms[name]) for name in terms)
    for step in (1, 2, 4):
        without, terms = lazy.discriminator_loss(batch(), draw(step=step))
        torch.testing.assert_close(without, plain)
        assert not any(name.startswith("penalty/") for name in terms)


def test_truncation_scales_the_latents_of_samples_and_not_those_of_training():
    config = GANConfig(truncation=0.8)
    sampler, whole = config.sampler({"generator": Shift()}), GANConfig().sampler({"generator": Shift()})
    drawn = sampler.prior(5, draw())
    assert torch.equal(sampler.generate(drawn), whole.generate(drawn * 0.8))
    for turn in ("discriminator_loss", "generator_loss"):
        truncated, plain = (getattr(game(each), turn)(batch(), draw())[0] for each in (config, GANConfig()))
        assert torch.equal(truncated, plain)


@pytest.mark.parametrize("penalty", ["none", "r1", "r2", "r1+r2"])
def test_an_auxiliary_classifier_learns_from_reals_and_corrects_fakes(penalty):
    falling = Schedule(0.7, 0.1, 1000)  # half-way: 0.4
    alone, joined = GANConfig(penalty=penalty), GANConfig(penalty=penalty, auxiliary_classifier=falling)
    for turn, seen in (("discriminator_loss", batch().sample), ("generator_loss", fakes())):
        without, terms = getattr(game(alone), turn)(batch(), draw(500))
        with_it, more = getattr(game(joined), turn)(batch(), draw(500))
        expected = [-row.log_softmax(0)[label] for row, label in zip(recognised(seen), batch().label, strict=True)]
        name = "recognition/real" if turn == "discriminator_loss" else "recognition/fake"
        torch.testing.assert_close(more[name], torch.stack(expected))
        torch.testing.assert_close(with_it - without, 0.4 * more[name].mean())
        assert more.keys() - terms.keys() == {name}
        assert all(torch.equal(more[each], terms[each]) for each in terms)


@pytest.mark.parametrize(
    "model", [MLPConfig(), DCGANConfig(widths=(8,)), R3GANConfig(widths=(16,), patch=4, patch_kernel=4)]
)
def test_an_auxiliary_classifier_is_built_where_it_is_asked_for(model):
    shape, seed = SampleShape(1, (8, 8)), torch.Generator()
    build, x, label = model.parts()["discriminator"], torch.randn(2, 1, 8, 8), torch.tensor([2, 0])
    plain = build(shape, CLASSES, model, generator=seed.manual_seed(1))
    classifying = build(shape, CLASSES, model, classifies=True, generator=seed.manual_seed(1))
    logits, answers = classifying(x, label, classify=True)
    assert torch.equal(logits, plain(x, label))
    assert torch.equal(answers, torch.zeros(2, CLASSES))  # at first
    unlabelled = build(shape, 0, model, classifies=True, generator=seed)
    generator = model.parts()["generator"](shape, 0, model, generator=seed)
    game = GAN(generator, unlabelled, GANConfig(auxiliary_classifier=constant(0.1)))
    assert "recognition/real" not in game.discriminator_loss(Batch(x, None), draw())[1]  # there is nothing to recognise


def test_wgan_gp_weighs_the_penalty_between_fakes_and_reals_by_gamma():
    objective = game(GANConfig(loss="wasserstein", penalty="wgan-gp", gamma=constant(10.0)))
    loss, terms = objective.discriminator_loss(batch(), draw())
    between = objective.discriminator.inputs[-1]
    position = ((between - fakes()) / (batch().sample - fakes())).flatten(1)
    torch.testing.assert_close(position, position[:, :1].expand_as(position))
    assert ((position >= 0) & (position < 1)).all()
    penalty = (0.3 * energy(between).sqrt() - 1).square()
    torch.testing.assert_close(terms["penalty/interpolates"], penalty)
    torch.testing.assert_close(loss, (0.15 * (energy(fakes()) - energy(batch().sample)) + 10 * penalty).mean())


def test_the_finite_difference_estimates_the_exact_penalty():
    exact = GANConfig(gamma=constant(1.0))
    estimated = GANConfig(gamma=constant(1.0), estimator="finite-difference", epsilon=1e-4)
    _, expected = game(exact).discriminator_loss(batch(), draw())
    draws = [Draw(0, torch.Generator().manual_seed(seed)) for seed in range(1500)]
    found = torch.stack([game(estimated).discriminator_loss(batch(), each)[1]["penalty/r1"] for each in draws])
    standard_error = found.std(0) / len(draws) ** 0.5
    assert ((found.mean(0) - expected["penalty/r1"]).abs() < 4.5 * standard_error).all()


def test_gamma_follows_the_clock():
    config = GANConfig(gamma=Schedule(2.0, 0.0, 100))
    losses = [game(config).discriminator_loss(batch(), draw(images))[0].item() for images in (0, 50, 100)]
    none = game(GANConfig(penalty="none")).discriminator_loss(batch(), draw())[0].item()
    assert losses[2] == pytest.approx(none)
    assert losses[1] - none == pytest.approx((losses[0] - none) / 2)


@pytest.mark.parametrize("loss", GENERATOR)
def test_the_generators_loss_is_its_formula_over_the_microbatch(loss):
    value, terms = game(GANConfig(loss=loss)).generator_loss(batch(), draw())
    real, fake = 0.15 * energy(batch().sample), 0.15 * energy(fakes())
    expected = torch.tensor([GENERATOR[loss](r, f) for r, f in zip(real.tolist(), fake.tolist(), strict=True)])
    torch.testing.assert_close(terms["loss/generator"], expected.double())
    torch.testing.assert_close(value, terms["loss/generator"].mean())


def test_the_discriminators_turn_gives_the_generator_no_gradient():
    objective = game(GANConfig())
    objective.discriminator_loss(batch(), draw())[0].backward()
    assert objective.generator.shift.grad is None
    assert objective.discriminator.slope.grad.abs() > 0


def test_the_generators_turn_gives_the_reals_no_gradient():
    objective = game(GANConfig())
    reals = batch()
    reals.sample.requires_grad_()
    objective.generator_loss(reals, draw())[0].backward()
    assert reals.sample.grad is None
    assert objective.generator.shift.grad.abs() > 0


def test_fakes_have_the_classes_of_their_reals():
    objective = game(GANConfig())
    objective.discriminator_loss(batch(), draw())
    objective.generator_loss(batch(), draw())
    together, *alone = objective.discriminator.labels
    assert torch.equal(together, batch().label.repeat_interleave(2))  # reals and fakes in one pass
    assert all(torch.equal(label, batch().label) for label in [*objective.generator.labels, *alone])


def test_a_step_is_so_many_critic_turns_and_one_of_the_generator():
    objective = game(GANConfig(critic_steps=3))
    assert [phase.name for phase in objective.phases()] == ["discriminator"] * 3 + ["generator"]
    assert [phase.trains for phase in objective.phases()] == [objective.discriminator] * 3 + [objective.generator]
    assert list(objective.averaged()) == ["generator"]


@pytest.mark.parametrize("turn", ["discriminator_loss", "generator_loss"])
def test_what_is_logged_is_detached(turn):
    _, terms = getattr(game(GANConfig()), turn)(batch(), draw())
    assert terms
    assert not any(value.requires_grad for value in terms.values())
    assert all(value.shape == (5,) for value in terms.values())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gamma": constant(-1.0)}, "gamma -1 is negative; set --objective.gamma"),
        ({"gamma": Schedule(-1.0, 1.0, 10)}, "is negative"),
        ({"critic_steps": 0}, "critic_steps 0 is below 1; set --objective.critic-steps"),
        ({"auxiliary_classifier": Schedule(0.1, -0.1, 10)}, "is negative; set --objective.auxiliary-classifier"),
        ({"penalty_every": 0}, "penalty_every 0 is below 1; set --objective.penalty-every"),
        ({"truncation": 0.0}, r"truncation 0.0 is outside \(0, 1\]; set --objective.truncation"),
        ({"truncation": 1.1}, "truncation 1.1 is outside"),
        ({"epsilon": 0.0}, "epsilon 0.0 is not positive; set --objective.epsilon"),
        ({"augment_p": constant(1.5)}, r"augment_p 1.5 leaves \[0, 1\]; set --objective.augment-p"),
        ({"penalty": "wgan-gp", "estimator": "finite-difference"}, "set --objective.estimator exact"),
    ],
)
def test_settings_that_make_no_game_are_refused_with_the_flag(fields, words):
    with pytest.raises(ValueError, match=words):
        GANConfig(**fields)


GRID = torch.cartesian_prod(*[torch.linspace(-0.8, 0.8, 5)] * 2)
SIGMA, POINT, WAVES = 0.03, SampleShape(2, (1,)), 3


def waves(x: Tensor) -> Tensor:
    """[B, 2] in [-1, 1] -> [B, 14]: itself, sines and cosines, so that small networks can tell neighbouring modes."""
    return torch.cat([x, *(f(pi * 2**k * x) for k in range(WAVES) for f in (torch.sin, torch.cos))], dim=1)


class WavyGenerator(mlp.Generator):
    z_dim: ClassVar[int]

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return super().forward(waves(torch.erf(z / 2**0.5)))


class WavyDiscriminator(mlp.Discriminator):
    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return super().forward(waves(x.squeeze(2)))


def points(x: Tensor, draw: Draw) -> Tensor:
    """As many samples of the 25 Gaussians, in place of the stream's, which are of 8 bits."""
    modes = draw.integers(0, len(GRID), len(x))
    return (GRID[modes] + SIGMA * draw.normal(len(x), 2)).unsqueeze(2)


def grid_trainer(steps: int, batch_size: int) -> Trainer:
    images = steps * batch_size
    features, seed = 2 * (1 + 2 * WAVES), torch.Generator().manual_seed(0)
    config = MLPConfig(hidden=(64, 64), z_dim=features)
    generator = WavyGenerator(POINT, 0, config, generator=seed)
    generator.z_dim = 2
    networks = {
        "generator": generator,
        "discriminator": WavyDiscriminator(SampleShape(features, (1,)), 0, config, generator=seed),
    }
    adam = AdamConfig(lr=Schedule(4e-3, 1e-4, images), beta2=constant(0.9))
    game = GANConfig(loss="relativistic", penalty="r1+r2", gamma=Schedule(3e-3, 3e-4, images // 2))
    return Trainer(
        GAN(**networks, config=game),
        {name: ScheduledAdam(network, adam) for name, network in networks.items()},
        EMA(networks, ["generator"], constant(50 * batch_size)),
        Batching(batch_size, batch_size),
        World(),
        torch.device("cpu"),
        seed=0,
        augment=points,
    )


def test_relativistic_loss_with_r1_and_r2_covers_all_25_modes_of_a_grid():
    steps, batch_size = 2500, 512
    trainer = grid_trainer(steps, batch_size)
    blank = torch.zeros(2, 1, batch_size, *POINT.dims, dtype=torch.uint8)
    for step in range(steps):
        trainer.step(Item(step, blank, None, torch.zeros(2, 1, batch_size), {}, []))

    z = torch.randn(2500, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        samples = trainer.averages.modules()["generator"](z).squeeze(2)
    distance, mode = torch.cdist(samples, GRID).min(dim=1)
    good = distance < 3 * SIGMA
    assert good.double().mean() >= 0.6  # of points spread evenly over the square, 0.16 would be
    # Of 100 samples a mode if all were equally likely. Over eight seeds the rarest one had 6 to 32.
    assert torch.bincount(mode[good], minlength=len(GRID)).min() >= 4
