"""Distributed training of GANs and VAEs on a Ray cluster, streaming WebDataset shards from object storage.

Training from Python, and a trained model in use:

    import imagegen_dist
    run = imagegen_dist.train("digits", training={"total_images": 20_000}, workers=0)
    model = imagegen_dist.load("runs/digits-1")          # a run, a checkpoint, an exported folder; any fsspec URL
    images = model.sample(16, classes=range(10), seed=1) # uint8 [16, C, *S]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagegen_dist.api import Run, train
    from imagegen_dist.inference import AutoencoderModel, GeneratorModel, load

__version__ = "0.2.0"
__all__ = ["AutoencoderModel", "GeneratorModel", "Run", "__version__", "load", "train"]
_API = ("Run", "train")


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: the package itself loads without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'api' if name in _API else 'inference'}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
