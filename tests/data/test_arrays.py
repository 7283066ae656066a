"""Samples that are arrays: read in place where they are plain, decoded where they are not."""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.modality import DecodeError, Modality
from imagegen_dist.data.npy import write_npy
from imagegen_dist.data.order import Plan
from imagegen_dist.data.scanning import build_index
from imagegen_dist.data.stream import StreamConfig, read_samples, stream
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import Store

PLAN = Plan(seed=3, microbatches=1, microbatch_size=4, draws=1, lanes=2, block=1)
SAMPLES = 12
Members = Sequence[tuple[str, bytes]]


def array(number: int, dims: tuple[int, ...], bits: int = 8) -> NDArray[np.unsignedinteger]:
    kind = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(number).integers(0, 1 << bits, dims).astype(kind)


def dataset(store: Store, samples: Sequence[Members], modality: str = "image") -> DatasetIndex:
    """One shard of these samples, each of (extension, bytes) in order, and its index."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for number, members in enumerate(samples):
            for extension, data in members:
                info = tarfile.TarInfo(f"{number:04d}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    store.write("shard-000000.tar", target.getvalue())
    index = build_index(store, modality)
    index.save(store)
    return index


def streamed(index: DatasetIndex, store: Store, **settings: object) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """(id, sample, label) of everything in an epoch."""
    for item in stream(index, store, PLAN, range(1), 0, SAMPLES // 4, StreamConfig(decoded_bytes=0, **settings)):
        label = torch.zeros_like(item.id) if item.label is None else item.label
        yield from zip(item.id.flatten().tolist(), item.sample.flatten(0, 2), label.flatten(), strict=True)


@pytest.fixture
def undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is decoded is an error."""

    def refuse(*_: object) -> None:
        raise DecodeError("was decoded")

    monkeypatch.setattr(Modality, "decode_into", refuse)


@pytest.mark.parametrize(
    ("modality", "dims", "bits"),
    [
        ("image", (3, 5, 7), 8),
        ("image", (1, 5, 7), 8),
        ("image", (1, 5, 7), 16),
        ("video", (3, 2, 5, 7), 8),
        ("voxels", (1, 4, 5, 7), 16),
    ],
)
@pytest.mark.parametrize(
    "beside",
    [(), ("after", b"7"), ("before", b"7"), ("after", json.dumps({"label": 7, "note": "x" * 3000}).encode())],
    ids=["alone", "cls-after", "cls-before", "json-after"],
)
@pytest.mark.usefixtures("undecodable")
def test_plain_arrays_are_read_undecoded(tmp_path, modality, dims, bits, beside) -> None:
    def members(number: int) -> Members:
        plain = [("npy", write_npy(array(number, dims, bits)))]
        if not beside:
            return plain
        label = [("cls" if beside[1].isdigit() else "json", beside[1])]
        return plain + label if beside[0] == "after" else label + plain

    store = Store(tmp_path)
    index = dataset(store, [members(number) for number in range(SAMPLES)], modality)
    seen = dict[int, int]()
    for number, sample, label in streamed(index, store):
        assert np.array_equal(sample.numpy(), array(number, dims, bits))
        seen[number] = int(label)
    assert seen == dict.fromkeys(range(SAMPLES), 7 if beside else 0)


def fortran(number: int) -> bytes:
    target = io.BytesIO()
    np.save(target, np.asfortranarray(array(number, (3, 4, 6))))
    return target.getvalue()


def second_version(number: int) -> bytes:
    target = io.BytesIO()
    np.lib.format.write_array(target, array(number, (3, 4, 6)), version=(2, 0))
    return target.getvalue()


def of_same_size(number: int) -> bytes:
    """As long as a plain file, with its spaces at another place."""
    plain = write_npy(array(number, (3, 4, 6)))
    end = plain.index(b" \n")
    return plain[:end].replace(b"{", b"{ ", 1) + plain[end + 1 :]


@pytest.mark.parametrize("labels", [[("cls", b"1")], []], ids=["labelled", "unlabelled"])
@pytest.mark.parametrize("other", [fortran, second_version, of_same_size])
def test_other_arrays_beside_plain_ones_are_decoded(tmp_path, other, labels) -> None:
    store = Store(tmp_path)
    samples = [
        [("npy", other(number) if number % 3 else write_npy(array(number, (3, 4, 6)))), *labels]
        for number in range(SAMPLES)
    ]
    index = dataset(store, samples)
    found = {number: sample for number, sample, _ in streamed(index, store)}
    assert len(found) == SAMPLES
    for number, sample in found.items():
        assert np.array_equal(sample.numpy(), array(number, (3, 4, 6)))


@pytest.mark.parametrize("note", [5_000, 70_000, 200_000])
def test_labels_in_long_records_are_read(tmp_path, note) -> None:
    store, record = Store(tmp_path), json.dumps({"note": "x" * note, "label": 4}).encode()
    index = dataset(
        store, [[("npy", write_npy(array(number, (1, 4, 6)))), ("json", record)] for number in range(SAMPLES)]
    )
    assert {int(label) for _, _, label in streamed(index, store)} == {4}


def test_a_grey_array_among_colours_is_repeated(tmp_path) -> None:
    store = Store(tmp_path)
    dims = [(1, 4, 6) if number == 5 else (3, 4, 6) for number in range(SAMPLES)]
    index = dataset(store, [[("npy", write_npy(array(number, each)))] for number, each in enumerate(dims)])
    assert index.shape.channels == 3
    found = {number: sample for number, sample, _ in streamed(index, store)}
    assert np.array_equal(found[5].numpy(), np.repeat(array(5, (1, 4, 6)), 3, 0))


@pytest.mark.parametrize(
    ("at", "new", "said"),
    [(0, b"X", "is not an .npy file"), (60, b"\x00", "damaged header"), (21, b"<f4", "uint8 or uint16 is needed")],
)
def test_damage_after_indexing_is_named_or_substituted(tmp_path, at, new, said) -> None:
    store = Store(tmp_path)
    index = dataset(store, [[("npy", write_npy(array(number, (1, 4, 6)))), ("cls", b"3")] for number in range(SAMPLES)])
    shard = bytearray((tmp_path / "shard-000000.tar").read_bytes())
    start = shard.find(b"\x93NUMPY", 5000)
    shard[start + at : start + at + len(new)] = new
    (tmp_path / "shard-000000.tar").write_bytes(shard)
    with pytest.raises(ShardError, match=said):
        list(streamed(index, store))
    good = [sample for _, sample, _ in streamed(index, store, on_bad="substitute", bad_limit=0.5)]
    originals = [array(number, (1, 4, 6)) for number in range(SAMPLES)]
    assert len(good) == SAMPLES
    assert all(any(np.array_equal(sample.numpy(), each) for each in originals) for sample in good)


def test_a_label_that_the_index_does_not_have_is_named(tmp_path) -> None:
    store = Store(tmp_path)
    plain = [[("npy", write_npy(array(number, (1, 4, 6)))), ("cls", b"3")] for number in range(SAMPLES)]
    index = dataset(store, plain)
    dataset(store, [[*plain[0][:1], ("cls", b"9")], *plain[1:]])
    with pytest.raises(ShardError, match="the label of 0000 is 9, of 4 classes"):
        list(streamed(index, store))


def test_pictures_that_are_all_arrays_lie_as_arrays_do(tmp_path) -> None:
    """Colour values of decoders are interleaved; those of arrays keep their order, which costs no copy."""
    store = Store(tmp_path)
    index = dataset(store, [[("npy", write_npy(array(number, (3, 4, 6))))] for number in range(SAMPLES)])
    assert index.member == "npy"
    assert DatasetIndex.load(store) == index
    item = next(iter(stream(index, store, PLAN, range(1), 0, 1)))
    assert item.sample.is_contiguous()
    assert np.array_equal(read_samples(index, store, [4])[0][0].numpy(), array(4, (3, 4, 6)))
