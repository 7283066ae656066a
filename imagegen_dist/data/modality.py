"""What a sample's bytes mean: the only file that knows images (H, W), video (T, H, W) and voxels (D, H, W).

Decoders are an allow-list and nothing is unpickled. A header is checked before any pixel is decoded, so that a small
file that claims a huge picture costs nothing.
"""

import io
import math
import struct
import zlib
from abc import ABC, abstractmethod
from ast import literal_eval
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from imagegen_dist.data.png import PNG_SIGNATURE, PngError, read_plain_png
from imagegen_dist.shape import SampleShape

Pixels = NDArray[np.uint8]

MAX_PIXELS = 1 << 28
"""Positions (H·W, T·H·W, D·H·W) above which a sample is refused unread."""

JPEG_QUALITY = 95

_FRAME_MS = 125
_MIN_TILE_PIXELS = 72
_CAPTION_PIXELS = 14
_PILLOW = {"png": "PNG", "webp": "WEBP"}
_PILLOW_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
_JPEG = ("jpg", "jpeg")


class DecodeError(ValueError):
    """Bytes that are no sample of the dataset, in one line."""


def to_float(samples: Tensor) -> Tensor:
    """uint8 in [0, 255] -> float32 in [-1, 1], same shape. The only place where samples are scaled."""
    return samples.to(torch.float32) / 127.5 - 1


def to_uint8(samples: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8 in [0, 255], rounded, values outside clamped; the inverse of `to_float`."""
    return ((samples.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class Modality(ABC):
    """A kind of sample: how it is stored, and how it is shown.

    name: `image`, `video` or `voxels`; axes: the spatial ones, *S; extensions: of the members that hold a sample.
    """

    name: str
    axes: tuple[str, ...]
    extensions: tuple[str, ...] = ("npy",)

    def arrange(self, flat: Pixels, shape: SampleShape) -> Pixels:
        """Flat bytes [N·C·prod(S)] as samples [N, C, *S], in the memory layout that `decode_into` fills fastest."""
        return flat.reshape(-1, *shape.dims)

    def empty(self, count: int, shape: SampleShape) -> Pixels:
        """Uninitialised samples, uint8 [N, C, *S], in that layout."""
        return self.arrange(np.empty(count * shape.numel, dtype=np.uint8), shape)

    def shape_of(self, member: bytes, extension: str) -> SampleShape:
        """Shape of an encoded sample from its header alone; alpha does not count. Raises DecodeError."""
        channels, spatial = (
            _npy_shape(member, len(self.axes)) if extension == "npy" else _picture_shape(member, extension)
        )
        if min(channels, *spatial) < 1 or math.prod(spatial) > MAX_PIXELS:
            raise DecodeError(
                f"is {_times(spatial)} with {channels} channels: from 1 to {MAX_PIXELS} positions are allowed"
            )
        return SampleShape(channels, spatial)

    def decode_into(self, member: bytes, extension: str, out: Pixels) -> None:
        """Decode one sample into `out`, uint8 [C, *S], as grey or RGB as C asks.

        16-bit PNGs keep their high byte, alpha is dropped. Raises DecodeError where the bytes are damaged, of another
        size than *S, of a kind that is not supported (CMYK, floats), or where C cannot be made from what they hold.
        """
        if extension == "npy":
            _to_channels(_read_npy(member, out.shape[1:]), out)
        elif extension in _JPEG and extension in self.extensions:
            _decode_jpeg(member, out)
        elif extension == "png" and extension in self.extensions:
            _decode_png(member, out)
        elif extension in _PILLOW and extension in self.extensions:
            _decode_pillow(member, extension, out)
        else:
            raise DecodeError(f"is a .{extension}; {self.name} samples are {_dotted(self.extensions)}")

    def encode(self, sample: Pixels, extension: str) -> bytes:
        """Encode one sample, uint8 [C, *S]; the same sample gives the same bytes.

        All formats are lossless but `jpg` (quality 95, 4:4:4).
        Raises ValueError for an extension that this modality or this number of channels does not have.
        """
        if sample.dtype != np.uint8 or sample.ndim != len(self.axes) + 1:
            raise ValueError(
                f"a sample of {self.name} is uint8 [C, {', '.join(self.axes)}], not {sample.dtype} {sample.shape}"
            )
        if extension not in self.extensions:
            raise ValueError(f"{self.name} samples are stored as {_dotted(self.extensions)}, not .{extension}")
        if extension == "npy":
            return _write_npy(sample)
        if len(sample) not in (1, 3):
            raise ValueError(f".{extension} holds 1 or 3 channels, not {len(sample)}: use .npy")
        return _encode_picture(sample, extension)

    @abstractmethod
    def pages(
        self, samples: Pixels, columns: int, scale: int | None = None, captions: Sequence[str] = ()
    ) -> list[Image.Image]:
        """Pictures of samples, uint8 [N, C, *S], in rows of `columns`: one, or those of a film.

        scale: whole factor by which each is enlarged, pixels kept crisp; None makes small samples readable.
        captions: a few characters under each sample; none for no captions.
        """

    def preview(
        self, samples: Pixels, columns: int, scale: int | None = None, captions: Sequence[str] = ()
    ) -> tuple[bytes, str]:
        """`pages` as a file: (bytes, extension)."""
        return _save_png(self.pages(samples, columns, scale, captions)), "png"


class ImageModality(Modality):
    """Pictures (H, W), shown as a PNG."""

    name = "image"
    axes = ("H", "W")
    extensions = ("jpg", "jpeg", "png", "webp", "npy")

    def arrange(self, flat: Pixels, shape: SampleShape) -> Pixels:
        """Colour pictures lie interleaved in memory, [N, H, W, C], as decoders write them."""
        if shape.channels != 3:
            return super().arrange(flat, shape)
        return flat.reshape(-1, *shape.spatial, 3).transpose(0, 3, 1, 2)

    def pages(
        self, samples: Pixels, columns: int, scale: int | None = None, captions: Sequence[str] = ()
    ) -> list[Image.Image]:
        return [_grid(_shown(samples), columns, scale, captions)]


class VideoModality(Modality):
    """Clips (T, H, W), shown as an animated PNG."""

    name = "video"
    axes = ("T", "H", "W")

    def pages(
        self, samples: Pixels, columns: int, scale: int | None = None, captions: Sequence[str] = ()
    ) -> list[Image.Image]:
        shown = _shown(samples)
        return [_grid(shown[:, :, frame], columns, scale, captions) for frame in range(shown.shape[2])]


class VoxelModality(Modality):
    """Volumes (D, H, W), shown as a PNG: for each the brightest value along D, H and W, dimmed with depth."""

    name = "voxels"
    axes = ("D", "H", "W")

    def pages(
        self, samples: Pixels, columns: int, scale: int | None = None, captions: Sequence[str] = ()
    ) -> list[Image.Image]:
        shown = _shown(samples)
        views = np.concatenate([_project(shown, axis) for axis in (2, 3, 4)], -1)
        return [_grid(views, columns, scale, captions)]


_MODALITIES: dict[str, Modality] = {kind.name: kind() for kind in (ImageModality, VideoModality, VoxelModality)}


def modality(name: str) -> Modality:
    """The modality of that name. Raises ValueError naming those there are."""
    if name not in _MODALITIES:
        raise ValueError(f"modality is {name!r}; it must be one of {', '.join(_MODALITIES)}")
    return _MODALITIES[name]


def _picture_shape(member: bytes, extension: str) -> tuple[int, tuple[int, ...]]:
    if extension in _JPEG:
        height, width, colours = _jpeg_header(member)
        return (1 if colours == "Gray" else 3), (height, width)
    with _open_pillow(member, extension) as picture:
        return (1 if picture.mode in ("1", "L", "LA", "I;16") else 3), (picture.height, picture.width)


def _jpeg_header(member: bytes) -> tuple[int, int, str]:
    """(height, width, colour space) of a JPEG that is grey or RGB."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(member)
    except ValueError as error:
        raise DecodeError(f"is no JPEG: {error}") from error
    if colours in ("CMYK", "YCCK"):
        raise DecodeError(f"is a {colours} JPEG, whose colours depend on a profile: convert it to RGB")
    return height, width, colours


def _decode_jpeg(member: bytes, out: Pixels) -> None:
    height, width, _ = _jpeg_header(member)
    _check_spatial((height, width), out.shape[1:])
    if len(out) not in (1, 3):
        raise DecodeError(f"is a JPEG, which has 1 or 3 channels, not {len(out)}")
    interleaved = out.transpose(1, 2, 0)
    target = interleaved if interleaved.flags.c_contiguous else None
    try:
        decoded = simplejpeg.decode_jpeg(member, "GRAY" if len(out) == 1 else "RGB", buffer=target)
    except ValueError as error:
        raise DecodeError(f"is a damaged JPEG: {error}") from error
    if target is None:
        interleaved[:] = decoded


def _open_pillow(member: bytes, extension: str) -> Image.Image:
    """A picture whose header has been read and no pixel yet."""
    if extension == "png":
        _check_png_size(member)
    try:
        return Image.open(io.BytesIO(member), formats=(_PILLOW[extension],))
    except _PILLOW_ERRORS as error:
        raise DecodeError(f"is no {_PILLOW[extension]}: {_first_line(error)}") from error


def _check_png_size(member: bytes) -> None:
    """Refuse a huge PNG before Pillow sees it."""
    if len(member) < 24 or not member.startswith(PNG_SIGNATURE):
        raise DecodeError("is no PNG")
    width, height = struct.unpack(">II", member[16:24])
    if width * height > MAX_PIXELS:
        raise DecodeError(f"is {height} × {width}: at most {MAX_PIXELS} pixels are allowed")


def _decode_png(member: bytes, out: Pixels) -> None:
    try:
        pixels = read_plain_png(member, *out.shape[1:])
    except PngError as error:
        raise DecodeError(str(error)) from error
    if pixels is None:
        _decode_pillow(member, "png", out)
    else:
        _to_channels(pixels.transpose(2, 0, 1), out)


def _decode_pillow(member: bytes, extension: str, out: Pixels) -> None:
    with _open_pillow(member, extension) as picture:
        _check_spatial((picture.height, picture.width), out.shape[1:])
        try:
            picture.load()
        except _PILLOW_ERRORS as error:
            raise DecodeError(f"is a damaged {_PILLOW[extension]}: {_first_line(error)}") from error
        _to_channels(_read_pillow(picture), out)


def _read_pillow(picture: Image.Image) -> Pixels:
    """Pixels [C, H, W], C = 1 or 3."""
    if picture.mode == "I;16":
        return (np.asarray(picture) >> 8).astype(np.uint8)[None]
    if picture.mode in ("1", "L", "LA"):
        return np.asarray(picture if picture.mode == "L" else picture.convert("L"))[None]
    if picture.mode in ("P", "RGB", "RGBA"):
        picture.info.pop("transparency", None)  # alpha is dropped, and Pillow warns of it in a palette
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB")).transpose(2, 0, 1)
    raise DecodeError(f"has Pillow's mode {picture.mode}, which is not supported: convert it to grey or RGB of 8 bits")


def _encode_picture(sample: Pixels, extension: str) -> bytes:
    pixels = np.ascontiguousarray(np.moveaxis(sample, 0, -1))
    if extension in _JPEG:
        space, subsampling = ("GRAY", "Gray") if len(sample) == 1 else ("RGB", "444")
        return bytes(simplejpeg.encode_jpeg(pixels, JPEG_QUALITY, space, subsampling))
    target = io.BytesIO()
    picture = Image.fromarray(pixels[..., 0] if len(sample) == 1 else pixels)
    picture.save(target, _PILLOW[extension], **({"lossless": True} if extension == "webp" else {}))
    return target.getvalue()


def _npy_shape(member: bytes, axes: int) -> tuple[int, tuple[int, ...]]:
    """(C, *S) of an array [C, *S], or grey [*S]."""
    _, shape = _npy_header(member)
    if len(shape) == axes:
        return 1, shape
    if len(shape) == axes + 1:
        return shape[0], shape[1:]
    raise DecodeError(f"is an array {list(shape)}: {axes + 1} axes are needed, channels first")


def _npy_header(member: bytes) -> tuple[int, tuple[int, ...]]:
    """(bytes of the header, shape) of an .npy file of uint8 in C order. (NumPy Enhancement Proposal 1)"""
    if len(member) < 12 or not member.startswith(b"\x93NUMPY") or member[6] not in (1, 2, 3):
        raise DecodeError("is no .npy file")
    start, form = (10, "<H") if member[6] == 1 else (12, "<I")
    end = start + struct.unpack_from(form, member, 8)[0]
    if end > len(member) or end > 1 << 16:
        raise DecodeError("is an .npy file with a damaged header")
    return end, _npy_array(member[start:end])


@lru_cache(maxsize=64)
def _npy_array(header: bytes) -> tuple[int, ...]:
    """The shape in an .npy header; samples of a dataset share one."""
    try:
        fields = literal_eval(header.decode("utf-8"))
        kind, in_columns, shape = fields["descr"], fields["fortran_order"], tuple(fields["shape"])
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError) as error:
        raise DecodeError("is an .npy file with a damaged header") from error
    if kind != "|u1" or in_columns or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise DecodeError(f"is an array of {kind} {shape}: uint8 in C order is needed")
    return shape


def _read_npy(member: bytes, spatial: tuple[int, ...]) -> Pixels:
    """An array [C, *S] as a view of the member's bytes."""
    channels, found = _npy_shape(member, len(spatial))
    _check_spatial(found, spatial)
    start, _ = _npy_header(member)
    if len(member) - start != channels * math.prod(found):
        raise DecodeError(f"has {len(member) - start} bytes of data where {channels * math.prod(found)} are needed")
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
        raise DecodeError(f"has {len(pixels)} channels where {len(out)} are needed")


def _check_spatial(found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise DecodeError(f"is {_times(found)} where the dataset's samples are {_times(wanted)}")


def _times(extents: tuple[int, ...]) -> str:
    return " × ".join(str(extent) for extent in extents)


def _dotted(extensions: tuple[str, ...]) -> str:
    return ", ".join(f".{extension}" for extension in extensions)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _shown(samples: Pixels) -> Pixels:
    """Channels as a picture has them: [N, 1 or 3, *S]."""
    return samples[:, :3] if samples.shape[1] >= 3 else samples[:, :1]


def _project(samples: Pixels, axis: int) -> Pixels:
    """Brightest value along an axis of [N, C, D, H, W], dimmed towards its end to 40 %, centred on a square."""
    depth = np.linspace(1, 0.4, samples.shape[axis], dtype=np.float32)
    view = (samples * depth.reshape([-1 if at == axis else 1 for at in range(5)])).max(axis).astype(np.uint8)
    side = max(samples.shape[2:])
    spare = [(side - extent) // 2 for extent in view.shape[2:]]
    square = np.zeros((*view.shape[:2], side, side), np.uint8)
    square[:, :, spare[0] : spare[0] + view.shape[2], spare[1] : spare[1] + view.shape[3]] = view
    return square


def _grid(samples: Pixels, columns: int, scale: int | None, captions: Sequence[str] = ()) -> Image.Image:
    """Tiles [N, C, H, W] in rows, on white, with a gap between, and each one's caption below it."""
    count, channels, height, width = samples.shape
    scale = scale or max(1, math.ceil(_MIN_TILE_PIXELS / max(height, width)))
    gap, rows, below = 2, -(-count // columns), _CAPTION_PIXELS if captions else 0
    tall, wide = height * scale + below, width * scale
    page = np.full((rows * (tall + gap) - gap, columns * (wide + gap) - gap, channels), 255, np.uint8)
    tiles = np.moveaxis(samples, 1, -1).repeat(scale, axis=1).repeat(scale, axis=2)
    corners = [(number % columns * (wide + gap), number // columns * (tall + gap)) for number in range(count)]
    for tile, (left, top) in zip(tiles, corners, strict=True):
        page[top : top + tall - below, left : left + wide] = tile
    picture = Image.fromarray(page[..., 0] if channels == 1 else page)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(_CAPTION_PIXELS - 2) if captions else None
    for caption, (left, top) in zip(captions, corners, strict=False):
        black = 0 if channels == 1 else (0, 0, 0)
        pen.text((left + wide / 2, top + tall - below), caption, black, font, anchor="ma")
    return picture


def _save_png(frames: list[Image.Image]) -> bytes:
    """A PNG, animated without end where there are several frames."""
    target = io.BytesIO()
    if len(frames) == 1:
        frames[0].save(target, "PNG", optimize=True)
    else:
        frames[0].save(target, "PNG", save_all=True, append_images=frames[1:], duration=_FRAME_MS, loop=0)
    return target.getvalue()
