"""NIfTI files (.nii, .nii.gz): values with their scale, turned to the patient's axes.

NIfTI-1 and NIfTI-2, as https://nifti.nimh.nih.gov describes them. The header is checked before any memory is taken for
the values, also in a compressed file.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from math import prod
from typing import Any

import numpy as np

from imagegen_dist.data.picture import DecodeError
from imagegen_dist.data.volumes.orientation import canonical
from imagegen_dist.data.volumes.volume import Affine, Volume, check_extent, needs
from imagegen_dist.wording import counted, first_line

_GZIP = b"\x1f\x8b"
_HEADERS = {348: ("<", 348), 540: ("<", 540), 1543569408: (">", 348), 469893120: (">", 540)}
_TYPES = {
    **{2: "uint8", 4: "int16", 8: "int32", 16: "float32", 64: "float64"},
    **{256: "int8", 512: "uint16", 768: "uint32", 1024: "int64", 1280: "uint64"},
}
_REFUSED = {1: "bits", 32: "complex numbers", 128: "colours", 1536: "128-bit numbers", 1792: "complex numbers"}
_LARGEST_HEADER = 1 << 24  # bytes before the values, with extensions


def read_nifti(data: bytes) -> Volume:
    """Read a NIfTI file, compressed or not, as real values in the order of the patient's axes. Raises DecodeError."""
    try:
        import nibabel
        from nibabel.spatialimages import HeaderDataError
    except ImportError as error:
        raise needs("a NIfTI file", error) from error
    plain = _inflate(data) if data.startswith(_GZIP) else data
    kind = _checked(plain)
    form = nibabel.Nifti1Image if plain[:4] in (struct.pack("<i", 348), struct.pack(">i", 348)) else nibabel.Nifti2Image
    try:
        image = form.from_stream(io.BytesIO(plain))
        values = image.get_fdata(dtype=np.float32, caching="unchanged")
        affine = np.asarray(image.affine, np.float64)
    except (ValueError, OSError, KeyError, TypeError, HeaderDataError) as error:
        raise DecodeError(f"is a damaged NIfTI file: {first_line(error)}") from error
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DecodeError("is a NIfTI file whose axes are not those of a space")
    return canonical(values.reshape(values.shape[:3]), affine, kind)


def check_nifti() -> None:
    """Raise UnfitError if files cannot be written, because nibabel is not installed."""
    try:
        import nibabel  # noqa: F401
    except ImportError as error:
        raise needs("a NIfTI file", error) from error


def write_nifti(values: np.ndarray, affine: Affine, slope: float, intercept: float, compressed: bool = False) -> bytes:
    """The file of stored values [D, H, W], uint8 or uint16, that stand for slope * value + intercept.

    affine: of (d, h, w), as in `Volume`. Equal arguments give equal bytes. Raises UnfitError without nibabel.
    """
    try:
        import nibabel
    except ImportError as error:
        raise needs("a NIfTI file", error) from error
    image = nibabel.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0)), affine[:, [2, 1, 0, 3]])
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(slope, intercept)
    data = bytes(image.to_bytes())
    return gzip.compress(data, mtime=0) if compressed else data


def is_nifti(data: bytes) -> bool:
    """True for a file that is compressed by gzip, or begins as a NIfTI file does."""
    return data.startswith(_GZIP) or (len(data) >= 4 and struct.unpack_from("<i", data)[0] in _HEADERS)


def _inflate(data: bytes) -> bytes:
    """The content of a gzip file, whose size its own header states. Raises DecodeError for a bomb."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        head = inflater.decompress(data, 1024)
        size = _size(head)
        body = inflater.decompress(inflater.unconsumed_tail, max(1, size - len(head) + 1))
    except zlib.error as error:
        raise DecodeError(f"is a damaged gzip file: {error}") from error
    plain = head + body
    if len(plain) < size:
        raise DecodeError(f"is cut off: it holds {counted(len(plain), 'byte')} of the {size:,} of a NIfTI file")
    if not inflater.eof and not _ends(inflater):
        raise DecodeError("is cut off, or holds more than its NIfTI header says")
    return plain


def _ends(inflater: Any) -> bool:
    """True if the compressed data end here, with a correct checksum."""
    try:
        return not inflater.decompress(inflater.unconsumed_tail, 1) and bool(inflater.eof)
    except zlib.error:
        return False


def _checked(plain: bytes) -> str:
    """The type of the values of an uncompressed file, which has all of them. Raises DecodeError."""
    size = _size(plain)
    if len(plain) < size:
        raise DecodeError(f"is cut off: it has {counted(len(plain), 'byte')} of {size:,}")
    _, _, kind, _ = _header(plain)
    return _TYPES[kind]


def _size(head: bytes) -> int:
    """Bytes of the whole file according to its header. Raises DecodeError for what is not one volume."""
    dims, offset, kind, bits = _header(head)
    if kind not in _TYPES:
        raise DecodeError(f"holds {_REFUSED.get(kind, f'values of the unknown type {kind}')}: numbers are needed")
    if bits != np.dtype(_TYPES[kind]).itemsize * 8:
        raise DecodeError(f"is a damaged NIfTI file: {_TYPES[kind]} of {bits} bits")
    if any(extent > 1 for extent in dims[3:]):
        series = prod(dims[3:])
        raise DecodeError(
            f"is a series of {counted(series, 'volume')} ({len(dims)}-D): one volume a file is needed; split it, e.g. "
            "with nibabel.four_to_three"
        )
    if len(dims) < 3:
        raise DecodeError(f"has {counted(len(dims), 'axis', 'axes')}: a volume has 3")
    check_extent(tuple(dims[:3]))
    if not 0 <= offset <= _LARGEST_HEADER:
        raise DecodeError(f"is a damaged NIfTI file: its values begin at byte {offset}")
    return offset + prod(dims) * bits // 8


def _header(head: bytes) -> tuple[list[int], int, int, int]:
    """(extents of the axes, first byte of the values, type of the values, bits of each)."""
    if len(head) < 348:
        raise DecodeError("is not a NIfTI file, or is cut off")
    order, size = _HEADERS.get(struct.unpack_from("<i", head)[0], ("", 0))
    if not size or (size == 540 and len(head) < 540):
        raise DecodeError("is not a NIfTI file")
    magic = head[344:348] if size == 348 else head[4:8]
    if magic[:3] not in (b"n+1", b"n+2"):
        split = magic[:3] in (b"ni1", b"ni2")
        raise DecodeError(
            "has its values in another file (.hdr and .img): save both as one .nii" if split else "is not a NIfTI file"
        )
    if size == 348:
        dims: tuple[int, ...] = struct.unpack_from(f"{order}8h", head, 40)
        kind, bits = struct.unpack_from(f"{order}2h", head, 70)
        offset = int(min(max(struct.unpack_from(f"{order}f", head, 108)[0], -1), 1 << 40))
    else:
        kind, bits = struct.unpack_from(f"{order}2h", head, 12)
        dims, offset = struct.unpack_from(f"{order}8q", head, 16), struct.unpack_from(f"{order}q", head, 168)[0]
    if not 1 <= dims[0] <= 7:
        raise DecodeError("is a damaged NIfTI file: it states no number of axes")
    return [int(extent) for extent in dims[1 : 1 + dims[0]]], int(offset), kind, bits
