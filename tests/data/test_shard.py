import pytest

from imagegen_dist.data.shard import Shard
from imagegen_dist.data.tarwalk import ShardError
from tests.tars import tar_of


def shard(files, samples=None, cut=None):
    data = tar_of(files)[:cut]
    return Shard(lambda offset, length: data[offset : offset + length], len(data), "s.tar", ("png", "npy"), samples)


def test_samples_have_their_picture_and_label():
    found = shard([("a.png", b"A"), ("a.cls", b"3"), ("b.json", b'{"label": 4}'), ("b.npy", b"B"), ("c.png", b"C")])
    assert [found.picture(row) for row in range(len(found))] == [(b"A", "png"), (b"B", "npy"), (b"C", "png")]
    assert [found.label(row) for row in range(len(found))] == [3, 4, None]
    assert found.key(1) == "b"


@pytest.mark.parametrize("text", [b'{"caption": "a cat"}', b'{"label": null}', b'{"label": ""}', b"[3]"])
def test_a_caption_is_no_label(text):
    assert shard([("a.png", b""), ("a.json", text)]).label(0) is None


@pytest.mark.parametrize(
    ("name", "text", "label"),
    [
        ("a.cls", b" 3\n", 3),
        ("a.cls", b"\xef\xbb\xbf3", 3),  # a byte order mark, as Windows' editors write it
        ("a.cls", b"\xef\xbb\xbfcat\r\n", "cat"),
        ("a.json", b'{"label": "e\xcc\x81lan"}', "élan"),  # composed, as the same name from another system is
        ("a.json", b'{"label": "3"}', "3"),
        ("a.json", b'{"label": true}', 1),
        ("a.json", b'{"label": 3.0}', 3),
        ("a.json", b'{"caption": "a cat", "class": "cat"}', "cat"),
    ],
)
def test_a_label_is_a_number_or_a_name(name, text, label):
    found = shard([("a.png", b""), (name, text)]).label(0)
    assert (found, type(found)) == (label, type(label))


@pytest.mark.parametrize("text", [b"", b"-1", b"1.5", b"nan", b"9" * 40, b"9" * 5000, b"\xff\xfe", b"x" * 300, b"a\0b"])
def test_a_label_that_is_no_class_is_refused(text):
    with pytest.raises(ShardError, match=r"s\.tar: the label of a is .*; a whole number from 0 or a name is needed"):
        shard([("a.png", b""), ("a.cls", text)]).label(0)


@pytest.mark.parametrize(
    "text", [b"{", b'{"label": [3]}', b'{"labels": {"a": 1}}', b'{"label": 1e400}', b"[" * 100_000]
)
def test_a_json_that_cannot_be_read_is_refused(text):
    with pytest.raises(ShardError, match="a whole number from 0 or a name is needed"):
        shard([("a.png", b""), ("a.json", text)]).label(0)


@pytest.mark.parametrize("between", [0, 100_000])
def test_a_sample_is_its_picture_and_its_label_however_far_apart(between):
    pair, other = [("a.png", b"PICTURE"), ("a.cls", b"7")], ("a.txt", bytes(between))
    for first, last in (pair, pair[::-1]):
        found = shard([first, other, last])
        assert found.sample(0) == (b"PICTURE", "png", 7) == (*found.picture(0), found.label(0))
    assert shard(pair[:1]).sample(0) == (b"PICTURE", "png", None)


def test_members_that_are_no_samples_are_never_touched():
    assert shard([("a.png", b"A"), ("a.pyd", b"code"), ("a.pickle", b"code")]).picture(0) == (b"A", "png")


def test_a_key_twice_in_a_row_is_refused():
    with pytest.raises(ShardError, match=r"s\.tar has a\.png twice"):
        shard([("a.png", b""), ("a.png", b"")])


@pytest.mark.parametrize("names", [["a.png", "b.png", "a.cls"], ["a.png", "b.png", "a.png"]])
def test_interleaved_keys_are_refused(names):
    with pytest.raises(ShardError, match="key a in two places"):
        shard([(name, b"1") for name in names])


@pytest.mark.parametrize("names", [["a.png", "b.cls"], ["a.png", "b.pickle"], ["a.png", "b.png", "b.npy"]])
def test_a_sample_without_exactly_one_picture_is_refused(names):
    with pytest.raises(ShardError, match=r"sample b has .*; exactly one of \.png, \.npy is needed"):
        shard([(name, b"1") for name in names])


def test_a_missing_end_mark_is_refused_while_indexing():
    with pytest.raises(ShardError, match="no end mark after 1 sample"):
        shard([("a.png", b"1"), ("b.png", b"2")], cut=1024)


def test_a_missing_end_mark_is_fine_where_the_count_is_right():
    assert len(shard([("a.png", b"1"), ("b.png", b"2")], samples=2, cut=2048)) == 2


def test_another_count_than_the_index_says_is_refused():
    with pytest.raises(ShardError, match=r"s\.tar holds 1 sample, but its index says 2"):
        shard([("a.png", b"1"), ("b.png", b"2")], samples=2, cut=1024)
