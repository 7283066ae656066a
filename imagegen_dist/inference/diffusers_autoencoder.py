"""An autoencoder of diffusers as a model of this package, for samples of a dataset's shape."""

from __future__ import annotations

from imagegen_dist import config
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.errors import UsageError
from imagegen_dist.experiment import Experiment
from imagegen_dist.inference.loading import Trained
from imagegen_dist.lineage.diffusers import Layout, read_folder
from imagegen_dist.models.res_vae import ResVAEConfig
from imagegen_dist.objectives.interface import VAEOptimConfig
from imagegen_dist.objectives.vae import VAEConfig
from imagegen_dist.records import describe_data
from imagegen_dist.settings import DataConfig
from imagegen_dist.storage import Store
from imagegen_dist.wording import counted


def read_diffusers(folder: Store, index: DatasetIndex) -> Trained:
    """The autoencoder in a diffusers folder, which encodes samples of the shape that a dataset has.

    Raises UsageError if it has other layers than ours, or takes other channels.
    """
    found = read_folder(folder)
    if found.layout.channels != index.shape.channels or index.modality != "image":
        takes = counted(found.layout.channels, "channel")
        raise UsageError(f"{folder} takes pictures of {takes}, and the data have {index.modality} of {index.shape}")
    experiment = Experiment(
        model=_model(found.layout, folder),
        objective=VAEConfig(likelihood="l1"),
        optim=VAEOptimConfig(),
        data=DataConfig(url=folder.url, conditional=False),
    )
    data = {name: value for name, value in describe_data(index).items() if not name.startswith("condition")}
    facts = {"images": 0, "preset": "", "experiment": config.encode(experiment), "data": data}
    return Trained(folder.url, facts, found.tensors)


def _model(layout: Layout, folder: Store) -> ResVAEConfig:
    first = layout.widths[0]
    if any(width % first for width in layout.widths):
        raise UsageError(f"{folder}: its widths {layout.widths} are no multiples of the first")
    multipliers = tuple(width // first for width in layout.widths)
    return ResVAEConfig(first, multipliers, layout.blocks, layout.latent_channels, layout.attention)
