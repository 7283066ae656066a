"""How samples are stored and shown. Only here do images (H, W), video (T, H, W) and voxels (D, H, W) differ.

Only listed formats are decoded, and nothing is unpickled. Headers are checked before any pixel is decoded, so that a
small file that claims to be a huge picture costs nothing.
"""

import io
import math
import struct
from abc import ABC
from ast import literal_eval
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from imagegen_dist.data.picture import MAX_PIXELS as MAX_PIXELS
from imagegen_dist.data.picture import DecodeError as DecodeError
from imagegen_dist.data.picture import Pixels as Pixels
from imagegen_dist.data.picture import decode_into as decode_picture_into
from imagegen_dist.data.picture import picture_shape, times
from imagegen_dist.drawing.views import ClipDrawing, Drawing, PictureDrawing, VolumeDrawing
from imagegen_dist.shape import SampleShape
from imagegen_dist.wording import counted

_JPEG_QUALITY = 95

_PILLOW = {"png": "PNG", "webp": "WEBP"}
_JPEG = ("jpg", "jpeg")
_PICTURES = (
    *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "avif", "heic", "heif"),
    *("bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"),
)


def to_float(samples: Tensor) -> Tensor:
    """uint8 in [0, 255] -> float32 in [-1, 1], same shape. Samples are scaled nowhere else."""
    return samples.to(torch.float32) / 127.5 - 1


def to_uint8(samples: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8 in [0, 255], rounded and clamped; the inverse of `to_float`."""
    return ((samples.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class Modality(ABC):
    """A kind of sample: how it is stored and shown.

    name: `image`, `video` or `voxels`; axes: names of the spatial axes, *S; extensions: of the members that hold a
    sample; written: the extensions that `encode` can write; drawing: how samples look.
    """

    name: str
    axes: tuple[str, ...]
    extensions: tuple[str, ...] = ("npy",)
    written: tuple[str, ...] = ("npy",)
    drawing: Drawing

    def arrange(self, flat: Pixels, shape: SampleShape) -> Pixels:
        """View flat bytes [N·C·prod(S)] as samples [N, C, *S] in the layout that `decode_into` fills fastest."""
        return flat.reshape(-1, *shape.dims)

    def empty(self, count: int, shape: SampleShape) -> Pixels:
        """Uninitialised samples, uint8 [N, C, *S], in that layout."""
        return self.arrange(np.empty(count * shape.numel, dtype=np.uint8), shape)

    def shape_of(self, member: bytes, extension: str) -> SampleShape:
        """The shape of an encoded sample from its header, upright and without transparency. Raises DecodeError."""
        is_array = extension.rpartition(".")[2] == "npy"
        channels, spatial = _npy_shape(member, len(self.axes)) if is_array else picture_shape(member)
        if min(channels, *spatial) < 1 or math.prod(spatial) > MAX_PIXELS:
            raise DecodeError(
                f"is {times(spatial)} with {counted(channels, 'channel')}: from 1 to {MAX_PIXELS} positions are allowed"
            )
        return SampleShape(channels, spatial)

    def decode_into(self, member: bytes, extension: str, out: Pixels) -> None:
        """Decode one sample into `out`, uint8 [C, *S]; a picture is decoded as grey, RGB or RGBA according to C.

        Raises DecodeError if the bytes are damaged, have another size than *S, are of an unsupported kind (floats), or
        cannot be converted to C channels.
        """
        kind = extension.rpartition(".")[2]
        if kind not in self.extensions:
            raise DecodeError(f"is a .{extension}; {self.name} samples are {_dotted(self.extensions)}")
        if kind == "npy":
            _to_channels(_read_npy(member, out.shape[1:]), out)
        else:
            decode_picture_into(member, out)

    def encode(self, sample: Pixels, extension: str) -> bytes:
        """Encode one sample, uint8 [C, *S]; equal samples give equal bytes.

        All formats except `jpg` (quality 95, 4:4:4) are lossless. Pictures of 4 channels are RGBA. Raises ValueError
        for an extension that is not available for this modality or number of channels.
        """
        if sample.dtype != np.uint8 or sample.ndim != len(self.axes) + 1:
            raise ValueError(
                f"a sample of {self.name} is uint8 [C, {', '.join(self.axes)}], not {sample.dtype} {sample.shape}"
            )
        if extension not in self.written:
            raise ValueError(f"{self.name} samples are stored as {_dotted(self.written)}, not .{extension}")
        if extension == "npy":
            return _write_npy(sample)
        allowed = (1, 3) if extension in _JPEG else (1, 3, 4)
        if len(sample) not in allowed:
            counts = ", ".join(map(str, allowed[:-1]))
            raise ValueError(f".{extension} holds {counts} or {allowed[-1]} channels, not {len(sample)}: use .npy")
        return _encode_picture(sample, extension)

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
    axes = ("H", "W")
    extensions = (*_PICTURES, "npy")
    written = ("jpg", "jpeg", "png", "webp", "npy")
    drawing = PictureDrawing()

    def arrange(self, flat: Pixels, shape: SampleShape) -> Pixels:
        """Colour pictures are interleaved in memory, [N, H, W, C], as decoders write them."""
        if shape.channels not in (3, 4):
            return super().arrange(flat, shape)
        return flat.reshape(-1, *shape.spatial, shape.channels).transpose(0, 3, 1, 2)


class _VideoModality(Modality):
    """Clips (T, H, W), shown as an animated WebP."""

    name = "video"
    axes = ("T", "H", "W")
    drawing = ClipDrawing()


class _VoxelModality(Modality):
    """Volumes (D, H, W), shown as a PNG of their surfaces."""

    name = "voxels"
    axes = ("D", "H", "W")
    drawing = VolumeDrawing()


_MODALITIES: dict[str, Modality] = {kind.name: kind() for kind in (_ImageModality, _VideoModality, _VoxelModality)}


def modality(name: str) -> Modality:
    """The modality of that name. Raises ValueError, which lists the names."""
    if name not in _MODALITIES:
        raise ValueError(f"modality is {name!r}; it must be one of {', '.join(_MODALITIES)}")
    return _MODALITIES[name]


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


def _npy_shape(member: bytes, axes: int) -> tuple[int, tuple[int, ...]]:
    """(C, *S) of an array [C, *S], or of a grey one [*S]."""
    _, shape = _npy_header(member)
    if len(shape) == axes:
        return 1, shape
    if len(shape) == axes + 1:
        return shape[0], shape[1:]
    raise DecodeError(f"is an array {list(shape)}: {axes + 1} axes are needed, channels first")


def _npy_header(member: bytes) -> tuple[int, tuple[int, ...]]:
    """(bytes of the header, shape) of an .npy file of uint8 in C order. (NumPy Enhancement Proposal 1)"""
    if len(member) < 12 or not member.startswith(b"\x93NUMPY") or member[6] not in (1, 2, 3):
        raise DecodeError("is not an .npy file")
    start, form = (10, "<H") if member[6] == 1 else (12, "<I")
    end = start + struct.unpack_from(form, member, 8)[0]
    if end > len(member) or end > 1 << 16:
        raise DecodeError("is an .npy file with a damaged header")
    return end, _npy_array(member[start:end])


@lru_cache(maxsize=64)
def _npy_array(header: bytes) -> tuple[int, ...]:
    """The shape in an .npy header, cached because the samples of a dataset share it."""
    try:
        fields = literal_eval(header.decode("utf-8"))
        kind, in_columns, shape = fields["descr"], fields["fortran_order"], tuple(fields["shape"])
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise DecodeError("is an .npy file with a damaged header") from error
    if kind != "|u1" or in_columns or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise DecodeError(f"is an array of {kind} {shape}: uint8 in C order is needed")
    return shape


def _read_npy(member: bytes, spatial: tuple[int, ...]) -> Pixels:
    """View the member's bytes as an array [C, *S]."""
    channels, found = _npy_shape(member, len(spatial))
    _check_spatial(found, spatial)
    start, _ = _npy_header(member)
    if len(member) - start != channels * math.prod(found):
        raise DecodeError(
            f"has {counted(len(member) - start, 'byte')} of data where {channels * math.prod(found)} are needed"
        )
    return np.frombuffer(member, np.uint8, offset=start).reshape(channels, *found)


def _write_npy(sample: Pixels) -> bytes:
    target = io.BytesIO()
    np.lib.format.write_array(target, np.ascontiguousarray(sample), version=(1, 0), allow_pickle=False)
    return target.getvalue()


def _to_channels(pixels: Pixels, out: Pixels) -> None:
    """Copy [C', *S] into [C, *S]; grey becomes RGB by repetition, RGB becomes grey by Pillow's luma (ITU-R 601-2)."""
    if len(pixels) == len(out) or len(pixels) == 1:
        out[:] = pixels
    elif len(pixels) == 3 and len(out) == 1:
        red, green, blue = pixels.astype(np.uint32)
        out[0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    else:
        raise DecodeError(f"has {counted(len(pixels), 'channel')} where {len(out)} are needed")


def _check_spatial(found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise DecodeError(f"is {times(found)} where the dataset's samples are {times(wanted)}")


def _dotted(extensions: tuple[str, ...]) -> str:
    return ", ".join(f".{extension}" for extension in extensions)
