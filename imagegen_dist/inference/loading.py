"""Loading of models from a run, a checkpoint, or an exported folder. Nothing is unpickled."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imagegen_dist import config
from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.decoding.decoder import FACT, ROLE, DecodingSampler, build_decoder
from imagegen_dist.experiment import Experiment, build_networks, conditioning
from imagegen_dist.exported import is_exported, read_exported
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.objectives.interface import Generates, Sampler
from imagegen_dist.objectives.variational import Autoencodes
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store, reached
from imagegen_dist.training.bounded import Bounded
from imagegen_dist.training.checkpoint import FILES, INFERENCE_FILES, find_checkpoint
from imagegen_dist.training.state import WEIGHTS, below
from imagegen_dist.wording import message

_DISCRIMINATOR = "discriminator"


@dataclass(frozen=True)
class Trained:
    """A stored model. url: of the checkpoint or exported folder; tensors: by "network/name"."""

    url: str
    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def experiment(self) -> Experiment:
        """The experiment that trained it. Raises CheckpointError."""
        try:
            return config.decode(Experiment, self.facts["experiment"])
        except (KeyError, TypeError, ValueError) as error:
            line = f"{self.url}: its experiment cannot be read ({error})"
            module, own, _ = str(self.facts.get("preset", "")).partition(":")
            if own and module not in sys.modules:
                line += (
                    f"; it was trained with the module {module}, whose code loading does not run: if you trust it, add "
                    f"--package {module}, or import it before load()"
                )
            raise CheckpointError(line) from error


def load(
    url: str | Path, device: torch.device | str = "cpu", discriminator: bool = False
) -> GeneratorModel | AutoencoderModel:
    """The model of a run (its newest complete checkpoint), of a checkpoint directory, or of an exported folder.

    url: a path, or any URL that fsspec opens. discriminator: also load its discriminator, as last trained; the other
    networks have their averaged weights. Raises CheckpointError if there is no such model, or none that verifies.
    """
    return build_model(read_trained(url, discriminator)).to(device)


def read_trained(place: str | Path | Store, discriminator: bool = False) -> Trained:
    """A stored model. Arguments and errors as for `load`."""
    store = place if isinstance(place, Store) else reached(place)
    if is_exported(store):
        facts, tensors = read_exported(store)
        if discriminator and not below(tensors, _DISCRIMINATOR):
            raise CheckpointError(
                f"{store.url} was exported without its discriminator: export it again with --discriminator"
            )
        return Trained(store.url, facts, tensors)
    checkpoint = find_checkpoint(store, FILES if discriminator else INFERENCE_FILES)
    tensors = dict(checkpoint.model)
    if discriminator:
        state = below(checkpoint.state, f"{WEIGHTS}/{_DISCRIMINATOR}")
        if not state:
            raise CheckpointError(f"{checkpoint.url} has no discriminator")
        tensors |= {f"{_DISCRIMINATOR}/{name}": tensor for name, tensor in state.items()}
    return Trained(checkpoint.url, checkpoint.facts, tensors)


def build_model(trained: Trained) -> GeneratorModel | AutoencoderModel:
    """The live model, on the CPU. Raises CheckpointError if facts and tensors do not fit together."""
    facts, tensors = trained.facts, trained.tensors
    try:
        experiment = trained.experiment
        shape = config.decode(SampleShape, facts["data"]["shape"])
        classes, images, modality = facts["data"]["classes"], int(facts["images"]), facts["data"]["modality"]
        rows = ConditionRows.from_payload(facts["data"]) if experiment.data.conditional else None
        with Bounded(trained.url, trained.tensors, shape):
            networks = build_networks(experiment, shape, classes if rows is None else rows.conditions)
        told = conditioning(experiment, classes) if rows is None else 0
        known = shape, told, images, modality, facts
        more = {_DISCRIMINATOR: networks[_DISCRIMINATOR]} if below(tensors, _DISCRIMINATOR) else {}
        objective = experiment.objective
        model: GeneratorModel | AutoencoderModel
        if isinstance(objective, Autoencodes):
            model = AutoencoderModel(objective.autoencoder(networks), *known, more=more, known=rows)
        elif isinstance(objective, Generates):
            model = _generator(trained, objective.sampler(networks), *known, more=more, known=rows)
        else:
            raise CheckpointError(f"{trained.url}: its objective neither generates nor autoencodes samples")
        model.numerics = experiment.training.numerics
        for name, network in model.networks.items():
            network.load_state_dict(below(tensors, name))
    except (KeyError, TypeError, RuntimeError, OverflowError) as error:
        line = message(error)[:200]
        raise CheckpointError(f"{trained.url}: the model cannot be built ({type(error).__name__}: {line})") from error
    return model


def _generator(trained: Trained, sampler: Sampler, shape: SampleShape, *known: Any, **more: Any) -> GeneratorModel:
    """The model of a generator; one of latents decodes them, if the model has their decoder."""
    if FACT not in trained.facts:
        return GeneratorModel(sampler, shape, *known, **more)
    decoder = build_decoder(trained.facts[FACT], below(trained.tensors, ROLE), trained.url)
    if not decoder.fit_(shape.dims):
        raise CheckpointError(f"{trained.url}: its latents are {shape}, and their decoder takes {decoder.latent_dims}")
    return GeneratorModel(DecodingSampler(sampler, decoder), decoder.shape, *known, **more)
