"""Samples as files: pictures, films, meshes and arrays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from imagegen_dist.data.modality import modality
from imagegen_dist.data.npy import write_npy
from imagegen_dist.drawing.animation import animate, check_encoder
from imagegen_dist.drawing.surfaces import check_mesher
from imagegen_dist.drawing.views import Drawing
from imagegen_dist.serving.served import NotOffered, Pixels

MEDIA_TYPES = {
    "png": "image/png",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "glb": "model/gltf-binary",
    "npy": "application/octet-stream",
}


def check_format(form: str, kind: str) -> None:
    """Raise ValueError if samples of this modality cannot be written so, or a library for it is not installed.

    Raises NotOffered for pictures of volumes where PyTorch, which renders them, is not installed.
    """
    if modality(kind).drawing.rendered and form not in ("npy", "glb") and find_spec("torch") is None:
        raise NotOffered("pictures of volumes need PyTorch, which is not installed here: ask for npy or glb")
    if form == "mp4":
        if not modality(kind).drawing.moves:
            raise ValueError(f"samples of {kind} do not move: ask for png, webp or npy")
        check_encoder(form)
    if form == "glb":
        if kind != "voxels":
            raise ValueError(f"samples of {kind} are no meshes: ask for png, webp or npy")
        check_mesher(form)


def write_samples(samples: Sequence[Pixels], form: str, kind: str, drawing: Drawing, columns: int, scale: int) -> bytes:
    """Samples [C, *S] as one file. A single picture has the samples' own pixels; several are a grid.

    The format is one that `check_format` allows. Raises ValueError for volumes without a surface.
    """
    together = np.stack(samples)
    if form == "npy":
        return write_npy(together)
    if form == "glb":
        found = drawing.scene(together)
        if found is None:
            raise ValueError("these volumes have no surface")
        return found
    if form == "png" and not drawing.moves and len(samples) == 1 and scale == 1 and len(samples[0]) in (1, 3, 4):
        return modality(kind).encode(samples[0], "png")
    if form == "png":
        target = io.BytesIO()
        drawing.frame(together, 0, columns, scale).save(target, "PNG")
        return target.getvalue()
    return animate(list(drawing.film(together, columns, scale)), form, drawing.fps)
