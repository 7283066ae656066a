"""Samples as a notebook shows them."""

from __future__ import annotations

from html import escape
from typing import Any

import torch
from torch import Tensor

from imagegen_dist.data.modality import drawing_of
from imagegen_dist.data.volume_space import VolumeSpace
from imagegen_dist.metrics.report import data_url

_SHOWN = 60
_TURNED = 10  # volumes that turn, at most; of more there is a still
_COLUMNS = 10
_FRAMES = 16  # of a turn


class Samples(Tensor):
    """Samples of a model, [B, C, *S], which a notebook shows: clips play, and volumes turn.

    modality: their kind. space: what their grid stands for, if they are volumes. What is computed from them, and
    copies, are plain tensors.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    modality: str
    space: VolumeSpace | None

    @classmethod
    def of(cls, samples: Tensor, kind: str, space: VolumeSpace | None = None) -> Samples:
        """The same samples, to be shown as that modality. space: of volumes."""
        made = samples.as_subclass(cls)
        made.modality, made.space = kind, space
        return made

    def plain(self) -> Tensor:
        """The same samples as an ordinary tensor."""
        return self.as_subclass(Tensor)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.plain().__deepcopy__(memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.plain().__reduce_ex__(protocol)

    def _repr_html_(self) -> str:
        """The first 60 samples as a picture or a film."""
        drawing, shown = drawing_of(self.modality, self.space), self[:_SHOWN].cpu().numpy()
        if drawing.rendered and len(shown) <= _TURNED:
            data, extension = drawing.as_file(shown, _COLUMNS, "webp", turn_frames=_FRAMES), "webp"
        else:
            data, extension = drawing.preview(shown, _COLUMNS)
        rest = f", the first {len(shown)} shown" if len(shown) < len(self) else ""
        said = escape(f"{self.dtype} {list(self.shape)}{rest}")
        return f'<div><img alt="samples" src="{data_url(data, extension)}"><p><code>{said}</code></p></div>'
