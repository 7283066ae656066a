import json
import math
import threading
import uuid
from collections.abc import Callable, Mapping

import pytest

from imagegen_dist.metrics.sinks import BackgroundSink, JSONLSink, PictureSink, encode_row, read_pictures, read_rows
from imagegen_dist.storage import Store


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return Store(tmp_path / "run" if request.param == "local" else f"memory://{uuid.uuid4().hex}/run")


def logged(store, images, resume_images=None):
    sink = JSONLSink(store, resume_images=resume_images)
    for seen in images:
        sink.log({"loss/generator": 1 / 3 + seen, "images": float(seen)})
    return sink


def test_rows_come_back_as_they_were_logged(store):
    logged(store, [64, 128]).close()
    assert read_rows(store) == [
        {"images": 64, "loss/generator": 1 / 3 + 64},
        {"images": 128, "loss/generator": 1 / 3 + 128},
    ]


def test_a_file_that_is_not_there_has_no_rows(store):
    assert read_rows(store) == []


def test_images_come_first_and_are_whole():
    assert encode_row({"loss/a": 0.5, "images": 64.0}) == b'{"images": 64, "loss/a": 0.5}\n'


def test_figures_that_are_not_finite_leave_strict_json(store):
    sink = JSONLSink(store)
    sink.log({"images": 1, "loss/a": math.nan, "loss/b": -math.inf, "loss/c": 2.0})
    sink.close()

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(store.read("metrics.jsonl"), parse_constant=refuse)["loss/a"] is None
    row = read_rows(store)[0]
    assert math.isnan(row["loss/a"])
    assert math.isnan(row["loss/b"])
    assert row["loss/c"] == 2.0


def test_on_the_local_disk_each_row_is_there_at_once(tmp_path):
    store = Store(tmp_path)
    sink = logged(store, [64])
    assert len(read_rows(store)) == 1
    sink.close()


def test_elsewhere_rows_arrive_by_flush():
    store = Store(f"memory://{uuid.uuid4().hex}/run")
    sink = logged(store, [64, 128])
    assert read_rows(store) == []
    sink.flush()
    assert len(read_rows(store)) == 2
    sink.log({"images": 192})
    sink.flush()
    sink.log({"images": 256})
    sink.close()
    sink.close()
    assert [row["images"] for row in read_rows(store)] == [64, 128, 192, 256]


def test_a_resumed_file_equals_an_undisturbed_one(store):
    logged(store, [64, 128, 192, 256]).close()
    undisturbed = store.read("metrics.jsonl")
    logged(store, [64, 128, 192]).close()
    logged(store, [192, 256], resume_images=128).close()
    assert store.read("metrics.jsonl") == undisturbed


def test_a_torn_last_line_is_dropped_on_resume(store):
    logged(store, [64, 128]).close()
    store.write("metrics.jsonl", store.read("metrics.jsonl") + b'{"images": 192, "loss/gen')
    assert [row["images"] for row in read_rows(store)] == [64, 128]
    logged(store, [192], resume_images=1000).close()
    assert [row["images"] for row in read_rows(store)] == [64, 128, 192]


def test_a_last_line_without_its_newline_is_completed_on_resume(store):
    store.write("metrics.jsonl", b'{"images": 64}')
    logged(store, [128], resume_images=64).close()
    assert [row["images"] for row in read_rows(store)] == [64, 128]


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(store):
    store.write("metrics.jsonl", b'{"images": 64}\n{"ima\n{"images": 128}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        read_rows(store)


def test_a_fresh_run_starts_an_empty_file(store):
    logged(store, [64]).close()
    logged(store, []).close()
    assert store.read("metrics.jsonl") == b""


def test_pictures_are_files_named_by_images_seen(store):
    sink = PictureSink(store)
    sink.picture("grid", b"first", "png", 0)
    sink.picture("grid", b"second", "png", 64_000)
    sink.picture("grid-real", b"other", "png", 0)
    sink.log({"images": 1})
    sink.flush()
    sink.close()
    assert store.read("samples/grid-000000064000.png") == b"second"
    assert read_pictures(store, "grid") == [(0, b"first", "png"), (64_000, b"second", "png")]


def test_of_many_pictures_the_first_the_last_and_some_between_are_read(store):
    sink = PictureSink(store)
    for images in range(50):
        sink.picture("grid", bytes([images]), "png", images)
    assert [images for images, _, _ in read_pictures(store, "grid", limit=5)] == [0, 12, 24, 37, 49]
    assert [images for images, _, _ in read_pictures(store, "grid", limit=1)] == [0]
    assert read_pictures(store, "nothing") == []


class Slow:
    """A sink that opens once it may, and notes what it is given and by whom."""

    def __init__(self, may_open: threading.Event, warn: Callable[[str], None]) -> None:
        may_open.wait()
        self.noted: list[tuple[str, object]] = []
        self.warn = warn

    def log(self, row: Mapping[str, float]) -> None:
        self.noted.append(("row", row["images"]))
        if row["images"] < 0:
            raise ValueError("before the start")

    def picture(self, name: str, data: bytes, extension: str, images: int) -> None:
        self.warn(f"no {name}")

    def flush(self) -> None:
        self.noted.append(("thread", threading.current_thread().name != "MainThread"))

    def close(self) -> None:
        self.noted.append(("closed", True))


def test_a_background_sink_is_not_waited_for_and_keeps_the_order() -> None:
    may_open, told = threading.Event(), list[str]()
    sink = BackgroundSink(lambda warn: Slow(may_open, warn), told.append)
    sink.log({"images": 1.0})
    sink.picture("grid", b"", "png", 1)
    sink.flush()
    may_open.set()
    sink.close()
    assert sink.sink.noted == [("row", 1.0), ("thread", True), ("closed", True)]
    assert told == ["no grid"]


def test_an_error_of_a_background_sink_is_raised_by_a_later_call() -> None:
    may_open = threading.Event()
    may_open.set()
    sink = BackgroundSink(lambda warn: Slow(may_open, warn), print)
    sink.log({"images": -1.0})
    with pytest.raises(ValueError, match="before the start"):
        sink.close()
