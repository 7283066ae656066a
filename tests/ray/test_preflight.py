"""What a machine answers; tests/cluster asks real ones."""

from pathlib import Path

import pytest

from imagegen_dist.ray.preflight import differences, look
from imagegen_dist.storage import Store
from imagegen_dist.versions import versions


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, list[tuple[str, str]]]:
    """A storage in which the driver has left its question, and a shard."""
    (Store(tmp_path / "runs") / ".preflight-1").write("question", b".preflight-1")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.tar").write_bytes(b"shard")
    return str(tmp_path / "runs"), [(str(tmp_path / "train"), "0.tar")]


def test_a_machine_that_sees_all_answers_in_the_storage(places: tuple[str, list[tuple[str, str]]]) -> None:
    storage, data = places
    assert look(storage, data, ".preflight-1", "node") == {"problem": "", "versions": versions()}
    assert (Store(storage) / ".preflight-1").read("node") == b"node"


def test_a_machine_without_the_data_says_which(places: tuple[str, list[tuple[str, str]]]) -> None:
    storage, data = places
    problem = look(storage, [*data, ("/nowhere/train", "0.tar")], ".preflight-1", "node")["problem"]
    assert "/nowhere/train/0.tar" in problem
    assert "places that all machines see" in problem


def test_a_machine_with_a_disk_of_its_own_says_so(places: tuple[str, list[tuple[str, str]]], tmp_path: Path) -> None:
    problem = look(str(tmp_path / "own"), places[1], ".preflight-1", "node")["problem"]
    assert f"{tmp_path}/own/.preflight-1/question" in problem
    assert "places that all machines see" in problem


def test_a_file_that_reads_back_as_another_is_no_storage(places: tuple[str, list[tuple[str, str]]]) -> None:
    storage, data = places
    (Store(storage) / ".preflight-1").write("question", b"older")
    assert "reads back as another" in look(storage, data, ".preflight-1", "node")["problem"]


def test_only_what_differs_is_named() -> None:
    ours = {"python": "3.11.7", "torch": "2.13.0", "ray": "2.60.0"}
    assert differences(ours, {**ours, "extra": "1"}) == ""
    theirs = {"python": "3.11.7", "torch": "2.12.1"}
    assert differences(ours, theirs) == "torch 2.12.1 (here 2.13.0), ray missing (here 2.60.0)"
