"""Scans are drawn upright: a marker at a side of the patient is where a radiologist looks for it."""

import io

import numpy as np
import pytest
from PIL import Image

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import drawing_of, modality
from imagegen_dist.data.packing import PackConfig, pack_dataset
from imagegen_dist.data.stream import read_samples
from imagegen_dist.data.volume_space import VolumeSpace
from imagegen_dist.data.volumes.conversion import VolumeConversion
from imagegen_dist.storage import Store

SIDE = 8
SIDES = {"right": (-1, 0, 0), "anterior": (0, -1, 0), "superior": (0, 0, -1)}  # the last voxel along R, A or S


def slices_of(storage, side: str, storage_axes: str) -> np.ndarray:
    """The axial, coronal and sagittal slice [3, 8, 8] of a packed NIfTI phantom with one bright plane on a side."""
    nibabel = pytest.importorskip("nibabel")
    values = np.zeros((SIDE,) * 3, np.uint8)
    axis = list(SIDES).index(side)
    values[(slice(None),) * axis + (-1,)] = 255
    image = nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0]))
    other = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(tuple(storage_axes))
    )
    (storage / "scans").mkdir()
    nibabel.save(image.as_reoriented(other), storage / "scans" / "a.nii.gz")
    pack_dataset(storage / "scans", storage / "shards", PackConfig(VolumeConversion(window=(0, 255))), workers=0)
    store = Store(storage / "shards")
    index = DatasetIndex.load(store)
    assert index.space is not None
    assert index.space.oriented
    samples, _ = read_samples(index, store, [0])
    strip = np.asarray(drawing_of("voxels", index.space).strip(samples.numpy(), scale=1))
    return np.stack([strip[:, at : at + SIDE] for at in range(0, 3 * (SIDE + 2), SIDE + 2)])


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
@pytest.mark.parametrize(
    ("side", "places"),
    [
        ("anterior", ((0, slice(None)), None, (slice(None), 0))),  # axial: top; sagittal: left
        ("superior", (None, (0, slice(None)), (0, slice(None)))),  # coronal and sagittal: top
        ("right", ((slice(None), 0), (slice(None), 0), None)),  # axial and coronal: left
    ],
)
def test_a_marker_is_where_a_radiologist_looks_for_it(tmp_path, axes, side, places):
    for drawn, place in zip(slices_of(tmp_path, side, axes), places, strict=True):
        expected = np.zeros((SIDE, SIDE), np.uint8)
        if place is not None:
            expected[place] = 255
        np.testing.assert_array_equal(drawn, expected)


def test_a_render_of_a_scan_shows_the_head_at_the_top_and_no_mirror_image():
    volume = np.zeros((1, 1, 16, 16, 16), np.uint8)
    volume[:, :, 12:, 6:10, 6:10] = 255  # the head
    frame = np.asarray(drawing_of("voxels", VolumeSpace(oriented=True)).frame(volume, 0, 1)).min(2)
    rows = np.argwhere(frame < 200)[:, 0]
    assert rows.mean() < frame.shape[0] / 2
    turned = drawing_of("voxels", VolumeSpace(oriented=True))._turned
    corner = np.zeros((1, 1, 2, 2, 2), np.uint8)
    corner[0, 0, 0, 0, 0] = 255  # inferior, posterior, left: down, away and on the right of who faces the patient
    assert turned(corner)[0, 0, 1, 1, 1] == 255


def test_other_volumes_and_pictures_are_drawn_as_they_are_stored():
    for space in (None, VolumeSpace(2.0)):
        assert drawing_of("voxels", space) is modality("voxels").drawing
    assert drawing_of("image", None) is modality("image").drawing
    volume = np.zeros((1, 1, 4, 4, 4), np.uint8)
    volume[:, :, :, -1] = 255
    strip = Image.open(io.BytesIO(drawing_of("voxels", None).further_pictures(volume)["slices"][0]))
    assert np.asarray(strip)[-1, 0] == 255


def test_scans_on_different_grids_are_still_scans():
    one, other = VolumeSpace(spacing=(1.0, 1.0, 1.0)), VolumeSpace(spacing=(2.0, 2.0, 2.0))
    both = one.shared(other)
    assert (both.spacing, both.oriented) == ((), True)
    assert VolumeSpace.from_payload(both.payload()) == both
    assert not both.shared(VolumeSpace()).oriented
    assert "oriented" not in one.payload()
