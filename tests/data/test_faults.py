"""A network that fails between the stream and a real S3 store: the same samples come, or an error in time."""

import threading
import time

import numpy as np
import pytest
import torch

from imagegen_dist.data.cache import CacheConfig
from imagegen_dist.data.order import Plan
from imagegen_dist.data.pack import pack
from imagegen_dist.data.stream import StreamConfig, stream
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.records import RunSettings
from imagegen_dist.run import RunError
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import newest
from tests.runs import Listener, assert_bit_identical, final_tensors, tiny, train_here
from tests.s3.faults import FAULTS
from tests.s3.server import SECRET

PLAN = Plan(seed=5, microbatches=4, microbatch_size=5, draws=1, lanes=8, block=2)
IN_TIME_S = 20  # the limits here are of a few seconds, on a machine that may be busy; without them it takes minutes
SHARDS, SHARD_SAMPLES = 60, 5
EPOCH = SHARDS * SHARD_SAMPLES // 20  # steps


def packed(store):
    """60 shards of 30 kB, labelled."""
    samples = (
        (np.random.default_rng(number).integers(0, 256, (3, 40, 50), dtype=np.uint8), number % 10)
        for number in range(SHARDS * SHARD_SAMPLES)
    )
    return pack(samples, store, extension="npy", shard_samples=SHARD_SAMPLES)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The first epoch, and the index, from the local disk."""
    store = Store(tmp_path_factory.mktemp("set"))
    index = packed(store)
    return index, store, list(stream(index, store, PLAN, range(4), 0, EPOCH))


@pytest.fixture
def remote(bucket, undisturbed):
    """The same dataset in a bucket."""
    index, local, _ = undisturbed
    (bucket.folder / "set").mkdir()
    for shard in index.shards:
        (bucket.folder / "set" / shard.name).write_bytes(local.read(shard.name))
    return Store(f"{bucket.url}/set")


def streamed(index, store, cache, workers=0, timeout_s=30.0):
    """An epoch, shards kept in a new folder."""
    kept = CacheConfig(directory=str(cache), timeout_s=timeout_s, stall_s=1.0)
    return stream(index, store, PLAN, range(4), 0, EPOCH, StreamConfig(workers=workers, cache=kept))


def fetched(*arguments, **options):
    return list(streamed(*arguments, **options))


def assert_same(ours, theirs):
    """Every step's samples, labels and ids equal to the last bit, and none substituted."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.step == other.step
        assert torch.equal(one.id, other.id)
        assert torch.equal(one.label, other.label)
        assert torch.equal(one.sample, other.sample)
        assert not one.bad


def retries(items):
    return sum(item.counters["retries"] for item in items)


@pytest.mark.parametrize("kind", FAULTS)
def test_one_request_in_twenty_that_fails_changes_nothing(undisturbed, remote, network, tmp_path, kind):
    index, _, expected = undisturbed
    network.inject(kind, share=0.05, bytes_per_s=30_000)
    items = fetched(index, remote, tmp_path)
    assert_same(items, expected)
    assert network.done[kind] >= 3
    # A slow answer is an answer; aiohttp itself repeats a request on a kept connection that is reset.
    assert kind in ("slow", "reset") or retries(items) >= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_all_faults_together_change_nothing(undisturbed, remote, network, tmp_path, workers):
    index, _, expected = undisturbed
    network.inject(*FAULTS, share=0.3, seed=workers, bytes_per_s=60_000)
    items = fetched(index, remote, tmp_path, workers)
    assert_same(items, expected)
    assert set(network.done) == set(FAULTS)
    assert retries(items) >= 3


def test_answers_that_are_cut_half_of_the_time_are_survived(undisturbed, remote, network, tmp_path):
    index, _, expected = undisturbed
    network.inject("truncate", "reset", share=0.5)
    assert_same(fetched(index, remote, tmp_path), expected)
    assert min(network.done["truncate"], network.done["reset"]) >= 10


def test_what_was_kept_from_a_cut_answer_is_checked_too(undisturbed, remote, network, tmp_path):
    index, _, expected = undisturbed
    network.inject("flip", "truncate", "flip", share=0.25, seed=1)
    assert_same(fetched(index, remote, tmp_path), expected)
    assert min(network.done["flip"], network.done["truncate"]) >= 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_that_goes_away_ends_in_time_with_a_line_that_names_the_shard(
    undisturbed, remote, network, tmp_path, workers
):
    items = streamed(undisturbed[0], remote, tmp_path, workers, timeout_s=3.0)
    next(items)
    network.go_away()
    started = time.monotonic()
    with pytest.raises(ShardError) as error:
        list(items)
    assert time.monotonic() - started < IN_TIME_S
    told = str(error.value)
    assert f"{remote.url}/shard-" in told
    assert "\n" not in told
    assert SECRET not in told


def test_a_store_that_comes_back_in_time_is_gone_on_with(undisturbed, remote, network, tmp_path):
    index, _, expected = undisturbed
    network.go_away()
    timer = threading.Timer(1.5, network.come_back)
    timer.start()
    items = fetched(index, remote, tmp_path)
    timer.join()
    assert_same(items, expected)
    assert retries(items) >= 1


@pytest.mark.parametrize(("kind", "bytes_per_s"), [("gone", 0), ("stall", 0), ("slow", 4_000), ("slow_down", 0)])
def test_a_store_that_never_recovers_ends_in_time(undisturbed, remote, network, tmp_path, kind, bytes_per_s):
    if kind == "gone":
        network.go_away()
    else:
        network.inject(kind, share=1.0, bytes_per_s=bytes_per_s)
    started = time.monotonic()
    with pytest.raises(ShardError, match=r"set/shard-\d+\.tar cannot be fetched"):
        fetched(undisturbed[0], remote, tmp_path, timeout_s=3.0)
    assert time.monotonic() - started < IN_TIME_S
    assert kind == "gone" or network.done[kind] >= 1


def test_content_that_is_wrong_for_ever_is_given_up_after_a_few_attempts(undisturbed, remote, network, tmp_path):
    network.inject("flip", share=1.0)
    started = time.monotonic()
    with pytest.raises(ShardError, match=r"set/shard-\d+\.tar cannot be fetched \(\d attempts\): its CRC is"):
        fetched(undisturbed[0], remote, tmp_path)
    assert time.monotonic() - started < IN_TIME_S
    assert not list(tmp_path.glob("*.tar"))


def test_a_shard_that_is_missing_in_the_bucket_is_given_up_soon(bucket, undisturbed, remote, tmp_path):
    (bucket.folder / "set" / "shard-000007.tar").unlink()
    started = time.monotonic()
    with pytest.raises(ShardError, match=r"set/shard-000007\.tar cannot be fetched .*does not exist"):
        fetched(undisturbed[0], remote, tmp_path)
    assert time.monotonic() - started < IN_TIME_S


def run_settings(storage, name, data):
    return RunSettings(name, str(storage), preset="digits", job="train_gan", data=data, wandb_mode="disabled")


def test_a_run_whose_data_go_away_goes_on_from_its_checkpoint(bucket, network, tmp_path):
    """Shards of five samples, so that every step needs new ones."""
    digits = ((np.random.default_rng(n).integers(0, 256, (1, 28, 28), dtype=np.uint8), n % 10) for n in range(1500))
    pack(digits, Store(bucket.folder / "set"), shard_samples=5)
    cache = {"directory": str(tmp_path / "cache"), "timeout_s": 6.0, "stall_s": 2.0}
    changes = {f"data__cache__{name}": value for name, value in cache.items()}
    experiment = tiny(data__workers=0, data__decoded_bytes=0, data__lanes=6, data__block=1, **changes)
    whole = run_settings(tmp_path, "whole", str(bucket.folder / "set"))
    cut = run_settings(tmp_path, "cut", f"{bucket.url}/set")
    train_here(experiment, whole)

    class GoesAway(Listener):
        def row(self, row):
            super().row(row)
            if row["images"] == 288:
                network.go_away()

    with pytest.raises((ShardError, RunError), match=r"set/shard-\d+\.tar cannot be fetched"):
        train_here(experiment, cut, GoesAway())
    left = newest(cut.folder, lambda why: pytest.fail(why))
    assert left is not None
    assert 240 <= left.images < 480
    network.come_back()
    resumed = Listener()
    assert train_here(experiment, cut, resumed).complete
    assert any(f"resuming at {left.images} images" in message for message in resumed.messages)
    assert_bit_identical(final_tensors(cut), final_tensors(whole))
