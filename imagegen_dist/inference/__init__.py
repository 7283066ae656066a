"""Inference with trained models: loading, sampling, encoding and decoding."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagegen_dist.inference.autoencoder import AutoencoderModel
    from imagegen_dist.inference.generator import GeneratorModel
    from imagegen_dist.inference.loading import load
    from imagegen_dist.inference.model import Model

__all__ = ["AutoencoderModel", "GeneratorModel", "Model", "load"]
_MODULES = {"AutoencoderModel": "autoencoder", "GeneratorModel": "generator", "Model": "model", "load": "loading"}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: a server of ONNX programs does without torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
