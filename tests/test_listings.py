"""Keys that are no names, such as `set//x` and `set/../x`: counted and named wherever a folder is listed."""

import io

import numpy as np
from PIL import Image

from imagegen_dist.cli import data as shards
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.pack import pack
from imagegen_dist.storage import Store
from tests.s3.flat import serving

ODD = ["set//deep/y.png", "set//x.png", "set/.", "set/../z.png", "set/./z.png", "set/cats"]
GOOD = ["set/a.png", "set/b/c.png", "set/cats/1.png", "set/dogs/", "set/é&<.png"]


def test_a_listing_names_every_object_or_counts_it_as_unusable():
    objects = {key: key.encode() for key in [*GOOD, *ODD, "set/", "sett/x", "other"]}
    with serving(objects) as url:
        listing = Store(url).listing("set")
        assert listing.entries == {"a.png": False, "b": True, "cats": True, "dogs": True, "é&<.png": False}
        assert sorted(listing.unusable) == sorted(f"{url}/{key}" for key in ODD)
        assert Store(url).names("set") == sorted(listing.entries)
        assert Store(url).names("set/dogs") == []
        assert Store(url).listing("set/a.png").entries == Store("s3://nowhere").listing().entries == {}


def packed_by_the_command(capsys, *arguments):
    """(exit code, what was said)."""
    code = shards.main(list(arguments))
    return code, capsys.readouterr().err


def png(value):
    target = io.BytesIO()
    Image.new("L", (4, 4), value).save(target, "PNG")
    return target.getvalue()


def test_pictures_that_cannot_be_named_are_counted_when_a_bucket_is_packed(tmp_path, capsys):
    objects = {"set/cats/1.png": png(1), "set/dogs/": b"", "set/dogs/2.png": png(2)}
    odd = {"set/cats//3.png": png(3), "set/dogs/./4.png": png(4), "set//5.png": png(5), "set/cats": b""}
    with serving(objects | odd) as url:
        code, said = packed_by_the_command(capsys, f"{url}/set", str(tmp_path / "packed"))
    index = DatasetIndex.load(Store(tmp_path / "packed"))
    assert (code, index.samples, index.class_names) == (0, 2, ("cats", "dogs"))
    assert "4 objects were left out, because the key has an empty, '.' or '..' part or is that of a folder: " in said


def test_a_class_of_which_only_the_folder_marker_is_there_is_refused_by_name(tmp_path, capsys):
    with serving({"set/ants/": b"", "set/cats/1.png": png(1), "set/dogs/2.png": png(2)}) as url:
        code, said = packed_by_the_command(capsys, f"{url}/set", str(tmp_path / "packed"))
    assert code == 2
    assert f"{url}/set/ants has no pictures" in said


def test_a_source_that_has_nothing_but_keys_without_names_says_so(tmp_path, capsys):
    with serving({"set//1.png": png(1), "set//2.png": png(2)}) as url:
        code, said = packed_by_the_command(capsys, f"{url}/set", str(tmp_path / "packed"))
    assert code == 2
    assert "2 objects were left out" in said
    assert f"{url}/set//1.png, {url}/set//2.png" in said


def test_shards_that_cannot_be_named_are_counted_when_a_bucket_is_indexed_and_checked(tmp_path, capsys):
    store = Store(tmp_path / "set")
    pack([(np.zeros((1, 4, 4), np.uint8), 0)], store)
    shard = store.read("shard-000000.tar")
    with serving({"set/shard-000000.tar": shard, "set//shard-000001.tar": shard}) as url:
        code, said = packed_by_the_command(capsys, "--index-only", f"{url}/set", "--index-at", str(tmp_path / "index"))
        assert (code, "1 object was left out" in said, f"{url}/set//shard-000001.tar" in said) == (0, True, True)
        assert shards.main(["--check", str(tmp_path / "index"), "--allow-remote-shards"]) == 1
        assert "1 not in the index" in capsys.readouterr().out
