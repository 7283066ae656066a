"""Clips stored as animated WebP, without loss: a frame lasts 100 ms, and equal neighbours are stored as one."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from imagegen_dist.data.animated import frame_durations
from imagegen_dist.data.picture import DecodeError, Pixels, times
from imagegen_dist.data.video.animation import open_animation

_FRAME_MS = 100
_ANIMATED = 2  # the flag in VP8X
_CANVAS = 24  # offset of the canvas's size, less 1, twice three bytes (WebP container specification, "VP8X")


def stored_shape(member: bytes) -> tuple[int, tuple[int, int, int]]:
    """(3 channels, (T, H, W)) of a stored clip from its headers. Raises DecodeError."""
    durations, whole = frame_durations(member)
    if not durations or not whole or member[12:16] != b"VP8X":
        raise DecodeError("is not an animated WebP, or a truncated one")
    if any(each % _FRAME_MS or not each for each in durations):
        raise DecodeError(
            f"is an animated WebP whose frames do not last {_FRAME_MS} ms each, as those of clips do: pack it with "
            "--modality video"
        )
    width, height = (int.from_bytes(member[at : at + 3], "little") + 1 for at in (_CANVAS, _CANVAS + 3))
    return 3, (sum(durations) // _FRAME_MS, height, width)


def decode_clip(member: bytes, spatial: tuple[int, ...]) -> Pixels:
    """Decode a stored clip, (T, H, W) as `spatial` says, to RGB, [3, T, H, W]. Raises DecodeError."""
    found = stored_shape(member)[1]
    if found != spatial:
        raise DecodeError(f"is {times(found)} where the dataset's samples are {times(spatial)}")
    clip, at = np.empty((*spatial, 3), np.uint8), 0
    durations = frame_durations(member)[0]
    for frame, duration in zip(_frames(member, len(durations)), durations, strict=True):
        clip[at : at + duration // _FRAME_MS] = frame
        at += duration // _FRAME_MS
    return np.moveaxis(clip, -1, 0)


def encode_clip(sample: Pixels) -> bytes:
    """Encode a clip, uint8 [1 or 3, T, H, W]; grey becomes RGB, which WebP has alone. Raises ValueError."""
    if len(sample) not in (1, 3):
        raise ValueError(f".webp holds clips of 1 or 3 channels, not {len(sample)}: use .npy")
    clip = np.ascontiguousarray(np.moveaxis(np.broadcast_to(sample, (3, *sample.shape[1:])), 0, -1))
    first, *rest = map(Image.fromarray, clip)
    target = io.BytesIO()
    if (clip == clip[0]).all():  # libwebp would make a still picture of it
        first.save(target, "WEBP", lossless=True, exact=True)
        return _repeated(target.getvalue(), first.size, len(clip))
    how = {"save_all": True, "append_images": rest, "duration": _FRAME_MS, "lossless": True, "exact": True}
    first.save(target, "WEBP", **how)
    return target.getvalue()


def _frames(member: bytes, count: int) -> Iterator[Pixels]:
    if count > 1:
        with open_animation(member) as film:
            for _, image in film.frames(range(count)):
                yield np.asarray(image)
        return
    try:
        with Image.open(io.BytesIO(member), formats=("WEBP",)) as picture:
            yield np.asarray(picture.convert("RGB"))
    except Exception as error:  # Pillow raises errors of any kind for damaged files
        raise DecodeError("cannot be decoded: it is a damaged WebP") from error


def _repeated(still: bytes, size: tuple[int, int], count: int) -> bytes:
    """An animated WebP that shows one picture for `count` frames. (WebP container specification, "Animation")"""
    extent = b"".join((side - 1).to_bytes(3, "little") for side in size)
    duration = (count * _FRAME_MS).to_bytes(3, "little")
    frame = bytes(6) + extent + duration + b"\2" + still[12:]
    header = bytes((_ANIMATED, 0, 0, 0)) + extent
    body = b"WEBP" + _chunk(b"VP8X", header) + _chunk(b"ANIM", bytes(6)) + _chunk(b"ANMF", frame)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
