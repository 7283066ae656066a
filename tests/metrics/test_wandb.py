import io
import json

import pytest
import wandb
from PIL import Image

from imagegen_dist.metrics.wandb import Bars, Lines, Page, Points, Table, WandbSink
from tests.wandb_files import offline_run


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
    for images in ([64, 128, 192], [128, 192]):
        sink = start()
        for seen in images:
            sink.log({"images": seen, "loss/generator": 0.5})
        sink.close()
        assert (sink.directory / "run-fixed-id.wandb").exists()
    assert warnings == []


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


def media_table(directory, row, name):
    """The table that was logged under that name, or that the plot of that name is drawn from."""
    path = row.get(f"{name}/path") or row[f"{name}_table/path"]
    return json.loads((directory / "files" / path).read_text())
