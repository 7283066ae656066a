"""Use a trained model: load it from a run or a checkpoint, by path or URL, and sample from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from imagegen_dist import config
from imagegen_dist.data.modality import modality, to_float, to_uint8
from imagegen_dist.experiment import Experiment, build_autoencoder, build_networks, conditioning
from imagegen_dist.objectives.base import Draw
from imagegen_dist.objectives.gan import GANConfig
from imagegen_dist.objectives.variational import VariationalModel
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import MANIFEST, Checkpoint, CheckpointError, newest, open_checkpoint
from imagegen_dist.training.loop import keyed_draw


class Model(nn.Module):
    """What can be sampled from: a trained generator, or the decoder of a VAE.

    generator: z [B, Z] and labels [B] or None to samples [B, C, *S]. shape: of one sample. classes: how many the
    generator knows, 0 for none. images: how many it has seen. modality: "image", "video" or "voxels".
    """

    def __init__(self, generator: nn.Module, shape: SampleShape, classes: int, images: int, modality: str) -> None:
        super().__init__()
        self.generator = generator.eval().requires_grad_(False)
        self.shape = shape
        self.classes = classes
        self.images = images
        self.modality = modality

    @torch.inference_mode()
    def sample(self, n: int, classes: int | Iterable[int] | None = None, seed: int = 0) -> Tensor:
        """`n` samples, uint8 [n, C, *S]; sample i depends on the seed, i and its class alone, not on `n`.

        classes: one class for all, or several taken in turn; by default all in turn.
        Raises ValueError for a class that the generator does not know, and for classes given to one that knows none.
        """
        if n < 1:
            raise ValueError(f"n is {n}; ask for at least 1 sample")
        label = self._labels(n, classes)
        device = next(self.generator.parameters()).device
        parts = []
        for i in range(n):
            draw = keyed_draw(seed, 0, "sample", i, torch.device("cpu"))
            parts.append(self._generate(draw, None if label is None else label[i : i + 1].to(device)))
        return to_uint8(torch.cat(parts))

    def grid(self, path: str | Path, rows: int = 10, seed: int = 0) -> None:
        """Write a picture of samples to a file, a column for each class (the first 20), or ten columns."""
        columns = min(self.classes, 20) or 10
        samples = self.sample(rows * columns, range(columns) if self.classes else None, seed)
        data, _ = modality(self.modality).preview(samples.cpu().numpy(), columns)
        Path(path).write_bytes(data)

    def _generate(self, draw: Draw, label: Tensor | None) -> Tensor:
        """One sample, [1, C, *S] in [-1, 1]."""
        raise NotImplementedError

    def _labels(self, n: int, classes: int | Iterable[int] | None) -> Tensor | None:
        if not self.classes:
            if classes is not None:
                raise ValueError("this model knows no classes: leave classes out")
            return None
        asked = range(self.classes) if classes is None else [classes] if isinstance(classes, int) else list(classes)
        wrong = [label for label in asked if not 0 <= label < self.classes]
        if wrong or not asked:
            raise ValueError(f"class {wrong[0] if wrong else asked}: the model knows 0 to {self.classes - 1}")
        return torch.tensor(asked)[torch.arange(n) % len(asked)]


class GeneratorModel(Model):
    """A trained generator of a GAN."""

    def _generate(self, draw: Draw, label: Tensor | None) -> Tensor:
        z = draw.normal(1, int(self.generator.z_dim))  # type: ignore[arg-type]
        return self.generator(z.to(next(self.generator.parameters()).device), label)


class AutoencoderModel(Model):
    """A trained VAE: samples of its prior, and between samples and latents. Its `generator` decodes.

    Latents are [B, Z, *s]; those of several levels are one [B, all], the highest level first.
    """

    def __init__(
        self, autoencoder: VariationalModel, shape: SampleShape, classes: int, images: int, modality: str
    ) -> None:
        super().__init__(Decoding(autoencoder), shape, classes, images, modality)
        self._autoencoder = autoencoder

    @torch.inference_mode()
    def encode(self, samples: Tensor, label: Tensor | None = None) -> Tensor:
        """Latents without noise of samples, uint8 [B, C, *S] -> [B, Z, *s]: the posterior's mean, or the code."""
        return self._autoencoder.infer(to_float(samples), label).code()

    @torch.inference_mode()
    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Samples of latents, [B, Z, *s] -> uint8 [B, C, *S]; of several levels, the lower ones may be left out."""
        return to_uint8(self.generator(z, label))

    def reconstruct(self, samples: Tensor, label: Tensor | None = None) -> Tensor:
        """What is left of samples after their latents, uint8 [B, C, *S] -> same."""
        return self.decode(self.encode(samples, label), label)

    def _generate(self, draw: Draw, label: Tensor | None) -> Tensor:
        return self._autoencoder.sample(1, draw, label)


class Decoding(nn.Module):
    """Latents and labels or None to samples [B, C, *S] in [-1, 1]; its children are all of the model's networks."""

    def __init__(self, autoencoder: VariationalModel) -> None:
        super().__init__()
        self.networks = autoencoder.trained
        self._decode = autoencoder.decode

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self._decode(z, label)


def load(url: str | Path, device: torch.device | str = "cpu") -> GeneratorModel | AutoencoderModel:
    """The model of a run (its newest whole checkpoint) or of one checkpoint directory, with its averaged weights.

    url: a path, or any URL that fsspec opens. Raises CheckpointError where there is none that verifies.
    """
    checkpoint = _find(Store(url))
    facts = checkpoint.facts()
    experiment = config.decode(Experiment, facts["experiment"])
    shape = config.decode(SampleShape, facts["data"]["shape"])
    networks = {
        name: network.to(device)
        for name, network in build_networks(experiment, shape, facts["data"]["classes"]).items()
    }
    known = conditioning(experiment, facts["data"]["classes"]), checkpoint.images, facts["data"]["modality"]
    if isinstance(experiment.objective, GANConfig):
        networks["generator"].load_state_dict(_below(checkpoint.model(), "generator"))
        return GeneratorModel(networks["generator"], shape, *known)
    autoencoder = build_autoencoder(experiment, networks)
    autoencoder.likelihood.to(device)
    for name, network in autoencoder.modules().items():
        network.load_state_dict(_below(checkpoint.model(), name))
    return AutoencoderModel(autoencoder, shape, *known)


def _below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one network, by their names in it."""
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}


def _find(store: Store) -> Checkpoint:
    if store.exists(MANIFEST):
        return open_checkpoint(store)
    skipped: list[str] = []
    found = newest(store, skipped.append)
    if found is None:
        why = f": {skipped[0]}" if skipped else "; give a run's directory, or one of a checkpoint"
        raise CheckpointError(f"{store.url} holds no whole checkpoint{why}")
    return found
