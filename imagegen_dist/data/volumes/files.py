"""Which files hold volumes, and the reader of each, by its first bytes and its name."""

from __future__ import annotations

import struct

from imagegen_dist.data.picture import DecodeError
from imagegen_dist.data.sources.files import FileKinds, is_joined, split_parts
from imagegen_dist.data.volumes.array import Layout, read_array
from imagegen_dist.data.volumes.binvox import read_binvox
from imagegen_dist.data.volumes.dicom import is_dicom, read_dicom_series
from imagegen_dist.data.volumes.mesh import MESHES, read_mesh
from imagegen_dist.data.volumes.nifti import is_nifti, read_nifti
from imagegen_dist.data.volumes.stack import read_pages, read_slices
from imagegen_dist.data.volumes.volume import Volume

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_NO_EXTENSION = ""  # as scanners name the slices of DICOM series
_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_ENTRY_BYTES = 12  # of a directory in a TIFF


def _is_whole_tiff(head: bytes) -> bool:
    """True for a TIFF of several pages, as far as its beginning tells. (TIFF 6.0, section 2)"""
    order = _TIFF.get(head[:4])
    if order is None or len(head) < 8:
        return False
    at = struct.unpack_from(f"{order}I", head, 4)[0]
    if at + 2 > len(head):
        return False
    following = at + 2 + _ENTRY_BYTES * struct.unpack_from(f"{order}H", head, at)[0]
    return following + 4 <= len(head) and struct.unpack_from(f"{order}I", head, following)[0] != 0


VOLUME_FILES = FileKinds(
    "voxels",
    "volume",
    (".nii", ".nii.gz", ".npy", ".binvox", *(f".{each}" for each in MESHES), ".tif", ".tiff"),
    ("npy", "nii", "nii.gz", "binvox", *MESHES, "tif", "tiff"),
    parts=(".dcm", ".ima", *_PICTURES, _NO_EXTENSION),
    is_whole=_is_whole_tiff,
)
"""The files of volumes: a file each, or a folder of slices."""


def read_volume(data: bytes, name: str, spatial: tuple[int, int, int] | None, layout: Layout = "auto") -> Volume:
    """Read a file, or a folder of slices, as a volume. spatial: (D, H, W) of the voxels that a mesh becomes.

    Raises DecodeError, and UnfitError for a mesh without `spatial` and if the library of a kind is not installed.
    """
    if is_joined(data):
        return _read_folder(split_parts(data))
    if data.startswith(b"\x93NUMPY"):
        return read_array(data, 3, layout)
    if is_nifti(data):
        return read_nifti(data)
    if data.startswith(b"#binvox"):
        return read_binvox(data)
    if data[:4] in _TIFF:
        return read_pages(data)
    if mesh := _mesh_kind(data, name):
        return read_mesh(data, mesh, spatial, name)
    if is_dicom(data):
        raise DecodeError("is one slice of a DICOM series: give each series a folder of its own")
    raise DecodeError(f"is none of the files of volumes ({VOLUME_FILES.listed}), or is damaged")


def _read_folder(files: list[tuple[str, bytes]]) -> Volume:
    slices = {name: data for name, data in files if is_dicom(data)}
    named = any(name.lower().endswith((".dcm", ".ima")) for name, _ in files)
    if slices or named:
        return read_dicom_series(slices if not named else {**slices, **_named_slices(files)})
    return read_slices([(name, data) for name, data in files if name.lower().endswith(_PICTURES)])


def _named_slices(files: list[tuple[str, bytes]]) -> dict[str, bytes]:
    """The files that are slices by their names, whatever is in them."""
    return {name: data for name, data in files if name.lower().endswith((".dcm", ".ima"))}


def _mesh_kind(data: bytes, name: str) -> str:
    """The extension of a mesh, by its first bytes, or by its name; "" for none."""
    if data.startswith(b"glTF"):
        return "glb"
    if data.startswith((b"ply\n", b"ply\r")):
        return "ply"
    named = name.lower().rpartition(".")[2]
    if named in MESHES:
        return named
    if len(data) >= 84 and len(data) == 84 + 50 * struct.unpack_from("<I", data, 80)[0]:
        return "stl"  # binary: 50 bytes a triangle
    head = data[:4096].lstrip()
    if head.startswith(b"solid") and b"facet" in head:
        return "stl"
    lines = [line.split(None, 1)[0] for line in head.split(b"\n") if line.strip() and not line.startswith(b"#")]
    return "obj" if b"v" in lines and {*lines[:-1]} <= _OBJ else ""


_OBJ = {b"v", b"vn", b"vt", b"vp", b"f", b"g", b"o", b"s", b"l", b"p", b"mtllib", b"usemtl"}
