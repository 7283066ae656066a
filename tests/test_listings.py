"""Keys that are no names, such as `set//x` and `set/../x`: counted and named wherever a folder is listed."""

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
