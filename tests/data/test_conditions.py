import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetError, DatasetIndex
from imagegen_dist.data.order import Plan
from imagegen_dist.data.pack import pack
from imagegen_dist.data.scanning import build_index
from imagegen_dist.data.stream import StreamConfig, read_records, read_samples, stream
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.data.verification import check_dataset
from imagegen_dist.storage import Store
from tests.tars import tar_of

PLAN = Plan(seed=3, microbatches=4, microbatch_size=3, draws=2, lanes=8, block=2)


def condition_of(number: int) -> dict:
    return {"digit": number % 10, "style": ("serif", "sans")[number % 2], "age": number / 7}


def packed(place: Path, count: int = 53) -> tuple[DatasetIndex, Store]:
    rng = np.random.default_rng(0)
    samples = (
        (rng.integers(0, 256, (1, 6, 5), dtype=np.uint8), {"condition": condition_of(number), "file": f"{number}.png"})
        for number in range(count)
    )
    store = Store(place)
    return pack(samples, store, shard_samples=10), store


def png(number: int) -> bytes:
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(np.full((4, 4), number, np.uint8)).save(target, "png")
    return target.getvalue()


def npy(*numbers: float) -> bytes:
    target = io.BytesIO()
    np.save(target, np.array(numbers, np.float32))
    return target.getvalue()


def written(place: Path, *files: tuple[str, bytes]) -> Store:
    place.mkdir(exist_ok=True)
    (place / "a.tar").write_bytes(tar_of(files))
    return Store(place)


@pytest.mark.parametrize(("workers", "decoded"), [(0, 0), (0, 1 << 20), (2, 0)])
def test_a_stream_has_the_condition_of_every_sample(tmp_path: Path, workers: int, decoded: int):
    index, store = packed(tmp_path)
    assert index.conditions is not None
    assert DatasetIndex.load(store) == index
    expected = np.stack([index.conditions.encode(condition_of(number)) for number in range(53)])
    config = StreamConfig(workers=workers, decoded_bytes=decoded)
    for item in stream(index, store, PLAN, range(1, 4), 0, 4, config):
        assert item.label is not None
        assert item.label.shape == (2, 3, 3, 13)
        assert item.label.dtype == torch.float32
        assert np.array_equal(item.label.numpy(), expected[item.id.numpy()])
    _, labels = read_samples(index, store, [5, 52, 0])
    assert labels is not None
    assert np.array_equal(labels.numpy(), expected[[5, 52, 0]])


def test_an_index_keeps_conditions_of_some_samples(tmp_path: Path):
    index, store = packed(tmp_path)
    assert index.conditions is not None
    known = DatasetIndex.load(store).known_conditions
    assert known is not None
    rows = known.rows
    assert np.array_equal(rows, np.stack([index.conditions.encode(condition_of(number)) for number in range(53)]))


def test_the_rest_of_a_record_stays_readable(tmp_path: Path):
    index, store = packed(tmp_path)
    assert read_records(index, store, [7])[0]["file"] == "7.png"


def test_class_files_arrays_and_records_of_others_are_one_condition(tmp_path: Path):
    files = []
    for number in range(6):
        files += [
            (f"{number}.png", png(number)),
            (f"{number}.cls", b"%d" % (number % 3)),
            (f"{number}.json", json.dumps({"condition": {"style": "ab"[number % 2]}, "caption": "x"}).encode()),
            (f"{number}.cond.npy", npy(number, -number)),
        ]
    index = build_index(store := written(tmp_path / "set", *files))
    assert index.conditions is not None
    assert {part.name: part.size for part in index.conditions.parts} == {"style": 2, "class": 3, "vector": 2}
    _, labels = read_samples(index, store, range(6))
    assert labels is not None
    assert labels[:, index.conditions.slices["class"]].argmax(1).tolist() == [0, 1, 2, 0, 1, 2]
    vector = index.conditions.part("vector")
    numbers = labels[:, index.conditions.slices["vector"]].numpy() * vector.deviation + vector.mean
    assert numbers == pytest.approx(np.array([[number, -number] for number in range(6)]), abs=1e-6)


def test_labels_without_conditions_are_classes_as_ever(tmp_path: Path):
    store = written(tmp_path / "set", ("0.png", png(0)), ("0.json", b'{"label": 3, "caption": "x"}'))
    index = build_index(store)
    assert (index.conditions, index.classes) == (None, 4)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (("1.json", b'{"condition": {"a": "x"}}'), "a.tar: the condition of 1 a is numbers in some samples and texts"),
        (("1.json", b'{"condition": {"b": 1.5}}'), "the condition of 1 a is missing"),
        (("1.json", b'{"condition": [1]}'), "the condition of 1 is '.1.'; an object is needed"),
        (("1.json", b'{"condition"'), "json of 1 is damaged"),
        (("1.txt", b"no condition"), "the condition of 1 is empty"),
        (("1.cls", b""), "the condition of 1 is empty"),
        (("1.cond.npy", b"no array"), "the condition of 1 is a damaged .cond.npy"),
    ],
)
def test_a_condition_that_cannot_be_read_is_refused_by_file_and_name(
    tmp_path: Path, second: tuple[str, bytes], words: str
):
    first = ("0.png", png(0)), ("0.json", b'{"condition": {"a": 0.5}}')
    with pytest.raises((ShardError, DatasetError), match=words):
        build_index(written(tmp_path / "set", *first, ("1.png", png(1)), second))


def test_a_check_names_a_condition_that_has_changed(tmp_path: Path):
    index, store = packed(tmp_path)
    name = index.shards[0].name
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data.replace(b'"style": "sans"', b'"style": "sons"', 1))
    findings = check_dataset(store).shards[0].findings
    assert any("style has no class 'sons'" in finding for finding in findings)


def test_held_out_samples_are_told_as_the_training_samples(tmp_path: Path) -> None:
    training, _ = packed(tmp_path / "training")
    held_out, store = packed(tmp_path / "held out", count=20)
    assert training.conditions is not None
    assert held_out.conditions is not None
    assert held_out.conditions.part("age").mean != training.conditions.part("age").mean
    told = Dataset(held_out, store).told_as(training.known_conditions)
    _, labels = told.read([3, 19])
    assert labels is not None
    assert np.array_equal(labels.numpy(), np.stack([training.conditions.encode(condition_of(n)) for n in (3, 19)]))
    other = pack([(np.zeros((1, 6, 5), np.uint8), {"condition": {"digit": 3}})] * 2, Store(tmp_path / "other"))
    with pytest.raises(DatasetError, match="there is no condition style"):
        Dataset(other, store).told_as(training.known_conditions)
