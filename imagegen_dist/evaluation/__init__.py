"""Figures and pictures of a model while it trains, by what its objective offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from imagegen_dist.distributed import World
from imagegen_dist.evaluation.evaluator import Dataset, Evaluator
from imagegen_dist.evaluation.gan import GANEvaluator
from imagegen_dist.evaluation.memorisation import PICTURE_OF_COPIES
from imagegen_dist.evaluation.vae import VAEEvaluator
from imagegen_dist.experiment import Experiment
from imagegen_dist.objectives.variational import Autoencodes
from imagegen_dist.storage import Store

__all__ = ["PICTURE_OF_COPIES", "Dataset", "Evaluator", "build_evaluator"]


def build_evaluator(
    networks: Mapping[str, nn.Module],
    experiment: Experiment,
    training: Dataset,
    held_out: Dataset | None,
    cache: Store,
    world: World,
    device: torch.device,
    say: Callable[[str], None],
) -> Evaluator:
    """Who looks at an experiment's averaged networks, given by their roles. cache: for what is computed once."""
    kind = VAEEvaluator if isinstance(experiment.objective, Autoencodes) else GANEvaluator
    return kind(networks, experiment, training, held_out, cache, world, device, say)
