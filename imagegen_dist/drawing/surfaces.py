"""The surfaces of volumes as meshes: marching cubes by scikit-image, files by trimesh, both in the extra `volume`.

Meshes are watertight: volumes are padded with emptiness, so that no surface is cut open at their edges, and the level
lies between two values that a voxel can have, so that no vertex falls on a corner of the lattice, where triangles
degenerate. Faces point outwards, so that volumes are positive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.drawing.body import LEVEL, body_and_colour
from imagegen_dist.drawing.coarse import averaged
from imagegen_dist.drawing.tiles import Pixels
from imagegen_dist.drawing.window import eight_bits
from imagegen_dist.extras import install_hint

FORMATS = ("glb", "obj", "stl", "ply")

_SCENE_SIDE = 32  # voxels along the longest side of a volume in a scene; larger ones are averaged
_SCENE_FACES = 20_000  # of a volume in a scene: more than any body has at that size, and fewer than noise
_SCENE_GAP = 1.25  # from one volume in a scene to the next, in sides


@dataclass(frozen=True)
class Surface:
    """A closed surface of triangles.

    vertices: float32 [V, 3], x to the right (W), y upwards (against H) and z towards the viewer (against D), in voxels
    from the middle of the volume. faces: int64 [F, 3], anticlockwise from outside. colours: uint8 [V, 3], or None.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int64]
    colours: NDArray[np.uint8] | None = None


def can_mesh() -> bool:
    """True if the libraries that make meshes are installed."""
    return find_spec("skimage") is not None and find_spec("trimesh") is not None


def check_mesher(extension: str) -> None:
    """Raise ValueError for an unknown format, and if the libraries that make meshes are not installed."""
    if extension not in FORMATS:
        raise ValueError(f"a mesh is {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, not {extension}")
    if not can_mesh():
        raise ValueError(f"meshes need libraries that are not installed: {install_hint('volume')}")


def surface(volume: Pixels, level: float = LEVEL) -> Surface | None:
    """The surface of a volume, uint8 or uint16 [C, D, H, W], where values pass `level` of their range; None if nowhere.

    Colours and bodies as in `isosurfaces`. (Lewiner et al. 2003)
    """
    from skimage.measure import marching_cubes

    body, colours = (None if part is None else part[0] for part in body_and_colour(volume[None]))
    assert body is not None
    between = math.floor(level * np.iinfo(body.dtype).max) + 0.5
    if not (body > between).any():
        return None
    padded = np.pad(body.astype(np.float32), 1)
    places, faces, _, _ = marching_cubes(padded, between, gradient_direction="ascent", allow_degenerate=False)
    places -= 1
    middle = (np.array(body.shape) - 1) / 2
    depth, down, right = (places - middle).T
    vertices = np.stack([right, -down, -depth], -1).astype(np.float32)
    painted = None if colours is None else _painted(places, body, colours)
    return Surface(vertices, faces[:, ::-1].astype(np.int64), painted)  # the axes are a mirror image of the volume's


def placed(made: Surface, spatial: Sequence[int], matrix: NDArray[np.float64]) -> Surface:
    """The surface of a volume (D, H, W) in the space of its data.

    matrix: [4, 4], from the index of a voxel, (d, h, w, 1), to its place.
    """
    right, up, near = made.vertices.astype(np.float64).T
    index = np.stack([-near, -up, right], -1) + (np.array(spatial) - 1) / 2
    vertices = index @ matrix[:3, :3].T + matrix[:3, 3]
    mirrored = np.linalg.det(matrix[:3, :3]) > 0  # the axes of the vertices are themselves a mirror image of (d, h, w)
    return replace(made, vertices=vertices.astype(np.float32), faces=made.faces[:, ::-1] if mirrored else made.faces)


def _painted(places: NDArray[np.float32], body: Pixels, colours: Pixels) -> NDArray[np.uint8]:
    """The colour of each vertex, [V, 3]: that of the voxel inside, of the two between which it lies."""
    last = np.array(body.shape) - 1
    below, above = (tuple(np.clip(of(places), 0, last).astype(int).T) for of in (np.floor, np.ceil))
    inside = body[below] >= body[above]
    return np.ascontiguousarray(eight_bits(np.where(inside, colours[:, *below], colours[:, *above])).T)


def mesh_file(made: Surface, extension: str) -> bytes:
    """A surface as a file of that format. Raises ValueError as `check_mesher`."""
    check_mesher(extension)
    data = _mesh(made).export(file_type=extension)
    return data.encode() if isinstance(data, str) else bytes(data)


def is_watertight(made: Surface) -> bool:
    """True if the surface encloses a volume: every edge belongs to two triangles. Needs trimesh."""
    return bool(_mesh(made).is_watertight)


def scene(volumes: Pixels, level: float = LEVEL) -> bytes | None:
    """The surfaces of some volumes in one GLB, side by side, to look at; None if there is none.

    Volumes of more than 32 voxels along a side are averaged first, and noise, which is all surface, is left out.
    """
    import trimesh

    made = trimesh.Scene()
    factor = -(-max(volumes.shape[2:]) // _SCENE_SIDE)
    step = _SCENE_GAP * max(volumes.shape[2:]) / factor
    for number, volume in enumerate(averaged(volumes, factor)):
        found = surface(volume, level)
        if found is not None and len(found.faces) <= _SCENE_FACES:
            place = trimesh.transformations.translation_matrix([step * number, 0, 0])
            name = f"sample{number}"
            made.add_geometry(_mesh(found), node_name=name, geom_name=name, transform=place)
    return bytes(made.export(file_type="glb")) if made.geometry else None


def _mesh(made: Surface):  # type: ignore[no-untyped-def]
    import trimesh

    return trimesh.Trimesh(made.vertices, made.faces, vertex_colors=made.colours, process=False)
