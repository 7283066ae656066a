"""DINOv2's vision transformers (arXiv:2304.07193), built by timm, with weights from a local safetensors file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from imagegen_dist.extras import install_hint
from imagegen_dist.nn.resize import resize_bicubic
from imagegen_dist.wording import message

SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}
"""timm's names, by the letter in the network's name: dinov2-l is ViT-L/14, used by FD-DINOv2 (arXiv:2306.04675)."""

SIDE = 224
RESIZE = "bicubic with antialiasing, as Pillow"

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, on [0, 1]


class DINOv2(nn.Module):
    """x [B, 3, H, W] with values 0 to 255 -> the class token after the last normalisation, [B, F].

    size: s, b, l or g. Raises ValueError if timm is not installed.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: str) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise ValueError(f"dinov2 needs timm ({error}): {install_hint('evaluate')}") from error
        name = f"vit_{SIZES[size]}_patch14_dinov2"
        self.backbone = timm.create_model(name, pretrained=False, num_classes=0, img_size=SIDE)
        self.dim = int(self.backbone.num_features)
        self.register_buffer("mean", 255 * torch.tensor(_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(_DEVIATION).reshape(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = resize_bicubic(x, (SIDE, SIDE)).clamp(0, 255)
        return self.backbone((x - self.mean) / self.deviation)

    def load(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Load the weights, with timm's names or the original ones; positional embeddings are resized from 518×518.

        Raises ValueError, naming `source`, if they do not fit.
        """
        from timm.models.vision_transformer import checkpoint_filter_fn

        fitting = checkpoint_filter_fn(dict(tensors), self.backbone)
        try:
            self.backbone.load_state_dict(fitting)
        except RuntimeError as error:
            line = message(error)[:200]
            raise ValueError(f"{source} does not hold the weights of this DINOv2 network: {line}") from error
