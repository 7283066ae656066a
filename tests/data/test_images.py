"""Folders of pictures, on the photographs that come with scikit-image."""

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageOps

from imagegen_dist.data.images import Conversion, decode_image, find_images, read_images
from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.modality import DecodeError
from imagegen_dist.storage import Store

AS_IT_IS = Conversion()
ORIENTATION = 0x0112


def encoded(picture, form="PNG", **options):
    target = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(target, form, **options)
    return target.getvalue()


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    store = Store(tmp_path / "pictures") if request.param == "disk" else Store("memory://test-images")
    yield store
    store.remove()


def add(store, *names):
    for name in names:
        store.write(name, encoded(np.zeros((2, 3), np.uint8)))


def test_sub_folders_are_classes_in_the_order_of_their_names(store):
    add(store, "dogs/b.png", "cats/a.JPG", "cats/c.webp", "n01.5/x.tiff", ".hidden/a.png", "cats/.ds.png")
    folder = find_images(store)
    assert folder.class_names == ("cats", "dogs", "n01.5")
    assert folder.pictures == (("cats/a.JPG", 0), ("cats/c.webp", 0), ("dogs/b.png", 1), ("n01.5/x.tiff", 2))


def test_a_flat_folder_has_no_labels_and_says_what_it_left_out(store):
    add(store, "b.png", "a.png", "a.txt", "raw.heic")
    folder = find_images(store)
    assert (folder.class_names, folder.left_out) == (None, ("a.txt", "raw.heic"))
    assert folder.pictures == (("a.png", None), ("b.png", None))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "does not exist"),
        (["a.txt"], "has neither pictures"),
        (["a.tar"], "--index-only"),
        (["a.tar", "index.json"], "holds a dataset already"),
        (["a.png", "cats/b.png"], "has both pictures"),
        (["cats/a.png", "dogs/b.txt"], "dogs has no pictures"),
        (["train/cats/a.png"], "train/cats lies too deep"),
    ],
)
def test_folders_that_are_no_dataset(store, names, said):
    add(store, *names)
    with pytest.raises(DatasetError, match=said):
        find_images(store)


def test_the_order_is_always_the_same_and_mixes_the_classes(tmp_path):
    add(Store(tmp_path), *(f"{label}/{number:02}.png" for label in "ab" for number in range(40)))
    order = find_images(Store(tmp_path)).shuffled()
    assert order == find_images(Store(tmp_path)).shuffled()
    assert sorted(order) == list(find_images(Store(tmp_path)).pictures)
    assert 10 < sum(picture.label for picture in order[:40]) < 30


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
        (b"", "no picture"),
        (b"GIF89a", "cannot be decoded|no picture"),
        (encoded(skimage.data.camera())[:5000], "cannot be decoded"),
        (encoded(Image.new("CMYK", (4, 4)), "JPEG"), "mode CMYK"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "mode F"),
        (encoded(np.zeros((1, 1), np.uint8)).replace(b"\0\0\0\1" * 2, b"\0\1\x38\x80" * 2), "cannot be decoded"),
    ],
    ids=["nothing", "cut header", "cut data", "CMYK", "float", "80,000 × 80,000"],
)
def test_what_cannot_be_decoded(data, said):
    with pytest.raises(DecodeError, match=said) as caught:
        decode_image(data, AS_IT_IS)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_decoded_is_left_out_and_listed(tmp_path):
    add(Store(tmp_path), "a/1.png", "a/2.png", "b/3.png")
    (tmp_path / "a" / "0.png").write_bytes(b"nonsense")
    (tmp_path / "b" / "4.png").symlink_to(tmp_path / "nowhere")
    folder, undecodable = find_images(Store(tmp_path)), []
    found = list(read_images(folder.store, folder.pictures, AS_IT_IS, undecodable))
    assert [label for _, label in found] == [0, 0, 1]
    assert [line.split()[0] for line in undecodable] == ["a/0.png", "b/4.png"]


def test_pictures_of_several_sizes_need_one(tmp_path):
    store = Store(tmp_path)
    store.write("a.png", encoded(skimage.data.camera()))
    store.write("b.png", encoded(skimage.data.coins()))
    pictures = find_images(store).pictures
    with pytest.raises(DatasetError, match=r"a.png is 512x512, b.png 384x303; give them one with --size"):
        list(read_images(store, pictures, AS_IT_IS, []))
    shapes = [sample.shape for sample, _ in read_images(store, pictures, Conversion(size=(8, 16)), [])]
    assert shapes == [(1, 8, 16)] * 2


@pytest.mark.parametrize("wrong", [{"size": (0, 4)}, {"channels": 2}])
def test_conversions_to_nothing(wrong):
    with pytest.raises(ValueError):
        Conversion(**wrong)
