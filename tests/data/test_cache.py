import fcntl
import hashlib
import os
import shutil
import threading
import time
import zlib
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from imagegen_dist.data import cache
from imagegen_dist.data.cache import CacheConfig, NodeFolder, ShardFiles
from imagegen_dist.data.counters import COUNTED, Counters
from imagegen_dist.data.index import ShardInfo
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.storage import Store


class FlakyFileSystem(MemoryFileSystem):
    """Memory whose next `failures` downloads fail, and that counts them."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    failures = 0
    downloads = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("flaky://"))

    def get_file(self, rpath: str, lpath: str, **kwargs: Any) -> None:
        FlakyFileSystem.downloads += 1
        if FlakyFileSystem.failures:
            FlakyFileSystem.failures -= 1
            raise ConnectionResetError("connection reset by peer")
        super().get_file(rpath, lpath, **kwargs)


@pytest.fixture
def remote(monkeypatch):
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    FlakyFileSystem.store.clear()
    FlakyFileSystem.failures = FlakyFileSystem.downloads = 0
    monkeypatch.setattr(cache, "_FIRST_PAUSE_S", 0.001)
    return Store("flaky://bucket/set")


def put(store, name, data):
    store.write(name, data)
    return ShardInfo(name, len(data), 1, zlib.crc32(data), hashlib.sha256(data).hexdigest())


def files(store, folder, **config):
    counters = Counters()
    bounds = CacheConfig(directory=str(folder), **config)
    return ShardFiles(store, NodeFolder(bounds.folder, bounds.limit_bytes), bounds, counters), counters


def counted(**sums):
    return {**dict.fromkeys(COUNTED, 0), **sums}


def read(descriptor):
    try:
        return os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)


def test_a_local_shard_is_read_in_place(tmp_path):
    info = put(Store(tmp_path / "set"), "a.tar", b"content")
    shards, counters = files(Store(tmp_path / "set"), tmp_path / "cache")
    assert read(shards.open(info)) == b"content"
    assert not list((tmp_path / "cache").iterdir())
    assert not any(counters.take().values())


def test_a_local_shard_that_is_missing_or_cut_is_refused(tmp_path):
    store = Store(tmp_path)
    info = put(store, "a.tar", b"content")
    shards, _ = files(store, tmp_path / "cache")
    store.write("a.tar", b"conte")
    with pytest.raises(ShardError, match=r"a\.tar has 5 bytes, but the index says 7"):
        shards.open(info)
    store.remove("a.tar")
    with pytest.raises(ShardError, match=r"a\.tar is missing, but the index says 7 bytes$"):
        shards.open(info)


def test_a_remote_shard_is_fetched_once(remote, tmp_path):
    info = put(remote, "a.tar", b"content")
    for _ in range(3):
        shards, counters = files(remote, tmp_path)
        assert read(shards.open(info)) == b"content"
    assert FlakyFileSystem.downloads == 1
    assert counters.take() == counted(cache_hits=1)


def test_many_readers_at_once_fetch_once(remote, tmp_path):
    info = put(remote, "a.tar", b"content")
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(read(files(remote, tmp_path)[0].open(info)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"content"] * 8
    assert FlakyFileSystem.downloads == 1


def test_transient_faults_are_tried_again(remote, tmp_path):
    info = put(remote, "a.tar", b"content")
    FlakyFileSystem.failures = 6
    shards, counters = files(remote, tmp_path)
    assert read(shards.open(info)) == b"content"
    assert counters.take() == counted(retries=6, fetched=7, cache_misses=1)


def test_a_store_that_is_gone_ends_within_the_time_limit(remote, tmp_path):
    info = put(remote, "a.tar", b"content")
    FlakyFileSystem.failures = 10**9
    shards, _ = files(remote, tmp_path, timeout_s=0.3)
    started = time.monotonic()
    with pytest.raises(ShardError, match=r"flaky://bucket/set/a\.tar cannot be fetched .*connection reset by peer"):
        shards.open(info)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("content", "told"), [(b"CONTENT", "its CRC is"), (b"conte", "5 bytes arrived, but the index says 7")]
)
def test_a_shard_that_differs_is_tried_three_times(remote, tmp_path, content, told):
    info = put(remote, "a.tar", b"content")
    remote.write("a.tar", content)
    with pytest.raises(ShardError, match=told):
        files(remote, tmp_path)[0].open(info)
    assert FlakyFileSystem.downloads == 3
    assert not list(tmp_path.glob("*.tar")) + list(tmp_path.glob("*.part"))


def test_a_missing_shard_is_tried_three_times(remote, tmp_path):
    info = put(remote, "a.tar", b"content")
    remote.remove("a.tar")
    with pytest.raises(ShardError, match=r"a\.tar cannot be fetched \(3 attempts\): .*does not exist"):
        files(remote, tmp_path)[0].open(info)


def test_a_cut_file_in_the_cache_is_fetched_again(remote, tmp_path):
    info = put(remote, "a.tar", b"content")
    (tmp_path / f"{info.sha256}.tar").write_bytes(b"con")
    assert read(files(remote, tmp_path)[0].open(info)) == b"content"


@pytest.mark.parametrize("kind", ["content", "link"])
def test_a_cached_file_of_other_content_is_not_used(remote, tmp_path, kind):
    info, planted = put(remote, "a.tar", b"content"), tmp_path / "planted"
    planted.write_bytes(b"CONTENT" if kind == "content" else b"content")
    if kind == "content":
        planted.rename(tmp_path / f"{info.sha256}.tar")
    else:
        (tmp_path / f"{info.sha256}.tar").symlink_to(planted)
    shards, counters = files(remote, tmp_path)
    assert read(shards.open(info)) == b"content"
    assert not (tmp_path / f"{info.sha256}.tar").is_symlink()
    assert counters.take() == counted(fetched=7, cache_misses=1)


def test_a_cached_file_is_checked_once_and_after_each_change(remote, tmp_path, monkeypatch):
    info, checked = put(remote, "a.tar", b"content"), []
    check = cache._check_content
    monkeypatch.setattr(cache, "_check_content", lambda path, info: checked.append(path.suffix) or check(path, info))
    for _ in range(2):
        os.close(files(remote, tmp_path)[0].open(info))
    assert checked == [".part"]
    (tmp_path / f"{info.sha256}.tar").write_bytes(b"content")
    for _ in range(2):
        os.close(files(remote, tmp_path)[0].open(info))
    assert checked == [".part", ".tar"]
    (tmp_path / f"{info.sha256}.tar").write_bytes(b"CONTENT")
    assert read(files(remote, tmp_path)[0].open(info)) == b"content"


def test_only_what_the_cache_wrote_is_swept(remote, tmp_path):
    """A folder may be named by mistake, or by the settings of another's model."""
    mine = [tmp_path / name for name in ("train-000000.tar", "notes.part", "map.places", f"{'A' * 64}.tar")]
    for path in mine:
        path.write_bytes(bytes(100))
        os.utime(path, (0, 0))
    shards, _ = files(remote, tmp_path, limit_bytes=1)
    os.close(shards.open(put(remote, "a.tar", b"content")))
    assert all(path.exists() for path in mine)


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """The system's temporary folder, which all users share."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(folder))
    return folder


def link(path, elsewhere):
    path.symlink_to(elsewhere, target_is_directory=True)


def others(path, elsewhere):
    path.mkdir(mode=0o700)
    os.chown(path, os.getuid() + 1, -1)


def open_to_others(path, elsewhere):
    path.mkdir()
    path.chmod(0o770)


@pytest.mark.parametrize("take", [link, others, open_to_others])
@pytest.mark.parametrize("asked", [False, True])
def test_a_folder_that_others_may_have_made_is_left_alone(remote, shared, tmp_path, take, asked):
    if take is others and os.getuid() != 0:
        pytest.skip("needs root, to give a folder away")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    name = f"imagegen-shards-{os.getuid()}"
    take(shared / name, elsewhere)
    config = CacheConfig(directory=str(shared) if asked else "")
    folder = NodeFolder(config.folder, config.limit_bytes).path
    assert folder == config.folder == shared / f"{name}-2"
    assert folder.stat().st_mode & 0o777 == 0o700
    os.close(ShardFiles(remote, NodeFolder(folder, 100), config, Counters()).open(put(remote, "a.tar", b"content")))
    assert not list(elsewhere.iterdir())
    assert take is link or not list((shared / name).iterdir())


def test_a_folder_that_is_made_by_another_in_between_is_refused(shared):
    folder = CacheConfig().folder
    open_to_others(folder, None)
    with pytest.raises(ValueError, match=r"is not a private folder of this user \(mode 0700\)"):
        NodeFolder(folder, 100)


def test_the_shard_unused_for_longest_goes_first(remote, tmp_path):
    infos = [put(remote, f"{number}.tar", bytes([number]) * 10) for number in range(4)]
    shards, counters = files(remote, tmp_path, limit_bytes=25)
    held = shards.open(infos[0])
    os.close(shards.open(infos[1]))
    os.utime(tmp_path / f"{infos[0].sha256}.tar", (0, 0))
    os.close(shards.open(infos[2]))
    assert {path.stem for path in tmp_path.glob("*.tar")} == {infos[1].sha256, infos[2].sha256}
    for info in (infos[3], infos[1]):
        os.close(shards.open(info))
        assert sum(path.stat().st_size for path in tmp_path.glob("*.tar")) <= 25
    assert read(held) == bytes([0]) * 10
    assert counters.take()["fetched"] >= 40


def test_a_shard_fetched_ahead_is_there_when_it_is_opened(remote, tmp_path):
    info = put(remote, "a.tar", b"content")
    shards, counters = files(remote, tmp_path)
    shards.fetch_ahead(info)
    shards.fetch_ahead(info)
    assert read(shards.open(info)) == b"content"
    assert FlakyFileSystem.downloads == 1
    assert counters.take() == counted(fetched=7, cache_hits=1)


def test_a_fault_ahead_of_use_is_left_to_the_reader(remote, tmp_path):
    info = put(remote, "a.tar", b"content")
    FlakyFileSystem.failures = 1
    shards, counters = files(remote, tmp_path)
    shards.fetch_ahead(info)
    assert not list(tmp_path.glob("*.tar"))
    assert read(shards.open(info)) == b"content"
    assert counters.take() == counted(fetched=7, cache_misses=1, retries=1)


def test_a_shard_that_another_reader_fetches_is_not_fetched_ahead(remote, tmp_path):
    info = put(remote, "a.tar", b"content")
    shards, _ = files(remote, tmp_path)
    with open(tmp_path / f"{info.sha256[:3]}.lock", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        shards.fetch_ahead(info)
        assert FlakyFileSystem.downloads == 0
        with pytest.raises(ShardError, match=r"another reader on this node has tried for 0\.2 s"):
            files(remote, tmp_path, timeout_s=0.2)[0].open(info)
    assert read(shards.open(info)) == b"content"


def test_a_full_disk_bounds_the_cache(remote, tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=25)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: free)
    assert cache.usable_bytes(tmp_path / "not" / "there") == 25
    shards, _ = files(remote, tmp_path)
    for number in range(4):
        os.close(shards.open(put(remote, f"{number}.tar", bytes([number]) * 10)))
    assert len(list(tmp_path.glob("*.tar"))) == 2


def test_what_died_fetches_left_is_swept(remote, tmp_path):
    left, fresh = tmp_path / f"{'0' * 64}.part", tmp_path / f"{'1' * 32}.part"
    left.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(left, (0, 0))
    os.close(files(remote, tmp_path)[0].open(put(remote, "a.tar", b"content")))
    assert not left.exists()
    assert fresh.exists()


def test_a_sweep_leaves_a_fetch_that_is_being_finished(remote, tmp_path, monkeypatch):
    """Its time of modification says that it was checked, and is years old."""
    info = put(remote, "a.tar", b"content")
    shards, counters = files(remote, tmp_path / "cache")
    finish = os.replace

    def swept_before(partial, cached):
        NodeFolder(tmp_path / "cache", 1 << 20).sweep(1 << 20)
        finish(partial, cached)

    monkeypatch.setattr(cache.os, "replace", swept_before)
    assert read(shards.open(info)) == b"content"
    assert counters.take() == counted(cache_misses=1, fetched=7)


def test_bounds_that_are_not_positive_name_the_flags():
    with pytest.raises(ValueError, match=r"--data\.cache\.limit-bytes"):
        CacheConfig(limit_bytes=0)
