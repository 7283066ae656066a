"""Picture files as samples, on the photographs that come with scikit-image."""

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageOps

from imagegen_dist.data.conversion import Conversion, convert_image
from imagegen_dist.data.modality import DecodeError, modality

AS_IT_IS = Conversion()
PILLOW = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
ORIENTATION = 0x0112


def decode_image(data, conversion):
    """The sample that a shard holds of a picture file: uint8 [C, H, W]."""
    member, kind = convert_image(data, conversion, "png").data, modality("image")
    shape = kind.shape_of(member, "png")  # without transparency
    out = np.empty((4 if conversion.channels == 4 else shape.channels, *shape.spatial), np.uint8)
    kind.decode_into(member, "png", out)
    return out


def encoded(picture, form="PNG", **options):
    target = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(target, form, **options)
    return target.getvalue()


def test_rgb_and_grey_keep_their_pixels():
    photograph, grey = skimage.data.astronaut(), skimage.data.camera()
    assert np.array_equal(decode_image(encoded(photograph), AS_IT_IS), np.moveaxis(photograph, -1, 0))
    assert np.array_equal(decode_image(encoded(grey, "TIFF"), AS_IT_IS), grey[None])


def test_what_is_transparent_shows_white():
    logo = skimage.data.logo().astype(np.float64)
    alpha = logo[..., 3:] / 255
    expected = logo[..., :3] * alpha + 255 * (1 - alpha)
    found = decode_image(encoded(skimage.data.logo()), AS_IT_IS)
    assert np.abs(np.moveaxis(found, 0, -1) - expected).max() < 1
    clear = Image.new("LA", (2, 1), (0, 0))
    assert decode_image(encoded(clear), AS_IT_IS).tolist() == [[[255, 255]]]


def test_palettes_bits_and_sixteen_bits():
    photograph = Image.fromarray(skimage.data.coffee()[:100, :120])
    palette = photograph.quantize(16)
    expected = np.moveaxis(np.asarray(palette.convert("RGB")), -1, 0)
    assert np.array_equal(decode_image(encoded(palette), AS_IT_IS), expected)
    transparent = decode_image(encoded(palette, transparency=3), AS_IT_IS)
    shown = np.asarray(palette) == 3
    assert (transparent[:, shown] == 255).all()
    assert np.array_equal(transparent[:, ~shown], expected[:, ~shown])
    horse = skimage.data.horse()
    assert np.array_equal(decode_image(encoded(Image.fromarray(horse)), AS_IT_IS)[0], horse * np.uint8(255))
    deep = skimage.data.camera().astype(np.uint16) * 256 + 255
    assert np.array_equal(decode_image(encoded(deep), AS_IT_IS)[0], skimage.data.camera())


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_pictures_stand_upright(form):
    grey = skimage.data.camera()[:40, :24].copy()
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the camera was turned: to be shown, rotate by 90 degrees clockwise
    found = decode_image(encoded(grey, form, exif=exif), AS_IT_IS)[0]
    upright = np.rot90(np.asarray(Image.open(io.BytesIO(encoded(grey, form)))), k=-1)
    assert np.array_equal(found, upright)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 50), (50, 20), (33, 47), (300, 200)])
def test_the_size_asked_for_shows_the_middle(height, width):
    rows, columns = np.mgrid[0:300, 0:200]
    ramps = np.stack([rows * 255 / 299, columns * 255 / 199, rows * 0], -1).round().astype(np.uint8)
    found = decode_image(encoded(ramps), Conversion(size=(height, width)))
    assert found.shape == (3, height, width)
    assert found.flags.c_contiguous
    assert abs(found[0].mean() - 127.5) < 1  # centred: what is cut off is the same on both sides
    assert abs(found[1].mean() - 127.5) < 1
    scale = min(300 / height, 200 / width)
    assert np.ptp(found[0].mean(1)) == pytest.approx(255 * (height - 1) * scale / 300, rel=0.03)
    assert np.ptp(found[1].mean(0)) == pytest.approx(255 * (width - 1) * scale / 200, rel=0.03)


def test_resizing_agrees_with_pillows_own_fit():
    photograph = Image.fromarray(skimage.data.astronaut())
    found = decode_image(encoded(photograph), Conversion(size=(48, 64)))
    peer = np.moveaxis(np.asarray(ImageOps.fit(photograph, (64, 48), Image.Resampling.LANCZOS)), -1, 0)
    # Ours shrinks by boxes before it resamples, which moves single pixels a little.
    assert np.abs(found.astype(float) - peer).mean() < 1


def test_channels_asked_for():
    photograph = skimage.data.astronaut()
    grey = decode_image(encoded(photograph), Conversion(channels=1))
    assert np.array_equal(grey[0], np.asarray(Image.fromarray(photograph).convert("L")))
    assert np.array_equal(decode_image(encoded(grey[0]), Conversion(channels=3)), np.repeat(grey, 3, 0))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a picture"),
        (b"GIF89a", "cannot be decoded|not a picture"),
        (encoded(skimage.data.camera())[:5000], "damaged PNG"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "mode F"),
        (encoded(np.zeros((1, 1), np.uint8)).replace(b"\0\0\0\1" * 2, b"\0\1\x38\x80" * 2), "at most"),
    ],
    ids=["nothing", "cut header", "cut data", "float", "80,000 × 80,000"],
)
def test_what_cannot_be_decoded(data, said):
    with pytest.raises(DecodeError, match=said) as caught:
        decode_image(data, AS_IT_IS)
    assert "\n" not in str(caught.value)


def test_the_whole_picture_is_squeezed_where_nothing_is_cropped():
    photograph = Image.fromarray(skimage.data.astronaut()[:200, :320])
    found = decode_image(encoded(photograph), Conversion(size=(40, 20), crop=False))
    peer = photograph.resize((20, 40), Image.Resampling.LANCZOS, reducing_gap=3.0)
    assert np.array_equal(found, np.moveaxis(np.asarray(peer), -1, 0))


FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize(("height", "width"), [(400, 401), (480, 333), (333, 480), (450, 450)])
@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_by_name_is_pillows_on_the_whole_middle_or_the_whole_picture(name, height, width, form):
    data = encoded(Image.fromarray(skimage.data.astronaut()[:height, :width]), form)
    photograph = Image.open(io.BytesIO(data))
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    middle = photograph.crop((left, top, left + side, top + side))
    for picture, crop in ((middle, True), (photograph, False)):
        found = decode_image(data, Conversion(size=(32, 32), crop=crop, filter=name))
        assert np.array_equal(np.moveaxis(found, 0, -1), np.asarray(picture.resize((32, 32), FILTERS[name])))


def test_a_filter_by_name_keeps_other_proportions_to_the_pixel():
    data = encoded(Image.fromarray(skimage.data.astronaut()[:301, :200]))
    found = decode_image(data, Conversion(size=(20, 30), filter="box"))
    middle = Image.open(io.BytesIO(data)).crop((0, 83, 200, 83 + 133))
    assert np.array_equal(np.moveaxis(found, 0, -1), np.asarray(middle.resize((30, 20), Image.Resampling.BOX)))


def test_a_large_jpeg_is_shrunk_while_it_is_decoded_and_looks_the_same():
    photograph = encoded(skimage.data.retina(), "JPEG", quality=95)
    found = decode_image(photograph, Conversion(size=(48, 64))).astype(float)
    whole = np.moveaxis(decode_image(photograph, AS_IT_IS), 0, -1)
    peer = np.moveaxis(np.asarray(ImageOps.fit(Image.fromarray(whole), (64, 48), Image.Resampling.LANCZOS)), -1, 0)
    assert np.abs(found - peer).mean() < 1


KEPT = {"png": {}, "jpg": {"quality": 80}, "webp": {"quality": 80}}


@pytest.mark.parametrize("extension", KEPT)
def test_a_file_that_needs_no_change_is_kept_byte_for_byte(extension):
    data = encoded(skimage.data.coffee()[:40, :60], PILLOW[extension], **KEPT[extension])
    assert convert_image(data, AS_IT_IS, extension)[:2] == (data, (40, 60))
    assert convert_image(data, Conversion((40, 60), 3), extension)[:2] == (data, (40, 60))


def test_a_grey_file_is_kept():
    for extension in ("png", "jpg"):
        data = encoded(skimage.data.camera()[:40, :60], PILLOW[extension])
        assert convert_image(data, Conversion(channels=1), extension).data == data


def turned(picture, form):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return encoded(picture, form, exif=exif)


@pytest.mark.parametrize(
    ("make", "conversion", "extension"),
    [
        (lambda picture: encoded(picture, "JPEG"), AS_IT_IS, "png"),
        (lambda picture: encoded(picture, "JPEG"), Conversion((20, 20)), "jpg"),
        (lambda picture: encoded(picture, "JPEG"), Conversion(channels=1), "jpg"),
        (lambda picture: encoded(picture[..., 0], "PNG"), Conversion(channels=3), "png"),
        (lambda picture: turned(picture, "JPEG"), AS_IT_IS, "jpg"),
        (lambda picture: turned(picture, "PNG"), AS_IT_IS, "png"),
        (lambda picture: encoded(Image.fromarray(picture).quantize(8)), AS_IT_IS, "png"),
        (lambda picture: encoded(Image.fromarray(picture).convert("RGBA")), AS_IT_IS, "png"),
        (lambda picture: encoded(picture, transparency=(0, 0, 0)), AS_IT_IS, "png"),
        (lambda picture: encoded(picture[..., 0].astype(np.uint16) * 256), AS_IT_IS, "png"),
    ],
    ids=["format", "size", "to grey", "to RGB", "JPEG turned", "PNG turned", "palette", "alpha", "key", "16 bits"],
)
def test_a_file_that_needs_a_change_is_encoded_anew(make, conversion, extension):
    data = make(skimage.data.coffee()[:40, :60])
    stored = convert_image(data, conversion, extension)
    pixels = decode_image(data, conversion)
    assert stored.data == modality("image").encode(pixels, extension) != data
    assert stored.size == pixels.shape[1:]


@pytest.mark.parametrize("extension", KEPT)
def test_damage_is_found_in_a_file_that_would_be_kept(extension):
    data = encoded(skimage.data.coffee(), PILLOW[extension])
    with pytest.raises(DecodeError):
        convert_image(data[: len(data) // 2], AS_IT_IS, extension)


def test_a_png_whose_pixels_have_a_wrong_crc_is_left_out():
    data = encoded(skimage.data.astronaut()[:64, :64])
    last = data.index(b"IEND") - 5  # of the CRC of the pixels, which Pillow does not check
    odd = data[:last] + bytes([data[last] ^ 1]) + data[last + 1 :]
    for conversion in (AS_IT_IS, Conversion((20, 20))):
        with pytest.raises(DecodeError, match="the CRC of its IDAT is wrong"):
            convert_image(odd, conversion, "png")


def test_arrays_of_shards_are_pictures():
    photograph = np.ascontiguousarray(np.moveaxis(skimage.data.coffee()[:40, :60], -1, 0))
    member = modality("image").encode(photograph, "npy")
    assert np.array_equal(decode_image(member, AS_IT_IS), photograph)
    assert convert_image(member, AS_IT_IS, "png").data == modality("image").encode(photograph, "png")
    with pytest.raises(DecodeError, match="has 4 channels"):
        decode_image(modality("image").encode(np.zeros((4, 2, 2), np.uint8), "npy"), AS_IT_IS)


@pytest.mark.parametrize("wrong", [{"size": (0, 4)}, {"channels": 2}, {"filter": "gauss"}])
def test_conversions_to_nothing(wrong):
    with pytest.raises(ValueError):
        Conversion(**wrong)
