import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagegen_dist.data.modality import DecodeError, modality, to_float, to_uint8
from imagegen_dist.shape import SampleShape

IMAGE, VIDEO, VOXELS = (modality(name) for name in ("image", "video", "voxels"))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decoded(kind, member, extension, shape):
    out = np.zeros(shape, np.uint8)
    kind.decode_into(member, extension, out)
    return out


def saved(picture, form, **options):
    target = io.BytesIO()
    picture.save(target, form, **options)
    return target.getvalue()


def png_header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def npy(array, **options):
    target = io.BytesIO()
    np.save(target, array, **options)
    return target.getvalue()


def test_all_byte_values_survive_scaling():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(values)), values)
    assert to_float(values)[[0, 255]].tolist() == [-1, 1]
    assert to_uint8(torch.tensor([-9.0, 9.0], dtype=torch.bfloat16)).tolist() == [0, 255]


@pytest.mark.parametrize("extension", ["png", "webp", "npy"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_survive_lossless_formats(extension, channels):
    image = noise(channels, 7, 11)
    member = IMAGE.encode(image, extension)
    assert np.array_equal(decoded(IMAGE, member, extension, image.shape), image)
    shape = IMAGE.shape_of(member, extension)
    assert shape.spatial == (7, 11)
    # WebP has no grey. Transparency does not count in a picture, and an array's channels are what they are.
    assert shape.channels == (channels if extension == "npy" else min(channels, 3)) or extension == "webp"


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_decodes_as_pillow_does(channels):
    smooth = np.asarray(Image.fromarray(noise(4, 4, 3)).resize((32, 24), Image.Resampling.BICUBIC))
    member = IMAGE.encode(np.moveaxis(smooth, -1, 0)[:channels], "jpg")
    expected = np.asarray(Image.open(io.BytesIO(member)), dtype=np.uint8).reshape(24, 32, channels)
    assert np.array_equal(decoded(IMAGE, member, "jpg", (channels, 24, 32)), np.moveaxis(expected, -1, 0))
    assert IMAGE.shape_of(member, "jpg") == SampleShape(channels, (24, 32))


@pytest.mark.parametrize(("kind", "shape"), [(VIDEO, (3, 5, 6, 7)), (VOXELS, (1, 4, 5, 6)), (IMAGE, (4, 5, 6))])
def test_arrays_survive(kind, shape):
    sample = noise(*shape)
    member = kind.encode(sample, "npy")
    assert np.array_equal(decoded(kind, member, "npy", shape), sample)
    assert kind.shape_of(member, "npy") == SampleShape(shape[0], shape[1:])


def test_an_array_without_channels_is_grey():
    volume = noise(4, 5, 6)
    assert VOXELS.shape_of(npy(volume), "npy") == SampleShape(1, (4, 5, 6))
    assert np.array_equal(decoded(VOXELS, npy(volume), "npy", (1, 4, 5, 6))[0], volume)


@pytest.mark.parametrize("extension", ["png", "jpg", "npy"])
def test_grey_becomes_rgb(extension):
    grey = np.full((1, 8, 8), 77, np.uint8)
    assert (decoded(IMAGE, IMAGE.encode(grey, extension), extension, (3, 8, 8)) == 77).all()


def test_rgb_becomes_grey_alike_from_every_format():
    image = noise(3, 8, 8)
    luma = np.asarray(Image.fromarray(np.moveaxis(image, 0, -1)).convert("L"))
    for extension in ("png", "webp", "npy"):
        assert np.array_equal(decoded(IMAGE, IMAGE.encode(image, extension), extension, (1, 8, 8))[0], luma)


def test_a_16_bit_png_keeps_its_high_byte():
    high = noise(5, 6)
    member = saved(Image.fromarray(high.astype(np.uint16) << 8 | 0x7F), "PNG")
    assert np.array_equal(decoded(IMAGE, member, "png", (1, 5, 6))[0], high)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_pictures_of_every_mode_decode_to_rgb(mode):
    picture = Image.fromarray(noise(6, 6, 3)).convert(mode)
    expected = np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
    assert np.array_equal(decoded(IMAGE, saved(picture, "PNG"), "png", (3, 6, 6)), expected)


def test_floats_are_refused():
    with pytest.raises(DecodeError, match=r"mode F: convert it to grey or RGB"):
        decoded(IMAGE, saved(Image.new("F", (8, 8)), "TIFF"), "tif", (3, 8, 8))


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "npy"])
def test_another_size_is_refused(extension):
    member = IMAGE.encode(noise(3, 8, 9), extension)
    with pytest.raises(DecodeError, match="is 8 × 9 where the dataset's samples are 9 × 8"):
        decoded(IMAGE, member, extension, (3, 9, 8))


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "npy"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5])
def test_cut_bytes_are_refused(extension, kept):
    member = IMAGE.encode(noise(3, 32, 32), extension)
    with pytest.raises(DecodeError):
        decoded(IMAGE, member[: int(len(member) * kept)], extension, (3, 32, 32))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["png", "jpg", "webp", "npy"]),
    st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), min_size=1),
)
def test_damaged_bytes_decode_or_are_refused_but_nothing_else(extension, damages):
    member = bytearray(IMAGE.encode(noise(3, 16, 16), extension))
    for place, data in damages:
        start = int(place * len(member))
        member[start : start + len(data)] = data
    for action in (
        lambda: decoded(IMAGE, bytes(member), extension, (3, 16, 16)),
        lambda: IMAGE.shape_of(bytes(member), extension),
    ):
        with suppress(DecodeError):
            action()


def test_a_huge_png_is_refused_from_its_header():
    member = png_header(80_000, 80_000)
    with pytest.raises(DecodeError, match="80000 × 80000: at most"):
        IMAGE.shape_of(member, "png")
    with pytest.raises(DecodeError, match="80000 × 80000: at most"):
        decoded(IMAGE, member, "png", (3, 8, 8))


def test_a_huge_array_is_refused_from_its_header():
    member = npy(noise(1, 2, 2)).replace(b"(1, 2, 2), ", b"(1, 99999, 99999), ")[:128]
    with pytest.raises(DecodeError, match="99999 × 99999"):
        IMAGE.shape_of(member, "npy")


@pytest.mark.parametrize("array", [np.zeros((1, 2, 2), np.float32), np.zeros((2, 2), object), noise(1, 2, 3) > 9])
def test_arrays_of_another_kind_are_refused(array):
    with pytest.raises(DecodeError, match="uint8 or uint16 is needed"):
        IMAGE.shape_of(npy(array, allow_pickle=True), "npy")


@pytest.mark.parametrize("extension", ["pyd", "pickle", "pth", "txt"])
def test_extensions_that_are_not_allowed_are_refused(extension):
    with pytest.raises(DecodeError, match=rf"is a \.{extension}; image samples are \.jpg"):
        decoded(IMAGE, b"code", extension, (1, 8, 8))


def test_video_cannot_be_a_picture():
    with pytest.raises(DecodeError, match=r"video samples are \.npy"):
        decoded(VIDEO, b"", "png", (1, 2, 8, 8))
    with pytest.raises(ValueError, match=r"stored as \.npy, \.webp, not \.png"):
        VIDEO.encode(noise(1, 2, 3, 4), "png")


def test_encoding_is_deterministic():
    for extension in IMAGE.written:
        assert IMAGE.encode(noise(3, 9, 9), extension) == IMAGE.encode(noise(3, 9, 9), extension)


def test_channels_that_a_picture_does_not_have_are_refused():
    for extension, channels, said in (("png", 2, "1, 3 or 4"), ("jpg", 4, "1 or 3")):
        with pytest.raises(ValueError, match=rf"{said} channels, not {channels}: use \.npy"):
            IMAGE.encode(noise(channels, 8, 8), extension)


def test_a_sample_of_another_rank_is_refused():
    with pytest.raises(ValueError, match=r"a sample of image is uint8 or uint16 \[C, H, W\]"):
        IMAGE.encode(noise(8, 8), "png")


def test_an_unknown_modality_is_refused():
    with pytest.raises(ValueError, match="'audio'; it must be one of image, video, voxels"):
        modality("audio")


def test_a_preview_enlarges_small_images_crisply():
    data, extension = IMAGE.preview(noise(7, 1, 28, 28), columns=3)
    page = Image.open(io.BytesIO(data))
    assert (extension, page.size) == ("png", (3 * 86 - 2, 3 * 86 - 2))
    assert np.array_equal(np.asarray(page)[:84:3, :84:3], noise(7, 1, 28, 28)[0, 0])
    assert (np.asarray(page)[-84:, 86:] == 255).all()


def test_a_preview_takes_the_scale_it_is_given():
    assert Image.open(io.BytesIO(IMAGE.preview(noise(4, 3, 8, 10), 2, scale=1)[0])).size == (22, 18)


@pytest.mark.parametrize(("kind", "shape"), [(IMAGE, (1, 8, 10)), (IMAGE, (3, 8, 10)), (VIDEO, (3, 2, 8, 10))])
def test_captions_stand_below_their_samples(kind, shape):
    white = np.full((4, *shape), 255, np.uint8)
    plain, told = (
        np.asarray(Image.open(io.BytesIO(kind.preview(white, 2, 3, captions)[0])).convert("L"))
        for captions in ([], ["", "0.5", "", ""])
    )
    assert told.shape[0] > plain.shape[0]
    dark = np.argwhere(told < 128)
    rows, columns = dark.min(0), dark.max(0)
    assert rows[0] >= 3 * 8  # below the first row's samples,
    assert columns[0] < told.shape[0] / 2  # above the second row's
    assert rows[1] > told.shape[1] / 2  # and in the second column


def test_a_video_preview_moves():
    clips = noise(2, 3, 5, 8, 8)
    data, extension = VIDEO.preview(clips, 2, scale=1)
    with Image.open(io.BytesIO(data)) as page:
        assert (extension, page.n_frames, page.size) == ("webp", 5, (18, 8))
        page.seek(3)
        assert np.array_equal(np.asarray(page.convert("RGB"))[:, :8], np.moveaxis(clips[0, :, 3], 0, -1))


def test_a_voxel_preview_is_a_render_of_every_volume():
    volumes = np.zeros((2, 1, 4, 6, 8), np.uint8)
    volumes[1, 0, 1:3, 2:4, 2:6] = 255
    data, extension = VOXELS.preview(volumes, 2)
    page = np.asarray(Image.open(io.BytesIO(data)))
    assert (extension, page.shape) == ("png", (80, 162, 3))
    assert (page[:, :80] == 255).all()
    assert (page[:, 82:] < 255).any()
