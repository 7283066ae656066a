import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.parallel import DistributedDataParallel

from imagegen_dist.data.stream import Item
from imagegen_dist.distributed import World, process_group
from imagegen_dist.objectives.base import Batch, Draw
from imagegen_dist.objectives.perceptual import PerceptualDistance
from imagegen_dist.objectives.vae_gan import VAEGAN, VAEGANConfig, adaptive_weight
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.training.ema import EMA
from imagegen_dist.training.loop import Batching, PhaseModule, Trainer
from imagegen_dist.training.optim import AdamConfig, ScheduledAdam

LATENT, SAMPLE = (2, 3, 3), (1, 6, 6)


def weight(*size: int, seed: int, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(size, generator=generator, dtype=dtype) / 3)


class Encoder(nn.Module):
    latent_dims = LATENT

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.weight = weight(4, 1, 2, 2, seed=1, dtype=dtype)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return conv2d(x, self.weight, stride=2)


class Decoder(nn.Module):
    latent_dims = LATENT

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.first = weight(4, 2, 3, 3, seed=2, dtype=dtype)
        self.last = weight(1, 4, 3, 3, seed=3, dtype=dtype)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        hidden = torch.tanh(conv2d(z, self.first, padding=1))
        return conv2d(hidden.repeat_interleave(2, 2).repeat_interleave(2, 3), self.last, padding=1)


class Patches(nn.Module):
    """x [B, 1, 6, 6] to one logit for each of 3 x 3 patches."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.weight = weight(1, 1, 2, 2, seed=4, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, stride=2)


class Features(nn.Module):
    """Two feature maps of different extents."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.fine, self.coarse = weight(3, 1, 3, 3, seed=5, dtype=dtype), weight(5, 3, 2, 2, seed=6, dtype=dtype)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = torch.tanh(conv2d(x, self.fine, padding=1))
        return [fine, conv2d(fine, self.coarse, stride=2)]


def looks(dtype: torch.dtype = torch.float64) -> PerceptualDistance:
    return PerceptualDistance(Features(dtype))


def vae_gan(perceptual: bool = False, dtype: torch.dtype = torch.float64, **settings) -> VAEGAN:
    decoder = Decoder(dtype)
    return VAEGAN(
        Encoder(dtype),
        decoder,
        Patches(dtype),
        VAEGANConfig(**settings),
        last_layer=decoder.last,
        perceptual=looks(dtype) if perceptual else None,
    )


def batch(size: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(8)
    return Batch(torch.rand(size, *SAMPLE, generator=generator, dtype=torch.float64) * 2 - 1, None)


def draw(images: int = 0) -> Draw:
    return Draw(images, torch.Generator().manual_seed(9))


def reconstruct(objective: VAEGAN) -> tuple[Tensor, Tensor]:
    """The reconstruction by the loss's own noise, and the rate."""
    posterior = objective.autoencoder.posterior(batch().sample)
    return objective.autoencoder.decoder(posterior.sample(draw())), posterior.kl().flatten(1).sum(1)


@pytest.mark.parametrize("likelihood", ["l1", "mse"])
@pytest.mark.parametrize("perceptual", [False, True])
def test_without_an_adversary_the_loss_is_distortion_plus_beta_times_rate(likelihood, perceptual):
    objective = vae_gan(
        perceptual, likelihood=likelihood, perceptual_weight=0.7, beta=constant(1e-2), adversarial_weight=0.0
    )
    y, rate = reconstruct(objective)
    difference = batch().sample - y
    distortion = (difference.abs() if likelihood == "l1" else difference.square()).flatten(1).sum(1)
    reconstruction_loss = distortion + 0.7 * 36 * looks()(batch().sample, y) if perceptual else distortion
    loss, terms = objective.autoencoder_loss(batch(), draw())
    torch.testing.assert_close(loss, (reconstruction_loss + 1e-2 * rate).mean())
    torch.testing.assert_close(terms["vae/distortion"], distortion)
    torch.testing.assert_close(terms["vae/rate"], rate)
    assert ("vae/perceptual" in terms) == perceptual


def test_the_adversarial_term_has_the_ratio_of_gradients_at_the_last_layer_as_its_weight():
    objective = vae_gan(perceptual=True, adversarial_weight=0.5)
    y, rate = reconstruct(objective)
    reconstruction_loss = (batch().sample - y).abs().flatten(1).sum(1) + 36 * looks()(batch().sample, y)
    adversarial = -objective.discriminator(y).flatten(1).mean(1)
    last = objective.autoencoder.decoder.last
    norms = [
        torch.autograd.grad(t.mean(), last, retain_graph=True)[0].norm() for t in (reconstruction_loss, adversarial)
    ]
    expected = norms[0] / (norms[1] + 1e-4)
    by_hand = (reconstruction_loss + 1e-6 * rate + 0.5 * expected * adversarial).mean()
    loss, terms = objective.autoencoder_loss(batch(), draw())
    torch.testing.assert_close(terms["vae/adaptive_weight"], expected.expand(5))
    torch.testing.assert_close(loss, by_hand)
    trained = list(objective.autoencoder.trained.parameters())
    for ours, theirs in zip(torch.autograd.grad(loss, trained), torch.autograd.grad(by_hand, trained), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_both_terms_then_pull_equally_at_the_last_layer():
    objective = vae_gan(adversarial_weight=1.0, beta=constant(0.0))
    loss, _ = objective.autoencoder_loss(batch(), draw())
    quiet = vae_gan(adversarial_weight=0.0, beta=constant(0.0))
    reference, _ = quiet.autoencoder_loss(batch(), draw())
    (both,) = torch.autograd.grad(loss, objective.autoencoder.decoder.last)
    (distortion,) = torch.autograd.grad(reference, quiet.autoencoder.decoder.last)
    assert (both - distortion).norm().item() == pytest.approx(distortion.norm().item(), rel=1e-3)


def test_the_adaptive_weight_is_clamped_and_constant():
    layer = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    found = adaptive_weight(5 * layer.sum(), 2 * layer.sum(), layer)
    assert found.item() == pytest.approx(5 * 2**0.5 / (2 * 2**0.5 + 1e-4))
    assert not found.requires_grad
    assert adaptive_weight(1e9 * layer.sum(), layer.sum(), layer).item() == 1e4
    assert adaptive_weight(2 * layer.sum(), 0 * layer.sum(), layer).item() == pytest.approx(1e4)


def test_the_adversary_joins_at_its_time():
    objective = vae_gan(adversarial_from_images=100)
    assert "loss/generator" not in objective.autoencoder_loss(batch(), draw(99))[1]
    assert "loss/generator" in objective.autoencoder_loss(batch(), draw(100))[1]
    loss, terms = objective.discriminator_loss(batch(), draw(99))
    (gradient,) = torch.autograd.grad(loss, objective.discriminator.weight)
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))
    assert terms["loss/discriminator"].shape == (5,)
    assert objective.discriminator_loss(batch(), draw(100))[0] > 0


def test_the_discriminators_loss_is_the_hinge_of_every_patch():
    objective = vae_gan()
    y, _ = reconstruct(objective)
    real, fake = (objective.discriminator(x) for x in (batch().sample, y))
    expected = 0.5 * ((1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean())
    loss, terms = objective.discriminator_loss(batch(), draw())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(terms["logits/fake"].mean(), fake.mean())


def test_each_turn_gives_gradients_to_its_own_network():
    objective = vae_gan(perceptual=True)
    objective.discriminator_loss(batch(), draw())[0].backward()
    assert objective.discriminator.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in objective.autoencoder.trained.parameters())
    objective.discriminator.requires_grad_(False).zero_grad()
    objective.autoencoder_loss(batch(), draw())[0].backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in objective.autoencoder.trained.parameters())
    assert objective.discriminator.weight.grad is None


def test_the_feature_network_is_frozen_and_not_kept():
    objective = vae_gan(perceptual=True)
    assert list(objective.modules()) == ["encoder", "decoder", "discriminator"]
    assert objective.averaged() == ["encoder", "decoder"]
    assert not any(parameter.requires_grad for parameter in objective._perceptual.parameters())


# torch 2.13 warns of the default, earlier versions do not know the new name.
@pytest.mark.filterwarnings("ignore:`broadcast_buffers` is deprecated:FutureWarning")
def test_under_ddp_the_gradients_are_those_without(tmp_path):
    """The weight's own autograd.grad, inside the wrapped forward, must not count as DDP's backward."""
    objective = vae_gan(perceptual=True)
    (phase, _) = objective.phases()
    objective.discriminator.requires_grad_(False)
    runner = PhaseModule(phase, bf16=False)
    runner(batch(), draw())[0].backward()
    expected = [parameter.grad.clone() for parameter in phase.trains.parameters()]
    phase.trains.zero_grad()
    with process_group(World(), str(tmp_path / "store")):
        wrapped = DistributedDataParallel(runner, broadcast_buffers=False)
        for _ in range(2):
            phase.trains.zero_grad()
            wrapped(batch(), draw())[0].backward()
            for parameter, gradient in zip(phase.trains.parameters(), expected, strict=True):
                torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-12)
        del wrapped  # If it outlives the group, its end waits for threads that may wait for Python's lock.


def test_the_loop_trains_both_networks_and_lets_the_discriminator_rest_before_its_time():
    objective = vae_gan(perceptual=True, dtype=torch.float32, adversarial_from_images=16)
    before = copy.deepcopy({name: module.state_dict() for name, module in objective.modules().items()})
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
    moved = []
    for step in range(4):
        sample = torch.randint(0, 256, (2, 2, 4, *SAMPLE), generator=generator, dtype=torch.uint8)
        trainer.step(Item(step, sample, None, torch.zeros(2, 2, 4, dtype=torch.int64), {}, []))
        weights = objective.discriminator.state_dict()
        moved.append(any(not torch.equal(weights[name], old) for name, old in before["discriminator"].items()))
    assert moved == [False, False, True, True]
    assert trainer.skipped_steps == 0
    for name in ("encoder", "decoder"):
        state = objective.modules()[name].state_dict()
        assert all(not torch.equal(state[key], old) for key, old in before[name].items())


def test_what_is_logged_is_detached_and_per_sample():
    objective = vae_gan(perceptual=True)
    for turn in (objective.autoencoder_loss, objective.discriminator_loss):
        _, terms = turn(batch(), draw())
        assert all(value.shape == (5,) and not value.requires_grad for value in terms.values())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"beta": Schedule(-1.0, 1.0, 5)}, "is negative; set --objective.beta to 0 or more"),
        ({"likelihood": "l2"}, "likelihood 'l2' is not known; set --objective.likelihood to one of l1, mse"),
        ({"perceptual": "vgg"}, "perceptual 'vgg' is not known; set --objective.perceptual to one of none, random"),
        ({"lpips_weights": "x"}, "--objective.lpips-weights has no effect with perceptual none; set --objective.perc"),
        ({"perceptual_weight": -1.0}, "perceptual_weight -1.0 is negative; set --objective.perceptual-weight"),
        ({"adversarial_weight": -0.5}, "set --objective.adversarial-weight to 0 or more"),
        ({"adversarial_from_images": -5}, "set --objective.adversarial-from-images to 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_flag(fields, words):
    with pytest.raises(ValueError, match=words):
        VAEGANConfig(**fields)
