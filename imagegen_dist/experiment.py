"""The composition root: a configuration becomes live parts. The only room that knows both wings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from types import ModuleType
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from imagegen_dist.config import kind
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.order import Plan, default_block
from imagegen_dist.distributed import World
from imagegen_dist.models import conv_vae, dcgan, ladder_vae, mlp, mlp_vae, r3gan, res_vae
from imagegen_dist.models.classifier import Classifier, ClassifierConfig
from imagegen_dist.models.conv_vae import ConvVAEConfig
from imagegen_dist.models.dcgan import DCGANConfig
from imagegen_dist.models.ladder_vae import LadderVAEConfig
from imagegen_dist.models.lpips import check_lpips, load_lpips
from imagegen_dist.models.mlp import MLPConfig
from imagegen_dist.models.mlp_vae import MLPVAEConfig
from imagegen_dist.models.patch_discriminator import PatchDiscriminator, PatchDiscriminatorConfig
from imagegen_dist.models.r3gan import R3GANConfig
from imagegen_dist.models.res_vae import ResVAEConfig
from imagegen_dist.models.vgg import random_features
from imagegen_dist.nn.blocks import LEAKY_GAIN, LEAKY_SLOPE
from imagegen_dist.nn.conv import Linear
from imagegen_dist.nn.mlp import mlp as hidden_layers
from imagegen_dist.noise import keyed_generator
from imagegen_dist.objectives.augment import random_flip
from imagegen_dist.objectives.base import Draw, Objective
from imagegen_dist.objectives.classify import Classify, ClassifyConfig
from imagegen_dist.objectives.factor_vae import FactorVAE, FactorVAEConfig
from imagegen_dist.objectives.gan import GAN, GANConfig
from imagegen_dist.objectives.hierarchical_vae import (
    HierarchicalAutoencoder,
    HierarchicalVAE,
    HierarchicalVAEConfig,
)
from imagegen_dist.objectives.iwae import IWAE, IWAEConfig
from imagegen_dist.objectives.latents import FSQ
from imagegen_dist.objectives.likelihoods import LIKELIHOODS, Likelihood
from imagegen_dist.objectives.perceptual import PerceptualDistance
from imagegen_dist.objectives.vae import VAE, Autoencoder, VAEConfig
from imagegen_dist.objectives.vae_gan import VAEGAN, VAEGANConfig
from imagegen_dist.objectives.variational import VariationalModel
from imagegen_dist.schedule import Schedule, constant
from imagegen_dist.settings import (
    DataConfig,
    EvaluationConfig,
    FactorVAEOptimConfig,
    GANOptimConfig,
    TrainingConfig,
    VAEGANOptimConfig,
    VAEOptimConfig,
)
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import file_at
from imagegen_dist.training.ema import EMA
from imagegen_dist.training.loop import Batching, Trainer
from imagegen_dist.training.optim import AdamConfig, ScheduledAdam

GAN_NETWORKS: Mapping[type, ModuleType] = {R3GANConfig: r3gan, DCGANConfig: dcgan, MLPConfig: mlp}
"""Which file has the Generator and the Discriminator of a model config."""

VAE_NETWORKS: Mapping[type, ModuleType] = {MLPVAEConfig: mlp_vae, ConvVAEConfig: conv_vae, ResVAEConfig: res_vae}
"""Which file has the Encoder and the Decoder of a model config."""

LADDER_NETWORKS: Mapping[type, ModuleType] = {LadderVAEConfig: ladder_vae}
"""Likewise, of latents in levels."""


class Family(NamedTuple):
    """What belongs to a kind of objective: networks by their config, and the config of the optimizers."""

    networks: Mapping[type, ModuleType]
    optim: type


FAMILIES: Mapping[type, Family] = {
    GANConfig: Family(GAN_NETWORKS, GANOptimConfig),
    VAEConfig: Family(VAE_NETWORKS, VAEOptimConfig),
    IWAEConfig: Family(VAE_NETWORKS, VAEOptimConfig),
    FactorVAEConfig: Family(VAE_NETWORKS, FactorVAEOptimConfig),
    HierarchicalVAEConfig: Family(LADDER_NETWORKS, VAEOptimConfig),
    VAEGANConfig: Family(VAE_NETWORKS, VAEGANOptimConfig),
}
"""By the objective's config."""


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run's outcome. Raises ValueError where its parts do not belong together."""

    model: R3GANConfig | DCGANConfig | MLPConfig | MLPVAEConfig | ConvVAEConfig | ResVAEConfig | LadderVAEConfig = (
        field(default_factory=R3GANConfig)
    )
    """The networks."""
    objective: GANConfig | VAEConfig | IWAEConfig | FactorVAEConfig | HierarchicalVAEConfig | VAEGANConfig = field(
        default_factory=GANConfig
    )
    """The loss."""
    optim: GANOptimConfig | VAEOptimConfig | FactorVAEOptimConfig | VAEGANOptimConfig = field(
        default_factory=GANOptimConfig
    )
    """The optimizers."""
    data: DataConfig = field(default_factory=DataConfig)
    """The samples."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The course of the run."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """The figures that are measured."""

    def __post_init__(self) -> None:
        family, objective = FAMILIES[type(self.objective)], kind(type(self.objective))
        if type(self.model) not in family.networks:
            fitting = ", ".join(kind(model) for model in family.networks)
            raise ValueError(
                f"a {kind(type(self.model))} is no network for {objective}; set --model to one of {fitting}"
            )
        if type(self.optim) is not family.optim:
            raise ValueError(f"{objective} needs --optim {kind(family.optim)}, not {kind(type(self.optim))}")
        if isinstance(self.objective, VAEGANConfig):
            _ = patch_discriminator(self.objective)
        compared = isinstance(self.objective, FactorVAEConfig) or (
            isinstance(self.objective, VAEConfig) and self.objective.decomposition != "none"
        )
        if compared and self.training.microbatch_size < 2:
            raise ValueError(
                f"{objective} compares the samples of a microbatch: set --training.microbatch-size to 2 or more"
            )


def patch_discriminator(objective: VAEGANConfig) -> PatchDiscriminatorConfig:
    """The size of a VAE-GAN's discriminator. Raises ValueError where it is out of range."""
    return PatchDiscriminatorConfig(objective.discriminator_channels, objective.discriminator_layers)


CHANGEABLE = (
    "training.total_images",
    "training.report_every",
    "training.sample_every",
    "training.checkpoint_every",
    "training.listen_every",
    "training.compile",
    "evaluation.every",
    "evaluation.searched",
    "evaluation.factors",
    "evaluation.label_distribution",
    "evaluation.features",
    "evaluation.weights",
    "evaluation.weights_sha256",
    "evaluation.resize",
    "objective.lpips_weights",
    "data.url",
    "data.validation",
    "data.workers",
    "data.prefetch",
    "data.open_shards",
    "data.decoded_bytes",
    "data.cache",
    "data.allow_remote_shards",
)
"""Settings that a resumed run may change: they decide neither the weights' path nor what a checkpoint holds."""


def with_absolute_paths(experiment: Experiment) -> Experiment:
    """The same experiment for workers in another folder: files by their whole paths. Raises StorageError."""
    objective, evaluation = experiment.objective, experiment.evaluation
    if isinstance(objective, VAEGANConfig) and objective.lpips_weights:
        objective = replace(objective, lpips_weights=_absolute(objective.lpips_weights))
    if evaluation.weights:
        evaluation = replace(evaluation, weights=_absolute(evaluation.weights))
    return replace(experiment, objective=objective, evaluation=evaluation)


def _absolute(path: str) -> str:
    store, name = file_at(path)
    return f"{store.url.rstrip('/')}/{name}"


def network_generator(seed: int, name: str) -> torch.Generator:
    """The generator that draws one network's initial weights."""
    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return keyed_generator(int.from_bytes(key, "little"))


def conditioning(experiment: Experiment, classes: int | None) -> int:
    """How many classes the networks know: the dataset's, or 0. One class alone says nothing, and counts as none."""
    return classes if classes and classes > 1 and experiment.data.conditional else 0


def build_networks(experiment: Experiment, shape: SampleShape, classes: int | None) -> dict[str, nn.Module]:
    """The objective's networks by their roles, with their initial weights, on the CPU.

    Raises ValueError where the model cannot make samples of that shape.
    """
    objective, model = experiment.objective, experiment.model
    networks = FAMILIES[type(objective)].networks[type(model)]
    known = conditioning(experiment, classes)

    def random(role: str) -> torch.Generator:
        return network_generator(experiment.training.seed, role)

    if isinstance(objective, GANConfig):
        return {
            "generator": networks.Generator(shape, known, model, generator=random("generator")),
            "discriminator": networks.Discriminator(shape, known, model, generator=random("discriminator")),
        }
    encoder = networks.Encoder(shape, known, model, parameters=objective.parameters, generator=random("encoder"))
    decoder = networks.Decoder(shape, known, model, outputs=objective.outputs, generator=random("decoder"))
    built: dict[str, nn.Module] = {"encoder": encoder, "decoder": decoder}
    if isinstance(objective, FactorVAEConfig):
        built["tc_discriminator"] = _tc_discriminator(
            (prod(encoder.latent_dims), *objective.discriminator_hidden), random("tc_discriminator")
        )
    if isinstance(objective, VAEGANConfig):
        size = patch_discriminator(objective)
        built["discriminator"] = PatchDiscriminator(shape, size, generator=random("discriminator"))
    return built


def _tc_discriminator(widths: tuple[int, ...], generator: torch.Generator) -> nn.Module:
    """z [B, Z] -> logits [B, 2]. widths: Z and those of the hidden layers."""
    hidden = hidden_layers(widths, partial(nn.LeakyReLU, LEAKY_SLOPE), LEAKY_GAIN, generator=generator)
    return nn.Sequential(hidden, Linear(widths[-1], 2, bias=True, generator=generator))


COMPILED = {"generator", "encoder", "decoder"}
"""Networks without double backward, by their roles."""

UNCOMPILED: Mapping[type, set[str]] = {VAEGANConfig: {"decoder"}}
"""Those of them that an objective goes back through more than once a step, which torch.compile refuses."""


def build_objective(
    experiment: Experiment, networks: Mapping[str, nn.Module], samples: int, fast_discriminator: nn.Module | None = None
) -> Objective:
    """The loss over networks that lie on their device. samples: of the dataset.

    Raises ValueError where the networks do not fit the objective.
    """
    match experiment.objective:
        case GANConfig() as game:
            return GAN(networks["generator"], networks["discriminator"], game, fast_discriminator)
        case VAEConfig() as bound:
            return VAE(networks["encoder"], networks["decoder"], bound, samples)
        case IWAEConfig() as bound:
            return IWAE(networks["encoder"], networks["decoder"], bound)
        case FactorVAEConfig() as bound:
            return FactorVAE(networks["encoder"], networks["decoder"], networks["tc_discriminator"], bound)
        case HierarchicalVAEConfig() as bound:
            return HierarchicalVAE(networks["encoder"], networks["decoder"], bound)
        case VAEGANConfig() as bound:
            encoder, decoder, discriminator = (networks[role] for role in ("encoder", "decoder", "discriminator"))
            last_layer, perceptual = cast(nn.Parameter, decoder.last_layer), build_perceptual(bound, encoder)
            return VAEGAN(encoder, decoder, discriminator, bound, last_layer=last_layer, perceptual=perceptual)


def build_perceptual(objective: VAEGANConfig, encoder: nn.Module) -> PerceptualDistance | None:
    """The perceptual distance that a VAE-GAN names, for the samples and on the device of its encoder; None for none.

    Raises ValueError where it knows no such samples, or where its weights are not to be had.
    """
    shape = cast(SampleShape, encoder.shape)
    match objective.perceptual:
        case "none":
            return None
        case "random":
            distance = PerceptualDistance(random_features(shape.ndim, shape.channels))
        case "lpips":
            check_lpips(shape)
            distance = PerceptualDistance(*load_lpips(objective.lpips_weights, objective.lpips_sha256))
    return distance.to(next(encoder.parameters()).device)


def build_autoencoder(experiment: Experiment, networks: Mapping[str, nn.Module]) -> VariationalModel:
    """What a VAE's networks are together, of those that a checkpoint or the averages hold, by their roles."""
    objective = experiment.objective
    assert not isinstance(objective, GANConfig)
    likelihood = cast(Likelihood, networks.get("likelihood") or LIKELIHOODS[objective.likelihood]())
    if isinstance(objective, HierarchicalVAEConfig):
        return HierarchicalAutoencoder(networks["encoder"], networks["decoder"], likelihood)
    quantised = isinstance(objective, VAEConfig) and objective.latent == "fsq"
    fsq = FSQ(objective.levels) if quantised else None  # type: ignore[union-attr]  # seen just before
    return Autoencoder(networks["encoder"], networks["decoder"], likelihood, fsq)


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
    fast_discriminator: nn.Module | None = None
    if training.compile and "discriminator" in networks:
        fast_discriminator = cast(nn.Module, torch.compile(networks["discriminator"]))
    objective = build_objective(experiment, networks, index.samples, fast_discriminator)
    averages = EMA(objective.modules(), objective.averaged(), training.ema_half_life)
    if training.compile:
        for name in (COMPILED - UNCOMPILED.get(type(experiment.objective), set())) & networks.keys():
            networks[name].compile()
    return Trainer(
        objective,
        {
            phase.name: ScheduledAdam(phase.trains, getattr(experiment.optim, phase.name))
            for phase in objective.phases()
        },
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


def build_classifier(shape: SampleShape, classes: int, device: torch.device, images: int) -> Trainer:
    """A classifier of a dataset's own labels at its first step, for the same loop as everything else, in one process.

    images: on how many it will be trained. Raises ValueError where there are no two classes.
    """
    classifier = Classifier(shape, classes, CLASSIFIER, generator=network_generator(0, "classifier"))
    objective = Classify(classifier.to(device), ClassifyConfig())
    optimizer = AdamConfig(lr=Schedule(2e-3, 1e-5, images), beta1=0.9, beta2=constant(0.99))
    return Trainer(
        objective,
        {"classifier": ScheduledAdam(classifier, optimizer)},
        EMA(objective.modules(), objective.averaged(), constant(2_000)),
        Batching(64, 64),
        World(),
        device,
        seed=0,
    )


def parameter_counts(experiment: Experiment, shape: SampleShape, classes: int | None) -> dict[str, int]:
    """Trainable numbers of each network."""
    networks = build_networks(experiment, shape, classes)
    return {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}
