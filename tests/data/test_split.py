"""How records are shared out between training and held-out data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegen_dist.data.contents import Copies, find_copies
from imagegen_dist.data.split import mixed_rows, parse_shares, split_rows


def test_shares_are_read():
    assert parse_shares("") == {}
    assert parse_shares("train:0.95,val:0.05") == {"train": 0.95, "val": 0.05}
    assert parse_shares("a:1") == {"a": 1.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train", "give names and shares"),
        ("train:0.9,val:0.2", "sum to 1.1"),
        ("train:0.5,train:0.5", "train comes twice"),
        ("train:x", "is 'x'"),
        ("train:nan", "is nan"),
        ("train:1.5,val:-0.5", "is 1.5"),
        ("../up:1", "give names and shares"),
        (".parts:1", "give names and shares"),
        ("train:0.95,,val:0.05", "give names and shares"),
    ],
)
def test_shares_that_are_none(text, said):
    with pytest.raises(ValueError, match=said):
        parse_shares(text)


def distinct(count):
    """No copies among so many records, whose digests are in some order."""
    order = np.random.default_rng(0).permutation(count)
    return Copies(order, np.argsort(order))


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=300),
    shares=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    labelled=st.booleans(),
    contents=st.integers(1, 400),
)
def test_every_record_is_in_exactly_one_share_and_copies_are_together(labels, shares, labelled, contents):
    rows = mixed_rows(len(labels))
    digests = np.random.default_rng(contents).integers(0, contents, (len(labels), 1)).repeat(2, 1).astype(np.uint64)
    given_shares = [share / sum(shares) for share in shares]
    parts = split_rows(rows, given_shares, np.array(labels) if labelled else None, find_copies(digests))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    position = np.argsort(rows)
    assert all((np.diff(position[part]) > 0).all() for part in parts)  # the order is kept
    sides = [set(digests[part, 0].tolist()) for part in parts]
    assert sum(map(len, sides)) == len(set.union(*sides))


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=6), share=st.floats(0.01, 0.99))
def test_every_class_is_shared_out_alike_to_one_record(counts, share):
    labels = np.repeat(np.arange(len(counts)), counts)
    part, _ = split_rows(mixed_rows(labels.size), [share, 1 - share], labels, distinct(labels.size))
    found = np.bincount(labels[part], minlength=len(counts))
    assert (np.abs(found - share * np.array(counts)) < 1).all()


def test_many_small_classes_together_have_their_share():
    labels = np.repeat(np.arange(200), 7)
    train, val = split_rows(mixed_rows(labels.size), [0.95, 0.05], labels, distinct(labels.size))
    assert abs(val.size / labels.size - 0.05) < 0.005
    assert train.size + val.size == labels.size


def test_a_picture_keeps_its_side_when_others_come_and_wherever_it_lies():
    digests = np.random.default_rng(0).integers(0, 2**63, (20_000, 2)).astype(np.uint64)
    _, val = split_rows(np.arange(20_000), [0.9, 0.1], None, find_copies(digests))
    assert val.size == 2000
    more = np.concatenate([np.random.default_rng(1).integers(0, 2**63, (10_000, 2)).astype(np.uint64), digests])
    train, _ = split_rows(np.arange(30_000), [0.9, 0.1], None, find_copies(more))
    assert np.isin(val + 10_000, train).sum() < 60  # those next to the border


def test_copies_are_grouped_with_the_first_of_their_kind():
    digests = np.array([[5, 1], [3, 9], [5, 1], [5, 2], [3, 9]], np.uint64)
    copies = find_copies(digests)
    assert (copies.total, copies.later().tolist()) == (2, [2, 4])
    assert copies.first[copies.group].tolist() == [0, 1, 0, 3, 1]
    assert copies.conflicts(np.array([0, 1, 1, 0, 1])).tolist() == [2]
