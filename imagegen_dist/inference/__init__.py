"""Inference with trained models: loading, sampling, encoding and decoding."""

from imagegen_dist.inference.loading import load
from imagegen_dist.inference.model import AutoencoderModel, GeneratorModel, Model

__all__ = ["AutoencoderModel", "GeneratorModel", "Model", "load"]
