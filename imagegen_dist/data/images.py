"""Folders of pictures: which files they hold, what their classes are, and a file's bytes as a sample."""

import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os.path import splitext
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from imagegen_dist.data.index import INDEX_NAME, DatasetError, shard_names
from imagegen_dist.data.modality import MAX_PIXELS, DecodeError, Pixels
from imagegen_dist.data.order import keyed_permutation
from imagegen_dist.storage import Store

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
"""Of the files that are taken for pictures, in any case."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_NO_FOLDERS = (".txt", ".json", ".csv", ".tsv", ".xml", ".yaml", ".md", ".npy", ".zip", ".tar", ".parquet")
_GREY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr")
_REDUCING_GAP = 3.0  # halve and so on by boxes first, to 3 times the size: by Pillow's word hardly to be told apart


class Picture(NamedTuple):
    """One file of a folder."""

    name: str  # below the folder
    label: int | None


@dataclass(frozen=True)
class ImageFolder:
    """The pictures of a folder, sorted by name."""

    store: Store
    pictures: tuple[Picture, ...]
    class_names: tuple[str, ...] | None  # of labels 0, 1, ...; None: no labels
    left_out: tuple[str, ...]  # visible files that are no pictures by their extension

    def shuffled(self) -> list[Picture]:
        """The pictures in an order that mixes the classes and depends on their number alone."""
        return [self.pictures[at] for at in keyed_permutation(len(self.pictures), 0, 0).tolist()]


@dataclass(frozen=True)
class Conversion:
    """What pictures are made into. Raises ValueError where it is nothing."""

    size: tuple[int, int] | None = None  # (H, W), cropped about the centre and resized; None keeps theirs
    channels: int | None = None  # 1 grey, 3 RGB; None keeps grey grey, and the rest RGB

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"pictures of {self.size[0]} × {self.size[1]} are empty")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels is {self.channels}; it must be 1 or 3")


def find_images(store: Store) -> ImageFolder:
    """The pictures in a folder: its sub-folders are classes, in the order of their names; without any, no labels.

    Hidden files and folders do not count. Raises DatasetError where there is no picture, in a class or at all, where
    pictures lie beside or below classes, StorageError.
    """
    pictures, folders, left_out = _list(store, "")
    if not pictures and not folders:
        raise DatasetError(_why_no_pictures(store))
    if pictures and folders:
        raise DatasetError(
            f"{store} has both pictures ({pictures[0]}, ...) and sub-folders ({folders[0]}, ...): "
            "sub-folders are classes, so either all pictures lie in one or there is none"
        )
    if pictures:
        return ImageFolder(store, tuple(Picture(name, None) for name in pictures), None, tuple(left_out))
    found = []
    for label, folder in enumerate(folders):
        names, deeper, others = _list(store, folder)
        if deeper:
            raise DatasetError(f"{store / deeper[0]} lies too deep: classes are sub-folders that hold pictures alone")
        if not names:
            raise DatasetError(f"{store / folder} has no pictures ({' '.join(EXTENSIONS)}): fill it or remove it")
        found += [Picture(name, label) for name in names]
        left_out += others
    return ImageFolder(store, tuple(found), tuple(folders), tuple(left_out))


def read_images(
    store: Store, pictures: Iterable[Picture], conversion: Conversion, undecodable: list[str]
) -> Iterator[tuple[Pixels, int | None]]:
    """Samples, (uint8 [C, H, W], label), in the order given; what cannot be decoded is left out.

    undecodable: gets a line for each picture left out. Raises DatasetError where two pictures differ in size and the
    conversion has none, StorageError.
    """
    first: tuple[str, tuple[int, ...]] | None = None
    for picture in pictures:
        try:
            pixels = decode_image(store.read(picture.name), conversion)
        except FileNotFoundError:
            undecodable.append(f"{picture.name} does not exist, or is a link to nowhere")
            continue
        except DecodeError as error:
            undecodable.append(f"{picture.name} {error}")
            continue
        first = first or (picture.name, pixels.shape[1:])
        if pixels.shape[1:] != first[1]:
            raise DatasetError(
                f"the pictures in {store} have several sizes: {first[0]} is {_wide(first[1])}, "
                f"{picture.name} {_wide(pixels.shape[1:])}; give them one with --size, e.g. --size 64x64"
            )
        yield pixels, picture.label


def decode_image(data: bytes, conversion: Conversion) -> Pixels:
    """A picture file as a sample, uint8 [C, H, W], C = 1 or 3, upright as its EXIF data say.

    What is transparent shows white; 16-bit grey keeps its high byte; of an animation the first frame is taken; colour
    profiles are not applied. Raises DecodeError for damaged bytes and for CMYK, Lab and float pictures.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities in files that it reads well
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise DecodeError(f"is {_wide((opened.height, opened.width))}: {MAX_PIXELS} pixels are allowed")
                picture = _plain(ImageOps.exif_transpose(opened))
        except DecodeError:
            raise
        except Exception as error:  # from a damaged file Pillow raises whatever its parsers meet
            raise DecodeError(f"cannot be decoded: {_first_line(error)}") from error
    return fit(picture, conversion)


def fit(picture: Image.Image, conversion: Conversion) -> Pixels:
    """A picture of mode L or RGB, converted: uint8 [C, H, W]. Smaller ones are enlarged."""
    if conversion.channels is not None:
        picture = picture.convert("L" if conversion.channels == 1 else "RGB")
    if conversion.size is not None and conversion.size != (picture.height, picture.width):
        height, width = conversion.size
        box = _centre(picture.height, picture.width, height, width)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=_REDUCING_GAP)
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _centre(height: int, width: int, wanted_height: int, wanted_width: int) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the largest part about the centre that has the wanted aspect ratio."""
    if width * wanted_height > height * wanted_width:
        spare = (width - height * wanted_width / wanted_height) / 2
        return spare, 0, width - spare, height
    spare = (height - width * wanted_height / wanted_width) / 2
    return 0, spare, width, height - spare


def _plain(picture: Image.Image) -> Image.Image:
    """Grey (L) or RGB of 8 bits, on white."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode not in (*_GREY, *_COLOUR):
        raise DecodeError(f"has Pillow's mode {picture.mode}: convert it to grey or RGB of 8 bits")
    target = "L" if picture.mode in _GREY else "RGB"
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return picture.convert(target)


def _list(store: Store, folder: str) -> tuple[list[str], list[str], list[str]]:
    """Visible (pictures, folders, other files) in a folder, as names below the store."""
    pictures, folders, others = [], [], []
    for entry in store.names(folder):
        if not entry or entry.startswith("."):
            continue
        name = f"{folder}/{entry}" if folder else entry
        extension = splitext(entry)[1].lower()
        if extension in EXTENSIONS:
            pictures.append(name)
        elif extension not in _NO_FOLDERS and _is_folder(store, name):
            folders.append(name)
        else:
            others.append(name)
    return pictures, folders, others


def _is_folder(store: Store, name: str) -> bool:
    path = store.local_path(name)
    return bool(store.names(name)) if path is None else path.is_dir()


def _why_no_pictures(store: Store) -> str:
    if not store.exists():
        return f"{store} does not exist"
    if store.exists(INDEX_NAME):
        return f"{store} holds a dataset already: train on it with --data {store}"
    if shard_names(store):
        return f"{store} has shards, not pictures: index them with `python jobs/make_shards.py --index-only {store}`"
    return f"{store} has neither pictures ({' '.join(EXTENSIONS)}) nor sub-folders of pictures"


def _wide(spatial: Sequence[int]) -> str:
    """A size as --size takes it."""
    return f"{spatial[1]}x{spatial[0]}"


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    return "it is no picture, or of an unknown format" if "cannot identify" in line else line or type(error).__name__
