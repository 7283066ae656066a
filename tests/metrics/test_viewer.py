"""The report's viewer of meshes, run by Node: it shows what the renders show."""

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from imagegen_dist.drawing.isosurface import PITCH, YAW, View, isosurfaces
from imagegen_dist.drawing.surfaces import scene

_SIDE = 96
_DRAW = """
const file = new Uint8Array(require("fs").readFileSync(process.argv[2]));
const meshes = readGlb(file.buffer), reach = reachOf(meshes);
const look = { ...START, zoom: 2.2 * reach / (2.8 * 6) };  // as large as a render of 12 voxels
const pictures = meshes.map(mesh => Array.from(drawMesh(mesh, SIDE, look, reach, [90, 140, 220])));
console.log(JSON.stringify({ pictures, reach, start: START }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_a_mesh_looks_as_its_render_and_colours_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("trimesh")
    step = np.zeros((1, 1, 12, 12, 12), np.uint8)  # near the viewer, high, to the right
    step[..., 1:6, 1:10, 7:10] = step[..., 1:6, 7:10, 2:7] = 255
    script = resources.files("imagegen_dist.metrics").joinpath("viewer.js.j2").read_text()
    (tmp_path / "viewer.js").write_text(script + _DRAW.replace("SIDE", str(_SIDE)))
    (tmp_path / "grey.glb").write_bytes(scene(step) or b"")
    red = np.concatenate([step, np.zeros((1, 2, 12, 12, 12), np.uint8)], 1)
    (tmp_path / "red.glb").write_bytes(scene(red) or b"")
    grey, coloured = (_drawn(tmp_path, name) for name in ("grey.glb", "red.glb"))
    [render] = isosurfaces(step, View(_SIDE, YAW, PITCH))
    body = render[2].astype(int) - render[0] > 20
    seen = grey[..., 3] > 0
    assert (seen & body).sum() / (seen | body).sum() > 0.9
    light = render[2][seen & body].astype(float), grey[..., 2][seen & body].astype(float)
    assert np.corrcoef(*light)[0, 1] > 0.8
    assert coloured[seen, 0].min() > 40
    assert not coloured[..., 1:3].any()


def _drawn(folder: Path, name: str) -> np.ndarray:
    command = ["node", str(folder / "viewer.js"), str(folder / name)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert found["start"] == {"yaw": YAW, "pitch": PITCH, "zoom": 1}
    [picture] = found["pictures"]
    return np.array(picture).reshape(_SIDE, _SIDE, 4)
