"""The settings that all experiments share: data, the course of training, evaluation, optimizers."""

from __future__ import annotations

from dataclasses import dataclass, field

from imagegen_dist.data.stream import StreamConfig
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.training.loop import Batching
from imagegen_dist.training.optim import AdamConfig


@dataclass(frozen=True)
class DataConfig(StreamConfig):
    """Which samples are seen, in what order, and how they are read."""

    # A built-in dataset's name, or the URL of shards with an index.json.
    url: str = "digits"
    # Held-out samples for evaluation, likewise; empty: those of a built-in dataset, else none.
    validation: str = ""
    # Whether the networks are told the class of a sample.
    conditional: bool = True
    # Whether real samples are mirrored along their last axis, one in two.
    flip: bool = False
    # Lanes of the shuffle, rounded up to a multiple of the microbatches of a step.
    lanes: int = 64
    # Shards of a lane whose samples are shuffled together; 0: so many that all lanes' blocks hold 4 million samples.
    block: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lanes < 1 or self.block < 0:
            raise ValueError(
                f"lanes {self.lanes} and block {self.block}: lanes are 1 or more, a block is 1 or more, or 0 for "
                "automatic; set --data.lanes or --data.block"
            )


_LISTEN_STEPS = 20


@dataclass(frozen=True)
class TrainingConfig:
    """How long, in what portions, and how often the run is looked at. Every interval is in global images seen."""

    # Images after which the run ends.
    total_images: int = 1_000_000
    # Global images a step.
    batch_size: int = 64
    # Images a microbatch: the unit that workers share, and of gradient accumulation.
    microbatch_size: int = 32
    # Seed of weights, order and noise.
    seed: int = 0
    # Whether whole losses run under bfloat16 autocast (penalties and reductions stay float32).
    bf16: bool = False
    # Whether the generator, and the discriminator's passes without double backward, are compiled.
    compile: bool = False
    # Half-life, in images, of the averaged weights that inference uses.
    ema_half_life: Schedule = constant(20_000)
    # Between rows of metrics.
    report_every: int = 10_000
    # Between sample grids.
    sample_every: int = 100_000
    # Between checkpoints.
    checkpoint_every: int = 100_000
    # Between looks at whether the run is to end, and whether its last checkpoint was written; 0: twenty steps.
    listen_every: int = 0
    # Steps in a row with non-finite gradients after which the run stops.
    max_bad_steps: int = 10

    def __post_init__(self) -> None:
        _ = self.batching
        intervals = (self.total_images, self.report_every, self.sample_every, self.checkpoint_every)
        if min(intervals) < 1 or self.max_bad_steps < 1:
            raise ValueError(
                "--training.total-images, the *-every intervals and --training.max-bad-steps are 1 or more"
            )
        if self.listen_every < 0:
            raise ValueError(f"listen_every {self.listen_every}: 0 or more, by --training.listen-every")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed {self.seed} leaves [0, 2^63); set --training.seed")

    @property
    def batching(self) -> Batching:
        """The global batch as microbatches."""
        return Batching(self.batch_size, self.microbatch_size)

    @property
    def listening(self) -> int:
        """Images between looks at whether the run is to end."""
        return self.listen_every or _LISTEN_STEPS * self.batch_size

    @property
    def steps(self) -> int:
        """Steps of the whole run: the last batch is a full one."""
        return -(-self.total_images // self.batch_size)


@dataclass(frozen=True)
class EvaluationConfig:
    """Figures taken of generated samples: in the features of a network that is named, else of a classifier trained on
    the dataset's own labels.
    """

    # Between evaluations, in images seen; 0 evaluates at the end alone.
    every: int = 0
    # Generated samples of one evaluation; 0 for none ever.
    samples: int = 1000
    # Classes of generated samples: "data", in the frequencies of the training data, or "uniform", all alike.
    label_distribution: str = "data"
    # Feature network: "inception", "dinov2", "module:PACKAGE.MODULE:FUNCTION", or empty: a classifier of the labels.
    features: str = ""
    # Path or URL of the feature network's weights, in a safetensors file.
    weights: str = ""
    # What the SHA-256 of that file has to be.
    weights_sha256: str = ""
    # How samples come to Inception's size: "tensorflow" or "bicubic".
    resize: str = "tensorflow"
    # Images on which the classifier is trained.
    classifier_images: int = 100_000
    # Training samples among which the nearest ones of generated samples are looked for at the end; 0: no such check.
    searched: int = 50_000
    # Importance samples of a VAE's log-likelihood, for each sample; 0 for none.
    importance_samples: int = 0
    # Factors that disentanglement is measured of, where the samples carry factors; none: all of them.
    factors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.every < 0 or self.samples < 0 or self.samples == 1 or self.classifier_images < 1:
            raise ValueError(
                f"every {self.every} and samples {self.samples} have to be 0 or more (a Fréchet distance needs two "
                f"samples), classifier_images {self.classifier_images} 1 or more; set --evaluation.*"
            )
        if self.label_distribution not in ("data", "uniform"):
            raise ValueError(
                f"label_distribution {self.label_distribution}: data or uniform, by --evaluation.label-distribution"
            )
        if self.searched < 0 or self.searched == 1:
            raise ValueError(f"searched {self.searched}: 2 or more, or 0 for no check; set --evaluation.searched")
        if self.importance_samples < 0:
            raise ValueError(
                f"importance_samples {self.importance_samples}: 0 or more, by --evaluation.importance-samples"
            )
        if len(self.factors) == 1 or len(set(self.factors)) < len(self.factors):
            raise ValueError(
                f"factors {','.join(self.factors)}: disentanglement is of two different ones or more; "
                "set --evaluation.factors"
            )


@dataclass(frozen=True)
class GANOptimConfig:
    """One optimizer a network."""

    # The discriminator's.
    discriminator: AdamConfig = field(default_factory=AdamConfig)
    # The generator's.
    generator: AdamConfig = field(default_factory=AdamConfig)


@dataclass(frozen=True)
class VAEOptimConfig:
    """One optimizer for encoder, decoder and likelihood."""

    # Theirs.
    autoencoder: AdamConfig = field(default_factory=lambda: AdamConfig(beta1=0.9, beta2=constant(0.999)))


@dataclass(frozen=True)
class FactorVAEOptimConfig(VAEOptimConfig):
    """One optimizer for the autoencoder, one for the discriminator of its latents."""

    # The discriminator's.
    tc_discriminator: AdamConfig = field(
        default_factory=lambda: AdamConfig(lr=constant(1e-4), beta1=0.5, beta2=constant(0.9))
    )


@dataclass(frozen=True)
class VAEGANOptimConfig:
    """One optimizer for encoder and decoder, one for the discriminator (arXiv:2012.09841)."""

    # Encoder's and decoder's.
    autoencoder: AdamConfig = field(default_factory=lambda: AdamConfig(beta1=0.5, beta2=constant(0.9)))
    # The discriminator's.
    discriminator: AdamConfig = field(default_factory=lambda: AdamConfig(beta1=0.5, beta2=constant(0.9)))
