"""VAEs by name. Each says where its numbers come from and what figure to expect.

All terms are in nats, summed over a sample's values and latents, so that a beta means the same everywhere.
"""

from __future__ import annotations

from dataclasses import replace

from imagegen_dist.experiment import Experiment
from imagegen_dist.models.conv_vae import ConvVAEConfig
from imagegen_dist.models.ladder_vae import LadderVAEConfig
from imagegen_dist.models.mlp_vae import MLPVAEConfig
from imagegen_dist.models.res_vae import ResVAEConfig
from imagegen_dist.objectives.factor_vae import FactorVAEConfig, FactorVAEOptimConfig
from imagegen_dist.objectives.hierarchical_vae import HierarchicalVAEConfig
from imagegen_dist.objectives.interface import AdamConfig, VAEOptimConfig
from imagegen_dist.objectives.iwae import IWAEConfig
from imagegen_dist.objectives.vae import VAEConfig
from imagegen_dist.objectives.vae_gan import VAEGANConfig, VAEGANOptimConfig
from imagegen_dist.presets.preset import MILLION, Preset
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.settings import (
    DataConfig,
    EvaluationConfig,
    TrainingConfig,
)
from imagegen_dist.shape import SampleShape

_MNIST = SampleShape(1, (28, 28))
_SPRITES = SampleShape(1, (64, 64))
_PHOTOS = SampleShape(3, (256, 256))


def _adam(lr: float | Schedule, **settings: float) -> VAEOptimConfig:
    schedule = lr if isinstance(lr, Schedule) else constant(lr)
    return VAEOptimConfig(AdamConfig(lr=schedule, beta1=0.9, beta2=constant(0.999), **settings))


def _quick_adam(lr: float | Schedule) -> AdamConfig:
    """Adam (0.5, 0.9), of autoencoders with an adversary."""
    return AdamConfig(lr=lr if isinstance(lr, Schedule) else constant(lr), beta1=0.5, beta2=constant(0.9))


_DIGITS = Experiment(
    model=MLPVAEConfig(hidden=(400, 400), latent=16),
    objective=VAEConfig(likelihood="bernoulli"),
    optim=_adam(Schedule(1e-3, 1e-4, 400_000)),
    data=DataConfig(conditional=False, lanes=2),
    training=TrainingConfig(
        total_images=400_000,
        batch_size=64,
        microbatch_size=32,
        ema_half_life=Schedule(0.0, 10_000, 200_000),
        report_every=6_400,
        sample_every=64_000,
        checkpoint_every=128_000,
    ),
    evaluation=EvaluationConfig(every=64_000, classifier_images=80_000, importance_samples=50),
)

_DIGITS_KL = replace(
    _DIGITS,
    model=ResVAEConfig(channels=16, multipliers=(1, 2, 2), blocks=1, latent_channels=4, attention=False),
    objective=VAEConfig(likelihood="bernoulli", beta=constant(0.05)),
    optim=_adam(Schedule(2e-3, 1e-4, 51_200)),
    training=replace(
        _DIGITS.training,
        total_images=51_200,
        ema_half_life=Schedule(0.0, 2_000, 25_600),
        sample_every=25_600,
        checkpoint_every=25_600,
    ),
    evaluation=EvaluationConfig(every=51_200, classifier_images=80_000),
)

_ARTICLE = replace(
    _DIGITS,
    model=MLPVAEConfig(hidden=(128, 128), latent=20),
    optim=_adam(2e-4),
)

_MNIST_400 = Experiment(
    model=MLPVAEConfig(hidden=(400,), latent=40, init="pytorch"),
    objective=VAEConfig(likelihood="bernoulli", binarize="threshold"),
    optim=_adam(1e-4),
    data=DataConfig(conditional=False, workers=0),
    training=TrainingConfig(
        total_images=30 * MILLION,
        batch_size=100,
        microbatch_size=50,
        ema_half_life=constant(0),
        report_every=60_000,
        sample_every=600_000,
        checkpoint_every=600_000,
    ),
    evaluation=EvaluationConfig(every=3 * MILLION, importance_samples=200),
)

_IWAE_50 = Experiment(
    model=MLPVAEConfig(hidden=(200, 200), latent=50, activation="tanh"),
    objective=IWAEConfig(binarize="dynamic", samples=50),
    optim=_adam(Schedule(1e-3, 1e-4, 196 * MILLION), epsilon=1e-4),
    data=DataConfig(conditional=False, workers=0),
    training=TrainingConfig(
        total_images=196 * MILLION,
        batch_size=20,
        microbatch_size=20,
        ema_half_life=constant(0),
        report_every=60_000,
        sample_every=600_000,
        checkpoint_every=600_000,
    ),
    evaluation=EvaluationConfig(every=6 * MILLION, importance_samples=5000),
)

_LADDER = Experiment(
    model=LadderVAEConfig(channels=(), latents=(), units=(512, 256, 128, 64, 32), vectors=(64, 32, 16, 8, 4)),
    objective=HierarchicalVAEConfig(binarize="dynamic", warmup_images=12 * MILLION),
    optim=_adam(1e-3),
    data=DataConfig(conditional=False),
    training=TrainingConfig(
        total_images=120 * MILLION,
        batch_size=256,
        microbatch_size=64,
        ema_half_life=constant(0),
        report_every=60_000,
        sample_every=600_000,
        checkpoint_every=600_000,
    ),
    evaluation=EvaluationConfig(every=6 * MILLION, importance_samples=5000),
)

_BETA_VAE = Experiment(
    model=ConvVAEConfig(),
    objective=VAEConfig(likelihood="bernoulli", beta=constant(4.0)),
    optim=_adam(1e-4),
    data=DataConfig(url="dsprites-full", conditional=False),
    training=TrainingConfig(
        total_images=300_000 * 64,
        batch_size=64,
        microbatch_size=32,
        ema_half_life=constant(0),
        report_every=64_000,
        sample_every=640_000,
        checkpoint_every=640_000,
    ),
    evaluation=EvaluationConfig(every=64 * 30_000, samples=10_000),
)

_VAE_GAN = Experiment(
    model=ConvVAEConfig(channels=(32, 64), kernels=(4,), hidden=(256,), latent=16),
    objective=VAEGANConfig(
        likelihood="l1",
        perceptual="random",
        beta=constant(4.0),
        adversarial_weight=0.5,
        adversarial_from_images=48_000,
        discriminator_channels=16,
        discriminator_layers=2,
    ),
    optim=VAEGANOptimConfig(_quick_adam(Schedule(1e-3, 1e-4, 128_000)), _quick_adam(5e-4)),
    data=DataConfig(conditional=False, lanes=2),
    training=TrainingConfig(
        total_images=128_000,
        batch_size=64,
        microbatch_size=32,
        ema_half_life=Schedule(0.0, 10_000, 64_000),
        report_every=6_400,
        sample_every=32_000,
        checkpoint_every=64_000,
    ),
    evaluation=EvaluationConfig(every=32_000, classifier_images=80_000),
)

_KL_F8_BATCH = 96

_KL_F8 = Experiment(
    model=ResVAEConfig(),
    objective=VAEGANConfig(
        likelihood="l1",
        perceptual="lpips",
        beta=constant(1e-6),
        adversarial_weight=0.5,
        adversarial_from_images=50_001 * _KL_F8_BATCH,
    ),
    optim=VAEGANOptimConfig(_quick_adam(4.5e-6 * _KL_F8_BATCH), _quick_adam(4.5e-6 * _KL_F8_BATCH)),
    data=DataConfig(flip=True, conditional=False, workers=2),
    training=TrainingConfig(
        total_images=24 * MILLION,
        batch_size=_KL_F8_BATCH,
        microbatch_size=12,
        bf16=True,
        compile=True,
        ema_half_life=constant(0),
        report_every=_KL_F8_BATCH * 50,
        sample_every=_KL_F8_BATCH * 1000,
        checkpoint_every=_KL_F8_BATCH * 2000,
    ),
    evaluation=EvaluationConfig(every=_KL_F8_BATCH * 10_000, samples=5_000),
)


def _on_sprites(objective: VAEConfig) -> Experiment:
    return replace(_BETA_VAE, objective=objective)


VAES: dict[str, Preset] = {
    "digits-vae": Preset(
        _DIGITS,
        "VAE of perceptrons on handwritten digits, for two CPU cores",
        "Sized for two CPU cores; see the README for the figures that it gave.",
        _MNIST,
    ),
    "digits-kl": Preset(
        _DIGITS_KL,
        "autoencoder with 4×7×7 latents of handwritten digits, for latent-digits",
        "The network of arXiv:2112.10752 with 16 and 32 channels, cross-entropy in place of perceptual and adversarial "
        "terms, and a beta that leaves the prior to the model of the latents. Sized for two CPU cores; "
        "docs/sampling.md has what came of it.",
        _MNIST,
    ),
    "article-vae": Preset(
        _ARTICLE,
        "the article's perceptrons on handwritten digits; a baseline",
        "The article's VAE put a sigmoid on z and drew z outside of the encoder: both are faults, and are not here.",
        _MNIST,
    ),
    "mnist-400": Preset(
        _MNIST_400,
        "784-400-z40-400-784 on MNIST",
        "Static binarisation, -log p 89.78 nats by 200 importance samples; there with steps of the learning rate after "
        "200, 350 and 500 of 500 epochs.",
        _MNIST,
    ),
    "iwae-50": Preset(
        _IWAE_50,
        "importance-weighted, k = 50, on MNIST",
        "arXiv:1509.00519: dynamic binarisation, -log p 84.78 nats (5,000 samples); there with a learning rate of "
        "1e-3 * 10^(-i/7) for 3^i epochs, here a cosine between the same ends.",
        _MNIST,
    ),
    "ladder-vae": Preset(
        _LADDER,
        "ladder VAE of five levels on MNIST",
        "arXiv:1602.02282: levels and widths, and -log p 81.74 nats (5,000 samples), there with batch normalisation, "
        "warm-up, perceptrons and fine-tuning by importance samples. Here residual blocks take the place of "
        "perceptrons and normalisation, features go down beside the latents, and there is no fine-tuning: no published "
        "figure for this form.",
        _MNIST,
    ),
    "vae-gan": Preset(
        _VAE_GAN,
        "VAE with perceptual and patch-adversarial terms, on handwritten digits, for two CPU cores",
        "The loss of arXiv:2112.10752 with features of random weights and a beta that keeps the prior. Sized for two "
        "CPU cores; docs/vae.md has the figures that it gave. The discriminator has no batch normalisation.",
        _MNIST,
    ),
    "beta-vae-dsprites": Preset(
        _BETA_VAE,
        "β-VAE on dSprites; --objective.beta is the knob",
        "Higgins et al. 2017, Locatello et al. (arXiv:1811.12359): reconstruction / KL in nats of one seed at β 1, 2, "
        "4, 8, 16, 32: 24.6/27.4, 32.8/18.8, 49.1/14.1, 71.8/9.9, 113.5/6.5, 160/4.5; MIG .21 in the literature.",
        _SPRITES,
    ),
    "annealed-vae-dsprites": Preset(
        _on_sprites(VAEConfig(capacity=25.0, capacity_images=100_000 * 64, capacity_gamma=1000.0)),
        "capacity that grows to 25 nats, on dSprites",
        "arXiv:1804.03599: gamma |KL - C|, C from 0 to 25 nats over 100,000 steps.",
        _SPRITES,
    ),
    "factor-vae-dsprites": Preset(
        replace(
            _BETA_VAE,
            objective=FactorVAEConfig(gamma=constant(35.0)),
            optim=FactorVAEOptimConfig(AdamConfig(lr=constant(1e-4), beta1=0.9, beta2=constant(0.999))),
        ),
        "FactorVAE on dSprites",
        "arXiv:1802.05983: gamma 10 to 100; MIG .40 in the literature.",
        _SPRITES,
    ),
    "beta-tcvae-dsprites": Preset(
        _on_sprites(VAEConfig(beta=constant(6.0), decomposition="mws")),
        "β-TCVAE on dSprites",
        "arXiv:1802.04942: beta 6; MIG .45 in the literature.",
        _SPRITES,
    ),
    "kl-f8": Preset(
        _KL_F8,
        "the autoencoder of latent diffusion, 256×256 RGB; needs --objective.lpips-weights",
        "arXiv:2112.10752: L1 + LPIPS + 1e-6 KL, hinge loss of patches 0.5 from step 50,001, learning rate 4.5e-6 an "
        "image of the batch; published reconstruction FID on ImageNet 256 of the later sd-vae-ft-mse: 0.692. LPIPS's "
        "weights come from a file, and without one the job is refused; --objective.perceptual random does without. The "
        "discriminator has no batch normalisation.",
        _PHOTOS,
    ),
    "fsq-f8": Preset(
        replace(
            _KL_F8,
            model=ResVAEConfig(latent_channels=4),
            objective=VAEConfig(likelihood="l1", latent="fsq", levels=(8, 5, 5, 5)),
            optim=VAEOptimConfig(_quick_adam(4.5e-6 * _KL_F8_BATCH)),
        ),
        "its networks with finite scalar quantisation, 1,000 codes, without perceptual and adversarial terms",
        "arXiv:2309.15505, levels 8, 5, 5, 5; no published figure for this form.",
        _PHOTOS,
    ),
}
