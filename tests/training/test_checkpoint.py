import json
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from imagegen_dist.config import fingerprint
from imagegen_dist.run_folder import CHECKPOINTS, MANIFEST, CheckpointError
from imagegen_dist.storage import StorageError, Store
from imagegen_dist.training import checkpoint
from imagegen_dist.training.checkpoint import (
    FILES,
    Checkpoint,
    Checkpointer,
    Snapshot,
    newest,
    open_checkpoint,
    prune,
    publish,
    weights_digest,
)


def snapshot(images: int) -> Snapshot:
    weight = torch.full((3, 2), float(images))
    return Snapshot(images, {"g/w": weight}, {"w/g/w": weight + 1, "o/g/w/step": torch.tensor(2.0)}, {"images": images})


def put(run: Store, images: int, attempt: str = "a", metric: float | None = None) -> Checkpoint:
    return publish(run, snapshot(images), attempt, "hash", metric)


def find(run: Store) -> tuple[int | None, list[str]]:
    """The images of the newest whole checkpoint, and what was said of those skipped."""
    skipped: list[str] = []
    found = newest(run, skipped.append)
    return (found.images if found else None), skipped


def kept(run: Store) -> list[int]:
    return [int(name.removeprefix("step-")) for name in (run / CHECKPOINTS).names()]


@pytest.fixture(params=["local", "memory"])
def run(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Store]:
    store = Store(tmp_path / "run" if request.param == "local" else f"memory://{tmp_path.name}")
    yield store
    store.remove()


def test_what_was_published_is_read_back(run):
    put(run, 7, metric=0.5)
    found = newest(run, pytest.fail)
    assert found.images == 7
    assert found.manifest["metric"] == 0.5
    assert found.manifest["config"] == "hash"
    assert found.url == f"{run.url}/checkpoints/step-000000000007/a"
    assert torch.equal(found.model["g/w"], torch.full((3, 2), 7.0))
    assert found.state["o/g/w/step"] == 2
    assert found.facts == {"images": 7}


def test_a_run_without_checkpoints_has_none(run):
    assert find(run) == (None, [])


def test_the_newest_is_that_of_most_images_and_of_the_last_attempt(run):
    put(run, 9, "1")
    put(run, 10, "1")
    put(run, 10, "2")
    assert newest(run, pytest.fail).url.endswith("step-000000000010/2")


def flip(run: Checkpoint, name: str) -> str:
    data = bytearray(run.store.read(name))
    data[len(data) // 2] ^= 1
    run.store.write(name, bytes(data))
    return "sha256"


def truncate(run: Checkpoint, name: str) -> str:
    data = run.store.read(name)
    run.store.write(name, data[:-1])
    return f"has {len(data) - 1} bytes, not {len(data)}"


def delete(run: Checkpoint, name: str) -> str:
    run.store.remove(name)
    return "is missing"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip, truncate, delete])
def test_the_one_before_a_damaged_one_is_used_and_the_file_named(run, damage, name):
    put(run, 1)
    reason = damage(put(run, 2), name)
    images, skipped = find(run)
    assert images == 1
    assert len(skipped) == 1
    assert "step-000000000002/a" in skipped[0]
    assert name in skipped[0]
    assert reason in skipped[0]


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"{}",
        b'{"format": 2}',
        b'{"format": 1, "images": 2, "files": {}, "sha256": "0"}',
        b'{"format": 1, "images": 2, "files": 3}',
    ],
)
def test_the_one_before_a_bad_manifest_is_used_and_the_reason_named(run, content):
    put(run, 1)
    damaged = put(run, 2)
    damaged.store.remove(MANIFEST) if content is None else damaged.store.write(MANIFEST, content)
    images, skipped = find(run)
    assert images == 1
    assert len(skipped) == 1
    assert "step-000000000002/a" in skipped[0]
    assert "manifest.json" in skipped[0] or "format 2" in skipped[0]
    assert "\n" not in skipped[0]


def test_a_byte_flipped_anywhere_in_the_manifest_is_found():
    run = Store("memory://flipped")
    whole = put(run, 2, metric=0.25)
    data = whole.store.read(MANIFEST)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        whole.store.write(MANIFEST, bytes(changed))
        try:
            open_checkpoint(whole.store)
        except CheckpointError:
            continue
        assert json.loads(bytes(changed)) == json.loads(data), "only white space may change unseen"


def test_a_manifest_that_leaves_out_a_file_is_refused(run):
    whole = put(run, 2)
    manifest = json.loads(whole.store.read(MANIFEST))
    del manifest["sha256"], manifest["files"]["state.json"]
    whole.store.write(MANIFEST, json.dumps({**manifest, "sha256": fingerprint(manifest)}).encode())
    with pytest.raises(CheckpointError, match=r"does not list state\.json"):
        open_checkpoint(whole.store)


def test_every_bad_one_is_named_once_and_none_left_is_none(run):
    for images in (1, 2, 3):
        delete(put(run, images), "state.json")
    images, skipped = find(run)
    assert images is None
    assert [f"step-{number:012d}" in text for number, text in zip((3, 2, 1), skipped, strict=True)] == [True] * 3


@pytest.mark.parametrize("where", ["model", "state"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_non_finite_checkpoint_is_never_published(run, where, value):
    put(run, 1)
    bad = snapshot(2)
    tensors = {"model": bad.model, "state": bad.state}[where]
    next(iter(tensors.values()))[1, 1] = value
    with pytest.raises(CheckpointError, match="is not finite at 2 images; no checkpoint was written"):
        publish(run, bad, "a", "hash")
    assert kept(run) == [1]


def test_the_newest_two_are_kept_at_least(run):
    for images in range(1, 6):
        last = put(run, images)
    prune(run, last, 2)
    assert kept(run) == [4, 5]


def test_the_best_by_metric_is_kept_besides(run):
    for images, metric in enumerate([0.3, 0.1, None, float("nan"), 0.2, None, 0.4], start=1):
        last = put(run, images, metric=metric)
    prune(run, last, 2)
    assert kept(run) == [2, 6, 7]


def test_leftovers_of_a_crash_and_what_was_passed_over_are_removed(run):
    put(run, 4)
    last = put(run, 2)
    (run / CHECKPOINTS / "step-000000000001" / "a").write("model.safetensors", b"part")
    (run / CHECKPOINTS / "step-000000000002" / "0").write("model.safetensors", b"part")
    (run / CHECKPOINTS / "step-000000000003" / "a").write("model.safetensors", b"part")
    prune(run, last, 2)
    assert kept(run) == [2]
    assert (run / CHECKPOINTS).names() == ["step-000000000002"]
    assert (run / CHECKPOINTS / "step-000000000002").names() == ["a"]


def test_checkpointer_publishes_in_the_order_given_and_keeps_the_newest(run):
    checkpointer = Checkpointer(run, "hash", "a")
    for images in (1, 2, 3):
        checkpointer.save(snapshot(images))
    assert checkpointer.wait().images == 3
    assert kept(run) == [2, 3]
    assert find(run) == (3, [])


def test_saving_returns_before_the_write_is_done(run, monkeypatch):
    may_write = threading.Event()
    real = checkpoint.publish

    def slow(*arguments: Any) -> Checkpoint:
        assert may_write.wait(10)
        return real(*arguments)

    monkeypatch.setattr(checkpoint, "publish", slow)
    checkpointer = Checkpointer(run, "hash", "a")
    checkpointer.save(snapshot(1))
    assert checkpointer.last is None
    may_write.set()
    assert checkpointer.wait().images == 1


@pytest.mark.parametrize("ask", ["wait", "save"])
def test_a_failed_write_is_raised_once_where_it_is_next_asked_for(run, ask):
    checkpointer = Checkpointer(run, "hash", "a")
    checkpointer.save(snapshot(1))
    checkpointer.wait()
    bad = snapshot(2)
    bad.model["g/w"][0, 0] = torch.nan
    checkpointer.save(bad)
    with pytest.raises(CheckpointError, match="not finite"):
        checkpointer.wait() if ask == "wait" else checkpointer.save(snapshot(3))
    assert checkpointer.wait().images == 1
    checkpointer.save(snapshot(4))
    assert checkpointer.wait().images == 4


class DyingFileSystem(MemoryFileSystem):
    """Memory that dies in its write or removal number `dies_at`, and leaves half of what it was then writing."""

    protocol = "dies"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    calls = 0
    dies_at = -1
    leaves_half = False

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return super()._strip_protocol(path.removeprefix("dies://"))

    @classmethod
    def begin(cls, calls_left: int, leaves_half: bool) -> None:
        cls.calls, cls.dies_at, cls.leaves_half = 0, calls_left, leaves_half

    def _count(self) -> None:
        cls = DyingFileSystem
        cls.calls += 1
        if 0 <= cls.dies_at < cls.calls:
            raise OSError("the disk is gone")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        try:
            self._count()
        except OSError:
            if DyingFileSystem.leaves_half and DyingFileSystem.calls == DyingFileSystem.dies_at + 1:
                super().pipe_file(path, value[: len(value) // 2], mode, **kwargs)
            raise
        super().pipe_file(path, value, mode, **kwargs)

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        with open(lpath, "rb") as file:
            self.pipe_file(rpath, file.read())

    def rm_file(self, path: str) -> None:
        self._count()
        super().rm_file(path)


@pytest.fixture
def dying() -> Iterator[Store]:
    fsspec.register_implementation("dies", DyingFileSystem, clobber=True)
    DyingFileSystem.begin(-1, False)
    DyingFileSystem.store.clear()
    yield Store("dies://bucket/run")
    DyingFileSystem.store.clear()


def save_until_it_dies(run: Store, steps: range) -> int:
    """Save one checkpoint after the other; the newest images that `save` or `wait` reported as written."""
    checkpointer = Checkpointer(run, "hash", "a")
    written = 0
    try:
        for images in steps:
            checkpointer.save(snapshot(images), metric=1 / images)
            written = checkpointer.wait().images
    except StorageError:
        pass
    return written


@pytest.mark.parametrize("leaves_half", [False, True])
def test_whatever_the_write_that_a_file_system_dies_in_a_whole_checkpoint_is_found(dying, leaves_half):
    put(dying, 1)
    before = dict(DyingFileSystem.store)
    DyingFileSystem.begin(-1, leaves_half)
    assert save_until_it_dies(dying, range(2, 6)) == 5
    calls = DyingFileSystem.calls
    assert calls > 4 * 4 + 2 * 4  # four files for each checkpoint, and four removals for each that was pruned

    for dies_at in range(calls):
        DyingFileSystem.store.clear()
        DyingFileSystem.store.update(before)
        DyingFileSystem.begin(dies_at, leaves_half)
        written = save_until_it_dies(dying, range(2, 6))
        assert DyingFileSystem.calls > dies_at
        DyingFileSystem.begin(-1, leaves_half)
        found = newest(dying, lambda _: None)
        assert found.images >= max(written, 1)
        assert torch.equal(found.model["g/w"], torch.full((3, 2), float(found.images)))

        assert save_until_it_dies(dying, range(6, 8)) == 7
        assert find(dying) == (7, [])


def test_digests_of_equal_weights_are_equal():
    assert torch.equal(weights_digest({"a": torch.ones(5)}), weights_digest({"a": torch.ones(5)}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8])
def test_one_bit_anywhere_changes_the_digest(dtype):
    weights = {"a": torch.arange(6).to(dtype).reshape(2, 3), "b": torch.arange(4).to(dtype)}
    before = weights_digest(weights)
    for tensor in weights.values():
        data = tensor.view(-1).view(torch.uint8)
        for at in range(len(data)):
            data[at] ^= 1
            assert not torch.equal(weights_digest(weights), before)
            data[at] ^= 1
    assert torch.equal(weights_digest(weights), before)


def test_swapped_values_change_the_digest():
    assert not torch.equal(
        weights_digest({"a": torch.tensor([1.0, 2.0])}), weights_digest({"a": torch.tensor([2.0, 1.0])})
    )
