"""Inference with trained models: loading, sampling, encoding and decoding."""

from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.loading import load
from imagegen_dist.inference.model import Model

__all__ = ["AutoencoderModel", "GeneratorModel", "Model", "load"]
