"""Videos in containers (MP4, MOV, WebM, MKV, AVI, ...), decoded by FFmpeg's libraries through PyAV.

A file is opened by the demuxer that its first bytes name, and never by one that reads other files or addresses, such as
playlists. One thread decodes, so that the same file gives the same frames.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from imagegen_dist.data.picture import DecodeError
from imagegen_dist.data.sources.base import UnfitError
from imagegen_dist.data.video.film import MAX_FRAME_PIXELS, Film, Shown, check_frame_count, check_frame_size
from imagegen_dist.extras import install_hint
from imagegen_dist.wording import counted, first_line

_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_TS_PACKET, _TS_SYNC = 188, 0x47
_MICROSECONDS = 1e6  # in which FFmpeg gives a container's duration
_SLACK_S, _SLACK = 0.25, 0.02  # by which a header may overstate the duration of a whole file
_SEEKABLE = ("mov", "matroska")  # containers in which every key frame is found again
_UNSPECIFIED, _HD_LINES = 2, 720  # AVCOL_SPC_UNSPECIFIED; from this height on, BT.709 is meant


def demuxer_of(data: bytes) -> str:
    """The name of FFmpeg's demuxer for a file, by its first bytes; "" for none that is allowed."""
    if data[4:8] in _BOXES:
        return "mov"
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if data.startswith(b"RIFF") and data[8:12] == b"AVI ":
        return "avi"
    for start, name in ((b"OggS", "ogg"), (b"FLV\1", "flv"), (_ASF, "asf"), (b"\0\0\1\xba", "mpeg")):
        if data.startswith(start):
            return name
    synced = len(data) > _TS_PACKET and data[0] == data[_TS_PACKET] == _TS_SYNC
    return "mpegts" if synced else ""


class _Packets(NamedTuple):
    """What the packets of a video say, without decoding them."""

    stamps: list[int]  # when each frame is shown, in the stream's time base, ascending
    keys: list[int]  # stamps of the frames at which decoding can begin, ascending; the first one can in any case
    end: int  # when the last frame ends


class ContainerFilm(Film):
    """A video in an opened container. Raises DecodeError if it is truncated, huge, or has nothing to decode."""

    def __init__(self, reopen: Callable[[], Any]) -> None:
        self._reopen, self._container = reopen, reopen()
        container = self._container
        self._stream = _video_of(container)
        self._index = self._stream.index
        self._seeks = container.format.name.startswith(_SEEKABLE)
        _limit(self._stream)
        self._packets = _survey(container, self._stream)
        stamps, base = self._packets.stamps, self._stream.time_base
        check_frame_count(len(stamps))
        self.count = len(stamps)
        self.shown = Shown(tuple(float(stamp * base) for stamp in stamps), float(self._packets.end * base))

    def frame_size(self) -> tuple[int, int]:
        """The size of the first frame: headers alone do not say how it is turned."""
        for _, image in self.frames([0]):
            return image.height, image.width
        raise DecodeError("has no frames")

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """Decode frames, beginning anew at a key frame where that skips some."""
        stamps, keys = self._packets.stamps, self._packets.keys
        numbers = {stamp: number for number, stamp in enumerate(stamps)}
        position = -1  # number of the frame that the decoder has handed out last
        decoded: Iterator[Any] = iter(())
        for number in wanted:
            at = bisect_right(keys, stamps[number]) if self._seeks else 0
            key = keys[at - 1] if at else stamps[0]
            if position < 0 or numbers.get(key, 0) > position + 1:
                decoded = self._decode_from(key)
            for frame in decoded:
                stamp = frame.dts if frame.pts is None else frame.pts
                position = numbers.get(stamp, position)
                if stamp == stamps[number]:
                    yield number, _to_image(frame, self._stream)
                    break
            else:
                raise DecodeError(f"cannot be decoded: frame {number} of {self.count} is missing")

    def _decode_from(self, key: int) -> Iterator[Any]:
        if self._seeks:
            self._container.seek(key, stream=self._stream, backward=True)
        else:
            self._container = self._reopen()
            self._stream = self._container.streams[self._index]
            _limit(self._stream)
        for frame in self._container.decode(self._stream):
            if frame.is_corrupt:
                raise DecodeError("is damaged: a frame cannot be decoded")
            yield frame


@contextmanager
def open_container(data: bytes, name: str) -> Iterator[ContainerFilm]:
    """Open a video file. Whatever FFmpeg raises in the block becomes DecodeError.

    Raises UnfitError if PyAV is not installed.
    """
    demuxer = demuxer_of(data)
    if not demuxer:
        raise DecodeError("is not a video, or is one in a container that is not supported")
    try:
        import av
    except ImportError:
        raise UnfitError(f"{name} is a video file, which PyAV reads: {install_hint('video')}") from None
    av.logging.set_level(None)
    with ExitStack() as opened:

        def reopen() -> Any:
            opened.close()
            options = {"protocol_whitelist": "none"}
            file = av.open(io.BytesIO(data), format=demuxer, options=options, metadata_errors="replace")
            return opened.enter_context(file)

        try:
            yield ContainerFilm(reopen)
        except (DecodeError, GeneratorExit):
            raise
        except av.EOFError as error:
            raise DecodeError("is truncated: it ends before its first frame") from error
        except (av.FFmpegError, ValueError, OverflowError, MemoryError) as error:
            raise DecodeError(f"cannot be decoded: {first_line(error).partition(':')[0]}") from error


def _limit(stream: Any) -> None:
    """Decode a stream in one thread and within bounds. Raises DecodeError for huge frames."""
    context = stream.codec_context
    check_frame_size(context.height or 1, context.width or 1)
    context.thread_count = 1
    context.options = {"max_pixels": f"{MAX_FRAME_PIXELS}"}


def _video_of(container: Any) -> Any:
    """The video of a container; a picture on the cover of a song is none. Raises DecodeError."""
    found = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not found:
        kinds = sorted({stream.type for stream in container.streams if not _is_cover(stream)})
        raise DecodeError(f"has no video, only {' and '.join(kinds)}" if kinds else "has no video")
    if found[0].codec_context is None:
        raise DecodeError("has a video in a codec that is not supported")
    return found[0]


def _is_cover(stream: Any) -> bool:
    return stream.type == "video" and "attached_pic" in str(stream.disposition)


def _survey(container: Any, stream: Any) -> _Packets:
    """Read all packets, without decoding. Raises DecodeError if packets that the header announces are missing."""
    durations, keys, total, last_s = dict[int, int](), list[int](), 0, 0.0
    for packet in container.demux():
        stamp = packet.pts if packet.pts is not None else packet.dts
        if packet.size == 0 or stamp is None:
            continue
        if packet.is_corrupt:
            raise DecodeError("is truncated or damaged: a part of it is incomplete")
        duration = packet.duration or 0
        last_s = max(last_s, float((stamp + duration) * packet.time_base))
        total += packet.stream_index == stream.index
        check_frame_count(max(1, total))
        if packet.stream_index != stream.index or packet.is_discard:
            continue
        durations[stamp] = duration
        if packet.is_keyframe:
            keys.append(stamp)
    _check_whole(container, stream, total, last_s)
    stamps = sorted(durations)
    return _Packets(stamps, sorted(keys), stamps[-1] + _last_duration(stamps, durations) if stamps else 0)


def _last_duration(stamps: list[int], durations: dict[int, int]) -> int:
    """How long the last frame is shown: no longer than most frames, since containers often state nonsense."""
    stated = durations[stamps[-1]]
    if len(stamps) < 2:
        return stated
    usual = int(median(later - earlier for earlier, later in pairwise(stamps)))
    return min(stated, usual) or usual


def _check_whole(container: Any, stream: Any, count: int, last_s: float) -> None:
    """Raise DecodeError if frames or seconds are missing that the header announces."""
    if container.format.name.startswith(("mov", "avi")) and count < stream.frames:
        raise DecodeError(f"is truncated: {count} of {counted(stream.frames, 'frame')} are there")
    length_s = (container.duration or 0) / _MICROSECONDS
    if container.start_time:
        length_s += container.start_time / _MICROSECONDS
    if container.duration and last_s < length_s * (1 - _SLACK) - _SLACK_S:
        raise DecodeError(f"is truncated: it ends after {last_s:.1f} of {length_s:.1f} seconds")


def _to_image(frame: Any, stream: Any) -> Image.Image:
    """A decoded frame as an upright picture with square pixels."""
    grey = frame.format.name.startswith("gray")
    alpha = any(component.is_alpha for component in frame.format.components)
    kind = "gray" if grey else "rgba" if alpha else "rgb24"
    space = "ITU709" if frame.colorspace == _UNSPECIFIED and frame.height >= _HD_LINES and not grey else None
    pixels = frame.reformat(format=kind, src_colorspace=space, threads=1).to_ndarray()
    if turns := round(frame.rotation / 90) % 4:  # counter-clockwise
        pixels = np.ascontiguousarray(np.rot90(pixels, turns))
    image = Image.fromarray(pixels)
    ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    if ratio and ratio != 1:
        ratio = 1 / ratio if turns % 2 else ratio
        width = max(1, round(image.width * float(ratio)))
        check_frame_size(image.height, width)
        image = image.resize((width, image.height), Image.Resampling.BICUBIC)
    if alpha:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image
