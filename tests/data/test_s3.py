"""A dataset in a real S3 store: what is packed there comes back, and a mistake is one line that names the URL."""

import threading

import numpy as np
import pytest
import torch

from imagegen_dist.data.cache import CacheConfig
from imagegen_dist.data.index import DatasetError, DatasetIndex
from imagegen_dist.data.order import Plan
from imagegen_dist.data.pack import pack
from imagegen_dist.data.scanning import build_index
from imagegen_dist.data.stream import StreamConfig, read_samples, stream
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import AccessError, StorageError, Store, s3
from tests.s3.server import KEY_ID, SECRET, aws_environment

PLAN = Plan(seed=3, microbatches=4, microbatch_size=3, draws=1, lanes=8, block=2)
COUNT = 53
EPOCH_AND_MORE = 9  # steps of 12 samples: two epochs, and two samples of the third


def sample_of(number):
    return np.random.default_rng(number).integers(0, 256, (3, 6, 5), dtype=np.uint8)


def packed(url):
    store = Store(url)
    return pack(((sample_of(number), number % 10) for number in range(COUNT)), store, shard_samples=10), store


def cached_in(folder, **changes):
    return StreamConfig(cache=CacheConfig(directory=str(folder), timeout_s=10), **changes)


def streamed(index, store, share, config):
    return list(stream(index, store, PLAN, share, 0, EPOCH_AND_MORE, config))


def one_line(error, *names):
    """Whether an error is one line with all names in it, and without the secret and the key."""
    told = str(error.value)
    assert "\n" not in told
    assert all(name in told for name in names)
    assert SECRET not in told
    assert KEY_ID not in told


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_in_a_bucket_streams_as_from_the_disk(bucket, tmp_path, workers):
    index, store = packed(f"{bucket.url}/set")
    local, disk = packed(tmp_path / "set")
    assert DatasetIndex.load(store) == index == local
    ours = streamed(index, store, range(4), cached_in(tmp_path / "cache", workers=workers))
    theirs = streamed(local, disk, range(4), StreamConfig())
    for one, other in zip(ours, theirs, strict=True):
        assert one.step == other.step
        assert torch.equal(one.id, other.id)
        assert torch.equal(one.label, other.label)
        assert torch.equal(one.sample, other.sample)
    assert sum(item.counters["fetched"] for item in ours) == sum(shard.bytes for shard in index.shards)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_sample_comes_once_an_epoch_on_every_world(bucket, tmp_path, world):
    index, store = packed(f"{bucket.url}/set")
    shares = [range(rank * 4 // world, (rank + 1) * 4 // world) for rank in range(world)]
    ranks = [streamed(index, store, share, cached_in(tmp_path)) for share in shares]
    parts = [torch.cat([item.id for item in items]).view(EPOCH_AND_MORE, -1, 3) for items in ranks]
    run = torch.cat(parts, 1).transpose(1, 2).reshape(-1)  # sample m of microbatch i is number m·N + i of the run
    assert sorted(run[:COUNT].tolist()) == sorted(run[COUNT : 2 * COUNT].tolist()) == list(range(COUNT))


def test_ranks_at_once_fetch_each_shard_once(bucket, network, tmp_path):
    index, store = packed(f"{bucket.url}/set")
    network.inject("slow", share=1.0, bytes_per_s=100_000)
    threads = [
        threading.Thread(target=streamed, args=(index, store, range(rank, rank + 1), cached_in(tmp_path)))
        for rank in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert network.done["slow"] == len(index.shards)


def test_shards_in_a_bucket_are_indexed_and_read_by_id(bucket):
    index, store = packed(f"{bucket.url}/set")
    store.remove("index.json")
    with pytest.raises(DatasetError, match=r"has 6 shards but no index\.json") as error:
        DatasetIndex.load(store)
    one_line(error, store.url, "--index-only")
    assert build_index(store) == index
    samples, _ = read_samples(index, store, [52, 0])
    assert np.array_equal(samples.numpy(), np.stack([sample_of(52), sample_of(0)]))


@pytest.mark.parametrize("name", ["Übung/größe", "two words, a+b&c=d, 100% #1 [ab]*?"])
def test_names_of_every_kind_are_folders(bucket, tmp_path, name):
    index, store = packed(f"{bucket.url}/{name}")
    assert (bucket.folder / name / "index.json").exists()
    assert Store(bucket.url).exists(name)
    assert Store(bucket.url).names(name) == ["index.json", *(shard.name for shard in index.shards)]
    assert len(streamed(DatasetIndex.load(store), store, range(4), cached_in(tmp_path))) == EPOCH_AND_MORE


def test_a_large_file_goes_up_in_parts_and_comes_back(bucket, network, tmp_path):
    data = np.random.default_rng(0).bytes(1_000_003) * 112  # no two parts alike
    (tmp_path / "large").write_bytes(data)
    store = Store(f"{bucket.url}/files")
    store.upload("large", tmp_path / "large")
    assert network.requests.total() > 2
    assert (bucket.folder / "files" / "large").read_bytes() == data
    assert store.size("large") == len(data)
    store.download("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_a_published_file_goes_up_in_parts_while_it_is_written_and_is_there_whole_or_not(bucket, network, monkeypatch):
    monkeypatch.setattr(s3, "_PART_BYTES", 5 << 20)  # the least that S3 takes
    data = np.random.default_rng(0).bytes(12 << 20)
    store, attempts = Store(f"{bucket.url}/files", patience_s=60.0), []

    def produce(output):
        attempts.append(True)
        for start in range(0, len(data), 1 << 20):
            output.write(data[start : start + (1 << 20)])

    def fail(output):
        produce(output)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.publish("large", fail)
    assert store.names() == []
    assert len(attempts) == 1
    network.inject("denied", share=1.0, match="partNumber=2")
    with pytest.raises(AccessError, match="Access Denied"):
        store.publish("large", produce)
    network.heal()
    network.inject("reset", "slow_down", share=0.5, match="^PUT ")
    store.publish("large", produce)
    assert network.done["reset"] + network.done["slow_down"] >= 1
    assert (bucket.folder / "files" / "large").read_bytes() == data
    assert store.names() == ["large"]
    store.publish("small", lambda output: output.write(b"content"))
    store.publish("empty", lambda output: None)
    assert (store.read("small"), store.read("empty")) == (b"content", b"")


def test_ranges_are_what_was_asked_for(bucket):
    store = Store(bucket.url)
    store.write("file", bytes(range(200)))
    assert store.read_range("file", 10, 20) == bytes(range(10, 20))
    assert store.read_range("file", 190, 300) == bytes(range(190, 200))
    with store.opened("file") as file:
        file.seek(100)
        assert file.read(3) == bytes([100, 101, 102])


def test_listing_is_sorted_and_one_level_deep(bucket):
    store = Store(bucket.url)
    for name in ("b", "a/x", "a/y/z", "ab"):
        store.write(name, b"content")
    assert store.names() == ["a", "ab", "b"]
    assert store.names("a") == (store / "a").names() == ["x", "y"]
    assert store.names("nothing") == []


def test_what_is_removed_is_gone(bucket):
    store = Store(bucket.url)
    for name in ("file", "tree/x", "tree/y/z"):
        store.write(name, b"content")
    for name in ("file", "tree", "nothing"):
        store.remove(name)
        assert not store.exists(name)
    assert not [path for path in bucket.folder.rglob("*") if path.is_file()]


def test_a_wrong_secret_is_refused_in_one_line(bucket, tmp_path):
    index, _ = packed(f"{bucket.url}/set")
    with aws_environment(bucket.server.endpoint, secret="not+the/secret" * 3):
        store = Store(f"{bucket.url}/set")
        for action in (store.names, store.exists, store.probe, lambda: store.read("index.json")):
            with pytest.raises(StorageError) as error:
                action()
            one_line(error, store.url)
        with pytest.raises(StorageError) as error:
            DatasetIndex.load(store)
        one_line(error, store.url)
        with pytest.raises(ShardError) as failure:
            streamed(index, store, range(4), cached_in(tmp_path))
        one_line(failure, store.url)


def test_a_wrong_secret_is_no_missing_bucket(bucket):
    with aws_environment(bucket.server.endpoint, secret="not+the/secret" * 3), pytest.raises(StorageError) as error:
        Store(bucket.url).exists()
    one_line(error, bucket.url)


@pytest.mark.parametrize("place", ["s3://no-such-bucket/set", "{}/no/such/prefix"])
def test_a_place_that_is_not_there_is_told_in_one_line(bucket, place):
    store = Store(place.format(bucket.url))
    with pytest.raises(DatasetError, match="does not exist") as error:
        DatasetIndex.load(store)
    one_line(error, store.url)
    with pytest.raises(DatasetError, match="does not exist") as error:
        build_index(store)
    one_line(error, store.url)


def test_a_bucket_that_is_not_there_cannot_be_written(bucket):
    store = Store("s3://no-such-bucket/set")
    for action in (store.probe, lambda: store.write("a", b"1")):
        with pytest.raises(StorageError) as error:
            action()
        one_line(error, store.url)
    with pytest.raises(StorageError) as error:
        packed(store.url)
    one_line(error, store.url)
