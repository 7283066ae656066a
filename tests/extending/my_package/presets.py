"""Experiments of one's own: `python jobs/train_gan.py my_package.presets:my_preset`."""

from dataclasses import replace

from my_package import features, metric  # noqa: F401 - importing them registers what they have
from my_package.autoencoder import WAEConfig
from my_package.network import SwishConfig
from my_package.objective import LeastSquaresConfig

from imagegen_dist.experiment import Experiment
from imagegen_dist.models.mlp_vae import MLPVAEConfig
from imagegen_dist.objectives.interface import AdamConfig, GANOptimConfig, VAEOptimConfig
from imagegen_dist.presets import Preset
from imagegen_dist.schedule import constant
from imagegen_dist.settings import DataConfig, EvaluationConfig, TrainingConfig

ADAM = AdamConfig(lr=constant(2e-3), beta1=0.5, beta2=constant(0.99))

my_preset = Preset(
    Experiment(
        model=SwishConfig(),
        objective=LeastSquaresConfig(),
        optim=GANOptimConfig(discriminator=ADAM, generator=ADAM),
        data=DataConfig(workers=0, lanes=2),
        training=TrainingConfig(total_images=1_280, report_every=320, sample_every=640, checkpoint_every=640),
        evaluation=EvaluationConfig(samples=100, classifier_images=640, searched=200),
    ),
    summary="a GAN with a loss and networks of one's own",
)

my_autoencoder = Preset(
    replace(
        my_preset.experiment,
        model=MLPVAEConfig(hidden=(64,), latent=8),
        objective=WAEConfig(),
        optim=VAEOptimConfig(),
        data=DataConfig(workers=0, lanes=2, conditional=False),
    ),
    summary="an autoencoder with a loss of one's own",
)
