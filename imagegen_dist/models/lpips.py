"""The features of LPIPS: VGG16 and a weight for each of its channels (arXiv:1801.03924), from a local file.

Nothing is downloaded, and nothing is unpickled: the file is safetensors, verified by its hash. It contains
`convolutions.0.weight` [64, 3, 3, 3], `convolutions.0.bias` [64] and so on, of VGG16's thirteen convolutions in
order, and `channel_weights.0` [64] to `channel_weights.4` [512], of its five stages.
"""

import torch
from torch import Tensor, nn

from imagegen_dist.models.base import auxiliary
from imagegen_dist.models.vgg import VGG, VGGConfig
from imagegen_dist.models.weights import read_weights
from imagegen_dist.shape import SampleShape

# Mean and standard deviation of ImageNet's channels (.485 .456 .406 and .229 .224 .225 on [0, 1]), on [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_SMALLEST_SIDE = 16
_NEEDED = (
    "set --objective.lpips-weights to the path or URL of a file of LPIPS's weights (docs/vae.md says how to make it)"
)
_INSTEAD = "or --objective.perceptual to random or none"


class LPIPSFeatures(nn.Module):
    """x [B, C, H, W] in [-1, 1], C 1 or 3 -> activations of VGG16's five stages; grey is repeated as RGB."""

    shift: Tensor
    scale: Tensor

    def __init__(self, vgg: VGG) -> None:
        super().__init__()
        self.vgg = vgg
        self.register_buffer("shift", torch.tensor(_SHIFT).reshape(3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).reshape(3, 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.vgg((x - self.shift) / self.scale)


def check_lpips(shape: SampleShape) -> None:
    """Raise ValueError if LPIPS does not support samples of this shape."""
    if shape.ndim != 2 or shape.channels not in (1, 3) or min(shape.spatial) < _SMALLEST_SIDE:
        raise ValueError(
            f"LPIPS compares images of 1 or 3 channels and at least {_SMALLEST_SIDE}×{_SMALLEST_SIDE}, not {shape}; "
            "set --objective.perceptual to random or none"
        )


@auxiliary("lpips")
def lpips_for(shape: SampleShape, url: str, sha256: str) -> tuple[LPIPSFeatures, list[Tensor]]:
    """`load_lpips` for samples of this shape. Also raises ValueError if LPIPS does not support them."""
    check_lpips(shape)
    return load_lpips(url, sha256)


def untrained_lpips(shape: SampleShape, url: str = "", sha256: str = "") -> tuple[LPIPSFeatures, list[Tensor]]:
    """What `lpips_for` gives, with drawn weights in place of a file's: as large and as fast, and no distance.

    Raises ValueError where LPIPS knows no such samples.
    """
    check_lpips(shape)
    config = VGGConfig()
    vgg = VGG(2, 3, config, generator=torch.Generator())
    return LPIPSFeatures(vgg), [torch.ones(width) for width in config.widths]


def load_lpips(url: str, sha256: str, config: VGGConfig | None = None) -> tuple[LPIPSFeatures, list[Tensor]]:
    """(features, [F] weights of each stage's channels) from the safetensors file at a path or URL.

    sha256: its expected SHA-256. config: the size of the network, by default VGG16.

    Raises ValueError if the file does not exist, if its hash differs, or if it lacks a tensor.
    """
    if not url:
        raise ValueError(f"perceptual lpips needs weights: {_NEEDED}, {_INSTEAD}")
    flags = "--objective.lpips-weights", "--objective.lpips-sha256"
    tensors = read_weights(url, sha256, *flags, needed=_NEEDED)
    return _features(url, tensors, config or VGGConfig())


def _features(url: str, tensors: dict[str, Tensor], config: VGGConfig) -> tuple[LPIPSFeatures, list[Tensor]]:
    vgg = VGG(2, 3, config, generator=torch.Generator())
    weights = {f"channel_weights.{stage}": torch.empty(width) for stage, width in enumerate(config.widths)}
    for name, expected in {**vgg.state_dict(), **weights}.items():
        if name not in tensors:
            raise ValueError(f"{url} lacks the tensor {name} {list(expected.shape)}; {_NEEDED}")
        if tensors[name].shape != expected.shape:
            shapes = f"{list(tensors[name].shape)}, not {list(expected.shape)}"
            raise ValueError(f"{url}: the tensor {name} is {shapes}; {_NEEDED}")
    vgg.load_state_dict({name: tensors[name].float() for name in vgg.state_dict()})
    return LPIPSFeatures(vgg), [tensors[name].float() for name in weights]
