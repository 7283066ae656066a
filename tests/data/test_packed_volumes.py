"""Volumes are packed on one grid with known intensities, and each bad file is counted and named."""

import gzip
import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from imagegen_dist import config, load
from imagegen_dist.cli.data import main
from imagegen_dist.cli.sample import main as sample
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.volume_space import VolumeSpace
from imagegen_dist.presets import find_preset
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from tests.data.scans import series
from tests.runs import Listener, train_here

nibabel = pytest.importorskip("nibabel")
trimesh = pytest.importorskip("trimesh")
pytest.importorskip("pydicom")

PLACE = np.array([[-2.0, 0, 0, 50], [0, 2.0, 0, -40], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def _pack(source, dest, *flags) -> int:
    return main([str(source), str(dest), "--modality", "voxels", "--workers", "0", *flags])


def png(grey: int) -> bytes:
    target = io.BytesIO()
    Image.new("L", (6, 5), grey).save(target, "PNG")
    return target.getvalue()


def _head(seed: int) -> np.ndarray:
    grid = np.indices((20, 24, 16))
    middle = np.array([10, 12, 8]).reshape(3, 1, 1, 1)
    return (1500 * np.exp(-((grid - middle) ** 2).sum(0) / (40 + 10 * seed)) - 1000).astype(np.int16)


def _scans(folder) -> None:
    for name in ("ill", "well"):
        (folder / name).mkdir(parents=True)
        for at in range(2):
            nibabel.save(nibabel.Nifti1Image(_head(at), PLACE), folder / name / f"{at}.nii.gz")


def test_scans_become_samples_of_known_intensity_and_place(tmp_path):
    _scans(tmp_path / "scans")
    flags = ("--size", "12x10x14", "--spacing", "2,2,3", "--window", "-1000:500", "--bits", "16")
    assert _pack(tmp_path / "scans", tmp_path / "out", *flags) == 0
    index = DatasetIndex.load(Store(tmp_path / "out"))
    assert (index.shape.dims, index.shape.bits, index.class_names) == ((1, 14, 10, 12), 16, ("ill", "well"))
    assert index.space is not None
    samples = Dataset.open(str(tmp_path / "out")).read(range(4))[0].numpy()[:, 0]
    place = index.space.matrix(index.shape.spatial)
    at = (np.linalg.inv(place) @ PLACE @ (9, 13, 8, 1)).round().astype(int)[:3]
    found = index.space.slope * samples[(slice(None), *at)] + index.space.intercept
    np.testing.assert_allclose(np.sort(found), np.sort([_head(seed)[9, 13, 8] for seed in (0, 0, 1, 1)]), atol=0.02)
    assert index.space.spacing == (3.0, 2.0, 2.0)
    assert not main(["--check", str(tmp_path / "out"), "--workers", "0"])


def test_volumes_are_packed_again_from_shards_and_scans_are_members_too(tmp_path):
    _scans(tmp_path / "scans")
    whole = ("--window", "-1000:500", "--bits", "16")
    assert _pack(tmp_path / "scans", tmp_path / "first", *whole) == 0
    assert _pack(tmp_path / "first", tmp_path / "again", "--bits", "16") == 0
    first, again = (Dataset.open(str(tmp_path / name)) for name in ("first", "again"))
    assert (first.read(range(4))[0].numpy() == again.read(range(4))[0].numpy()).all()
    assert again.labels(range(4)).tolist() == first.labels(range(4)).tolist()


def test_each_bad_volume_is_counted_and_named(tmp_path, capsys):
    scans = tmp_path / "scans"
    _scans(scans)
    ill = scans / "ill"
    values = _head(0).astype(np.float32)
    values[3, 4, 5] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, PLACE), ill / "nan.nii")
    nibabel.save(nibabel.Nifti1Image(np.stack([_head(0)] * 3, -1), PLACE), ill / "series.nii.gz")
    (ill / "cut.nii.gz").write_bytes((ill / "0.nii.gz").read_bytes()[:-40])
    (ill / "bomb.nii.gz").write_bytes(gzip.compress(bytes(1 << 26)))
    np.save(ill / "pickled.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(ill / "unclear.npy", np.zeros((9, 9, 9, 9), np.uint8))
    (ill / "gap").mkdir()
    for at in (0, 1):
        Image.new("L", (8, 8 + at)).save(ill / "gap" / f"{at}.png")
    box = trimesh.creation.box()
    box.update_faces(np.arange(12) > 0)
    box.export(ill / "open.stl")
    flags = ("--size", "8x8x8", "--window", "-1000:500", "--max-bad", "0.7")
    assert _pack(scans, tmp_path / "out", *flags) == 0
    said = capsys.readouterr().err
    for line in (
        "ill/nan.nii has 1 voxel without a number (NaN or infinite); --nan lowest fills them",
        "ill/series.nii.gz is a series of 3 volumes",
        "ill/cut.nii.gz is cut off",
        "ill/bomb.nii.gz is not a NIfTI file",
        "ill/pickled.npy holds pickled objects, which are never read",
        "ill/unclear.npy is an array [9, 9, 9, 9], and it is not clear which axis",
        "ill/gap has slices that differ: 0.png is 8 × 8",
        "7 of 12 volumes cannot be decoded",
        "1 of 12 volumes: a mesh that is not closed has no inside: its surface was taken (the first is ill/open.stl)",
    ):
        assert line in said
    index = DatasetIndex.load(Store(tmp_path / "out"))
    assert index.samples == 5
    assert index.space == VolumeSpace(1500 / 255, -1000.0)  # the mesh has no place


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "holds int16 from -999 to 500: say which values are black and white, e.g. --window -999:500"),
        (("--window", "-1000:500", "--spacing", "1,2"), "--spacing 1,2: give mm"),
        (("--window", "500:-1000"), "the first value must be the lower one"),
        (("--window", "bone"), "--window bone: give LOW:HIGH"),
        (("--size", "8x8"), "--size 8x8: give WIDTHxHEIGHTxDEPTH"),
        (("--bits", "12"), "--bits 12"),
        (("--spacing", "nan"), "--spacing nan,nan,nan: distances of voxels are from 0.001 to 1,000 mm"),
        (("--spacing", "1e300"), "--spacing 1e+300"),
        (("--window", "nan:3"), "the first value must be the lower one"),
        (("--size", "9999x9999x9999"), "--size 9999x9999x9999: a volume has 1 to"),
        (("--channels", "3"), "--channels 3 is for pictures and videos"),
        (("--icc", "keep"), "--icc is for --modality image"),
    ],
)
def test_what_is_missing_or_makes_no_sense_is_one_line(tmp_path, capsys, flags, said):
    _scans(tmp_path / "scans")
    assert _pack(tmp_path / "scans", tmp_path / "out", *flags) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert said in told[-1]
    assert not (tmp_path / "out" / "index.json").exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_series_without_extensions_and_stacks_are_records_below_their_classes(tmp_path, zipped):
    source = tmp_path / "in"
    for name, extension in (("ct/one", ""), ("ct/two", ".dcm"), ("stacks/a", ".png")):
        (source / name).mkdir(parents=True)
        files = series() if extension != ".png" else {f"{at}.dcm": png(at) for at in range(12)}
        for called, data in files.items():
            (source / name / called.replace(".dcm", extension)).write_bytes(data)
    np.save(source / "stacks" / "columns.npy", np.asfortranarray(np.ones((4, 5, 6), np.int16)))
    if zipped:
        with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
            for path in source.rglob("*"):
                archive.write(path, path.relative_to(source))
        source = tmp_path / "in.zip"
    assert _pack(source, tmp_path / "out", "--size", "4x4x4", "--window", "0:255") == 0
    index = DatasetIndex.load(Store(tmp_path / "out"))
    assert (index.class_names, index.class_counts) == (("ct", "stacks"), (2, 2))


def test_segments_keep_their_numbers_and_a_background_of_nan_is_filled(tmp_path):
    (tmp_path / "in").mkdir()
    segments = np.random.default_rng(0).choice(np.array([0, 3, 40], np.int16), (12, 14, 16))
    nibabel.save(nibabel.Nifti1Image(segments, PLACE), tmp_path / "in" / "segments.nii")
    holes = np.where(segments == 0, np.nan, segments).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(holes, PLACE), tmp_path / "in" / "holes.nii")
    flags = ("--size", "6x7x10", "--spacing", "3,2.5,2", "--window", "0:255", "--resample", "nearest")
    assert _pack(tmp_path / "in", tmp_path / "out", *flags, "--nan", "lowest") == 0
    found = Dataset.open(str(tmp_path / "out")).read(range(2))[0].numpy()
    assert sorted(np.unique(each).tolist() for each in found) == [[0, 3, 40], [3, 40]]


def test_pictures_of_16_bits_keep_their_levels(tmp_path):
    (tmp_path / "in").mkdir()
    levels = np.random.default_rng(0).integers(0, 4096, (6, 8, 9), dtype=np.uint16)
    for at, picture in enumerate(levels):
        Image.fromarray(picture).save(tmp_path / "in" / f"{at}.png")
    flags = ["--bits", "16", "--white-level", "4095", "--workers", "0"]
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), *flags]) == 0
    dataset = Dataset.open(str(tmp_path / "out"))
    found = dataset.read(range(6))[0].numpy()[:, 0]
    assert dataset.index.shape.bits == 16
    found = np.rint(found[found[:, 0, 0].argsort()] / (65535 / 4095))
    np.testing.assert_array_equal(found, levels[levels[:, 0, 0].argsort()])
    assert not main(["--check", str(tmp_path / "out"), "--workers", "0"])


def test_a_volume_without_its_library_names_the_extra(tmp_path, capsys, monkeypatch):
    _scans(tmp_path / "scans")
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    assert _pack(tmp_path / "scans", tmp_path / "out", "--window", "-1000:500") == 2
    assert "a NIfTI file is read and written by nibabel: pip install -e '.[volume]'" in capsys.readouterr().err


def test_a_plain_gzip_file_is_no_volume(tmp_path):
    from imagegen_dist.data.picture import DecodeError
    from imagegen_dist.data.volumes.files import read_volume

    with pytest.raises(DecodeError, match="not a NIfTI file"):
        read_volume(gzip.compress(b"x" * 2000), "a.nii.gz", None)
    target = io.BytesIO()
    trimesh.creation.box().export(target, file_type="stl")
    for name in ("a.stl", "shard-0.tar sample 3"):
        assert read_volume(target.getvalue(), name, (8, 8, 8)).solid
    text = trimesh.creation.box().export(file_type="obj")
    assert read_volume(text.encode(), "shard-0.tar sample 3", (8, 8, 8)).solid


def test_scans_in_and_scans_out_keep_place_and_intensity(tmp_path):
    scans = tmp_path / "scans"
    _scans(scans)
    flags = ("--size", "8x8x8", "--spacing", "4", "--window", "-1000:500", "--bits", "16")
    assert _pack(scans, tmp_path / "data", *flags) == 0
    index = DatasetIndex.load(Store(tmp_path / "data"))
    where = RunSettings("run", str(tmp_path), "conv-vae", "train_vae", str(tmp_path / "data"), wandb_mode="disabled")
    vae = {"kind": "convvae", "channels": [8, 8], "kernels": [4], "hidden": [16], "latent": 4, "embed_dim": 4}
    changes = {"model": vae, "objective": {"kind": "vae", "likelihood": "logistic"}, "training.batch_size": 4}
    changes |= {"training.microbatch_size": 2, "training.total_images": 16, "evaluation.samples": 0}
    experiment = config.overrides(find_preset("digits-vae").experiment, changes.items())
    assert train_here(experiment, where, Listener()).complete
    model = load(where.folder.url)
    samples = model.sample(3, seed=0)
    assert (samples.dtype, samples.shape) == (torch.uint16, (3, 1, 8, 8, 8))
    rebuilt = model.reconstruct(Dataset.open(str(tmp_path / "data")).read([0])[0])
    assert rebuilt.dtype is torch.uint16
    assert sample([where.folder.url, "--seeds", "0-1", "--folder", str(tmp_path / "out"), "--format", "nii.gz"]) == 0
    written = nibabel.load(tmp_path / "out" / "seed000000.nii.gz")
    np.testing.assert_allclose(written.affine[:, [2, 1, 0, 3]], index.space.matrix((8, 8, 8)), atol=1e-5)
    assert written.header.get_data_dtype() == np.uint16
    intensities = 1500 / 65535 * samples[0, 0].numpy().astype(np.float64) - 1000
    np.testing.assert_allclose(written.get_fdata().transpose(2, 1, 0), intensities, atol=1e-3)
    for window in ("", "-1000:500", "5000:6000"):
        told = ("--window", window) if window else ()
        drawn = tmp_path / f"strip{window}.png"
        assert sample([where.folder.url, "--seeds", "0-1", "--strip", str(drawn), *told]) == 0
    whole, same, above = (np.asarray(Image.open(path)) for path in sorted(tmp_path.glob("strip*.png")))
    assert np.abs(whole.astype(int) - same).max() <= 1
    assert not above[above != 255].any()
    assert sample([where.folder.url, "--seeds", "0-3", "--shards", str(tmp_path / "made"), "--workers", "0"]) == 0
    made = DatasetIndex.load(Store(tmp_path / "made"))
    assert (made.shape, made.space) == (index.shape, index.space)
