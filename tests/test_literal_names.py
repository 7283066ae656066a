"""Names are taken literally: what looks like a pattern means the one file of that name, in every kind of store."""

import string
import zipfile

import numpy as np
import pytest
import torch
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagegen_dist.data.sources.detect import open_source
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import Checkpoint, Snapshot, newest_images, prune, publish

PRINTABLE = [letter for letter in string.printable if letter.isprintable() and letter != "/"] + ["ä", "漢", "🙂"]
PATTERNS = {
    "a[1]": "a1",
    "b*": "bc",
    "d?": "de",
    "[!x]": "y",
    "{f,g}": "f",
    "h?versionId=1": "h",
    "**": "i",
    "j%31": "j1",
}
"""What looks like a pattern, and what it would stand for."""


@pytest.fixture(autouse=True)
def no_pattern_is_expanded(monkeypatch):
    """No call of a client that would."""

    def refuse(*arguments, **options):
        raise AssertionError("a client was asked to expand a pattern")

    for client, name in ((AbstractFileSystem, "expand_path"), (AbstractFileSystem, "glob"), (AsyncFileSystem, "_glob")):
        monkeypatch.setattr(client, name, refuse)
    monkeypatch.setattr(AsyncFileSystem, "_expand_path", refuse)
    monkeypatch.setattr(MemoryFileSystem, "expand_path", refuse)


few_letters = st.text(st.sampled_from("[]*?!{},%-a1"), min_size=1, max_size=4)


@pytest.fixture(params=["local", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return Store(request.getfixturevalue("bucket").url)
    return Store(tmp_path / "store" if request.param == "local" else f"memory://{tmp_path.name}")


def test_every_printable_character_is_a_name_that_is_written_read_listed_and_removed(store):
    names = sorted(f"a{letter}b" for letter in PRINTABLE)
    for name in names:
        store.write(name, name.encode())
    assert store.names() == names
    while names:
        name = names.pop(len(names) // 2)
        assert store.read(name) == name.encode()
        assert store.exists(name)
        assert store.size(name) == len(name.encode())
        store.remove(name)
        assert store.names() == names


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_name_that_looks_like_a_pattern_stands_for_itself_alone(store, kind):
    below = "" if kind == "file" else "/x/y"
    for name, meant in PATTERNS.items():
        folder = store / "set"
        folder.write(f"{name}{below}", b"literal")
        folder.write(f"{meant}{below}", b"another")
        folder.remove(name)
        assert folder.names() == [meant]
        folder.remove(name)
        assert folder.read(f"{meant}{below}") == b"another"
        folder.remove(meant)
        assert folder.names() == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(few_letters, min_size=2, max_size=4))
def test_removing_a_file_leaves_every_other(store, names):
    place = store / "any"
    for name in names:
        place.write(name, name.encode())
    left = set(names)
    for name in sorted(names):
        place.remove(name)
        left.remove(name)
        assert place.names() == sorted(left)


def test_a_folder_of_more_objects_than_one_request_deletes_is_removed_without_its_neighbour(bucket):
    folder = bucket.folder / "tree" / "deep"
    folder.mkdir(parents=True)
    for number in range(1001):
        (folder / f"{number}").touch()
    (bucket.folder / "tree-of-others").touch()
    Store(bucket.url).remove("tree")
    assert Store(bucket.url).names() == ["tree-of-others"]


def test_a_bucket_is_emptied_and_stays(bucket):
    store = Store(bucket.url)
    store.write("a/b", b"content")
    store.remove()
    assert store.names() == []
    assert store.exists()


def published(run: Store, images: int) -> Checkpoint:
    return publish(run, Snapshot(images, {"w": torch.zeros(1)}, {"w": torch.zeros(1)}, {}), "attempt", "hash")


def test_pruning_a_run_with_brackets_in_its_name_leaves_its_neighbour(store):
    run, neighbour = store / "faces[1]", store / "faces1"
    published(neighbour, 0)
    for images in (0, 10, 20, 30):
        prune(run, published(run, images), keep=2)
    assert newest_images(neighbour) == 0
    assert (run / "checkpoints").names() == ["step-000000000020", "step-000000000030"]


def test_a_source_whose_name_looks_like_a_pattern_is_the_file_of_that_name(tmp_path):
    for name in ("a[1].zip", "a1.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("picture.png", name)
    records = list(open_source(f"{tmp_path}/a[1].zip").select(np.array([0])).read())
    assert [record.data for record in records] == [b"a[1].zip"]
