"""Meshes (OBJ, STL, PLY, GLB) as voxels: filled if the mesh is closed, otherwise its surface.

Inside is where the surface winds around, counted along the x axis: a crossing of the surface adds 1 or -1 by its
direction, so that solids that overlap stay filled.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.picture import DecodeError
from imagegen_dist.data.sources.base import UnfitError
from imagegen_dist.data.volumes.volume import Volume, check_extent, needs
from imagegen_dist.wording import counted, first_line

MESHES = ("obj", "stl", "ply", "glb")
"""Extensions of the files that are read."""

_MARGIN = 1  # empty voxels around the longest side, so that a surface of the voxels is closed
_MOST_FACES = 5_000_000
_TURNED = (1, -1, -1)  # x, y, z along W, H, D: half a turn about x
_PAIRS = 1 << 22  # of triangles and columns that are looked at together
# Columns go through points beside the voxels' centres, so that none meets an edge of a mesh with round coordinates.
_BESIDE = (3.1e-4 * 2**0.5, 3.1e-4 * 3**0.5)


def read_mesh(data: bytes, extension: str, spatial: tuple[int, int, int] | None, name: str = "a mesh") -> Volume:
    """Voxelise a mesh into (D, H, W), centred, its longest side as long as the grid allows: 0 and 255.

    W is x, H goes against y and D against z, so that y is up where rows of a picture go down, and z comes out of the
    picture; a mesh that is made of the voxels (drawing/surfaces.py) lies as this one. Raises DecodeError; UnfitError
    without `spatial`, and if trimesh is not installed.
    """
    if spatial is None:
        raise UnfitError(f"{name} is a mesh: say how many voxels it becomes, e.g. --size 64x64x64")
    try:
        import trimesh
    except ImportError as error:
        raise needs("a mesh", error) from error
    check_extent(spatial)
    mesh = _load(trimesh, data, extension)
    extents = np.array(spatial[::-1], np.float64)
    low, high = np.asarray(mesh.bounds, np.float64)
    if not np.isfinite([low, high]).all() or (high - low).max() <= 0:
        raise DecodeError("is a mesh without extent")
    margin = np.minimum(_MARGIN, (extents - 1) // 2)
    with np.errstate(divide="ignore"):
        scale = float(np.min((extents - 2 * margin) / (high - low)))
    centred = (np.asarray(mesh.vertices, np.float64) - (low + high) / 2) * _TURNED
    points = centred * scale + extents / 2  # voxel n is [n, n + 1)
    triangles = points[np.asarray(mesh.faces)]
    solid = bool(mesh.is_watertight)
    filled = _inside(triangles, spatial) if solid else _surface(triangles, spatial)
    return Volume((filled * np.uint8(255))[None], bits=8, solid=solid, kind="mesh")


def _load(trimesh: Any, data: bytes, extension: str) -> Any:
    """The mesh of a file, all its parts as one. Nothing outside the file is read. Raises DecodeError."""
    more = {"skip_materials": True} if extension == "obj" else {}
    if extension == "glb":
        _check_glb(data)
    try:
        mesh = trimesh.load(io.BytesIO(data), file_type=extension, force="mesh", **more)
        faces = len(mesh.faces)
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
    except Exception as error:  # trimesh raises many kinds, and the file may be anything
        raise DecodeError(f"is not a mesh that can be read: {first_line(error)}") from error
    if not 1 <= faces <= _MOST_FACES:
        raise DecodeError(f"is a mesh of {counted(faces, 'triangle')}: from 1 to {_MOST_FACES:,} are allowed")
    return mesh


def _check_glb(data: bytes) -> None:
    """Raise DecodeError for a GLB whose header claims more numbers than it holds. (glTF 2.0, 4.4)"""
    try:
        length, kind = struct.unpack_from("<I4s", data, 12)
        document = json.loads(data[20 : 20 + length]) if kind == b"JSON" else {}
        counts = [int(each["count"]) for each in document.get("accessors", [])]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DecodeError("is a damaged GLB file") from error
    if any(not 0 <= count <= len(data) for count in counts):
        raise DecodeError(f"is a damaged GLB file: it claims {max(counts, key=abs):,} numbers")


def _inside(triangles: NDArray[np.float64], spatial: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Voxels [D, H, W] whose centre is inside closed triangles [F, 3, 3] of (x, y, z) in voxels."""
    depth, height, width = spatial
    turns = np.zeros((depth, height, width + 1), np.int32)  # what each crossing adds to all voxels after it
    for face, row, slice_ in _parts(triangles, height, depth):
        corners = triangles[face]
        y = row + 0.5 + _BESIDE[0]
        z = slice_ + 0.5 + _BESIDE[1]
        (ya, yb, yc), (za, zb, zc) = corners[:, :, 1].T, corners[:, :, 2].T
        area = (yb - ya) * (zc - za) - (yc - ya) * (zb - za)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = ((yb - y) * (zc - z) - (yc - y) * (zb - z)) / area
            v = ((yc - y) * (za - z) - (ya - y) * (zc - z)) / area
            hit = (area != 0) & (u >= 0) & (v >= 0) & (u + v <= 1)
        u, v, some = u[hit], v[hit], corners[hit]
        x = u * some[:, 0, 0] + v * some[:, 1, 0] + (1 - u - v) * some[:, 2, 0]
        after = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
        np.add.at(turns, (slice_[hit], row[hit], after), np.sign(area[hit]).astype(np.int32))
    return turns.cumsum(axis=2)[:, :, :width] != 0


def _parts(
    triangles: NDArray[np.float64], height: int, depth: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield (triangle, row, slice) of the columns below the bounding boxes of triangles, some at a time."""
    low, high = triangles.min(axis=1)[:, 1:], triangles.max(axis=1)[:, 1:]
    limits = np.array([height, depth])
    first = np.clip(np.ceil(low - 0.5 - 1e-2), 0, limits).astype(np.int64)
    last = np.clip(np.floor(high - 0.5 + 1e-2) + 1, first, limits).astype(np.int64)
    sides = last - first
    counts = sides.prod(axis=1)
    start = 0
    while start < len(triangles):
        ends = np.cumsum(counts[start:])
        stop = start + max(1, int(np.searchsorted(ends, _PAIRS, side="right")))
        some = counts[start:stop]
        face = np.repeat(np.arange(start, stop), some)
        inside = np.arange(some.sum()) - np.repeat(np.cumsum(some) - some, some)
        rows = np.maximum(1, sides[face, 0])
        yield face, first[face, 0] + inside % rows, first[face, 1] + inside // rows
        start = stop


def _surface(triangles: NDArray[np.float64], spatial: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Voxels [D, H, W] that contain a point of a grid of points on triangles, half a voxel apart or less."""
    found = np.zeros(spatial, np.bool_)
    longest = np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2).max(axis=1)
    steps = np.maximum(1, np.ceil(2 * longest).astype(np.int64))
    for each in np.unique(steps).tolist():
        at = np.stack(np.meshgrid(np.arange(each + 1), np.arange(each + 1), indexing="ij"), -1).reshape(-1, 2)
        at = at[at.sum(axis=1) <= each] / each
        weights = np.column_stack([at, 1 - at.sum(axis=1)])
        some = triangles[steps == each]
        for part in np.array_split(some, -(-len(some) * len(weights) // _PAIRS)):
            places = np.einsum("pw,fwx->fpx", weights, part).reshape(-1, 3)
            x, y, z = np.clip(places, 0, np.array(spatial[::-1]) - 1e-6).astype(np.int64).T
            found[z, y, x] = True
    return found
