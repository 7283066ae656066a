"""The composition root: a configuration becomes live parts. The only room that knows both wings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType

import torch
from torch import Tensor, nn

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.order import Plan, default_block
from imagegen_dist.data.stream import StreamConfig
from imagegen_dist.distributed import World
from imagegen_dist.models import dcgan, mlp, r3gan
from imagegen_dist.models.classifier import Classifier, ClassifierConfig
from imagegen_dist.models.dcgan import DCGANConfig
from imagegen_dist.models.mlp import MLPConfig
from imagegen_dist.models.r3gan import R3GANConfig
from imagegen_dist.objectives.augment import random_flip
from imagegen_dist.objectives.base import Draw
from imagegen_dist.objectives.classify import Classify, ClassifyConfig
from imagegen_dist.objectives.gan import GAN, GANConfig
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.shape import SampleShape
from imagegen_dist.training.ema import Averages
from imagegen_dist.training.loop import Batching, Trainer
from imagegen_dist.training.optim import AdamConfig, ScheduledAdam

GAN_NETWORKS: Mapping[type, ModuleType] = {R3GANConfig: r3gan, DCGANConfig: dcgan, MLPConfig: mlp}
"""Which file has the Generator and the Discriminator of a model config."""


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
    # Steps in a row with non-finite gradients after which the run stops.
    max_bad_steps: int = 10

    def __post_init__(self) -> None:
        _ = self.batching
        intervals = (self.total_images, self.report_every, self.sample_every, self.checkpoint_every)
        if min(intervals) < 1 or self.max_bad_steps < 1:
            raise ValueError(
                "--training.total-images, the *-every intervals and --training.max-bad-steps are 1 or more"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed {self.seed} leaves [0, 2^63); set --training.seed")

    @property
    def batching(self) -> Batching:
        """The global batch as microbatches."""
        return Batching(self.batch_size, self.microbatch_size)

    @property
    def steps(self) -> int:
        """Steps of the whole run: the last batch is a full one."""
        return -(-self.total_images // self.batch_size)


@dataclass(frozen=True)
class EvaluationConfig:
    """Figures taken of generated samples, in the features of a classifier trained on the dataset's own labels."""

    # Between evaluations, in images seen; 0 evaluates at the end alone.
    every: int = 0
    # Generated samples of one evaluation; 0 for none ever.
    samples: int = 1000
    # Images on which the classifier is trained.
    classifier_images: int = 100_000

    def __post_init__(self) -> None:
        if self.every < 0 or self.samples < 0 or self.samples == 1 or self.classifier_images < 1:
            raise ValueError(
                f"every {self.every} and samples {self.samples} have to be 0 or more (a Fréchet distance needs two "
                f"samples), classifier_images {self.classifier_images} 1 or more; set --evaluation.*"
            )


@dataclass(frozen=True)
class GANOptimConfig:
    """One optimizer a network."""

    # The discriminator's.
    discriminator: AdamConfig = field(default_factory=AdamConfig)
    # The generator's.
    generator: AdamConfig = field(default_factory=AdamConfig)


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run's outcome."""

    # The networks.
    model: R3GANConfig | DCGANConfig | MLPConfig = field(default_factory=R3GANConfig)
    # The loss.
    objective: GANConfig = field(default_factory=GANConfig)
    # The optimizers.
    optim: GANOptimConfig = field(default_factory=GANOptimConfig)
    # The samples.
    data: DataConfig = field(default_factory=DataConfig)
    # The course of the run.
    training: TrainingConfig = field(default_factory=TrainingConfig)
    # The figures.
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


CHANGEABLE = (
    "training.total_images",
    "training.report_every",
    "training.sample_every",
    "training.checkpoint_every",
    "training.compile",
    "evaluation.every",
    "data.url",
    "data.validation",
    "data.workers",
    "data.prefetch",
    "data.open_shards",
    "data.decoded_bytes",
    "data.cache",
)
"""Settings that a resumed run may change: they decide neither the weights' path nor what a checkpoint holds."""


def network_generator(seed: int, name: str) -> torch.Generator:
    """The generator that draws one network's initial weights."""
    offset = int.from_bytes(name.encode()[:4].ljust(4, b"\0"), "little")
    return torch.Generator().manual_seed((seed * 1_000_003 + offset) % 2**63)


def conditioning(experiment: Experiment, classes: int | None) -> int:
    """How many classes the networks know: the dataset's, or 0."""
    return (classes or 0) if experiment.data.conditional else 0


def build_networks(experiment: Experiment, shape: SampleShape, classes: int | None) -> dict[str, nn.Module]:
    """Generator and discriminator with their initial weights, on the CPU.

    Raises ValueError where the model cannot make samples of that shape.
    """
    networks = GAN_NETWORKS[type(experiment.model)]
    known = conditioning(experiment, classes)
    seed = experiment.training.seed
    return {
        name: cls(shape, known, experiment.model, generator=network_generator(seed, name))
        for name, cls in (("generator", networks.Generator), ("discriminator", networks.Discriminator))
    }


def build_plan(experiment: Experiment, index: DatasetIndex, draws: int) -> Plan:
    """Which sample of a dataset comes when, for an objective of so many draws a step."""
    batching = experiment.training.batching
    lanes = -(-experiment.data.lanes // batching.microbatches) * batching.microbatches
    return Plan(
        seed=experiment.training.seed,
        microbatches=batching.microbatches,
        microbatch_size=batching.microbatch_size,
        draws=draws,
        lanes=lanes,
        block=experiment.data.block or default_block(index.counts, lanes),
    )


def build_trainer(experiment: Experiment, index: DatasetIndex, world: World, device: torch.device) -> Trainer:
    """The experiment at its first step: networks, loss, optimizers and averages on the device.

    Raises ValueError where the model does not fit the data, or the workers cannot share a batch.
    """
    training = experiment.training
    networks = {
        name: network.to(device) for name, network in build_networks(experiment, index.shape, index.classes).items()
    }
    averages = Averages(networks, ["generator"], training.ema_half_life)
    fast_discriminator = None
    if training.compile:
        networks["generator"].compile()
        fast_discriminator = torch.compile(networks["discriminator"])
    objective = GAN(networks["generator"], networks["discriminator"], experiment.objective, fast_discriminator)
    return Trainer(
        objective,
        {name: ScheduledAdam(networks[name], getattr(experiment.optim, name)) for name in networks},
        averages,
        training.batching,
        world,
        device,
        training.seed,
        augment=flip if experiment.data.flip else None,
        bf16=training.bf16,
    )


def flip(x: Tensor, draw: Draw) -> Tensor:
    """Mirror each real sample with probability 1/2."""
    return random_flip(x, draw.generator)


CLASSIFIER = ClassifierConfig()
"""The network in whose features samples are compared where the data have labels and no better one is at hand."""


def build_classifier(index: DatasetIndex, device: torch.device, images: int) -> Trainer:
    """A classifier of the dataset's own labels at its first step, for the same loop as everything else, in one process.

    images: on how many it will be trained. Raises ValueError where the dataset has no labels.
    """
    if not index.classes:
        raise ValueError("the dataset has no labels: there is nothing to train a classifier on")
    classifier = Classifier(index.shape, index.classes, CLASSIFIER, generator=network_generator(0, "classifier"))
    objective = Classify(classifier.to(device), ClassifyConfig())
    optimizer = AdamConfig(lr=Schedule(2e-3, 1e-5, images), beta1=0.9, beta2=constant(0.99))
    return Trainer(
        objective,
        {"classifier": ScheduledAdam(classifier, optimizer)},
        Averages(objective.modules(), objective.averaged(), constant(2_000)),
        Batching(64, 64),
        World(),
        device,
        seed=0,
    )


def parameter_counts(experiment: Experiment, shape: SampleShape, classes: int | None) -> dict[str, int]:
    """Trainable numbers of each network."""
    networks = build_networks(experiment, shape, classes)
    return {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}
