import copy
import json
import os
import re
import time
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from imagegen_dist.storage import AccessError, StorageError, Store
from tests.s3 import flat


class DyingFileSystem(MemoryFileSystem):
    """Memory that refuses every write after the first `writes_left`."""

    protocol = "dying"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    writes_left = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("dying://"))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if DyingFileSystem.writes_left == 0:
            raise OSError("the disk is gone\nand more")
        DyingFileSystem.writes_left -= 1
        super().pipe_file(path, value, mode, **kwargs)


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    place = Store(tmp_path / "store" if request.param == "local" else f"memory://{tmp_path.name}")
    yield place
    place.remove()


@pytest.fixture
def dying():
    fsspec.register_implementation("dying", DyingFileSystem, clobber=True)
    DyingFileSystem.store.clear()
    return Store("dying://bucket/run")


def test_a_written_file_reads_back(store):
    store.write("a/b.bin", b"0123456789")
    assert store.read("a/b.bin") == b"0123456789"
    assert store.read_range("a/b.bin", 2, 5) == b"234"
    assert store.read_range("a/b.bin", 8, 20) == b"89"
    assert store.size("a/b.bin") == 10
    assert store.exists("a/b.bin")
    assert store.exists("a")


def test_a_write_replaces_the_whole_file(store):
    store.write("a", b"a long old content")
    store.write("a", b"new")
    assert store.read("a") == b"new"
    assert store.names() == ["a"]


def test_upload_and_download_copy_a_file(store, tmp_path):
    (tmp_path / "source").write_bytes(b"content")
    store.upload("folder/copy", tmp_path / "source")
    store.download("folder/copy", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"


def test_names_are_sorted_and_one_level_deep(store):
    for name in ("b", "a/x", "a/y/z", "c"):
        store.write(name, b"")
    assert store.names() == ["a", "b", "c"]
    assert store.names("a") == (store / "a").names() == ["x", "y"]


def test_a_listing_tells_folders_from_files_whatever_their_names_end_with(store):
    store.write("dogs.zip/a.txt", b"")
    store.write("cats", b"")
    assert store.entries() == {"cats": False, "dogs.zip": True}


def test_names_of_a_folder_that_does_not_exist_are_none(store):
    assert store.names() == store.names("nowhere") == []
    assert not store.exists()


def test_names_of_a_file_are_none(store):
    store.write("file", b"")
    assert store.names("file") == []


def test_remove_takes_files_trees_and_missing_names(store):
    for name in ("a", "tree/x", "tree/y/z"):
        store.write(name, b"")
    store.remove("a")
    store.remove("tree")
    store.remove("tree")
    assert store.names() == []


def test_a_missing_file_stays_a_file_not_found_error_that_names_it(store):
    for action in (store.read, store.size, lambda name: store.read_range(name, 0, 1)):
        with pytest.raises(FileNotFoundError, match=r"nothing\.bin"):
            action("nothing.bin")


def test_probe_leaves_nothing_behind(store):
    store.probe()
    assert store.names() == []


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/"])
def test_names_outside_the_store_are_refused(store, name):
    with pytest.raises(StorageError, match="is not a name inside"):
        store.read(name)


def test_plain_paths_are_local_and_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Store("runs").url == str(tmp_path / "runs")
    assert Store("runs") == Store(f"file://{tmp_path}/runs/")
    assert Store("runs").local_path("a") == tmp_path / "runs" / "a"
    assert Store("memory://runs").local_path("a") is None


def test_a_store_is_pickled_without_its_client(tmp_path):
    store = Store("memory://somewhere/below")
    store.write("a", b"1")
    assert store.__reduce__() == (Store, ("memory://somewhere/below", 0.0))
    sent = copy.deepcopy(store)
    assert sent == store
    assert hash(sent) == hash(store)
    assert sent.read("a") == b"1"
    store.remove()


def test_a_password_in_a_url_is_refused_and_not_shown():
    with pytest.raises(StorageError, match="carries a password") as error:
        Store("s3://key:hunter2@bucket/data")
    assert "hunter2" not in str(error.value)
    assert "key" not in str(error.value)


def test_a_container_in_a_url_is_no_password():
    assert Store("abfs://container@account.dfs.core.windows.net/x").protocol == "abfs"


def test_an_unknown_protocol_is_refused():
    with pytest.raises(StorageError, match="unknown protocol s4://"):
        Store("s4://bucket")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot write .*file/below") as error:
        Store(tmp_path / "file" / "below").probe()
    assert "\n" not in str(error.value)


def test_a_local_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write("a", b"old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="No space left"):
        store.write("a", b"new")
    assert store.read("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_files_that_a_crash_left_unpublished_are_not_listed(tmp_path):
    (tmp_path / ".a.0123.tmp").write_bytes(b"half")
    assert Store(tmp_path).names() == []


@pytest.fixture
def faulty(monkeypatch):
    """A remote place that fails as often as it is told, by a clock that moves when somebody sleeps."""
    fsspec.register_implementation("dying", DyingFileSystem, clobber=True)
    DyingFileSystem.store.clear()
    DyingFileSystem.writes_left = 0
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def sleep(seconds):
        now[0] += seconds
        if now[0] > 60:
            DyingFileSystem.writes_left = 1

    monkeypatch.setattr(time, "sleep", sleep)
    return now


def test_a_patient_store_outlasts_a_place_that_is_gone_for_a_while(faulty):
    place = Store("dying://bucket", patience_s=180.0) / "run"
    place.write("a", b"new")
    assert 60 < faulty[0] < 70
    assert place.read("a") == b"new"


def test_patience_ends(faulty):
    with pytest.raises(StorageError, match="the disk is gone"):
        Store("dying://bucket", patience_s=50.0).write("a", b"new")
    assert 40 < faulty[0] <= 50


def test_a_store_without_patience_and_the_local_disk_are_asked_once(faulty, tmp_path):
    with pytest.raises(StorageError):
        Store("dying://bucket").write("a", b"new")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        Store(tmp_path / "file", patience_s=180.0).write("below", b"")
    assert faulty[0] == 0


def test_what_is_missing_or_refused_is_not_asked_for_again(faulty, monkeypatch):
    place = Store("dying://bucket", patience_s=180.0)
    with pytest.raises(FileNotFoundError):
        place.read("nothing")

    def refuse(*arguments, **options):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(DyingFileSystem, "pipe_file", refuse)
    with pytest.raises(AccessError, match="Access Denied"):
        place.write("a", b"new")
    assert faulty[0] == 0


@pytest.mark.parametrize("survived", range(4))
def test_a_file_system_that_dies_leaves_every_file_old_or_new(dying, survived):
    DyingFileSystem.writes_left = 3
    for name in "abc":
        dying.write(name, b"old")
    DyingFileSystem.writes_left = survived
    for name in "abc"[:survived]:
        dying.write(name, b"new")
    for name in "abc"[survived:]:
        with pytest.raises(StorageError, match=r"cannot write dying://bucket/run/.: the disk is gone$"):
            dying.write(name, b"new")
    assert [dying.read(name) for name in "abc"] == [b"new"] * survived + [b"old"] * (3 - survived)


def test_what_docs_say_of_requester_pays_and_encryption_reaches_every_request(monkeypatch, tmp_path):
    """As FSSPEC_S3 in the environment, which fsspec reads when it is imported."""
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    [said] = re.findall(r"export FSSPEC_S3='(.*)'", text)
    monkeypatch.setitem(fsspec.config.conf, "s3", json.loads(said))
    seen: list[dict[str, str]] = []
    with flat.serving({}, seen) as url:
        store = Store(url) / "folder"
        store.write("a", b"content")
        store.publish("b", lambda output: output.write(b"content"))
        assert store.read("a") == b"content"
        assert store.names() == ["a", "b"]
        assert store.size("b") == 7
        store.download("b", tmp_path / "b")
    assert all(headers["x-amz-request-payer"] == "requester" for headers in seen)
    encrypted = [headers for headers in seen if headers.get("x-amz-server-side-encryption") == "aws:kms"]
    assert [headers["content-length"] for headers in encrypted] == ["7", "7"]
