"""Labels in files: what a class is, how names are numbered, and the line where numbers or texts are no classes."""

import numpy as np
import pytest

from imagegen_dist.data.labels import (
    all_differ,
    as_label,
    empty_classes,
    in_order_of_classes,
    number_labels,
    parse_label,
    relabelling,
    too_many,
)
from imagegen_dist.natural import natural_order


def test_names_sort_by_the_numbers_in_them():
    names = ["10", "2", "1", "img10.png", "img9", "img", "Zebra", "cat", "2b", "02"]
    assert natural_order(names) == ["1", "02", "2", "2b", "10", "Zebra", "cat", "img", "img9", "img10.png"]


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), 3.0, np.float32(3)])
def test_whole_numbers_of_every_type_are_numbers(value):
    label = as_label(value)
    assert (label, type(label)) == (3, int)


@pytest.mark.parametrize("value", [None, "", " \ufeff"])
def test_missing_labels_are_none(value):
    assert as_label(value) is None


@pytest.mark.parametrize(
    "value", [-1, 2**63, 0.5, float("nan"), float("inf"), [1], {"a": 1}, b"cat", "a\nb", "x" * 300]
)
def test_what_is_no_class_says_what_it_is(value):
    with pytest.raises(ValueError, match=", which is "):
        as_label(value)


def test_digits_in_a_cls_member_are_a_number_and_texts_a_name():
    assert [parse_label(text) for text in (b"07", b"+7\n", b"n01440764", b"7 cats")] == [7, 7, "n01440764", "7 cats"]


def test_names_are_numbered_in_their_natural_order():
    numbers, names = number_labels(["b10", "b9", "b10"])
    assert (numbers.tolist(), names) == ([1, 0, 1], ("b9", "b10"))
    assert number_labels([4, 0])[1] is None


def test_numbers_beside_names_are_refused():
    with pytest.raises(ValueError, match=r"some labels are numbers \(3\) and others names \(cat\)"):
        number_labels(["cat", 3])


@pytest.mark.parametrize(
    ("classes", "samples", "fine"),
    [(1_000, 3, True), (1_001, 3, False), (500_000, 50_000, True), (2**32, 10**6, False)],
)
def test_classes_may_not_exceed_samples_by_far(classes, samples, fine):
    assert (too_many(classes, samples) == "") == fine


def test_texts_that_all_differ_are_no_classes():
    assert all_differ(20, 20) == ""
    assert "captions or file names" in all_differ(21, 30)
    assert all_differ(1_000, 2_000) == ""


def test_empty_classes_are_named():
    assert empty_classes([[1, 2]]) == ""
    said = "3 of 5 classes have no sample: 0, 2, 3; --relabel numbers the others from 0"
    assert empty_classes([[0, 1, 0, 0, 2], None, [0, 0, 0, 0, 3]]) == said
    assert "1 of 2 classes has no sample: 0; labels begin at 1; " in empty_classes([[0, 1]])
    assert "no sample: 1 (dog); " in empty_classes([[3, 0]], ("cat", "dog"))


@pytest.mark.parametrize(
    ("shards", "told"),
    [
        ([({0: 50, 1: 50}, 2)], True),  # one shard, sorted
        ([({0: 50}, 1), ({0: 10, 1: 40}, 2), ({2: 50}, 1)], True),
        ([({0: 50, 1: 50}, 51)], False),  # mixed
        ([({0: 999, 1: 1}, 3)], False),  # one of another class
        ([({0: 100, 1: 100}, 20)], False),  # clips of videos, ten of each one after another
        ([({0: 100}, 1), ({0: 80}, 1)], False),  # one class
        ([({0: 5, 1: 5}, 2)], False),  # too few to tell
        ([], False),
    ],
)
def test_samples_that_follow_one_another_by_class_are_told(shards, told):
    assert bool(in_order_of_classes(shards)) == told


def test_classes_that_have_samples_are_numbered_anew_and_keep_their_names():
    assert relabelling({7: 3, 2: 1}, None) == ({2: 0, 7: 1}, ["2", "7"])
    assert relabelling([0, 4, 1], ["a", "b", "c"]) == ({1: 0, 2: 1}, ["b", "c"])
