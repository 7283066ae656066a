"""What a preset is."""

from __future__ import annotations

from dataclasses import dataclass

from imagegen_dist.data.index import DatasetIndex, ShardInfo
from imagegen_dist.experiment import Experiment
from imagegen_dist.objectives.variational import Autoencodes
from imagegen_dist.shape import SampleShape

MILLION = 1_000_000


@dataclass(frozen=True)
class Preset:
    """An experiment with its source, the figure to expect, and the samples that it was made for."""

    experiment: Experiment
    # One line for a list of presets.
    summary: str
    # Where its constants come from, and what they gave there.
    source: str = ""
    # Shape of the samples that it was made for; None: any.
    shape: SampleShape | None = None
    # Classes of these samples, or the length of the vector of their conditions; 0: none.
    classes: int = 0

    @property
    def job(self) -> str:
        """The job that trains it: train_gan or train_vae."""
        return job_of(self.experiment)

    def imagined_index(self, shape: SampleShape | None = None) -> DatasetIndex:
        """An index of very many samples like those that it was made for, whose shard is never opened.

        What a step costs, or whether it runs at all, follows from it without any data. shape: of the samples, if not
        that of the preset. Raises ValueError if neither is known.
        """
        shape = shape or self.shape
        if shape is None:
            raise ValueError("the preset was made for samples of any shape: name one")
        shard = ShardInfo("000000.tar", 1, MILLION, 0, "0" * 64)
        return DatasetIndex("image" if shape.ndim == 2 else "video", shape, (shard,), self.classes or None)


def job_of(experiment: Experiment) -> str:
    """The job that trains an experiment: train_gan or train_vae."""
    return "train_vae" if isinstance(experiment.objective, Autoencodes) else "train_gan"
