"""The settings that all experiments share: data, the course of training, evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from imagegen_dist.data.stream import StreamConfig
from imagegen_dist.numerics import Numerics
from imagegen_dist.objectives.interface import ObjectiveConfig
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.training.loop import Batching


@dataclass(frozen=True)
class DataConfig(StreamConfig):
    """Which samples are seen, in what order, and how they are read."""

    url: str = "digits"
    """A built-in dataset's name, or the URL of shards with an index.json."""
    validation: str = ""
    """Held-out samples for evaluation, in the same form; empty: those of a built-in dataset, otherwise none."""
    conditional: bool = True
    """Whether the networks receive the class of each sample."""
    flip: bool = False
    """Whether every second real sample, chosen at random, is mirrored along its last axis."""
    lanes: int = 64
    """Lanes of the shuffle, rounded up to a multiple of the microbatches of a step."""
    block: int = 0
    """Shards of a lane whose samples are shuffled together; 0: as many as bring all lanes' blocks to 4 million
    samples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lanes < 1 or self.block < 0:
            raise ValueError(
                f"lanes {self.lanes} and block {self.block}: lanes are 1 or more, a block is 1 or more, or 0 for "
                "automatic; set --data.lanes or --data.block"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """How long, in what portions, and how often the run is looked at. Every interval is in global images seen."""

    total_images: int = 1_000_000
    """Images seen after which the run ends."""
    batch_size: int = 64
    """Images of a step, over all workers."""
    microbatch_size: int = 32
    """Images of a microbatch, the unit that is shared among workers and of gradient accumulation."""
    pass_images: int = 0
    """Images that go through the networks together, a whole number of microbatches; the more, the faster on a GPU, and
    the more memory is needed. 0: as many as its memory takes; on a CPU, one microbatch."""
    seed: int = 0
    """Seed of weights, order and noise, a whole number."""
    bf16: bool = False
    """Whether whole losses run under bfloat16 autocast (penalties and reductions stay float32)."""
    compile: bool = False
    """Compile the losses of a GAN, or the networks of an autoencoder, with torch.compile."""
    tf32: bool = True
    """Use TensorFloat-32 for float32 matrix products and convolutions on GPUs, in training, evaluation and sampling."""
    cudnn_benchmark: bool = False
    """Let cuDNN choose its convolution algorithms by their speed on GPUs; the choice can differ between runs."""
    channels_last: bool = False
    """Keep images and volumes, and the weights of their convolutions, with channels last in memory, as tensor cores
    take them; not yet measured on a GPU."""
    recompute_from: int = 0
    """Values of a sample (channels times positions) from which residual blocks compute their activations again in the
    backward pass, in place of keeping them: less memory for about a third more time; 0: never."""
    gradient_compression: Literal["none", "bf16"] = "none"
    """Type in which workers exchange gradients: their own, or bfloat16 at half the bytes; one worker exchanges none."""
    deterministic: bool = False
    """Use only algorithms that give the same bits in every run of the same GPUs and versions, at some cost of speed."""
    ema_half_life: Schedule = constant(20_000)
    """Half-life, in images seen, of the averaged weights that inference uses."""
    report_every: int = 10_000
    """Images seen between two rows of metrics."""
    sample_every: int = 100_000
    """Images seen between two sample grids."""
    checkpoint_every: int = 100_000
    """Images seen between two checkpoints."""
    listen_every: int = 0
    """Images seen between two checks whether the run should end and its last checkpoint is written; 0: about every two
    seconds, after twenty steps at most and one step at least."""
    freeze_d: int = 0
    """First stages of the discriminator that keep their weights, counted from the sample, for runs that begin from a
    trained one (arXiv:2002.10964)."""
    max_bad_steps: int = 10
    """Consecutive steps with non-finite gradients after which the run stops."""

    def __post_init__(self) -> None:
        _ = self.batching
        intervals = (self.total_images, self.report_every, self.sample_every, self.checkpoint_every)
        if min(intervals) < 1 or self.max_bad_steps < 1:
            raise ValueError(
                "--training.total-images, the *-every intervals and --training.max-bad-steps are 1 or more"
            )
        if self.freeze_d < 0:
            raise ValueError(f"freeze_d {self.freeze_d}: 0 or more, by --freeze-d")
        if self.recompute_from < 0:
            raise ValueError(f"recompute_from {self.recompute_from}: 0 or more, by --training.recompute-from")
        if self.recompute_from and self.compile:
            raise ValueError(
                "--training.recompute-from is for training that is not compiled; set --training.compile false"
            )
        if self.listen_every < 0:
            raise ValueError(f"listen_every {self.listen_every}: 0 or more, by --training.listen-every")
        if self.pass_images < 0 or self.pass_images % self.microbatch_size:
            raise ValueError(
                f"pass_images {self.pass_images} is not a whole number of microbatches of {self.microbatch_size}; set "
                "--training.pass-images, or 0 for as many as memory takes"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed {self.seed} leaves [0, 2^63); set --training.seed")

    @property
    def batching(self) -> Batching:
        """The global batch as microbatches."""
        return Batching(self.batch_size, self.microbatch_size)

    @property
    def numerics(self) -> Numerics:
        """How GPUs compute in float32."""
        return Numerics(self.tf32, self.cudnn_benchmark, self.deterministic)

    @property
    def steps(self) -> int:
        """Steps of the whole run: the last batch is a full one."""
        return -(-self.total_images // self.batch_size)


@dataclass(frozen=True)
class EvaluationConfig:
    """Figures taken of generated samples: in the features of a network that is named, else of a classifier trained on
    the dataset's own labels.
    """

    every: int = 0
    """Images seen between two evaluations; 0 evaluates at the end alone."""
    samples: int = 1000
    """Generated samples of one evaluation; 0 turns evaluation off."""
    label_distribution: Literal["data", "uniform"] = "data"
    """Classes of generated samples: in the frequencies of the training data, or all equally frequent."""
    metrics: tuple[str, ...] = ()
    """Further metrics of generated samples, by their names in `imagegen evaluate --metrics`."""
    features: str = ""
    """Feature network: "inception", "dinov2", "module:PACKAGE.MODULE:FUNCTION", or empty: a classifier of the
    labels."""
    weights: str = ""
    """Path or URL of the feature network's weights, a safetensors file."""
    weights_sha256: str = ""
    """Expected SHA-256 of that file; empty: not checked."""
    resize: Literal["tensorflow", "bicubic"] = "tensorflow"
    """How samples are resized to Inception's input: as published with TensorFlow, or as clean-fid does."""
    classifier_images: int = 100_000
    """Images on which the classifier is trained."""
    searched: int = 50_000
    """Training samples searched at the end for the nearest neighbours of generated samples; 0: no search."""
    importance_samples: int = 0
    """Importance samples of a VAE's log-likelihood, for each sample; 0 for none."""
    factors: tuple[str, ...] = ()
    """Names of the factors whose disentanglement is measured, if the samples carry factors; empty: all of them."""

    def __post_init__(self) -> None:
        if self.every < 0 or self.samples < 0 or self.samples == 1 or self.classifier_images < 1:
            raise ValueError(
                f"every {self.every} and samples {self.samples} have to be 0 or more (a Fréchet distance needs two "
                f"samples), classifier_images {self.classifier_images} 1 or more; set --evaluation.*"
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


_CHANGEABLE = (
    "training.total_images",
    "training.report_every",
    "training.sample_every",
    "training.checkpoint_every",
    "training.listen_every",
    "training.compile",
    "training.channels_last",
    "training.deterministic",
    "training.pass_images",
    "training.recompute_from",
    "evaluation.every",
    "evaluation.searched",
    "evaluation.factors",
    "evaluation.label_distribution",
    "evaluation.metrics",
    "evaluation.features",
    "evaluation.weights",
    "evaluation.weights_sha256",
    "evaluation.resize",
    "data.url",
    "data.validation",
    "data.workers",
    "data.prefetch",
    "data.open_shards",
    "data.decoded_bytes",
    "data.cache",
    "data.allow_remote_shards",
)


def changeable(objective: str) -> tuple[str, ...]:
    """Settings that a resumed run may change: they decide neither the weights' path nor what a checkpoint holds.

    objective: its kind.
    """
    cls = ObjectiveConfig.registered.get(objective, ObjectiveConfig)
    return (*_CHANGEABLE, *(f"objective.{name}" for name in cls.files))
