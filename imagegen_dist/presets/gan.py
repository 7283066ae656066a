"""GANs by name. Each says where its numbers come from and what figure to expect."""

from __future__ import annotations

from dataclasses import replace

from imagegen_dist.experiment import Experiment
from imagegen_dist.models.dcgan import DCGANConfig
from imagegen_dist.models.mlp import MLPConfig
from imagegen_dist.models.r3gan import R3GANConfig
from imagegen_dist.objectives.adaptive import AdaptiveConfig
from imagegen_dist.objectives.augment import AugmentConfig
from imagegen_dist.objectives.gan import GANConfig
from imagegen_dist.objectives.interface import AdamConfig, GANOptimConfig
from imagegen_dist.presets.preset import MILLION, Preset
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.settings import DataConfig, EvaluationConfig, TrainingConfig
from imagegen_dist.shape import SampleShape

_MODE_SAMPLES = 26_000
"""Of which the published protocol counts StackedMNIST's modes (arXiv:1705.07761, arXiv:1712.04086)."""


def _both(config: AdamConfig) -> GANOptimConfig:
    return GANOptimConfig(discriminator=config, generator=config)


def _r3gan(
    widths: tuple[int, ...],
    *,
    batch: int,
    microbatch: int,
    burn_in: int,
    total: int,
    lr: tuple[float, float],
    gamma: tuple[float, float],
    half_life: int,
    augment_p: float,
    flip: bool,
    conditional: bool,
    group_channels: int = 16,
) -> Experiment:
    """R3GAN's recipe (arXiv:2501.05441): every schedule a cosine over the burn-in; bf16 in the highest
    stages, up to four, without the lowest; no TensorFloat-32.
    """
    bf16_stages = min(4, len(widths) - 1)
    return Experiment(
        model=R3GANConfig(widths=widths, group_channels=group_channels, bf16_stages=bf16_stages),
        objective=GANConfig(
            loss="relativistic",
            penalty="r1+r2",
            gamma=Schedule(*gamma, burn_in),
            augment_p=Schedule(0.0, augment_p, burn_in) if augment_p else constant(0.0),
        ),
        optim=_both(AdamConfig(lr=Schedule(*lr, burn_in), beta1=0.0, beta2=Schedule(0.9, 0.99, burn_in))),
        data=DataConfig(flip=flip, conditional=conditional, workers=2),
        training=TrainingConfig(
            total_images=total,
            batch_size=batch,
            microbatch_size=microbatch,
            compile=True,
            tf32=False,
            cudnn_benchmark=True,
            ema_half_life=Schedule(0.0, half_life, burn_in),
            report_every=batch * 50,
            sample_every=batch * 1000,
            checkpoint_every=batch * 2000,
        ),
        evaluation=EvaluationConfig(every=batch * 10_000, samples=10_000),
    )


_DIGITS_NETWORKS = R3GANConfig(
    widths=(96,),
    blocks_per_stage=2,
    discriminator_blocks=1,
    group_channels=0,
    expansion=1,
    patch=7,
    patch_kernel=13,
    pixel_channels=8,
    mapping_units=256,
    head_units=128,
    output="tanh",
)

_DIGITS = Experiment(
    model=_DIGITS_NETWORKS,
    objective=GANConfig(
        gamma=Schedule(1.0, 0.6, 90_000),
        penalty_every=4,
        auxiliary_classifier=constant(0.1),
        truncation=0.95,
    ),
    optim=_both(AdamConfig(lr=Schedule(1.5e-3, 1e-4, 160_000), beta1=0.0, beta2=Schedule(0.9, 0.99, 90_000))),
    data=DataConfig(lanes=2),  # of four shards each, all of which one block shuffles
    training=TrainingConfig(
        total_images=160_000,
        batch_size=64,
        microbatch_size=32,
        ema_half_life=Schedule(0.0, 13_000, 90_000),
        report_every=3_200,
        sample_every=16_000,
        checkpoint_every=32_000,
    ),
    evaluation=EvaluationConfig(every=64_000, samples=1000, classifier_images=80_000),
)

_FEW_DIGITS = replace(
    _DIGITS,
    model=replace(_DIGITS_NETWORKS, blocks_per_stage=1),
    objective=GANConfig(
        gamma=Schedule(1.0, 0.1, 30_000),
        adaptive_augment=0.5,
        adaptive=AdaptiveConfig(every=256, half_life_images=1_024, rise_images=8_000),
        # What leaves a digit in its place and the background black.
        augment=AugmentConfig(
            flip=0.0,
            rotate90=0.0,
            rotate=0.0,
            translate_integer=0.0,
            translate=0.0,
            brightness=0.0,
            contrast=1.0,
        ),
    ),
    optim=_both(AdamConfig(lr=Schedule(1.5e-3, 1e-4, 38_400), beta1=0.0, beta2=Schedule(0.9, 0.99, 30_000))),
    data=DataConfig(url="digits:200", lanes=2),
    training=replace(
        _DIGITS.training,
        total_images=38_400,
        batch_size=32,
        microbatch_size=16,
        ema_half_life=Schedule(0.0, 5_000, 30_000),
        report_every=1_280,
        sample_every=9_600,
        checkpoint_every=19_200,
    ),
    evaluation=EvaluationConfig(samples=1000, classifier_images=40_000),
)

_LATENT_DIGITS = replace(
    _DIGITS,
    model=R3GANConfig(
        widths=(64,), blocks_per_stage=1, group_channels=0, expansion=1, mapping_units=128, head_units=128
    ),
    objective=GANConfig(gamma=Schedule(1.0, 0.1, 64_000)),
    optim=_both(AdamConfig(lr=Schedule(1.5e-3, 1e-4, 96_000), beta1=0.0, beta2=Schedule(0.9, 0.99, 64_000))),
    training=replace(_DIGITS.training, total_images=96_000, ema_half_life=Schedule(0.0, 8_000, 64_000)),
    evaluation=EvaluationConfig(every=48_000, samples=1000, classifier_images=80_000),
)

_STACKED = DataConfig(
    url="stackedmnist",
    conditional=False,
    decoded_bytes=1 << 27,  # all of its 27,000 training samples, 83 MB
)

_STACKED_SMALL = Experiment(
    model=replace(_DIGITS_NETWORKS, patch=8, patch_kernel=14),
    objective=GANConfig(gamma=Schedule(3.0, 1.0, 105_000)),
    optim=_both(AdamConfig(lr=Schedule(1.5e-3, 1e-4, 190_000), beta1=0.0, beta2=Schedule(0.9, 0.99, 105_000))),
    data=replace(_STACKED, lanes=2),
    training=TrainingConfig(
        total_images=190_000,
        batch_size=64,
        microbatch_size=32,
        ema_half_life=Schedule(0.0, 15_000, 105_000),
        report_every=3_200,
        sample_every=19_200,
        checkpoint_every=38_400,
    ),
    evaluation=EvaluationConfig(every=64_000, samples=_MODE_SAMPLES, classifier_images=50_000),
)

_ARTICLE = Experiment(
    model=MLPConfig(hidden=(128, 128), z_dim=100),
    objective=GANConfig(loss="non-saturating", penalty="none", gamma=constant(0.0)),
    optim=_both(AdamConfig(lr=constant(2e-4), beta1=0.5, beta2=constant(0.999))),
    data=DataConfig(conditional=False),
    training=TrainingConfig(
        total_images=400_000,
        batch_size=64,
        microbatch_size=32,
        ema_half_life=constant(2_000),
        report_every=20_000,
        sample_every=50_000,
        checkpoint_every=100_000,
    ),
    evaluation=EvaluationConfig(every=100_000),
)

_DCGAN = Experiment(
    model=DCGANConfig(),
    objective=GANConfig(loss="non-saturating", penalty="none", gamma=constant(0.0)),
    optim=_both(AdamConfig(lr=constant(2e-4), beta1=0.5, beta2=constant(0.999))),
    data=DataConfig(conditional=False, workers=2),
    training=TrainingConfig(
        total_images=5 * MILLION,
        batch_size=128,
        microbatch_size=32,
        compile=True,
        ema_half_life=constant(20_000),
        report_every=6_400,
        sample_every=64_000,
        checkpoint_every=128_000,
    ),
    evaluation=EvaluationConfig(every=512_000, samples=10_000),
)

GANS: dict[str, Preset] = {
    "digits": Preset(
        _DIGITS,
        "class-conditional R3GAN for two CPU cores, on the built-in digits",
        "R3GAN's blocks and loss (arXiv:2501.05441) on 4×4 positions behind overlapping patches of 13×13 pixels, with "
        "tanh, a layer of features at full resolution, and hidden layers before the scales and in the discriminator's "
        "head; an auxiliary classifier (arXiv:1610.09585) and lazy penalties (arXiv:1912.04958): what two CPU cores "
        "train in minutes. docs/presets.md has what each part does, docs/LOG.md what else was tried.",
        SampleShape(1, (28, 28)),
        10,
    ),
    "digits-styled": Preset(
        replace(_DIGITS, data=replace(_DIGITS.data, url="digits-styled")),
        "the digits preset told digit, slant, weight, width and height",
        "As `digits`, on the same pictures with measured styles as named conditions (data/digit_style.py).",
        SampleShape(1, (28, 28)),
        14,
    ),
    "digits-200": Preset(
        _FEW_DIGITS,
        "200 of the built-in digits, with augmentation that follows overfitting",
        "The networks and losses of `digits`. docs/little-data.md has what each part of it does with 100, 200 and 500 "
        "digits.",
        SampleShape(1, (28, 28)),
        10,
    ),
    "latent-digits": Preset(
        _LATENT_DIGITS,
        "class-conditional R3GAN on the latents that digits-kl makes of the digits; needs --data",
        "R3GAN's blocks and loss (arXiv:2501.05441) on 7×7 positions of 4 channels, which `imagegen encode` makes; its "
        "samples are decoded. Sized for two CPU cores; docs/sampling.md has what came of it.",
        SampleShape(4, (7, 7)),
        10,
    ),
    "article-gan": Preset(
        _ARTICLE,
        "the article's perceptrons, z→128→128→784, on the built-in digits",
        "The loss that the article prints takes the logarithm of raw logits, which nothing bounds; here it has "
        "the non-saturating form that the article describes in words. The baseline to beat, not a recommendation.",
        SampleShape(1, (28, 28)),
    ),
    "dcgan": Preset(
        _DCGAN,
        "DCGAN, 64×64 RGB",
        "arXiv:1511.06434: Adam 2e-4 (0.5, 0.999), tanh, batch 128, non-saturating loss. Its batch normalisation is "
        "replaced by a batch-free one, since a microbatch's result may not depend on its neighbours.",
        SampleShape(3, (64, 64)),
    ),
    "r3gan-stackedmnist": Preset(
        replace(
            _r3gan(
                (768,) * 4,
                batch=512,
                microbatch=64,
                burn_in=2 * MILLION,
                total=10 * MILLION,
                lr=(2e-4, 2e-4),
                gamma=(1.0, 0.1),
                half_life=MILLION // 2,
                augment_p=0.0,
                flip=False,
                conditional=False,
            ),
            data=replace(_STACKED, workers=2),
            evaluation=EvaluationConfig(every=512 * 1_000, samples=_MODE_SAMPLES),
        ),
        "R3GAN, 32×32 stacked digits of 1,000 modes, built in",
        "arXiv:2501.05441: 1,000 modes, KL 0.029. There of all of MNIST; the built-in data have 4,000 of its digits.",
        SampleShape(3, (32, 32)),
        1000,
    ),
    "r3gan-stackedmnist-small": Preset(
        _STACKED_SMALL,
        "the same with small networks, for two CPU cores: which loss drops modes",
        "The ablation of arXiv:2501.05441 with a small ResNet: RpGAN+R1+R2 1,000 modes, KL 0.078; the others by "
        "--objective.loss non-saturating (693 modes, KL 0.927) and --objective.penalty r1 (diverges with either "
        "loss). Its networks are not those of the paper, but those of the digits preset: minutes on two CPU cores.",
        SampleShape(3, (32, 32)),
        1000,
    ),
    "r3gan-cifar10": Preset(
        _r3gan(
            (768,) * 4,
            batch=512,
            microbatch=64,
            burn_in=20 * MILLION,
            total=250 * MILLION,
            lr=(2e-4, 5e-5),
            gamma=(0.05, 0.005),
            half_life=5 * MILLION,
            augment_p=0.55,
            flip=True,
            conditional=True,
        ),
        "R3GAN, 32×32 RGB, class-conditional",
        "arXiv:2501.05441: FID-50k 1.96 on CIFAR-10.",
        SampleShape(3, (32, 32)),
        10,
    ),
    "r3gan-ffhq64": Preset(
        _r3gan(
            (768, 768, 768, 768, 384),
            batch=256,
            microbatch=32,
            burn_in=20 * MILLION,
            total=100 * MILLION,
            lr=(2e-4, 5e-5),
            gamma=(2.0, 0.2),
            half_life=MILLION // 2,
            augment_p=0.3,
            flip=True,
            conditional=False,
        ),
        "R3GAN, 64×64 RGB, unconditional",
        "arXiv:2501.05441: FID-50k 1.95 on FFHQ 64×64.",
        SampleShape(3, (64, 64)),
    ),
    "r3gan-latent256": Preset(
        _r3gan(
            (768, 768, 768, 768),
            batch=256,
            microbatch=64,
            burn_in=20 * MILLION,
            total=100 * MILLION,
            lr=(2e-4, 5e-5),
            gamma=(2.0, 0.2),
            half_life=MILLION // 2,
            augment_p=0.0,
            flip=False,
            conditional=False,
        ),
        "R3GAN on 4×32×32 latents of 256×256 RGB, unconditional; needs --data of `imagegen encode`",
        "The recipe of FFHQ 64×64 (arXiv:2501.05441) on the latents of a KL-f8 (arXiv:2112.10752), e.g. one of "
        "diffusers, without augmentation and flips, which do not fit latents (docs/sampling.md). Not trained yet: "
        "there is no figure, and gamma has to be searched.",
        SampleShape(4, (32, 32)),
    ),
    "r3gan-ffhq256": Preset(
        _r3gan(
            (768, 768, 768, 768, 384, 192, 96),
            batch=256,
            microbatch=32,
            burn_in=20 * MILLION,
            total=200 * MILLION,
            lr=(2e-4, 5e-5),
            gamma=(150.0, 15.0),
            half_life=MILLION // 2,
            augment_p=0.3,
            flip=True,
            conditional=False,
        ),
        "R3GAN, 256×256 RGB, unconditional",
        "arXiv:2501.05441: FID-50k 2.75 on FFHQ 256×256.",
        SampleShape(3, (256, 256)),
    ),
    "r3gan-imagenet32": Preset(
        _r3gan(
            (1536,) * 4,
            batch=4096,
            microbatch=64,
            burn_in=200 * MILLION,
            total=1000 * MILLION,
            lr=(2e-4, 5e-5),
            gamma=(0.5, 0.05),
            half_life=50 * MILLION,
            augment_p=0.5,
            flip=True,
            conditional=True,
            group_channels=32,
        ),
        "R3GAN, 32×32 RGB, 1,000 classes",
        "arXiv:2501.05441: FID-50k 1.27 on ImageNet 32×32.",
        SampleShape(3, (32, 32)),
        1000,
    ),
    "r3gan-imagenet64": Preset(
        _r3gan(
            (1536,) * 5,
            batch=4096,
            microbatch=64,
            burn_in=200 * MILLION,
            total=1000 * MILLION,
            lr=(2e-4, 5e-5),
            gamma=(1.0, 0.1),
            half_life=50 * MILLION,
            augment_p=0.4,
            flip=True,
            conditional=True,
            group_channels=32,
        ),
        "R3GAN, 64×64 RGB, 1,000 classes",
        "arXiv:2501.05441: FID-50k 2.09 on ImageNet 64×64.",
        SampleShape(3, (64, 64)),
        1000,
    ),
}
