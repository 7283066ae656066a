"""How samples are stored and shown. Only here do images (H, W), video (T, H, W) and voxels (D, H, W) differ.

Only listed formats are decoded, and nothing is unpickled. Headers are checked before any pixel is decoded, so that a
small file that claims to be a huge picture costs nothing.
"""

from __future__ import annotations

import io
import math
from abc import ABC
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from imagegen_dist.data.deep_picture import decode_deep_into, encode_deep
from imagegen_dist.data.npy import npy_shape, read_npy, write_npy
from imagegen_dist.data.picture import MAX_PIXELS as MAX_PIXELS
from imagegen_dist.data.picture import DecodeError as DecodeError
from imagegen_dist.data.picture import Pixels as Pixels
from imagegen_dist.data.picture import decode_into as decode_picture_into
from imagegen_dist.data.picture import picture_shape, times
from imagegen_dist.data.video.stored import decode_clip, encode_clip, stored_shape
from imagegen_dist.data.volume_space import VolumeSpace
from imagegen_dist.drawing.views import ClipDrawing, Drawing, PatientDrawing, PictureDrawing, VolumeDrawing
from imagegen_dist.shape import SampleShape
from imagegen_dist.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

ARRAY = "npy"
"""Extension of an array."""

_JPEG_QUALITY = 95

_PILLOW = {"png": "PNG", "webp": "WEBP"}
_JPEG = ("jpg", "jpeg")
_PICTURES = (
    *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "avif", "heic", "heif"),
    *("bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"),
)


def to_float(samples: Tensor) -> Tensor:
    """uint8 in [0, 255] or uint16 in [0, 65535] -> float32 in [-1, 1], same shape. Samples are scaled nowhere else."""
    import torch  # a server of ONNX programs does without it

    highest = 65535 if samples.dtype is torch.uint16 else 255
    return samples.to(torch.float32) / (highest / 2) - 1


def array_to_float(samples: NDArray[Any]) -> NDArray[np.float32]:
    """`to_float` of an array."""
    highest = 65535 if samples.dtype == np.uint16 else 255
    return samples.astype(np.float32) / np.float32(highest / 2) - 1


def to_stored(samples: Tensor, bits: int = 8) -> Tensor:
    """Float in [-1, 1] -> uint8 or uint16 of all levels, rounded and clamped; the inverse of `to_float`."""
    import torch

    highest = (1 << bits) - 1
    levels = ((samples.float() + 1) * (highest / 2)).round().clamp(0, highest)
    return levels.to(torch.uint16 if bits == 16 else torch.uint8)


def array_to_stored(samples: NDArray[np.float32], bits: int = 8) -> NDArray[Any]:
    """`to_stored` of an array."""
    highest = (1 << bits) - 1
    levels = ((samples + 1) * np.float32(highest / 2)).round().clip(0, highest)
    return levels.astype(np.uint16 if bits == 16 else np.uint8)


def to_uint8(samples: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8 in [0, 255]: samples of 8 bits, and pictures of any."""
    return to_stored(samples)


def quantised(samples: Tensor, bits: int = 8) -> Tensor:
    """Float in [-1, 1] -> the same, rounded to the levels of stored samples."""
    return to_float(to_stored(samples, bits))


def stored_type(shape: SampleShape) -> type[np.uint8] | type[np.uint16]:
    """The type of stored values."""
    return np.uint16 if shape.bits == 16 else np.uint8


class Modality(ABC):
    """A kind of sample: how it is stored and shown.

    name: `image`, `video` or `voxels`; noun: a sample in messages, plural with s; axes: names of the spatial axes, *S;
    extensions: of the members that hold a sample; written: the extensions that `encode` can write; drawing: how samples
    look.
    """

    name: str
    noun: str
    axes: tuple[str, ...]
    extensions: tuple[str, ...] = ("npy",)
    written: tuple[str, ...] = ("npy",)
    drawing: Drawing

    @property
    def example_size(self) -> str:
        """A size as --size takes it."""
        return "64x64x64" if self.name == "voxels" else "64x64"

    def arrange(self, flat: NDArray[Any], shape: SampleShape) -> NDArray[Any]:
        """View flat values [N·C·prod(S)] as samples [N, C, *S] in the layout that `decode_into` fills fastest."""
        return flat.reshape(-1, *shape.dims)

    def empty(self, count: int, shape: SampleShape) -> NDArray[Any]:
        """Uninitialised samples, uint8 or uint16 [N, C, *S], in that layout."""
        return self.arrange(np.empty(count * shape.numel, dtype=stored_type(shape)), shape)

    def shape_of(self, member: bytes, extension: str) -> SampleShape:
        """The shape of an encoded sample from its header, upright and without transparency. Raises DecodeError.

        A picture has 8 bits, with which any can be read: the index states that 16 are (`DatasetIndex.shape`).
        """
        is_array = extension.rpartition(".")[2] == "npy"
        channels, spatial, bits = npy_shape(member, len(self.axes)) if is_array else (*self._coded_shape(member), 8)
        if min(channels, *spatial) < 1 or math.prod(spatial) > MAX_PIXELS:
            raise DecodeError(
                f"is {times(spatial)} with {counted(channels, 'channel')}: from 1 to {MAX_PIXELS} positions are allowed"
            )
        return SampleShape(channels, spatial, bits)

    def decode_into(self, member: bytes, extension: str, out: NDArray[Any]) -> None:
        """Decode one sample into `out`, uint8 or uint16 [C, *S]; a picture is grey, RGB or RGBA according to C.

        Raises DecodeError if the bytes are damaged, have another size than *S or other bits, are of an unsupported kind
        (floats), or cannot be converted to C channels.
        """
        kind = extension.rpartition(".")[2]
        if kind not in self.extensions:
            raise DecodeError(f"is a .{extension}; {self.name} samples are {_dotted(self.extensions)}")
        if kind == "npy":
            _to_channels(read_npy(member, out.shape[1:], 8 * out.itemsize), out)
        elif out.dtype == np.uint16:
            decode_deep_into(member, out)
        else:
            self._decode_coded(member, out)

    def _coded_shape(self, member: bytes) -> tuple[int, tuple[int, ...]]:
        """(C, *S) of a member that is no array, from its header."""
        return picture_shape(member)

    def _decode_coded(self, member: bytes, out: Pixels) -> None:
        decode_picture_into(member, out)

    def _encode_coded(self, sample: Pixels, extension: str) -> bytes:
        allowed = (1, 3) if extension in _JPEG else (1, 3, 4)
        if len(sample) not in allowed:
            counts = ", ".join(map(str, allowed[:-1]))
            raise ValueError(f".{extension} holds {counts} or {allowed[-1]} channels, not {len(sample)}: use .npy")
        return _encode_picture(sample, extension)

    def encode(self, sample: NDArray[Any], extension: str) -> bytes:
        """Encode one sample, uint8 or uint16 [C, *S]; equal samples give equal bytes.

        All formats except `jpg` (quality 95, 4:4:4) are lossless. Pictures of 4 channels are RGBA; of 16 bits, .npy
        holds any number of channels, and .png one. Raises ValueError for an extension that is not available for this
        modality, number of channels or bits.
        """
        if sample.dtype not in (np.uint8, np.uint16) or sample.ndim != len(self.axes) + 1:
            raise ValueError(
                f"a sample of {self.name} is uint8 or uint16 [C, {', '.join(self.axes)}], not {sample.dtype} "
                f"{sample.shape}"
            )
        if extension not in self.written:
            raise ValueError(f"{self.name} samples are stored as {_dotted(self.written)}, not .{extension}")
        if extension == "npy":
            return write_npy(sample)
        if sample.dtype == np.uint16:
            return encode_deep(sample, extension)
        return self._encode_coded(sample, extension)

    def preview(
        self, samples: Pixels, columns: int, scale: int | None = None, captions: Sequence[str] = ()
    ) -> tuple[bytes, str]:
        """Samples, uint8 [N, C, *S], in rows of `columns` as a file, (bytes, extension): a PNG, or a film of clips.

        Arguments as for `Drawing.frame`.
        """
        return self.drawing.preview(samples, columns, scale, captions)


class _ImageModality(Modality):
    """Pictures (H, W), shown as a PNG."""

    name = "image"
    noun = "picture"
    axes = ("H", "W")
    extensions = (*_PICTURES, "npy")
    written = ("jpg", "jpeg", "png", "webp", "npy")
    drawing = PictureDrawing()

    def arrange(self, flat: NDArray[Any], shape: SampleShape) -> NDArray[Any]:
        """Colour pictures are interleaved in memory, [N, H, W, C], as decoders write them."""
        if shape.channels not in (3, 4):
            return super().arrange(flat, shape)
        return flat.reshape(-1, *shape.spatial, shape.channels).transpose(0, 3, 1, 2)


class _VideoModality(Modality):
    """Clips (T, H, W), shown as an animated WebP."""

    name = "video"
    noun = "clip"
    axes = ("T", "H", "W")
    extensions = ("npy", "webp")
    written = ("npy", "webp")
    drawing = ClipDrawing()

    def _coded_shape(self, member: bytes) -> tuple[int, tuple[int, ...]]:
        return stored_shape(member)

    def _decode_coded(self, member: bytes, out: Pixels) -> None:
        _to_channels(decode_clip(member, out.shape[1:]), out)

    def _encode_coded(self, sample: Pixels, extension: str) -> bytes:
        return encode_clip(sample)


class _VoxelModality(Modality):
    """Volumes (D, H, W), shown as a PNG of their surfaces."""

    name = "voxels"
    noun = "volume"
    axes = ("D", "H", "W")
    drawing = VolumeDrawing()


MODALITIES: dict[str, Modality] = {kind.name: kind() for kind in (_ImageModality, _VideoModality, _VoxelModality)}


_OF_PATIENTS = PatientDrawing()


def drawing_of(name: str, space: VolumeSpace | None) -> Drawing:
    """How samples of a modality are drawn: volumes of patients upright. space: of the dataset, None if unknown."""
    upright = name == "voxels" and space is not None and space.oriented
    return _OF_PATIENTS if upright else modality(name).drawing


def modality(name: str) -> Modality:
    """The modality of that name. Raises ValueError, which lists the names."""
    if name not in MODALITIES:
        raise ValueError(f"modality is {name!r}; it must be one of {', '.join(MODALITIES)}")
    return MODALITIES[name]


def _encode_picture(sample: Pixels, extension: str) -> bytes:
    pixels = np.ascontiguousarray(np.moveaxis(sample, 0, -1))
    if extension in _JPEG:
        space, subsampling = ("GRAY", "Gray") if len(sample) == 1 else ("RGB", "444")
        return bytes(simplejpeg.encode_jpeg(pixels, _JPEG_QUALITY, space, subsampling))
    target = io.BytesIO()
    picture = Image.fromarray(pixels[..., 0] if len(sample) == 1 else pixels)
    # exact: keeps the colours of fully transparent pixels, since a network sees them.
    picture.save(target, _PILLOW[extension], **({"lossless": True, "exact": True} if extension == "webp" else {}))
    return target.getvalue()


def _to_channels(pixels: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy [C', *S] into [C, *S]; grey becomes RGB by repetition, RGB becomes grey by Pillow's luma (ITU-R 601-2)."""
    if len(pixels) == len(out) or len(pixels) == 1:
        out[:] = pixels
    elif len(pixels) == 3 and len(out) == 1:
        red, green, blue = pixels.astype(np.uint32)
        out[0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    else:
        raise DecodeError(f"has {counted(len(pixels), 'channel')} where {len(out)} are needed")


def _dotted(extensions: tuple[str, ...]) -> str:
    return ", ".join(f".{extension}" for extension in extensions)
