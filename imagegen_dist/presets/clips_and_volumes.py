"""GANs and VAEs of clips and volumes by name, sized for two CPU cores."""

from __future__ import annotations

from imagegen_dist.experiment import Experiment
from imagegen_dist.models.base import ModelConfig
from imagegen_dist.models.conv_vae import ConvVAEConfig
from imagegen_dist.models.dcgan import DCGANConfig
from imagegen_dist.models.ladder_vae import LadderVAEConfig
from imagegen_dist.models.r3gan import R3GANConfig
from imagegen_dist.objectives.gan import GANConfig
from imagegen_dist.objectives.hierarchical_vae import HierarchicalVAEConfig
from imagegen_dist.objectives.interface import AdamConfig, GANOptimConfig, ObjectiveConfig, VAEOptimConfig
from imagegen_dist.objectives.vae import VAEConfig
from imagegen_dist.presets.preset import Preset
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.settings import DataConfig, EvaluationConfig, TrainingConfig
from imagegen_dist.shape import SampleShape

_CLIPS = SampleShape(1, (8, 32, 32))
_VOLUMES = SampleShape(1, (16, 16, 16))


def _training(images: int, half_life: int) -> TrainingConfig:
    return TrainingConfig(
        total_images=images,
        batch_size=64,
        microbatch_size=32,
        ema_half_life=Schedule(0.0, half_life, images // 2),
        report_every=1_280,
        sample_every=images // 10,
        checkpoint_every=images // 5,
    )


_OF_CLIPS = R3GANConfig(
    widths=(96,),
    blocks_per_stage=1,
    group_channels=0,
    expansion=1,
    mapping_units=256,
    head_units=128,
    output="tanh",
    patch=(4, 8, 8),
    patch_kernel=(8, 14, 14),
    pixel_channels=8,
    convolutions="factorised",
    placement="path",
    whole_shifts=True,
    stacked_frames=True,
    judged_frames=1,
    judged_profiles=True,
)
"""The blocks of the preset `digits`, on few positions behind overlapping patches; what is drawn is placed."""


def _gan(url: str, model: ModelConfig, gamma: Schedule, images: int, classifier: float = 0.0) -> Experiment:
    """The losses of the preset `digits` with a larger gamma: with its own, samples are empty."""
    burn_in = images // 2
    adam = AdamConfig(lr=Schedule(1.5e-3, 1e-4, images), beta1=0.0, beta2=Schedule(0.9, 0.99, burn_in))
    return Experiment(
        model=model,
        objective=GANConfig(gamma=gamma, auxiliary_classifier=constant(classifier)),
        optim=GANOptimConfig(discriminator=adam, generator=adam),
        data=DataConfig(url=url, lanes=2, decoded_bytes=1 << 27),
        training=_training(images, 10_000),
        evaluation=EvaluationConfig(samples=1000, classifier_images=100_000),
    )


def _vae(url: str, model: ConvVAEConfig | LadderVAEConfig, objective: ObjectiveConfig, images: int) -> Experiment:
    adam = AdamConfig(lr=Schedule(2e-3, 1e-4, images), beta1=0.9, beta2=constant(0.999))
    return Experiment(
        model=model,
        objective=objective,
        optim=VAEOptimConfig(adam),
        data=DataConfig(url=url, conditional=False, lanes=2, decoded_bytes=1 << 27),
        training=_training(images, images // 40),
        evaluation=EvaluationConfig(samples=1000, classifier_images=100_000),
    )


GANS: dict[str, Preset] = {
    "moving-digits-gan": Preset(
        _gan("moving-digits", _OF_CLIPS, Schedule(30.0, 1.0, 40_000), 120_000),
        "R3GAN of moving digits, for two CPU cores",
        "R3GAN's blocks and loss (arXiv:2501.05441). The generator draws one frame and moves it along a path "
        "(arXiv:1506.02025); single frames (arXiv:1907.06571) and brightness profiles over time have discriminators of "
        "their own. docs/video.md has what came of it.",
        _CLIPS,
        12,
    ),
    "solids-gan": Preset(
        _gan(
            "solids",
            DCGANConfig(widths=(128, 64, 32), z_dim=64, placement="whole"),
            Schedule(10.0, 0.5, 60_000),
            120_000,
            classifier=0.1,
        ),
        "DCGAN of solids with R3GAN's loss, for two CPU cores",
        "DCGAN's networks in three axes (arXiv:1511.06434), R3GAN's loss (arXiv:2501.05441), an auxiliary classifier "
        "(arXiv:1610.09585); bodies are drawn, then shifted and scaled (arXiv:1506.02025). docs/volumes.md has what "
        "came of it.",
        _VOLUMES,
        6,
    ),
}

VAES: dict[str, Preset] = {
    "moving-digits-vae": Preset(
        _vae(
            "moving-digits",
            LadderVAEConfig(channels=(16, 48), latents=(0, 2), units=(256,), vectors=(32,), strides=("2x2x2", "1x2x2")),
            HierarchicalVAEConfig(warmup_images=8_000),
            96_000,
        ),
        "ladder VAE of moving digits, for two CPU cores",
        "Two levels (arXiv:1602.02282): 4×8×8 positions of two latents, and 32 latents above them. A single vector of "
        "latents gave blobs that move (docs/LOG.md). docs/video.md has what came of it.",
        _CLIPS,
    ),
    "solids-vae": Preset(
        _vae(
            "solids",
            ConvVAEConfig(channels=(16, 32, 64), kernels=(4,), hidden=(512,), latent=12),
            VAEConfig(likelihood="bernoulli"),
            240_000,
        ),
        "VAE of solids, for two CPU cores",
        "The network of arXiv:1811.12359 in three axes, narrower; its factors are known, so that disentanglement is "
        "measured. docs/volumes.md has what came of it.",
        _VOLUMES,
    ),
}
