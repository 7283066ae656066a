"""One part of a packing: its shard, its receipt, and what was left out."""

import io
from dataclasses import dataclass, replace

import numpy as np
import pytest
import skimage.data
from PIL import Image

from imagegen_dist.data.conversion import Conversion
from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.pack_tasks import Part, Recipe, Sized, estimate, find_packed, pack_part
from imagegen_dist.data.shard import Shard
from imagegen_dist.data.sources.base import Record, Records, UnfitError
from imagegen_dist.storage import Store


def png(number, width=24):
    target = io.BytesIO()
    Image.fromarray(skimage.data.coffee()[number:][:16, :width]).save(target, "PNG")
    return target.getvalue()


@dataclass(frozen=True)
class Listed(Records):
    listed: tuple[Record, ...]

    def read(self):
        yield from self.listed


PICTURES = tuple(Record(f"{number}.png", number % 2, png(number)) for number in range(4))
DAMAGED = (Record("a.png", 0, b"nonsense"), Record("b.png", 1, b"", "does not exist"))


def part(folder, records, **changes):
    store = Store(folder)
    recipe = Recipe(Conversion(), "png")
    made = Part(store, "shard-000003.tar", 70, len(records), Listed(records), recipe, store / ".parts", "3.json")
    return replace(made, **changes)


def open_shard(path):
    data = path.read_bytes()
    return Shard(lambda at, length: data[at : at + length], len(data), path.name, ("png",))


def test_a_shard_has_the_records_in_order_under_their_place_in_the_dataset(tmp_path):
    told = []
    packed = pack_part(part(tmp_path, (PICTURES[0], *DAMAGED, *PICTURES[1:])), told.append)
    shard = open_shard(tmp_path / "shard-000003.tar")
    assert [shard.key(row) for row in range(4)] == ["000000070", "000000073", "000000074", "000000075"]
    assert [shard.label(row) for row in range(4)] == [0, 1, 0, 1]
    assert [shard.picture(row) for row in range(4)] == [(png(number), "png") for number in range(4)]
    assert packed.scan.info.samples == 4
    assert packed.undecodable == (
        "a.png is not a picture, or has an unknown format",
        "b.png does not exist",
    )
    assert sum(told) == 6


def test_the_same_part_gives_the_same_bytes(tmp_path):
    for name in "ab":
        pack_part(part(tmp_path / name, PICTURES), lambda _: None)
    assert (tmp_path / "a" / "shard-000003.tar").read_bytes() == (tmp_path / "b" / "shard-000003.tar").read_bytes()


@pytest.mark.parametrize("records", [PICTURES, DAMAGED, tuple(record._replace(label=None) for record in PICTURES)])
def test_a_part_that_is_done_is_found(tmp_path, records):
    made = part(tmp_path, records)
    assert find_packed(made) is None
    packed = pack_part(made, lambda _: None)
    assert find_packed(made) == packed
    (tmp_path / "shard-000003.tar").write_bytes(b"cut")
    assert find_packed(made) is None
    (tmp_path / ".parts" / "3.json").write_text("{")
    with pytest.raises(DatasetError, match=r"3\.json is corrupt"):
        find_packed(made)


def test_pictures_of_another_size_are_refused(tmp_path):
    recipe = Recipe(Conversion(), "png", Sized("0.png", (16, 24)))
    odd = Record("odd.png", 0, png(0, width=20))
    with pytest.raises(UnfitError, match=r"0.png is 24x16, odd.png 20x16; give them one with --size"):
        pack_part(part(tmp_path, (*PICTURES, odd), recipe=recipe), lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_the_estimate_is_what_a_sample_takes_of_a_shard(tmp_path):
    mean, sized = estimate(Listed((*DAMAGED, *PICTURES)), Recipe(Conversion(), "png"))
    assert sized == Sized("0.png", (16, 24))
    packed = pack_part(part(tmp_path, (*DAMAGED, *PICTURES) * 50), lambda _: None)
    assert mean * 300 == pytest.approx(packed.scan.info.bytes, rel=0.05)


def test_nothing_that_can_be_decoded_still_has_an_estimate():
    assert estimate(Listed(DAMAGED), Recipe(Conversion(), "png")) == (512, None)


def test_a_label_may_be_any_integer(tmp_path):
    large = PICTURES[0]._replace(label=int(np.iinfo(np.int64).max))
    assert pack_part(part(tmp_path, (large,)), lambda _: None).scan.labels == ((large.label, 1),)
