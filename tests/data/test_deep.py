"""Samples of 16 bits keep all of their levels: packed, streamed, trained on and generated."""

import io
import math
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import DecodeError, modality, quantised, to_float, to_stored
from imagegen_dist.data.order import Plan
from imagegen_dist.data.pack import pack
from imagegen_dist.data.stream import StreamConfig, read_samples, stream
from imagegen_dist.data.verification import check_dataset, index_shards
from imagegen_dist.objectives.likelihoods import DiscretizedLogistic
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store


def _volumes(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 1 << 16, (count, 1, 4, 6, 5), dtype=np.uint16)


def test_every_level_of_16_bits_survives_scaling():
    levels = torch.arange(1 << 16).to(torch.uint16)
    x = to_float(levels)
    assert (x[0], x[-1]) == (-1, 1)
    torch.testing.assert_close(to_stored(x, 16).to(torch.int32), levels.to(torch.int32))
    assert torch.equal(quantised(x, 16), x)
    assert quantised(x).unique().numel() == 256


@pytest.mark.parametrize("workers", [0, 1])
def test_16_bit_volumes_are_streamed_as_they_were_packed(tmp_path, workers):
    volumes = _volumes(12)
    index = pack(((volume, None) for volume in volumes), Store(tmp_path), "voxels", "npy")
    assert index.shape == SampleShape(1, (4, 6, 5), 16)
    assert DatasetIndex.load(Store(tmp_path)) == index
    plan = Plan(seed=1, microbatches=2, microbatch_size=2, draws=1, lanes=2, block=1)
    seen = 0
    for item in stream(index, Store(tmp_path), plan, range(2), 0, 6, StreamConfig(workers=workers)):
        assert item.sample.dtype is torch.uint16
        np.testing.assert_array_equal(item.sample.flatten(0, 2).numpy(), volumes[item.id.flatten().numpy()])
        seen += item.id.numel()
    assert seen == 24
    np.testing.assert_array_equal(read_samples(index, Store(tmp_path), [7])[0].numpy(), volumes[7:8])


def test_the_fingerprint_of_a_dataset_of_8_bits_does_not_mention_bits(tmp_path):
    index = pack(((volume.astype(np.uint8), None) for volume in _volumes(2)), Store(tmp_path), "voxels", "npy")
    assert "bits" not in (tmp_path / "index.json").read_text()
    assert replace(index, shape=replace(index.shape, bits=16)).fingerprint != index.fingerprint


def test_arrays_in_another_order_of_bytes_or_axes_are_streamed_as_the_same_numbers():
    values = _volumes(1)[0]
    out = np.empty_like(values)
    for array in (values, np.asfortranarray(values), values.astype(">u2"), values[0]):
        target = io.BytesIO()
        np.save(target, array)
        assert modality("voxels").shape_of(target.getvalue(), "npy") == SampleShape(1, (4, 6, 5), 16)
        modality("voxels").decode_into(target.getvalue(), "npy", out)
        np.testing.assert_array_equal(out, values)
    with pytest.raises(DecodeError, match="has 16 bits where the dataset's samples have 8"):
        modality("voxels").decode_into(target.getvalue(), "npy", np.empty((1, 4, 6, 5), np.uint8))
    for array, said in (
        (values.astype(np.int16), "int16"),
        (values.astype(np.float32), "float32"),
        (values > 3, "bool"),
        (np.array([{}], object), "pickled objects"),
    ):
        target = io.BytesIO()
        np.save(target, array)
        with pytest.raises(DecodeError, match=f"array of {said}"):
            modality("voxels").shape_of(target.getvalue(), "npy")


def test_a_grey_picture_of_16_bits_is_stored_as_png():
    values = np.random.default_rng(0).integers(0, 1 << 16, (1, 5, 7), dtype=np.uint16)
    data, out = modality("image").encode(values, "png"), np.empty_like(values)
    modality("image").decode_into(data, "png", out)
    np.testing.assert_array_equal(out, values)
    narrow = np.empty((1, 5, 7), np.uint8)
    modality("image").decode_into(data, "png", narrow)  # an index of 8 bits reads the same file as before
    assert np.abs(narrow.astype(int) - values.astype(int) // 257).max() <= 1
    with pytest.raises(ValueError, match="png or"):
        modality("image").encode(values, "jpg")


def test_probabilities_of_16_bit_levels_sum_to_1():
    levels = to_float(torch.arange(1 << 16).to(torch.uint16)).reshape(-1, 1, 1, 1)
    for log_scale in (-13.0, -9.0, -2.0):
        raw = torch.tensor([0.3, log_scale]).reshape(1, 2, 1, 1).expand(1 << 16, 2, 1, 1)
        total = DiscretizedLogistic(1 << 16).log_prob(levels, raw).double().exp().sum().item()
        assert total == pytest.approx(1, abs=2e-3 if log_scale < -10 else 1e-4)  # float32 of x: 0.002 of a level
    sharpest = DiscretizedLogistic(1 << 16).log_prob(
        levels[40_000:40_001], torch.tensor([[levels[40_000].item(), -20.0]]).reshape(1, 2, 1, 1)
    )
    assert math.exp(sharpest.item()) > 0.5
    DiscretizedLogistic(1 << 16).check(levels)
    with pytest.raises(ValueError, match="8-bit samples"):
        DiscretizedLogistic().check(levels)


def _shard(pictures: list[bytes]) -> bytes:
    """A shard of PNGs as others write it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for number, data in enumerate(pictures):
            member = tarfile.TarInfo(f"{number:04}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return target.getvalue()


def _png(values: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(values).save(target, "PNG")
    return target.getvalue()


def test_shards_of_others_with_16_bit_pictures_are_indexed_with_16_bits(tmp_path):
    values = np.random.default_rng(0).integers(0, 1 << 16, (3, 6, 5), dtype=np.uint16)
    deep, shallow = [_png(picture) for picture in values], _png((values[0] >> 8).astype(np.uint8))
    for name, shards, bits in (
        ("deep", [deep[:2], deep[2:]], 16),
        ("one of 8 bits", [deep, [shallow]], 8),
        ("side by side", [[*deep, shallow]], 8),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for number, pictures in enumerate(shards):
            (folder / f"{number}.tar").write_bytes(_shard(pictures))
        index = index_shards(Store(folder))
        assert index.shape == SampleShape(1, (6, 5), bits), name
        assert not check_dataset(Store(folder)).damaged
        read = read_samples(index, Store(folder), [0, 1, 2])[0].numpy()
        np.testing.assert_array_equal(read[:, 0], values if bits == 16 else values >> 8)
