import dataclasses
import io
import os
import re
import tarfile
import time

import numpy as np
import pytest
import torch

from imagegen_dist.data import shard as shard_module
from imagegen_dist.data import stream as stream_module
from imagegen_dist.data.cache import CacheConfig
from imagegen_dist.data.counters import COUNTED
from imagegen_dist.data.index import DatasetError, DatasetIndex
from imagegen_dist.data.order import Order, Plan
from imagegen_dist.data.pack import pack
from imagegen_dist.data.scanning import build_index
from imagegen_dist.data.stream import StreamConfig, check_cache, read_samples, stream
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import Store

PLAN = Plan(seed=3, microbatches=4, microbatch_size=3, draws=2, lanes=8, block=2)
UNCACHED = StreamConfig(decoded_bytes=0)


def sample_of(number, shape=(1, 6, 5)):
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def packed(place, count=53, shape=(1, 6, 5), modality="image", extension="png"):
    store = Store(place)
    samples = ((sample_of(number, shape), number % 10) for number in range(count))
    return pack(samples, store, modality, extension, shard_samples=10), store


@pytest.fixture(scope="module")
def digits_like(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("set"))


def ids(items):
    return torch.cat([item.id for item in items], 1)


def test_items_hold_what_was_packed(digits_like):
    index, store = digits_like
    for item in stream(index, store, PLAN, range(1, 4), 0, 3):
        assert item.sample.shape == (2, 3, 3, 1, 6, 5)
        assert item.sample.dtype == torch.uint8
        assert item.label is not None
        assert torch.equal(item.label, item.id % 10)
        for sample, number in zip(item.sample.flatten(0, 2), item.id.flatten().tolist(), strict=True):
            assert np.array_equal(sample.numpy(), sample_of(number))


@pytest.mark.parametrize(
    ("modality", "shape", "extension"),
    [
        ("image", (3, 9, 7), "webp"),
        ("image", (4, 9, 7), "npy"),
        ("video", (3, 4, 6, 5), "npy"),
        ("voxels", (1, 5, 4, 6), "npy"),
    ],
)
@pytest.mark.parametrize("memory", [False, True])
def test_every_modality_streams_from_disk_and_memory(tmp_path, modality, shape, extension, memory):
    place = f"memory://{tmp_path.name}" if memory else tmp_path
    index, store = packed(place, 12, shape, modality, extension)
    config = StreamConfig(cache=dataclasses.replace(StreamConfig().cache, directory=str(tmp_path / "cache")))
    (item,) = stream(index, store, PLAN, range(4), 0, 1, config)
    assert sorted(set(item.id.flatten().tolist())) == list(range(12))
    for sample, number in zip(item.sample.flatten(0, 2), item.id.flatten().tolist(), strict=True):
        assert np.array_equal(sample.numpy(), sample_of(number, shape))
    assert item.counters["fetched"] == (sum(shard.bytes for shard in index.shards) if memory else 0)
    store.remove()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_world_reads_one_order(digits_like, world):
    index, store = digits_like
    shares = [range(rank * 4 // world, (rank + 1) * 4 // world) for rank in range(world)]
    ranks = [ids(stream(index, store, dataclasses.replace(PLAN, draws=1), share, 0, 9)) for share in shares]
    whole = torch.cat([rank.view(9, -1, 3) for rank in ranks], 1)
    run = whole.transpose(1, 2).reshape(-1)  # sample m of microbatch i is number m·N + i of the run
    assert sorted(run[:53].tolist()) == sorted(run[53:106].tolist()) == list(range(53))
    expected = [Order(index.counts, dataclasses.replace(PLAN, draws=1)).step(step, range(4)).id for step in range(9)]
    assert np.array_equal(whole.reshape(9, -1).numpy(), np.stack(expected))


def test_a_later_start_goes_on_where_it_would_have_been(digits_like):
    index, store = digits_like
    whole = list(stream(index, store, PLAN, range(4), 0, 8))
    resumed = list(stream(index, store, PLAN, range(4), 5, 8))
    assert [item.step for item in resumed] == [5, 6, 7]
    for one, other in zip(whole[5:], resumed, strict=True):
        assert torch.equal(one.id, other.id)
        assert torch.equal(one.sample, other.sample)


def test_loader_processes_change_nothing(digits_like):
    index, store = digits_like
    alone = list(stream(index, store, PLAN, range(4), 0, 6))
    spread = list(stream(index, store, PLAN, range(4), 0, 6, StreamConfig(workers=2)))
    for one, other in zip(alone, spread, strict=True):
        assert one.step == other.step
        assert torch.equal(one.sample, other.sample)
        assert torch.equal(one.id, other.id)


def test_an_error_in_a_loader_process_keeps_its_one_line(tmp_path):
    index, store = packed(tmp_path)
    store.remove("shard-000002.tar")
    with pytest.raises(ShardError, match=r"^/.*shard-000002\.tar is missing, but the index says [\d,]+ bytes$"):
        list(stream(index, store, PLAN, range(4), 0, 6, StreamConfig(workers=1)))


def test_memory_with_loader_processes_is_refused():
    index, store = packed("memory://for-one-process", 12)
    with pytest.raises(ValueError, match=r"memory of this process only: set --data\.workers 0"):
        next(stream(index, store, PLAN, range(4), 0, 1, StreamConfig(workers=1)))
    store.remove()


def test_a_dataset_that_fits_is_decoded_once(digits_like):
    index, store = digits_like
    items = list(stream(index, store, PLAN, range(4), 0, 12))
    assert items[0].counters["bytes"] > 0
    assert items[-1].counters == {**dict.fromkeys(COUNTED, 0), "decoded_hits": 24}


@pytest.mark.parametrize("decoded_bytes", [0, 10 * 30, 30 * 30])
def test_the_decoded_samples_kept_change_nothing(digits_like, decoded_bytes):
    index, store = digits_like
    config = StreamConfig(decoded_bytes=decoded_bytes)
    for one, other in zip(
        stream(index, store, PLAN, range(4), 0, 8), stream(index, store, PLAN, range(4), 0, 8, config), strict=True
    ):
        assert torch.equal(one.sample, other.sample)
        assert one.label is not None
        assert other.label is not None
        assert torch.equal(one.label, other.label)


def remote(name, tmp_path, count=53, **cache):
    """A dataset on storage that is not local, and the configuration that reads it through an empty cache."""
    index, store = packed(f"memory://{name}", count)
    return index, store, StreamConfig(decoded_bytes=0, cache=CacheConfig(directory=str(tmp_path / "cache"), **cache))


def test_remote_shards_are_there_before_they_are_needed(tmp_path):
    index, store, config = remote("ahead", tmp_path, count=400)
    plan = dataclasses.replace(PLAN, lanes=4, block=2)
    waited, items = 0, stream(index, store, plan, range(4), 0, 30, config)
    for item in items:
        waited += item.counters["cache_misses"] if item.step else 0
        time.sleep(0.01)
    assert waited <= 6  # of 40 shards, 30 of them after the first step
    store.remove()


def test_a_cache_smaller_than_the_working_set_changes_nothing(tmp_path):
    index, store, config = remote("thrashing", tmp_path, limit_bytes=1)
    local, disk = packed(tmp_path / "local")
    for one, other in zip(
        stream(index, store, PLAN, range(4), 0, 8, dataclasses.replace(config, open_shards=1)),
        stream(local, disk, PLAN, range(4), 0, 8),
        strict=True,
    ):
        assert torch.equal(one.sample, other.sample)
    store.remove()


def test_the_cache_s_bound_is_checked_with_the_number_to_set(tmp_path):
    index, store, _ = remote("bounds", tmp_path, count=4000)
    with pytest.raises(DatasetError, match=r"above --data\.cache\.limit-bytes 1000: set it to \d+ or more") as error:
        check_cache(index, store, PLAN, range(4), CacheConfig(str(tmp_path), limit_bytes=1000))
    needed = int(re.search(r"set it to (\d+)", str(error.value))[1])
    assert needed == sum(shard.bytes for shard in index.shards[:32])  # 2 blocks of 2 shards on 8 lanes
    check_cache(index, store, PLAN, range(4), CacheConfig(str(tmp_path), limit_bytes=needed))
    check_cache(index, store, PLAN, range(2), CacheConfig(str(tmp_path), limit_bytes=needed * 3 // 4))
    check_cache(index, Store(tmp_path), PLAN, range(4), CacheConfig(limit_bytes=1))
    store.remove()


def test_a_disk_that_cannot_hold_the_working_set_is_named(tmp_path, monkeypatch):
    index, store, _ = remote("disk", tmp_path)
    monkeypatch.setattr(stream_module, "usable_bytes", lambda folder: 1000)
    with pytest.raises(DatasetError, match=r"has room for 1,000: set --data\.cache\.directory"):
        check_cache(index, store, PLAN, range(4), CacheConfig(str(tmp_path)))
    store.remove()


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_colour_pictures_lie_as_decoders_write_them(tmp_path, extension):
    index, store = packed(tmp_path, 12, (3, 9, 7), extension=extension)
    (item,) = stream(index, store, PLAN, range(4), 0, 1)
    assert item.sample.permute(0, 1, 2, 4, 5, 3).is_contiguous()
    one_by_one, _ = read_samples(index, store, item.id.flatten().tolist())
    assert torch.equal(item.sample.flatten(0, 2), one_by_one)


def test_headers_are_walked_once_on_a_node(tmp_path, monkeypatch):
    index, store = packed(tmp_path / "set")
    config = StreamConfig(decoded_bytes=0, cache=CacheConfig(directory=str(tmp_path / "cache")))
    first = list(stream(index, store, PLAN, range(4), 0, 6, config))
    assert len(list((tmp_path / "cache").glob("*.places"))) == len(index.shards)
    monkeypatch.setattr(shard_module, "walk", lambda *_: pytest.fail("walked again"))
    for one, other in zip(first, stream(index, store, PLAN, range(4), 0, 6, config), strict=True):
        assert torch.equal(one.sample, other.sample)
        assert torch.equal(one.label, other.label)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-30], lambda data: b"", lambda data: bytes([data[0] ^ 1]) + data[1:]]
)
def test_damaged_notes_of_places_are_found_and_made_anew(tmp_path, damage):
    index, store = packed(tmp_path / "set")
    config = StreamConfig(decoded_bytes=0, cache=CacheConfig(directory=str(tmp_path / "cache")))
    first = list(stream(index, store, PLAN, range(4), 0, 6, config))
    notes = {path: path.read_bytes() for path in (tmp_path / "cache").glob("*.places")}
    for path, content in notes.items():
        path.write_bytes(damage(content))
    for one, other in zip(first, stream(index, store, PLAN, range(4), 0, 6, config), strict=True):
        assert torch.equal(one.sample, other.sample)
    assert {path: path.read_bytes() for path in notes} == notes


def test_a_local_shard_that_was_written_again_is_walked_again(tmp_path):
    index, store = packed(tmp_path / "set")
    config = StreamConfig(decoded_bytes=0, cache=CacheConfig(directory=str(tmp_path / "cache")))
    list(stream(index, store, PLAN, range(4), 0, 6, config))
    path = store.local_path("shard-000002.tar")
    content = path.read_bytes()
    path.write_bytes(bytes(512) + content[512:])
    with pytest.raises(ShardError, match=r"shard-000002\.tar"):
        list(stream(index, store, PLAN, range(4), 0, 6, config))


def test_few_open_shards_are_enough(digits_like):
    index, store = digits_like
    config = StreamConfig(open_shards=1, decoded_bytes=0)
    assert torch.equal(
        ids(stream(index, store, PLAN, range(4), 0, 8, config)), ids(stream(index, store, PLAN, range(4), 0, 8))
    )


def test_a_stream_that_ends_or_is_left_closes_its_shards(digits_like):
    index, store = digits_like
    before = len(os.listdir("/proc/self/fd"))
    list(stream(index, store, PLAN, range(4), 0, 3))
    left = stream(index, store, PLAN, range(4), 0, 3)
    next(left)
    left.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_single_samples_are_read_by_id(digits_like):
    index, store = digits_like
    sample, label = read_samples(index, store, [52, 0, 17, 17])
    assert label is not None
    assert label.tolist() == [2, 0, 7, 7]
    assert np.array_equal(sample.numpy(), np.stack([sample_of(number) for number in (52, 0, 17, 17)]))


def test_a_dataset_without_labels_has_none(tmp_path):
    index = pack(((sample_of(number), None) for number in range(5)), Store(tmp_path))
    (item,) = stream(index, Store(tmp_path), PLAN, range(4), 0, 1)
    assert index.classes is None
    assert item.label is None


def corrupt(store, name, key):
    """Overwrite the picture of one sample of a shard, headers left whole."""
    path = store.local_path(name)
    with tarfile.open(path) as archive:
        member = archive.getmember(f"{key:09d}.png")
    with open(path, "r+b") as file:
        file.seek(member.offset_data + 8)
        file.write(bytes(24))


def test_a_damaged_sample_stops_the_run_and_is_named(tmp_path):
    index, store = packed(tmp_path)
    corrupt(store, "shard-000001.tar", 17)
    with pytest.raises(ShardError, match=r"^/.*shard-000001\.tar: sample 000000017 is"):
        list(stream(index, store, PLAN, range(4), 0, 6))


def test_a_substitute_takes_a_damaged_sample_s_place(tmp_path):
    index, store = packed(tmp_path)
    whole = ids(stream(index, store, PLAN, range(4), 0, 12, UNCACHED))
    corrupt(store, "shard-000001.tar", 17)
    config = StreamConfig(on_bad="substitute", bad_limit=0.1)
    items = list(stream(index, store, PLAN, range(4), 0, 12, config))
    damaged = whole == 17
    assert damaged.sum() >= 4
    assert torch.equal(ids(items)[~damaged], whole[~damaged])
    assert 17 not in ids(items)
    assert sum(item.counters["bad"] for item in items) == damaged.sum()
    assert all("shard-000001.tar: sample 000000017 is" in line for item in items for line in item.bad)
    for item in items:
        assert item.label is not None
        assert torch.equal(item.label, item.id % 10)


def test_substitutes_are_the_same_on_every_world(tmp_path):
    index, store = packed(tmp_path)
    corrupt(store, "shard-000001.tar", 17)
    config = StreamConfig(on_bad="substitute", bad_limit=0.5)
    whole = ids(stream(index, store, PLAN, range(4), 0, 12, config))
    parts = [
        ids(stream(index, store, PLAN, range(rank, rank + 1), 0, 12, config)).view(2, 12, 1, 3) for rank in range(4)
    ]
    assert torch.equal(torch.cat(parts, 2), whole.view(2, 12, 4, 3))


def test_a_missing_shard_can_be_substituted(tmp_path):
    index, store = packed(tmp_path)
    store.remove("shard-000003.tar")
    plan = dataclasses.replace(PLAN, block=6, lanes=4)
    items = list(stream(index, store, plan, range(4), 0, 4, StreamConfig(on_bad="substitute", bad_limit=1.0)))
    assert not set(ids(items).flatten().tolist()) & set(range(30, 40))


def test_too_many_damaged_samples_stop_the_run(tmp_path):
    index, store = packed(tmp_path)
    for key in (11, 12, 13):
        corrupt(store, "shard-000001.tar", key)
    with pytest.raises(ShardError, match=r"samples were damaged, above --data\.bad-limit 0\.001: .*shard-000001\.tar"):
        list(stream(index, store, PLAN, range(4), 0, 12, StreamConfig(on_bad="substitute")))


def test_a_shard_with_another_count_than_the_index_is_refused(tmp_path):
    index, store = packed(tmp_path)
    path = store.local_path("shard-000000.tar")
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    with pytest.raises(ShardError, match="holds 2 samples, but its index says 10"):
        list(stream(index, store, PLAN, range(4), 0, 6))


def test_a_label_beyond_the_index_is_refused(tmp_path):
    _, store = packed(tmp_path)
    index = dataclasses.replace(build_index(store), classes=9, class_counts=None)
    with pytest.raises(ShardError, match=r"the label of 0000000[0-5]9 is 9, of 9 classes"):
        list(stream(index, store, PLAN, range(4), 0, 6))


def test_tar_files_made_by_hand_stream(tmp_path):
    store = Store(tmp_path)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(6):
            data = io.BytesIO()
            np.save(data, sample_of(number, (2, 3, 4)))
            info = tarfile.TarInfo(f"é{'x' * 120}/{number}.npy")
            info.size = len(data.getvalue())
            archive.addfile(info, io.BytesIO(data.getvalue()))
    store.write("made.tar", target.getvalue())
    build_index(store, "voxels").save(store)
    (item,) = stream(DatasetIndex.load(store), store, PLAN, range(4), 0, 1)
    for sample, number in zip(item.sample.flatten(0, 2), item.id.flatten().tolist(), strict=True):
        assert np.array_equal(sample[0].numpy(), sample_of(number, (2, 3, 4)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"workers": -1}, "--data.workers is -1"),
        ({"prefetch": 0}, "--data.prefetch is 0"),
        ({"decoded_bytes": -1}, "--data.decoded-bytes is -1"),
        ({"on_bad": "ignore"}, "--data.on-bad is 'ignore'"),
        ({"bad_limit": 0.0}, "--data.bad-limit is 0.0"),
    ],
)
def test_settings_that_cannot_work_name_the_flag(change, told):
    with pytest.raises(ValueError, match=told):
        StreamConfig(**change)
