"""A trained model as evaluation wants it: the networks of a checkpoint by their roles, and what they can generate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from imagegen_dist import config
from imagegen_dist.experiment import Experiment, build_autoencoder, build_networks, conditioning
from imagegen_dist.objectives.base import Draw
from imagegen_dist.objectives.gan import GANConfig
from imagegen_dist.objectives.variational import VariationalModel
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import FOLDER, MANIFEST, Checkpoint, CheckpointError, newest, open_checkpoint


@dataclass(frozen=True)
class Restored:
    """A checkpoint's averaged networks on a device, in evaluation mode.

    known: the classes that they are told, 0 for none. autoencoder: of a VAE, else None.
    """

    checkpoint: Checkpoint
    experiment: Experiment
    shape: SampleShape
    known: int
    networks: Mapping[str, nn.Module]
    autoencoder: VariationalModel | None

    @classmethod
    def open(cls, checkpoint: Checkpoint, device: torch.device) -> Restored:
        """Build the networks and load their averaged weights."""
        facts = checkpoint.facts()
        experiment = config.decode(Experiment, facts["experiment"])
        shape, classes = config.decode(SampleShape, facts["data"]["shape"]), facts["data"]["classes"]
        networks = build_networks(experiment, shape, classes)
        modules, autoencoder = networks, None
        if not isinstance(experiment.objective, GANConfig):
            autoencoder = build_autoencoder(experiment, networks)
            networks["likelihood"] = autoencoder.likelihood
            modules = autoencoder.modules()
        tensors = checkpoint.model()
        for role, network in modules.items():
            weights = {
                name.removeprefix(f"{role}/"): value for name, value in tensors.items() if name.startswith(f"{role}/")
            }
            if weights:  # inference needs no discriminator
                network.load_state_dict(weights)
        for network in networks.values():
            network.to(device).eval().requires_grad_(False)
        return cls(checkpoint, experiment, shape, conditioning(experiment, classes), networks, autoencoder)

    def generate(self, count: int, draw: Draw, label: Tensor | None) -> Tensor:
        """Samples [count, C, *S] in [-1, 1]; of a VAE, of its prior."""
        if self.autoencoder is not None:
            return self.autoencoder.sample(count, draw, label)
        generator = self.networks["generator"]
        return generator(draw.normal(count, cast(int, generator.z_dim)), label)


def find_checkpoint(url: str) -> Checkpoint:
    """The newest whole checkpoint of a run, or the one in a checkpoint's own directory. Raises CheckpointError."""
    store = Store(url)
    if store.exists(MANIFEST):
        return open_checkpoint(store)
    skipped: list[str] = []
    found = newest(store, skipped.append)
    if found is None:
        why = f": {skipped[0]}" if skipped else "; give a run's directory, or one of a checkpoint"
        raise CheckpointError(f"{store.url} holds no whole checkpoint{why}")
    return found


def run_folder(checkpoint: Checkpoint) -> Store:
    """The directory of the run that a checkpoint lies in; its own directory where it lies elsewhere."""
    folder, found, _ = checkpoint.url.rpartition(f"/{FOLDER}/")
    return Store(folder) if found else checkpoint.store
