"""A trained model in use: load it from wherever it lies, sample from it, go to latents and back."""

from imagegen_dist.inference.loading import load
from imagegen_dist.inference.model import AutoencoderModel, GeneratorModel, Model

__all__ = ["AutoencoderModel", "GeneratorModel", "Model", "load"]
