import io
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import wandb
from PIL import Image

from imagegen_dist.drawing.animation import animate, as_video
from imagegen_dist.drawing.surfaces import scene
from imagegen_dist.metrics.wandb import Bars, Lines, Page, Points, Table, WandbSink, sync_command
from tests.wandb_files import offline_records, offline_run
from tests.wandb_server import stalled_server


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def start(tmp_path, warnings):
    def start(**changes):
        arguments = {
            "project": "tests",
            "run_id": "fixed-id",
            "run_name": "a run",
            "config": {"objective": {"gamma": [1, 0.1]}},
            "directory": tmp_path / "wandb-files",
            "mode": "offline",
            "api_key_present": False,
            "warn": warnings.append,
        }
        return WandbSink(**arguments | changes)

    return start


def picture():
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 128).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_offline_run_leaves_its_files_where_directory_says(start, tmp_path, warnings, capfd):
    sink = start()
    sink.log({"images": 64, "loss/generator": 0.5})
    sink.picture("grid", picture(), "png", 64)
    sink.flush()
    sink.close()
    assert sink.directory.is_relative_to(tmp_path / "wandb-files")
    assert (sink.directory / "run-fixed-id.wandb").stat().st_size > 0
    assert len(list(sink.directory.rglob("grid*.png"))) == 1
    assert warnings == []
    assert capfd.readouterr() == ("", "")


def test_a_restart_goes_on_under_the_same_id_and_earlier_images_are_no_fault(start, warnings):
    folders = []
    for images in ([64, 128, 192], [128, 192]):
        sink = start()
        for seen in images:
            sink.log({"images": seen, "loss/generator": 0.5})
        sink.close()
        assert (sink.directory / "run-fixed-id.wandb").exists()
        folders.append(sink.directory)
        sink.directory.rename(earlier := sink.directory.with_name(f"offline-run-2020010{len(folders)}_000000-fixed-id"))
        folders[-1] = earlier
    assert warnings == []
    assert sink.sync_command == shlex.join(["wandb", "sync", *map(str, folders)])
    said = subprocess.run([*shlex.split(sink.sync_command), "--dry-run"], capture_output=True, text=True, check=True)
    listed = [line for line in said.stderr.splitlines() if "offline-run-" in line]
    assert [Path(line.split()[-1]).parent.name for line in listed] == [folder.name for folder in folders]


def test_folders_that_were_sent_before_are_sent_again_before_those_that_follow_them(start, tmp_path):
    """W&B replaces a run's rows by those that are synced, so the later folder alone would lose the earlier ones."""
    sink = start()
    sink.close()
    assert sync_command(sink.directory.parent, ["fixed-id"]) == f"wandb sync {sink.directory}"
    (sink.directory / "run-fixed-id.wandb.synced").touch()
    assert sync_command(sink.directory.parent, ["fixed-id"]) == ""
    before = [
        sink.directory.with_name(name)
        for name in ("run-20200101_000000-fixed-id", "offline-run-20200101_000000-fixed-id-1")
    ]
    folders = [*before, sink.directory, sink.directory.with_name("run-20990101_000000-fixed-id")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        (folder / "run-fixed-id.wandb").touch()
    another = sink.directory.with_name("run-20200101_000000-fixed-id-2")
    another.mkdir()
    (another / "run-fixed-id-2.wandb").touch()
    sending = ["wandb", "sync", "--include-online", "--include-synced", *map(str, folders)]
    assert sync_command(sink.directory.parent, ["fixed-id"], [folders[0]]) == shlex.join(sending)
    assert sync_command(sink.directory.parent, ["another-id"]) == ""


def test_without_a_key_nothing_is_sent_whatever_the_mode(start, warnings):
    sink = start(mode="online")
    sink.close()
    assert sink.directory.name.startswith("offline-run")
    assert warnings == []


@pytest.mark.parametrize(
    "broken",
    [{"run_id": "not/an#id"}, {"config": {"a": object()}}, {"mode": "no such mode"}],
    ids=["id", "config", "mode"],
)
def test_a_start_that_fails_is_reported_once_and_training_goes_on(start, warnings, broken):
    sink = start(**broken)
    sink.log({"images": 64})
    sink.picture("grid", picture(), "png", 64)
    sink.close()
    assert len(warnings) == 1
    assert "could not start" in warnings[0]
    assert "\n" not in warnings[0]
    assert sink.directory is None


def test_a_directory_that_cannot_be_made_is_reported_and_no_error(start, tmp_path, warnings):
    (tmp_path / "a file").write_text("")
    start(directory=tmp_path / "a file" / "below").close()
    assert len(warnings) == 1


def test_a_picture_that_cannot_be_read_gives_weights_and_biases_up_with_one_warning(start, warnings):
    sink = start()
    sink.picture("grid", b"no picture", "png", 64)
    sink.log({"images": 128})
    sink.close()
    assert len(warnings) == 1
    assert "could not log a picture" in warnings[0]
    restarted = start()
    assert restarted.directory is not None
    restarted.close()


def test_a_server_that_is_not_reached_leads_to_an_offline_run(start, warnings, monkeypatch):
    wandb.teardown()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("imagegen_dist.metrics.wandb._START_TIMEOUT_S", 1.0)
    sink = start(mode=None, api_key_present=True)
    sink.log({"images": 64})
    sink.close()
    assert sink.directory.name.startswith("offline-run")
    assert len(warnings) == 1
    assert "was not reached" in warnings[0]
    wandb.teardown()


def test_a_server_that_never_answers_does_not_hold_up_the_start(start, warnings, monkeypatch):
    """As behind a firewall that drops packets: the connection is taken, and nothing comes."""
    wandb.teardown()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("imagegen_dist.metrics.wandb._PROBE_TIMEOUT_S", 0.2, raising=False)
        began = time.monotonic()
        sink = start(mode=None, api_key_present=True)
        assert time.monotonic() - began < 20
    sink.close()
    [warning] = warnings
    assert "did not answer within 0.2 s" in warning
    assert sink.sync_command == f"wandb sync {sink.directory}"
    wandb.teardown()


def test_a_server_that_takes_no_data_does_not_hold_up_the_end(start, warnings, monkeypatch):
    wandb.teardown()
    monkeypatch.setattr("imagegen_dist.metrics.wandb._FINISH_TIMEOUT_S", 0.5, raising=False)
    with stalled_server() as address:
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", address)
        sink = start(mode="online", api_key_present=True)
        sink.log({"images": 64})
        ended = threading.Thread(target=sink.close, daemon=True)
        ended.start()
        ended.join(20)
        assert not ended.is_alive()
    [warning] = warnings
    assert sink.directory.name.startswith("run-")
    assert f"`wandb sync --include-online {sink.directory}` sends the rest" in warning
    wandb.teardown()


def test_what_a_run_is_comes_with_it(start, warnings):
    sink = start(job_type="train", tags=["digits", "gan", "digits", "x" * 70], captions={"grid": "samples"})
    sink.log({"images": 64, "eval/frechet": 3.0, "loss/generator": 1.0})
    sink.picture("grid", picture(), "png", 64)
    sink.close()
    assert warnings == []
    read = offline_run(sink.directory)
    assert read["job_type"] == "train"
    assert sorted(read["tags"]) == ["digits", "gan", "x" * 64]
    kept = {name: read["aggregates"][name] for name in ("eval/*", "loss/*", "eval/frechet", "eval/elbo")}
    assert kept == {"eval/*": "min max", "loss/*": "min max", "eval/frechet": "min", "eval/elbo": "max"}
    [row] = [row for row in read["rows"] if any(name.startswith("samples/grid") for name in row)]
    assert "samples, after 64 images" in row.values()


def test_a_disabled_run_writes_nothing(start, tmp_path, warnings):
    sink = start(mode="disabled")
    sink.log({"images": 64})
    sink.close()
    assert sink.directory is None
    assert warnings == []


def test_tables_plots_and_pages_are_read_back_from_an_offline_run(start, warnings):
    sink = start(group="a sweep", job_type="sweep")
    exhibits = {
        "trials": Table(["trial", "lr", "samples"], [["0000", 1e-3, picture()], ["0001", "1e-3:1e-4:10", None]]),
        "course": Lines("elbo", "images", {"0000": [(10, -3.0), (20, -2.0)], "0001": [(10, -4.0)]}),
        "by lr": Points("elbo by lr", "lr", "elbo", {"0000": (1e-3, -2.0)}),
        "importance": Bars("importance", "share", {"lr": 0.9, "beta": 0.1}),
        "report": Page("<!doctype html><p>the report</p>"),
    }
    sink.show(exhibits, 20)
    sink.summarize({"best/trial": "0000", "best/elbo": -2.0})
    sink.close()
    assert warnings == []
    read = offline_run(sink.directory)
    assert (read["group"], read["job_type"], read["ended"]) == ("a sweep", "sweep", True)
    assert read["summary"]["best/trial"] == "0000"
    assert read["summary"]["best/elbo"] == -2.0
    [row] = read["rows"]
    assert row["images"] == 20
    tables = {name: media_table(sink.directory, row, name) for name in ("trials", "course", "by lr", "importance")}
    assert tables["trials"]["data"] == [["0000", 1e-3, "Image"], ["0001", "1e-3:1e-4:10", None]]
    assert sorted(tables["course"]["data"]) == [[10, "0000", -3.0], [10, "0001", -4.0], [20, "0000", -2.0]]
    assert tables["by lr"]["data"] == [["0000", 1e-3, -2.0]]
    assert tables["importance"]["data"] == [["lr", 0.9], ["beta", 0.1]]
    page = sink.directory / "files" / row["report/path"]
    assert "the report" in page.read_text()


def test_a_file_that_is_still_written_has_the_records_that_are_whole(start):
    sink = start()
    sink.log({"images": 64})
    sink.close()
    assert offline_run(sink.directory)["ended"]
    whole = offline_records(sink.directory)
    [path] = sink.directory.glob("*.wandb")
    size = path.stat().st_size
    counts = []
    for cut in range(size, size - 400, -1):
        os.truncate(path, cut)
        records = offline_records(sink.directory)
        assert records == whole[: len(records)]
        counts.append(len(records))
    assert counts[0] == len(whole) > counts[-1]


def test_clips_are_videos_and_meshes_are_objects_to_turn(start, warnings):
    pytest.importorskip("skimage")
    av = pytest.importorskip("av")
    sink = start(captions={"grid": "The same latents"})
    frames = [Image.new("L", (32, 32), level) for level in (0, 120, 240)]
    volume = np.zeros((1, 1, 6, 6, 6), np.uint8)
    volume[..., 2:4, 2:4, 2:4] = 255
    sink.picture("grid", animate(frames, "webp", 8), "webp", 64)
    mesh = scene(volume)
    sink.picture("surfaces", mesh, "glb", 64)
    sink.picture("slices", picture(), "png", 64)
    sink.close()
    assert warnings == []
    grid, surfaces, _ = offline_run(sink.directory)["rows"]
    assert (grid["samples/grid/_type"], surfaces["samples/surfaces/_type"]) == ("video-file", "object3D-file")
    assert grid["samples/grid/caption"] == "The same latents, after 64 images"
    with av.open(str(sink.directory / "files" / grid["samples/grid/path"])) as video:
        assert video.streams.video[0].average_rate == 8
        levels = [frame.to_ndarray(format="gray").mean() for frame in video.decode(video=0)]
    assert levels == pytest.approx([0, 120, 240], abs=20)
    assert (sink.directory / "files" / surfaces["samples/surfaces/path"]).read_bytes() == mesh


def test_without_pyav_clips_are_gifs(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    video, extension = as_video(animate([Image.new("L", (8, 8), level) for level in (0, 200)], "webp", 8))
    with Image.open(io.BytesIO(video)) as film:
        assert (extension, film.n_frames, film.info["duration"]) == ("gif", 2, 120)


def media_table(directory, row, name):
    """The table that was logged under that name, or that the plot of that name is drawn from."""
    path = row.get(f"{name}/path") or row[f"{name}_table/path"]
    return json.loads((directory / "files" / path).read_text())
