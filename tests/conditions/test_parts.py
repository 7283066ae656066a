import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagegen_dist.conditions.part import Conditions, Part
from imagegen_dist.conditions.tally import ROWS, ConditionScan, Tally

RECORDS = [
    {
        "digit": number % 10,
        "style": ("serif", "sans")[number % 2],
        "smile": number % 3 == 0,
        "tags": ["hat"] if number % 4 else ["hat", "glasses"],
        "age": 0.25 * number,
        "text": [number, -number / 2],
    }
    for number in range(200)
]


def scanned(records: list[dict]) -> ConditionScan:
    scan = ConditionScan()
    for record in records:
        scan.add(record)
    return scan


def test_the_kind_of_each_part_follows_from_its_values():
    conditions = scanned(RECORDS).conditions()
    kinds = {part.name: (part.kind, part.size, part.names) for part in conditions.parts}
    assert kinds == {
        "digit": ("class", 10, tuple("0123456789")),
        "style": ("class", 2, ("sans", "serif")),
        "smile": ("attributes", 1, ()),
        "tags": ("attributes", 2, ("glasses", "hat")),
        "age": ("vector", 1, ()),
        "text": ("vector", 2, ()),
    }
    assert conditions.part("smile").counts == (67,)
    assert conditions.part("tags").counts == (50, 200)
    assert conditions.part("age").mean == pytest.approx((np.mean([r["age"] for r in RECORDS]),))
    assert conditions.part("age").deviation == pytest.approx((np.std([r["age"] for r in RECORDS]),))
    assert conditions.part("text").low == (0, -99.5)


def test_a_vector_is_one_hot_multi_hot_and_normalised():
    conditions = scanned(RECORDS).conditions()
    vectors = np.stack([conditions.encode(record) for record in RECORDS])
    assert vectors.shape == (200, 18)
    digit, age = vectors[:, conditions.slices["digit"]], vectors[:, conditions.slices["age"]]
    assert digit.argmax(1).tolist() == [record["digit"] for record in RECORDS]
    assert (digit.sum(1) == 1).all()
    assert age.mean() == pytest.approx(0, abs=1e-6)
    assert age.std() == pytest.approx(1, abs=1e-6)
    assert vectors[4, conditions.slices["tags"]].tolist() == [1, 1]
    assert vectors[5, conditions.slices["tags"]].tolist() == [0, 1]


@settings(max_examples=15)
@given(st.integers(0, 200), st.integers(0, 200))
def test_shards_counted_apart_give_what_they_give_together(first: int, second: int):
    cuts = sorted((first, second))
    parts = [RECORDS[: cuts[0]], RECORDS[cuts[0] : cuts[1]], RECORDS[cuts[1] :]]
    total = ConditionScan()
    for part in parts:
        if part:
            total.merge(ConditionScan.from_json(json.loads(json.dumps(scanned(part).to_json()))))
    whole = scanned(RECORDS)
    assert total.rows == whole.rows
    for ours, theirs in zip(total.conditions().parts, whole.conditions().parts, strict=True):
        assert (ours.name, ours.kind, ours.names, ours.counts) == (
            theirs.name,
            theirs.kind,
            theirs.names,
            theirs.counts,
        )
        assert ours.mean == pytest.approx(theirs.mean)
        assert ours.deviation == pytest.approx(theirs.deviation)


def test_the_rows_of_a_large_dataset_are_few_and_evenly_spaced():
    scan = ConditionScan()
    for start in range(0, 20_000, 1_000):
        scan.merge(scanned([{"n": float(number)} for number in range(start, start + 1_000)]))
    conditions = scan.conditions()
    (part,) = conditions.parts
    numbers = scan.vectors(conditions)[:, 0] * part.deviation[0] + part.mean[0]
    assert len(numbers) <= ROWS
    assert np.diff(numbers).min() > 0
    assert numbers.max() > 19_900


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, "number", ("vector", 1)),
        (3, "class", ("class", 1)),
        (True, "class", ("class", 1)),
        (1, "attribute", ("attributes", 1)),
        ("a", "", ("class", 1)),
    ],
)
def test_a_kind_can_be_requested(value: object, kind: str, expected: tuple[str, int]):
    tally = Tally()
    tally.add(value)
    part = tally.part("x", kind)
    assert (part.kind, part.size) == expected


@pytest.mark.parametrize(("value", "kind"), [("a", "number"), (0.5, "class"), (2, "attribute"), ([1, 2], "class")])
def test_a_kind_that_the_values_cannot_have_is_refused(value: object, kind: str):
    tally = Tally()
    tally.add(value)
    with pytest.raises(ValueError, match="cannot be of kind"):
        tally.part("x", kind)


@pytest.mark.parametrize(
    "value", [None, "", " ", float("nan"), float("inf"), [1, None], [[1], [2]], {"a": 2}, {}, Fraction(1, 3) * 1j]
)
def test_a_value_that_is_no_condition_is_described(value: object):
    with pytest.raises(ValueError, match=r"is missing|cannot be a condition|is needed"):
        Tally().add(value)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"a": "text", "b": 1}, "whole numbers in some samples and texts"),
        ({"a": 1}, "b is missing"),
        ({"a": 1, "b": 2, "c": 3}, "c is missing in other"),
        ({}, "is empty"),
        ({"a": 1, "b": [1, 2]}, "whole numbers in some samples and lists"),
    ],
)
def test_samples_that_do_not_fit_together_are_refused(second: dict, words: str):
    scan = scanned([{"a": 1, "b": 2}])
    with pytest.raises(ValueError, match=words):
        scan.add(second)


def test_captions_are_not_classes():
    with pytest.raises(ValueError, match="captions"):
        scanned([{"text": f"a photo of {number}"} for number in range(100)]).conditions()


def test_a_value_that_a_part_cannot_have_is_refused():
    conditions = scanned(RECORDS).conditions()
    for name, value, words in [
        ("style", "sherif", "style has no class 'sherif': there are serif"),
        ("digit", 11, "digit has no class '11'"),
        ("smile", 2, "from 0 to 1"),
        ("tags", ["scarf"], "tags has no attribute"),
        ("age", "old", "1 number needed"),
        ("text", [1, 2, 3], "2 numbers needed"),
    ]:
        with pytest.raises(ValueError, match=words):
            conditions.part(name).encode(value)
    with pytest.raises(ValueError, match="no condition 'colour': the data have digit"):
        conditions.part("colour")


def test_conditions_survive_json():
    conditions = scanned(RECORDS).conditions()
    assert Conditions.from_payload(json.loads(json.dumps(conditions.payload()))) == conditions


@pytest.mark.parametrize(
    "payload",
    [
        {},
        [],
        [{"name": "a"}],
        [{"name": "a", "kind": "class", "size": 2, "names": ["x"], "counts": [1, 2]}],
        [{"name": "a", "kind": "class", "size": True, "names": ["x"], "counts": [1]}],
        [{"name": "a", "kind": "class", "size": 1, "names": "x", "counts": [1]}],
        [{"name": "a", "kind": "colour", "size": 1}],
        [{"name": "a", "kind": "vector", "size": 1, "mean": [0], "deviation": [0], "low": [0], "high": [0]}],
        [{"name": "a", "kind": "class", "size": 1, "names": ["x"], "counts": [1], "more": 1}],
        2 * [{"name": "a", "kind": "attributes", "size": 1, "counts": [1]}],
    ],
)
def test_a_damaged_description_is_refused(payload: object):
    with pytest.raises(ValueError, match=r"condition|must be|are"):
        Conditions.from_payload(payload)


def test_a_class_can_be_a_blend():
    part = Part("style", "class", 2, ("sans", "serif"), (1, 1))
    assert part.encode({"sans": 0.25, "serif": 0.75}).tolist() == [0.25, 0.75]


def test_a_vector_is_decoded_to_the_condition_that_has_it():
    conditions = scanned(RECORDS).conditions()
    for record in RECORDS[:30]:
        vector = conditions.encode(record)
        found = conditions.decode(vector)
        assert conditions.encode(found) == pytest.approx(vector, abs=1e-5)
        assert (found["digit"], found["smile"]) == (str(record["digit"]), record["smile"])
        assert set(found["tags"]) == set(record["tags"])
    blend = conditions.encode(RECORDS[0] | {"style": {"serif": 0.25, "sans": 0.75}})
    assert conditions.decode(blend)["style"] == {"sans": 0.75, "serif": 0.25}
