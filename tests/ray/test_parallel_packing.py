"""Packing by Ray tasks, as its user runs it: killed in the middle, run again, the same bytes as in one process."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from imagegen_dist.cli.data import main
from tests.ray.jobs import finish, started

PICTURES = 240


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cuttings of photographs; two are damaged, in a way that only decoding finds."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("astronaut", "coffee"):
        (folder / name).mkdir()
        photograph = getattr(skimage.data, name)()
        for number in range(PICTURES // 2):
            corner = np.random.default_rng(number).integers(0, 100, 2)
            cutting = photograph[corner[0] :, corner[1] :][:280, :300]
            Image.fromarray(cutting).save(folder / name / f"{number:04}.png", compress_level=1)
    for name in ("astronaut/0007.png", "coffee/0100.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:20_000])
    return folder


def command(pictures: Path, dest: Path) -> list[str]:
    words = [str(pictures), str(dest), "--size", "96x96", "--shard-size", "400kB", "--split", "train:0.8,val:0.2"]
    return [*words, "--workers", "2"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.timeout(400)
def test_a_killed_run_goes_on_and_ends_with_the_bytes_of_an_undisturbed_one(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(pictures, tmp_path / "alone"), "--workers", "0"]) == 0
    said = capsys.readouterr()

    dest = tmp_path / "out"
    words = [sys.executable, "jobs/make_shards.py", *command(pictures, dest)]
    with started(words) as process:
        deadline = time.monotonic() + 150
        while len(list(dest.glob(".parts/*.json"))) < 3:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "no shard came"
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert not list(dest.glob("*/index.json"))
    kept = {file: file.stat().st_mtime_ns for file in dest.glob(".parts/*.json")}
    first = {file: file.stat().st_mtime_ns for file in dest.glob("*/*.tar") if receipt(dest, file) in kept}
    assert len(first) >= 3

    with started(words) as process:
        output = finish(process)
    assert process.returncode == 0, output
    assert {file: file.stat().st_mtime_ns for file in first} == first
    assert contents(dest) == contents(tmp_path / "alone")
    assert said_by(output) == said_by(f"{said.out}{said.err}".replace("/alone", "/out"))


def said_by(output: str) -> list[str]:
    """Its lines, without those that say the progress of a slow start or a slow packing."""
    return sorted(line for line in output.splitlines() if not line.startswith(("starting workers: ", "packing: ")))


def receipt(dest: Path, shard: Path) -> Path:
    return dest / ".parts" / f"{shard.parent.name}-{shard.stem.removeprefix('shard-')}.json"
