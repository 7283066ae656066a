"""Distributed training of GANs and VAEs on a Ray cluster, streaming WebDataset shards from object storage.

import imagegen_dist
model = imagegen_dist.load("runs/digits-1")          # a run, a checkpoint, an exported folder; any fsspec URL
images = model.sample(16, classes=range(10), seed=1) # uint8 [16, C, *S]
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagegen_dist.inference import AutoencoderModel, GeneratorModel, load

__version__ = "0.2.0"
__all__ = ["AutoencoderModel", "GeneratorModel", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: the package itself loads without torch."""
    if name in ("AutoencoderModel", "GeneratorModel", "load"):
        from imagegen_dist import inference

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
