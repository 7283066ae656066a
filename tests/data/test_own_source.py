"""A kind of source that another package registers is found, packed and named on the command line."""

import sys
from pathlib import Path

import numpy as np
import pytest

from imagegen_dist.cli.data import main
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.packing import PackConfig, pack_dataset
from imagegen_dist.data.sources.base import SOURCE_KINDS
from imagegen_dist.data.stream import read_samples
from imagegen_dist.errors import DONE, UsageError
from imagegen_dist.storage import Store

MODULE = """
import io
from dataclasses import dataclass

import numpy as np

from imagegen_dist.data.modality import modality
from imagegen_dist.data.sources.base import Record, Records, Source, listing_digest, register_source
from imagegen_dist.storage import Store


@dataclass(frozen=True)
class ArrayRecords(Records):
    url: str
    rows: tuple[int, ...]

    def read(self):
        folder, _, name = self.url.rpartition("/")
        pictures = np.load(io.BytesIO(Store(folder).read(name)))
        for row in self.rows:
            yield Record(f"picture {row}", row % 2, modality("image").encode(pictures[row], "png"))


@dataclass(frozen=True)
class ArraySource(Source):
    def select(self, rows):
        return ArrayRecords(self.place, tuple(rows.tolist()))


def source(url, count):
    return ArraySource(place=url, count=count, listing=listing_digest([url]), mixes=False, classes=2)


@register_source(".arrays")
def open_arrays(files):
    (name,) = files.subset.files(files.names, "arrays", files.url)
    return source((files.folder / name).url, len(np.load(io.BytesIO(files.folder.read(name)))))


@register_source("arrays://")
def open_url(files):
    url = files.url.removeprefix("arrays:/")
    return source(url, len(np.load(url)))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in another package, which is not imported yet."""
    package = tmp_path / "path" / "my_own_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "arrays.py").write_text(MODULE)
    monkeypatch.syspath_prepend(package.parent)
    kinds = dict(SOURCE_KINDS)
    yield "my_own_package.arrays"
    SOURCE_KINDS.clear()
    SOURCE_KINDS.update(kinds)
    for name in [name for name in sys.modules if name.startswith("my_own_package")]:
        del sys.modules[name]


@pytest.fixture
def pictures(tmp_path: Path) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8), np.uint8)
    (tmp_path / "in").mkdir()
    with open(tmp_path / "in" / "some.arrays", "wb") as file:
        np.save(file, pixels)
    return pixels


def check_packed(folder: Path, pictures: np.ndarray) -> None:
    store = Store(folder)
    index = DatasetIndex.load(store)
    samples, labels = read_samples(index, store, range(index.samples))
    assert (samples.numpy() == pictures).all()
    assert labels is not None
    assert labels.tolist() == [0, 1] * 6


@pytest.mark.parametrize("place", ["{}/in/some.arrays", "{}/in/*.arrays", "{}/in", "arrays://{}/in/some.arrays"])
def test_the_command_packs_a_source_of_another_package(
    tmp_path: Path, module: str, pictures: np.ndarray, place: str
) -> None:
    assert main([f"{module}:{place.format(tmp_path)}", str(tmp_path / "out")]) == DONE
    check_packed(tmp_path / "out", pictures)


def test_python_packs_it_and_tells_nothing_again(tmp_path: Path, module: str, pictures: np.ndarray) -> None:
    __import__(module)
    told: list[str] = []
    config = PackConfig(split={"train": 0.5, "val": 0.5})
    packed = pack_dataset(tmp_path / "in", tmp_path / "out", config, tell=told.append)
    assert packed.fresh
    assert sum(index.samples for index in packed.indexes.values()) == len(pictures)
    assert list(packed.stores) == ["train", "val"]
    again = pack_dataset(tmp_path / "in", tmp_path / "out", config, tell=told.append)
    assert (again.fresh, again.indexes) == (False, packed.indexes)
    assert told == []


def test_options_that_it_does_not_follow_are_refused(tmp_path: Path, module: str, pictures: np.ndarray) -> None:
    place = f"{module}:{tmp_path}/in"
    assert main([place, str(tmp_path / "out"), "--member", "depth.png"]) == 2
    assert main([place, str(tmp_path / "out"), "--label-column", "kind"]) == 2
    assert not (tmp_path / "out").exists()


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, module: str) -> None:
    with pytest.raises(UsageError, match=r"the module my_own_package\.nothing cannot be imported"):
        pack_dataset(f"my_own_package.nothing:{tmp_path}", tmp_path / "out")
