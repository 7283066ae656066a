"""Meshes of volumes."""

import io
import sys

import numpy as np
import pytest

from imagegen_dist.data.solids import SAMPLES, render
from imagegen_dist.data.volumes.mesh import read_mesh
from imagegen_dist.drawing.surfaces import FORMATS, check_mesher, mesh_file, placed, scene, surface
from imagegen_dist.drawing.views import VolumeDrawing

pytest.importorskip("skimage")
trimesh = pytest.importorskip("trimesh")


def test_twenty_solids_are_watertight_with_the_volume_of_their_voxels() -> None:
    for volume in render(np.linspace(0, SAMPLES - 1, 20).astype(np.int64), 16):
        made = surface(volume)
        assert made is not None
        mesh = trimesh.Trimesh(made.vertices, made.faces, process=False)
        assert mesh.is_watertight
        assert mesh.is_winding_consistent
        assert mesh.volume == pytest.approx(volume.sum() / 255, rel=0.2)  # edges are blunted


@pytest.mark.parametrize("level", [0, 127, 128, 255])
def test_values_at_the_level_and_at_the_edge_leave_no_hole(level: int) -> None:
    blocks = np.random.default_rng(0).choice([level, 255], (1, 6, 7, 8)).astype(np.uint8)
    made = surface(blocks)
    assert made is not None
    assert trimesh.Trimesh(made.vertices, made.faces, process=False).is_watertight


def test_a_mesh_that_is_read_and_made_again_lies_as_before() -> None:
    step = np.zeros((1, 20, 24, 28), np.uint8)
    step[0, 3:17, 14:21, 3:25] = step[0, 3:17, 3:14, 3:9] = step[0, 3:6, 9:14, 9:16] = 255
    made = surface(step)
    assert made is not None
    read = read_mesh(mesh_file(made, "obj"), "obj", (16, 20, 24)).values
    assert np.array_equal(read, step[:, 2:-2, 2:-2, 2:-2])


@pytest.mark.parametrize("extension", FORMATS)
def test_a_file_has_the_surface_as_it_stands(extension: str) -> None:
    volume = np.zeros((1, 10, 12, 14), np.uint8)
    volume[0, 1:3, 2:5, 9:13] = 255  # near, high, to the right
    made = surface(volume)
    assert made is not None
    read = trimesh.load(io.BytesIO(mesh_file(made, extension)), file_type=extension, force="mesh")
    assert np.allclose(read.bounds.mean(0), [10.5 - 6.5, 5.5 - 3, 4.5 - 1.5])
    assert read.volume > 0
    assert mesh_file(made, extension) == mesh_file(made, extension)


@pytest.mark.parametrize("signs", [(1, 1, 1), (1, -1, 1)])
def test_a_surface_lies_where_the_data_lie_and_still_faces_outwards(signs: tuple[int, int, int]) -> None:
    volume = np.zeros((1, 10, 12, 14), np.uint8)
    volume[0, 2:5, 3:8, 6:13] = 255
    matrix = np.array([[0, 0, 2.0, -7], [0, 1.5, 0, 20], [3.0, 0, 0, 5], [0, 0, 0, 1]])  # to x, y, z from d, h, w
    matrix[:3, :3] *= np.array(signs)[:, None]
    made = surface(volume)
    assert made is not None
    found = placed(made, volume.shape[1:], matrix)
    mesh = trimesh.Trimesh(found.vertices, found.faces, process=False)
    corners = np.array([[1.5, 2.5, 5.5], [4.5, 7.5, 12.5]]) @ matrix[:3, :3].T + matrix[:3, 3]
    assert np.allclose(np.sort(mesh.bounds, 0), np.sort(corners, 0))
    assert mesh.volume == pytest.approx(9 * 3 * 5 * 7, rel=0.1)  # edges are blunted


def test_colours_are_painted_on_and_an_empty_volume_has_no_surface() -> None:
    volume = np.zeros((3, 8, 8, 8), np.uint8)
    volume[0, 2:6, 2:6, 2:6] = 200
    made = surface(volume)
    assert made is not None
    read = trimesh.load(io.BytesIO(mesh_file(made, "ply")), file_type="ply")
    assert np.unique(read.visual.vertex_colors[:, :3], axis=0).tolist() == [[200, 0, 0]]
    deep = surface(volume.astype(np.uint16) * 257)
    assert deep is not None
    assert np.array_equal(deep.colours, made.colours)
    assert np.allclose(deep.vertices, made.vertices, atol=0.01)
    assert surface(np.full((1, 4, 4, 4), 127, np.uint8)) is None
    assert scene(np.zeros((3, 1, 4, 4, 4), np.uint8)) is None


def test_a_report_has_the_first_samples_from_all_sides_cut_open_and_to_turn() -> None:
    solids = render(np.arange(12) * 1500, 16)
    found = VolumeDrawing().further_pictures(solids)
    assert {name: extension for name, (_, extension) in found.items()} == {
        "turntable": "webp",
        "slices": "png",
        "surfaces": "glb",
    }
    shown = trimesh.load(io.BytesIO(found["surfaces"][0]), file_type="glb")
    assert len(shown.geometry) == 10
    assert sum(len(data) for data, _ in found.values()) < 400_000


def test_large_volumes_are_averaged_for_a_report() -> None:
    small = render(np.array([0, 9000]), 32)
    large = small.repeat(2, 2).repeat(2, 3).repeat(2, 4)
    assert scene(large) == scene(small)
    assert scene(np.random.default_rng(0).integers(0, 256, (1, 1, 32, 32, 32), dtype=np.uint8)) is None


def test_other_formats_and_missing_libraries_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="a mesh is glb, obj, stl or ply, not fbx"):
        check_mesher("fbx")
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[volume\]'"):
        check_mesher("obj")
