"""How records are shared out between training and held-out data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=300),
    shares=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    stratify=st.booleans(),
)
def test_every_record_is_in_exactly_one_share(labels, shares, stratify):
    rows = mixed_rows(len(labels)) if stratify else np.arange(len(labels))
    given_shares = [share / sum(shares) for share in shares]
    parts = split_rows(rows, given_shares, np.array(labels) if stratify else None, stratify)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    position = np.argsort(rows)
    assert all((np.diff(position[part]) > 0).all() for part in parts)  # the order is kept


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=6), share=st.floats(0.01, 0.99))
def test_every_class_is_shared_out_alike_to_one_record(counts, share):
    labels = np.repeat(np.arange(len(counts)), counts)
    part, _ = split_rows(mixed_rows(labels.size), [share, 1 - share], labels, stratify=True)
    found = np.bincount(labels[part], minlength=len(counts))
    assert (np.abs(found - share * np.array(counts)) < 1).all()


def test_many_small_classes_together_have_their_share():
    labels = np.repeat(np.arange(200), 7)
    train, val = split_rows(mixed_rows(labels.size), [0.95, 0.05], labels, stratify=True)
    assert abs(val.size / labels.size - 0.05) < 0.005
    assert train.size + val.size == labels.size


def test_without_labels_a_hash_decides_and_a_longer_dataset_begins_alike():
    train, val = split_rows(np.arange(20_000), [0.9, 0.1], None, stratify=False)
    assert abs(val.size - 2000) < 200
    longer, _ = split_rows(np.arange(30_000), [0.9, 0.1], None, stratify=False)
    assert np.array_equal(longer[longer < 20_000], train)
