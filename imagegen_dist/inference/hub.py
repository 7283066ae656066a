"""Models on the Hugging Face Hub: the exported folder, written, pushed and fetched by huggingface_hub's mixin.

    from imagegen_dist.inference.hub import HubModel

    model = HubModel.from_pretrained("USER/NAME")        # or an exported folder
    model.push_to_hub("USER/OTHER")                      # with a token in the environment, or `hf auth login`

Needs the extra `export`: `pip install -e '.[export]'` in a checkout, or that of a wheel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin, snapshot_download

from imagegen_dist.exported import CONFIG, WEIGHTS
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.card import Card
from imagegen_dist.inference.folder import card_of, write_folder
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.loading import build_model, read_trained
from imagegen_dist.inference.model import Model
from imagegen_dist.storage import Store


class HubModel(PyTorchModelHubMixin, library_name="imagegen_dist"):
    """A model with `save_pretrained`, `push_to_hub` and `from_pretrained`, of any family."""

    origin: Card | None = None
    """The contents of its card, if it does not come from an exported folder."""

    def _save_pretrained(self, save_directory: Path) -> None:
        """The exported folder: weights, card, picture, and config.json last."""
        assert isinstance(self, Model)
        write_folder(self, self.origin or card_of(self), Store(save_directory))

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        map_location: str = "cpu",
        **_: Any,
    ) -> HubModel:
        """The model in a directory or a repository of the Hub. Raises CheckpointError, and the errors of fetching."""
        folder = model_id
        if not Path(model_id).is_dir():
            folder = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=[CONFIG, WEIGHTS],
            )
        return for_hub(build_model(read_trained(folder)).to(map_location))


class HubGenerator(HubModel, GeneratorModel):
    """A GAN's generator."""


class HubAutoencoder(HubModel, AutoencoderModel):
    """A VAE."""


def for_hub(model: GeneratorModel | AutoencoderModel, origin: Card | None = None) -> HubGenerator | HubAutoencoder:
    """The same model, with shared networks and the mixin's methods. origin: the contents of its card."""
    made: HubGenerator | HubAutoencoder
    if isinstance(model, GeneratorModel):
        made = HubGenerator.__new__(HubGenerator)
    else:
        made = HubAutoencoder.__new__(HubAutoencoder)
    made.__dict__.update(model.__dict__)
    made.origin = origin
    return made
