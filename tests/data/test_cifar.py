"""CIFAR-10's binary version as a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data

from imagegen_dist.cli.data import main
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.packing import pack_dataset
from imagegen_dist.errors import DONE, MISUSED

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def records(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] and pictures [N, 3, 32, 32]: parts of a photograph."""
    random = np.random.default_rng(seed)
    photograph = skimage.data.astronaut().transpose(2, 0, 1)
    places = random.integers(0, 480, (count, 2))
    pictures = np.stack([photograph[:, top : top + 32, left : left + 32] for top, left in places])
    return random.integers(0, 10, count).astype(np.uint8), pictures


def write_batch(path: Path, labels: np.ndarray, pictures: np.ndarray) -> None:
    path.write_bytes(np.concatenate([labels[:, None], pictures.reshape(len(labels), -1)], 1).tobytes())


@pytest.fixture
def batches(tmp_path: Path) -> Path:
    """The folder of the archive, with a handful of pictures in each file."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in range(1, 6):
        write_batch(folder / f"data_batch_{number}.bin", *records(number, 5))
    write_batch(folder / "test_batch.bin", *records(6, 5))
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    (folder / "readme.html").write_text("")
    return folder


def test_training_batches_become_samples_with_their_pixels_labels_and_names(batches: Path, tmp_path: Path) -> None:
    assert main([f"{batches}/data_batch_*.bin", str(tmp_path / "out"), "--workers", "0"]) == DONE
    dataset = Dataset.open(str(tmp_path / "out"))
    samples, labels = dataset.read(range(25))
    expected = [records(number, 5) for number in range(1, 6)]
    assert np.array_equal(samples.numpy(), np.concatenate([pictures for _, pictures in expected]))
    assert labels.tolist() == np.concatenate([found for found, _ in expected]).tolist()
    assert (dataset.index.samples, dataset.index.classes, dataset.index.class_names) == (25, 10, NAMES)


def test_one_file_without_names_or_labels(batches: Path, tmp_path: Path) -> None:
    (batches / "batches.meta.txt").unlink()
    assert main([f"{batches}/test_batch.bin", str(tmp_path / "out"), "--labels", "none", "--workers", "0"]) == DONE
    assert Dataset.open(str(tmp_path / "out")).index.classes is None
    named = pack_dataset(f"{batches}/test_batch.bin", str(tmp_path / "named"))
    assert next(iter(named.indexes.values())).class_names is None


@pytest.mark.parametrize("data", [b"", bytes(3072), bytes([10]) + bytes(3072)])
def test_another_layout_is_refused_in_one_line(data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "weights.bin").write_bytes(data)
    assert main([str(tmp_path / "weights.bin"), str(tmp_path / "out")]) == MISUSED
    said = capsys.readouterr().err
    assert "is not a file of CIFAR-10's binary version" in said
    assert said.count("\n") == 1
