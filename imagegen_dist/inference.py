"""Use a trained model: load it from a run or a checkpoint, by path or URL, and sample from it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from imagegen_dist import config
from imagegen_dist.data.modality import modality, to_uint8
from imagegen_dist.experiment import Experiment, build_networks, conditioning
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import MANIFEST, Checkpoint, CheckpointError, newest, open_checkpoint
from imagegen_dist.training.loop import keyed_draw


class GeneratorModel(nn.Module):
    """A trained generator.

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
        z_dim = int(self.generator.z_dim)  # type: ignore[arg-type]
        parts = []
        for i in range(n):
            z = keyed_draw(seed, 0, "sample", i, torch.device("cpu")).normal(1, z_dim).to(device)
            parts.append(self.generator(z, None if label is None else label[i : i + 1].to(device)))
        return to_uint8(torch.cat(parts))

    def grid(self, path: str | Path, rows: int = 10, seed: int = 0) -> None:
        """Write a picture of samples to a file, a column for each class (the first 20), or ten columns."""
        columns = min(self.classes, 20) or 10
        samples = self.sample(rows * columns, range(columns) if self.classes else None, seed)
        data, _ = modality(self.modality).preview(samples.cpu().numpy(), columns)
        Path(path).write_bytes(data)

    def _labels(self, n: int, classes: int | Iterable[int] | None) -> Tensor | None:
        if not self.classes:
            if classes is not None:
                raise ValueError("this generator knows no classes: leave classes out")
            return None
        asked = range(self.classes) if classes is None else [classes] if isinstance(classes, int) else list(classes)
        wrong = [label for label in asked if not 0 <= label < self.classes]
        if wrong or not asked:
            raise ValueError(f"class {wrong[0] if wrong else asked}: the generator knows 0 to {self.classes - 1}")
        return torch.tensor(asked)[torch.arange(n) % len(asked)]


def load(url: str | Path, device: torch.device | str = "cpu") -> GeneratorModel:
    """The model of a run (its newest whole checkpoint) or of one checkpoint directory, with its averaged weights.

    url: a path, or any URL that fsspec opens. Raises CheckpointError where there is none that verifies.
    """
    checkpoint = _find(Store(url))
    facts = checkpoint.facts()
    experiment = config.decode(Experiment, facts["experiment"])
    shape = config.decode(SampleShape, facts["data"]["shape"])
    generator = build_networks(experiment, shape, facts["data"]["classes"])["generator"]
    weights = checkpoint.model()
    generator.load_state_dict({name.removeprefix("generator/"): value for name, value in weights.items()})
    classes = conditioning(experiment, facts["data"]["classes"])
    return GeneratorModel(generator.to(device), shape, classes, checkpoint.images, facts["data"]["modality"])


def _find(store: Store) -> Checkpoint:
    if store.exists(MANIFEST):
        return open_checkpoint(store)
    skipped: list[str] = []
    found = newest(store, skipped.append)
    if found is None:
        why = f": {skipped[0]}" if skipped else "; give a run's directory, or one of a checkpoint"
        raise CheckpointError(f"{store.url} holds no whole checkpoint{why}")
    return found
