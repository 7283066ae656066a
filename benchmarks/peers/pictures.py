"""Real photographs as encoded bytes, and the same bytes as WebDataset shards with an index.

A format is jpeg (256 × 256, quality 90), png or npy (64 × 64). Each is written twice, as `long/wds` and `short/wds`,
the first shards of the long one; the peers' own formats come beside them (`peers.contenders`).
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

from imagegen_dist.data.scanning import build_index
from imagegen_dist.storage import Store

SIZES = {"jpeg": 256, "png": 64, "npy": 64}
SHARD_SAMPLES = {"jpeg": 752, "png": 1504, "npy": 1504}
EXTENSIONS = {"jpeg": "jpg", "png": "png", "npy": "npy"}


def photographs() -> list[Image.Image]:
    """The colour photographs that come with scikit-image and scikit-learn."""
    arrays = [data.astronaut(), data.coffee(), data.cat(), data.rocket(), *load_sample_images().images]
    return [Image.fromarray(np.ascontiguousarray(array)) for array in arrays]


def pictures(kind: str, count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` encoded pictures: square windows of random place and side, resized, every second one mirrored."""
    random, size, sources = np.random.default_rng(seed), SIZES[kind], photographs()
    for number in range(count):
        source = sources[random.integers(len(sources))]
        side = int(random.integers(160, min(source.size) + 1))
        left, top = (int(random.integers(extent - side + 1)) for extent in source.size)
        picture = source.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        if number % 2:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        yield _encoded(picture, kind)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "npy":
        np.save(out, np.ascontiguousarray(np.moveaxis(np.asarray(picture), -1, 0)))
    else:
        picture.save(out, "JPEG", quality=90) if kind == "jpeg" else picture.save(out, "PNG")
    return out.getvalue()


def write_shards(kind: str, shards: int, short: int, folder: Path) -> None:
    """Write `long/wds` of so many shards and `short/wds` of the first of them, each with an index."""
    source = pictures(kind, shards * SHARD_SAMPLES[kind])
    for length in ("long", "short"):
        (folder / length / "wds").mkdir(parents=True)
    for shard in range(shards):
        name = f"shard-{shard:06d}.tar"
        path = folder / "long" / "wds" / name
        write_tar(path, (next(source) for _ in range(SHARD_SAMPLES[kind])), EXTENSIONS[kind], f"{shard:06d}")
        if shard < short:
            (folder / "short" / "wds" / name).hardlink_to(path)
    for length in ("long", "short"):
        store = Store(folder / length / "wds")
        build_index(store).save(store)


def write_tar(path: Path, members: Iterator[bytes], extension: str, prefix: str) -> None:
    with open(path, "wb") as file, webdataset.TarWriter(file, encoder=False, mtime=0) as tar:
        for number, member in enumerate(members):
            tar.write({"__key__": f"{prefix}{number:06d}", extension: member})
