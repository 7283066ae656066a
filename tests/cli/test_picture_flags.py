"""What flags of the packing job make of pictures: colour profiles, transparency, depth, and which of several."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import skimage.data
from PIL import Image, ImageCms

from imagegen_dist import load as load_model
from imagegen_dist.cli.data import main
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stream import read_samples
from imagegen_dist.errors import DONE, FAILED
from imagegen_dist.records import RunSettings
from imagegen_dist.storage import Store
from tests.cli.test_make_shards import mistake
from tests.runs import Listener, tiny, train_here

PHOTO = Image.fromarray(skimage.data.astronaut()[:64, 180:244])


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    target = io.BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


def write(folder: Path, **files: bytes) -> Path:
    """Files by name; __ stands for a dot."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def packed(source: Path, dest: Path, *flags: str) -> tuple[DatasetIndex, np.ndarray]:
    assert main([str(source), str(dest), *flags]) == DONE
    return samples(dest)


def samples(place: Path) -> tuple[DatasetIndex, np.ndarray]:
    index = DatasetIndex.load(Store(place))
    return index, np.moveaxis(read_samples(index, Store(place), range(index.samples))[0].numpy(), 1, -1)


def adobe_rgb() -> bytes:
    """An RGB profile of Adobe RGB (1998)'s primaries, for D50, and gamma 563/256. (ICC.1:2022, 7 to 10)"""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563) + b"\0\0"
    text = b"text\0\0\0\0public\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 6) + b"Adobe\0" + bytes(82)
    tags = {
        **{b"desc": name, b"cprt": text, b"wtpt": xyz(0.9642, 1, 0.8249)},
        **{b"rXYZ": xyz(0.60974, 0.31111, 0.01947), b"gXYZ": xyz(0.20528, 0.62567, 0.06087)},
        **{b"bXYZ": xyz(0.14919, 0.06322, 0.74457), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve},
    }
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for kind, data in tags.items():
        table += struct.pack(">4sII", kind, at + len(body), len(data))
        body += data.ljust(-(-len(data) // 4) * 4, b"\0")
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def test_a_colour_profile_is_applied_when_packing_unless_values_are_to_be_kept(tmp_path: Path) -> None:
    profile = adobe_rgb()
    there = ImageCms.profileToProfile(
        PHOTO, ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(profile)), outputMode="RGB"
    )
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = write(
        tmp_path / "in",
        **{"a__png": encoded(there, icc_profile=profile), "b__png": encoded(PHOTO, icc_profile=srgb)},
        **{"c__png": encoded(PHOTO, icc_profile=b"no profile"), "d__png": encoded(PHOTO)},
    )
    original = np.asarray(PHOTO).astype(float)
    _, converted = packed(source, tmp_path / "srgb", "--channels", "3")
    _, kept = packed(source, tmp_path / "keep", "--icc", "keep")
    errors = sorted(np.abs(picture - original).mean() for picture in converted)
    assert errors[:3] == [0, 0, 0]
    assert errors[3] < 1  # rounded twice
    errors = sorted(np.abs(picture - original).mean() for picture in kept)
    assert errors[:3] == [0, 0, 0]
    assert errors[3] > 2
    member = (tmp_path / "keep" / "shard-000000.tar").read_bytes()
    assert encoded(there, icc_profile=profile) in member  # byte for byte
    assert encoded(PHOTO, icc_profile=srgb) in (tmp_path / "srgb" / "shard-000000.tar").read_bytes()


def see_through(number: int) -> Image.Image:
    picture = PHOTO.crop((number, 0, number + 16, 16)).convert("RGBA")
    picture.putalpha(Image.fromarray((np.arange(256).reshape(16, 16)).astype(np.uint8)))
    return picture


@pytest.mark.parametrize("form", ["png", "webp"])
def test_transparency_is_kept_as_a_fourth_channel_and_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    pictures = [see_through(number) for number in range(30)]
    source = write(tmp_path / "in", **{f"{number:02}__png": encoded(each) for number, each in enumerate(pictures)})
    (source / "rgb.png").write_bytes(encoded(PHOTO.crop((0, 0, 16, 16))))
    index, found = packed(source, tmp_path / "out", "--channels", "4", "--format", form)
    assert index.shape.channels == 4
    expected = {np.asarray(each).tobytes() for each in [*pictures, PHOTO.crop((0, 0, 16, 16)).convert("RGBA")]}
    assert {each.tobytes() for each in found} == expected
    assert main(["--check", str(tmp_path / "out")]) == DONE
    _, on_white = packed(source, tmp_path / "white", "--format", form)
    assert on_white.shape[-1] == 3
    assert (on_white[:, 0, 0] >= 250).sum() >= 3 * 30  # fully transparent there
    if form == "png":
        tiny_dcgan = tiny(model={"kind": "dcgan", "widths": [16, 8], "z_dim": 8}, training__total_images=48)
        where = RunSettings("run", str(tmp_path), "digits", "train_gan", str(tmp_path / "out"), wandb_mode="disabled")
        assert train_here(tiny_dcgan, where, Listener()).complete
        assert load_model(where.folder.url).sample(2, seed=1).shape == (2, 4, 16, 16)
        assert any(name.startswith("grid-") for name in (where.folder / "samples").names())


def test_twelve_bits_in_sixteen_are_told_and_scaled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey = np.asarray(PHOTO.convert("L")).astype(np.uint16)
    source = write(tmp_path / "in", a__png=encoded(Image.fromarray(grey << 4 | 15)))
    _, dark = packed(source, tmp_path / "dark")
    said = capsys.readouterr().err
    assert "the largest value of all 16-bit grey pictures is 3,4" in said
    assert "--white-level 4095" in said
    assert dark.max() <= 15
    _, right = packed(source, tmp_path / "right", "--white-level", "4095")
    assert "--white-level" not in capsys.readouterr().err
    assert np.abs(right[0, ..., 0].astype(int) - grey).max() <= 1


def test_more_damaged_pictures_are_left_out_where_that_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"{number}__png": encoded(PHOTO) for number in range(8)}
    source = write(tmp_path / "in", **files, bad__png=b"nonsense", worse__png=b"")
    command = [str(source), str(tmp_path / "out")]
    assert main(command) == FAILED
    assert "above --max-bad 0.01: no index was written" in capsys.readouterr().err
    assert main([*command, "--max-bad", "10%"]) == FAILED
    assert main([*command, "--max-bad", "0.2"]) == DONE
    assert DatasetIndex.load(Store(tmp_path / "out")).samples == 8
    capsys.readouterr()
    for wrong in ("2", "-1", "many", "nan"):
        assert f"--max-bad {wrong}: give a share" in mistake(capsys, *command, f"--max-bad={wrong}")


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_of_several_pictures_in_a_sample_one_kind_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, depth = PHOTO.resize((8, 8)), PHOTO.convert("L")
    members = {
        f"{number}.{kind}": data
        for number in range(3)
        for kind, data in (("jpg", encoded(small, "JPEG")), ("png", encoded(PHOTO)), ("depth.png", encoded(depth)))
    }
    shard = write_tar(tmp_path / "in" / "a.tar", members)
    assert "choose with --member, e.g. --member jpg" in mistake(capsys, shard.parent, tmp_path / "x")
    assert "choose with --member" in mistake(capsys, "--index-only", shard.parent)
    index, found = packed(shard.parent, tmp_path / "depths", "--member", "depth.png")
    assert np.array_equal(found, np.repeat(np.asarray(depth)[None, ..., None], 3, 0))
    index_at = tmp_path / "index"
    assert main(["--index-only", str(shard.parent), "--index-at", str(index_at), "--member", ".PNG"]) == DONE
    index, found = samples(index_at)
    assert (index.member, index.shape.channels) == ("png", 3)
    assert np.array_equal(found, np.repeat(np.asarray(PHOTO)[None], 3, 0))
    assert main(["--check", str(index_at)]) == DONE
    _, again = packed(index_at, tmp_path / "again")
    assert np.array_equal(again, found)
    pictures = write(tmp_path / "pictures", a__png=encoded(PHOTO))
    capsys.readouterr()
    assert "--member jpg is for shards" in mistake(capsys, pictures, tmp_path / "y", "--member", "jpg")
    assert "--member txt: the extension of a picture" in mistake(capsys, pictures, tmp_path / "y", "--member", "txt")


def test_names_with_dots_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = write_tar(tmp_path / "in" / "a.tar", {"photo.v1.jpg": encoded(PHOTO, "JPEG")})
    for command in ((shard.parent, tmp_path / "x"), ("--index-only", shard.parent)):
        said = mistake(capsys, *command)
        assert (
            "the key of a file ends at the first dot of its name, so that photo.v1.jpg is the .v1.jpg of photo" in said
        )
    index, _ = packed(shard.parent, tmp_path / "out", "--member", "v1.jpg")
    assert index.samples == 1


@pytest.mark.parametrize(
    "command",
    [
        lambda folder: (folder, folder.parent / "out"),
        lambda folder: (folder / "a.tar.gz", folder.parent / "out"),
        lambda folder: ("--index-only", folder),
    ],
    ids=["a folder", "a file", "index"],
)
def test_compressed_shards_are_refused_by_that_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Callable[[Path], tuple[object, ...]]
) -> None:
    members = {"0.png": encoded(PHOTO)}
    shard = write_tar(tmp_path / "in" / "a.tar.gz", members, "w:gz")
    said = mistake(capsys, *command(shard.parent))
    assert "a.tar.gz is a compressed tar" in said
    assert "gunzip" in said
    shard.rename(shard.with_name("b.tar"))
    assert "b.tar is compressed (gzip)" in mistake(capsys, shard.parent, tmp_path / "x")


def test_formats_by_their_usual_names(tmp_path: Path) -> None:
    jpeg = encoded(PHOTO, "JPEG", quality=95)
    source = write(tmp_path / "in", a__jfif=jpeg, b__JPE=jpeg, c__avif=encoded(PHOTO, "AVIF", quality=95))
    _, found = packed(source, tmp_path / "out")
    assert len(found) == 3
    assert np.abs(found.astype(int) - np.asarray(PHOTO)).mean() < 4


def test_heic_takes_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    heif = pytest.importorskip("pillow_heif")
    target = io.BytesIO()
    heif.from_pillow(PHOTO).save(target, quality=95)
    source = write(tmp_path / "in", a__heic=target.getvalue(), b__heic=target.getvalue()[:-600] + bytes(600))
    assert main([str(source), str(tmp_path / "out"), "--max-bad", "0.5"]) == DONE
    _, found = samples(tmp_path / "out")
    assert len(found) == 1
    assert np.abs(found.astype(int) - np.asarray(PHOTO)).mean() < 4
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    capsys.readouterr()
    assert main([str(source), str(tmp_path / "without")]) == FAILED
    assert "a.heic is a HEIC, which pillow-heif reads: pip install pillow-heif" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "place"), [("GIF", "folder"), ("PNG", "folder"), ("WEBP", "zip"), ("PNG", "shards"), ("WEBP", "parquet")]
)
def test_an_animated_file_is_refused_unless_it_is_said_to_be_a_picture(
    form: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [PHOTO, PHOTO.rotate(90), PHOTO.rotate(180)]
    moving = encoded(PHOTO, form, save_all=True, append_images=frames[1:])
    source = {"folder": _in_folder, "zip": _in_zip, "shards": _in_shard, "parquet": _in_parquet}[place](
        tmp_path / "source", {"a": encoded(PHOTO), "b": moving}
    )
    said = mistake(capsys, source, tmp_path / "shards", "--workers", "0")
    assert "is animated: --modality video packs clips, and --modality image takes the first frame" in said
    assert not (tmp_path / "shards" / "index.json").exists()
    _, found = packed(source, tmp_path / "shards", "--modality", "image", "--workers", "0")
    assert len(found) == 2
    assert np.abs(found[1].astype(int) - found[0]).mean() < 8  # GIF has 256 colours


def _in_folder(place: Path, files: dict[str, bytes]) -> Path:
    return write(place, **{f"{name}__webp": data for name, data in files.items()})


def _in_zip(place: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(place.with_suffix(".zip"), "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{name}.png", data)
    return place.with_suffix(".zip")


def _in_shard(place: Path, files: dict[str, bytes]) -> Path:
    place.mkdir()
    with tarfile.open(place / "a.tar", "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{name}.png")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return place


def _in_parquet(place: Path, files: dict[str, bytes]) -> Path:
    place.mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"image": list(files.values())}), place / "a.parquet")
    return place
