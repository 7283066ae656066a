"""Readers of volumes: values and places are those of the files, and what is no volume is named."""

import gzip
import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

from imagegen_dist.data.picture import DecodeError
from imagegen_dist.data.volumes.array import read_array
from imagegen_dist.data.volumes.binvox import read_binvox
from imagegen_dist.data.volumes.dicom import read_dicom_series
from imagegen_dist.data.volumes.mesh import read_mesh
from imagegen_dist.data.volumes.nifti import read_nifti, write_nifti
from imagegen_dist.data.volumes.resampling import at_spacing, central, resampled
from imagegen_dist.data.volumes.stack import read_pages, read_slices
from tests.data.scans import series

nibabel = pytest.importorskip("nibabel")
pytest.importorskip("pydicom")
trimesh = pytest.importorskip("trimesh")


def _nifti(values, affine=None, **header) -> bytes:
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    return image.to_bytes()


def _npy(values) -> bytes:
    target = io.BytesIO()
    np.save(target, values)
    return target.getvalue()


def _position(volume, at):
    return (volume.affine @ (*at, 1))[:3]


def test_a_voxel_of_a_nifti_keeps_its_place_in_the_patient_however_the_file_orders_its_axes():
    values = np.zeros((5, 6, 7), np.int16)
    values[1, 2, 3] = 900
    oblique = np.array([[0, 0, -2.0, 40], [-1.5, 0.1, 0, 9], [0.1, 3.0, 0, -7], [0, 0, 0, 1]])
    volume = read_nifti(_nifti(values, oblique))
    found = tuple(np.argwhere(volume.values[0] == 900)[0].tolist())
    np.testing.assert_allclose(_position(volume, found), (oblique @ (1, 2, 3, 1))[:3], atol=1e-4)
    assert volume.spatial == (6, 5, 7)
    assert (np.diag(volume.affine[:3, :3][::-1]) > 0).all()  # d, h, w point to superior, anterior, right
    np.testing.assert_allclose(volume.spacing, np.linalg.norm(oblique[:3, [1, 0, 2]], axis=0), rtol=1e-5)


def test_nifti_values_are_real_ones_and_a_written_file_gives_them_back():
    volume = read_nifti(gzip.compress(_nifti(np.arange(8, dtype=np.int16).reshape(2, 2, 2))))
    assert volume.values.max() == 7
    stored = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    place = np.array([[0, 0, 2.0, 1], [0, 3.0, 0, 2], [4.0, 0, 0, 3], [0, 0, 0, 1]])
    for compressed in (False, True):
        again = read_nifti(write_nifti(stored, place, 0.5, -3, compressed))
        np.testing.assert_allclose(again.values[0], stored * 0.5 - 3)
        np.testing.assert_allclose(again.affine, place)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lambda: _nifti(np.zeros((4, 4, 4, 3), np.int16)), "series of 3 volumes"),
        (lambda: _nifti(np.zeros((4, 4), np.int16)), "2 axes"),
        (lambda: _nifti(np.zeros((4, 4, 4), np.complex64)), "complex"),
        (lambda: _nifti(np.zeros((4, 4, 4), np.int16))[:-9], "cut off"),
        (lambda: gzip.compress(_nifti(np.zeros((9, 9, 9), np.int16)))[:-9], "cut off"),
        (lambda: gzip.compress(_nifti(np.zeros((9, 9, 9), np.int16)) + bytes(1 << 24)), "holds more"),
        (lambda: gzip.compress(_huge()), "voxels are allowed"),
        (lambda: b"\x1f\x8b" + bytes(99), "damaged gzip"),
        (lambda: b"GIF89a" + bytes(999), "not a NIfTI"),
    ],
)
def test_what_is_not_one_nifti_volume_is_refused_by_its_name(data, said):
    with pytest.raises(DecodeError, match=said):
        read_nifti(data())


def _huge() -> bytes:
    head = bytearray(_nifti(np.zeros((4, 4, 4), np.int16)))
    struct.pack_into("<8h", head, 40, 3, 30000, 30000, 30000, 1, 1, 1, 1)
    return bytes(head)


def test_a_dicom_series_is_sorted_by_position_and_rescaled():
    volume = read_dicom_series(series())
    assert volume.spatial == (6, 4, 5)
    np.testing.assert_allclose(volume.values[0, :, 0, 0], 2 * (100 + np.arange(6)) - 1024)
    np.testing.assert_allclose(volume.spacing, (2.5, 0.5, 0.75))
    # Patient's left and posterior are negative in RAS+: the last column and row of the file come first.
    np.testing.assert_allclose(_position(volume, (0, 3, 4)), (-10, -20, 0))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (lambda: series(skip=(2,)), "lacks slices"),
        (lambda: series(twice=True), "two slices at one place"),
        (lambda: series() | {f"b{name}": data for name, data in series(series="9").items()}, "2 series"),
        (lambda: series(1), "one slice"),
        (lambda: series() | {"x.dcm": b"nothing"}, "x.dcm, which is not a DICOM slice"),
    ],
)
def test_an_incomplete_or_mixed_dicom_series_is_refused_by_its_name(files, said):
    with pytest.raises(DecodeError, match=said):
        read_dicom_series(files())


def _file(mesh, extension: str) -> bytes:
    data = mesh.export(file_type=extension)
    return data.encode() if isinstance(data, str) else data


@pytest.mark.parametrize("extension", ["obj", "stl", "ply", "glb"])
def test_a_closed_mesh_is_filled_to_its_volume_in_every_format(extension):
    ball = trimesh.creation.icosphere(3, 2.0)
    volume = read_mesh(_file(ball, extension), extension, (24, 24, 24))
    assert volume.solid
    assert (volume.values == 255).sum() == pytest.approx(ball.volume * (22 / 4) ** 3, rel=0.02)
    for axis in (1, 2, 3):  # symmetric, but for the columns' small shift
        assert (volume.values != np.flip(volume.values, axis)).mean() < 0.01


def test_a_box_lies_along_its_axes_and_an_open_mesh_gives_its_surface():
    box = trimesh.creation.box((4.0, 2.0, 1.0))
    filled = read_mesh(_file(box, "ply"), "ply", (18, 18, 18)).values[0]
    z, y, x = (np.flatnonzero(filled.any(axis=axes)).size for axes in ((1, 2), (0, 2), (0, 1)))
    assert (z, y, x) == (4, 8, 16)
    box.update_faces(np.arange(len(box.faces)) > 0)
    opened = read_mesh(_file(box, "ply"), "ply", (18, 18, 18))
    assert not opened.solid
    assert opened.values[0, 9, 9, 9] == 0
    assert opened.values[0, :, 9, 9].any()
    with pytest.raises(DecodeError, match="mesh of 0 triangles"):
        read_mesh(b"solid nothing", "stl", (8, 8, 8))


def test_binvox_is_read_in_its_own_order_of_axes():
    solid = np.zeros((3, 4, 5), np.uint8)  # x, z, y
    solid[2, 1, 3] = 1
    data = b"#binvox 1\ndim 3 5 4\ntranslate 0 0 0\nscale 1\ndata\n"
    runs = b"".join(bytes((value, 1)) for value in solid.ravel().tolist())
    volume = read_binvox(data + runs)
    assert volume.spatial == (4, 5, 3)
    assert np.argwhere(volume.values[0]).tolist() == [[4 - 1 - 1, 5 - 1 - 3, 2]]
    with pytest.raises(DecodeError, match="58 of 60 voxels"):
        read_binvox(data + runs[:-4])


def test_stacks_are_pages_of_a_tiff_or_pictures_in_a_folder_and_keep_16_bits():
    slices = [Image.fromarray(np.full((3, 4), 1000 * at, np.uint16)) for at in range(5)]
    target = io.BytesIO()
    slices[0].save(target, "TIFF", save_all=True, append_images=slices[1:])
    volume = read_pages(target.getvalue())
    assert (volume.values.shape, volume.bits) == ((1, 5, 3, 4), 16)
    assert volume.values[0, :, 0, 0].tolist() == [0, 1000, 2000, 3000, 4000]
    files = []
    for at in range(2):
        target = io.BytesIO()
        Image.new("RGB", (4, 3 + at), (at, 9, 9)).save(target, "PNG")
        files.append((f"{at}.png", target.getvalue()))
    assert read_slices(files[:1] * 2).values.shape == (3, 2, 3, 4)
    with pytest.raises(DecodeError, match=r"slices that differ: 0.png is 3 × 4 × 3 .* 1.png 4 × 4 × 3"):
        read_slices(files)


def test_arrays_are_read_as_what_they_are_or_refused_by_the_right_name():
    values = np.arange(2 * 5 * 6 * 7, dtype=np.uint8).reshape(2, 5, 6, 7)
    for array in (values, np.asfortranarray(values)):
        np.testing.assert_array_equal(read_array(_npy(array), 3).values, values)
    last = np.moveaxis(values, 0, -1)
    np.testing.assert_array_equal(read_array(_npy(np.ascontiguousarray(last)), 3).values, values)
    assert read_array(_npy(values[0] > 3), 3).values.max() == 255
    big = read_array(_npy(values[0].astype(">u2")), 3)
    assert (big.bits, big.values.dtype) == (16, np.dtype("uint16"))
    assert (big.values[0] == values[0]).all()
    assert read_array(_npy(values[0].astype(np.float64)), 3).bits == 0
    for array, said in (
        (np.zeros((3, 5, 6, 3), np.uint8), "--array-layout first or last"),
        (np.zeros((9, 5, 6, 9), np.uint8), "--array-layout"),
        (np.zeros((5, 6), np.uint8), "3 axes are needed, or 4"),
        (np.zeros((5, 6, 7), np.complex64), "complex64"),
        (np.array([{"a": 1}], dtype=object), "pickled objects"),
    ):
        with pytest.raises(DecodeError, match=said):
            read_array(_npy(array), 3)
    with pytest.raises(DecodeError, match="of data where"):
        read_array(_npy(values)[:-1], 3)


def test_a_resampled_volume_keeps_the_place_and_the_mass_of_what_it_shows():
    values = np.zeros((20, 24, 30), np.float32)
    values[8:12, 10:14, 20:26] = 100
    volume = read_nifti(_nifti(values.transpose(2, 1, 0), np.diag([2.0, 1.0, 1.0, 1])))

    def centre(volume):
        grid = np.indices(volume.spatial).reshape(3, -1)
        weights = volume.values[0].ravel().astype(np.float64)
        return _position(volume, (grid * weights).sum(1) / weights.sum()), weights.sum() * np.prod(volume.spacing)

    place, mass = centre(volume)
    for other in (
        at_spacing(volume, (1.7, 1.0, 1.3)),
        resampled(volume, (9, 11, 12)),
        central(at_spacing(volume, (1.5, 1.5, 1.5)), (16, 20, 50), 0.0),
    ):
        found = centre(other)
        np.testing.assert_allclose(found[0], place, atol=0.1)  # of voxels of 1 to 2 mm
        assert found[1] == pytest.approx(mass, rel=0.03)
    assert at_spacing(volume, (1.0, 1.0, 2.0)) is volume


def test_headers_that_claim_too_much_take_no_memory():
    data = _file(trimesh.creation.box(), "glb")
    length = struct.unpack_from("<I", data, 12)[0]
    document = json.loads(data[20 : 20 + length])
    document["accessors"][0] = {"count": 90_000_000_000, "type": "SCALAR", "componentType": 5125}  # zeros, without data
    text = json.dumps(document).encode()
    with pytest.raises(DecodeError, match="claims 90,000,000,000 numbers"):
        read_mesh(data[:12] + struct.pack("<I4s", len(text), b"JSON") + text + data[20 + length :], "glb", (8, 8, 8))
    syntax = b"1.2.840.10008.1.2.1"
    files = {name: data.replace(syntax + b"\0", syntax + b".99") for name, data in series().items()}
    with pytest.raises(DecodeError, match="a deflated file"):
        read_dicom_series(files)
