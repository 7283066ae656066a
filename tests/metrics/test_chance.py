"""Classifiers that recognise no more than chance."""

import torch

from imagegen_dist.conditions.part import Conditions, Part
from imagegen_dist.metrics.chance import chance_warnings, doubts, is_near_chance
from imagegen_dist.metrics.recognition import Recognition


def test_a_tenth_of_the_way_from_chance_to_perfection_is_the_border():
    assert is_near_chance(0.099, 0.1)
    assert is_near_chance(0.53, 0.5)
    assert not is_near_chance(0.56, 0.5)
    assert is_near_chance(float("nan"), 0.1)


def test_only_what_is_near_chance_is_doubted_and_named():
    assert doubts(0.97, 0.1, {"agreement/digit": 0.97, "r2/slant": 0.9}, {"agreement/digit": 0.1}) == {}
    assert chance_warnings({"classifier_accuracy": 0.97, "frechet": 2.0, "r2_real/slant": 0.01}) == []
    found = doubts(0.099, 0.1, {"r2/slant": 0.02, "accuracy/hat": 0.9}, {"accuracy/hat": 0.91})
    classes, parts = chance_warnings(found)
    assert "recognises 9.9% of real samples" in classes
    assert "most frequent class 10.0%" in classes
    assert "slant (R² 0.02), hat (90.0%, by chance 91.0%)" in parts
    assert "--evaluation.classifier-images" in classes


def test_chances_are_those_of_the_most_frequent_answer():
    digit = Part("digit", "class", 3, ("a", "b", "c"), (3, 1, 0))
    slant = Part("slant", "vector", 1, (), (), (0.3,), (1.0,), (0.0,), (1.0,))
    conditions = Conditions((digit, Part("hat", "attributes", 1, (), (1,)), slant))
    told = torch.tensor([[1.0, 0, 0, 1, 0.5], [1, 0, 0, 0, 0.2], [0, 1, 0, 0, 0.1], [1, 0, 0, 0, 0.4]])
    recognition = Recognition(conditions)
    recognition.add(told[:2], told[:2])
    recognition.add(told[2:], told[2:])
    assert recognition.chances() == {"agreement/digit": 0.75, "accuracy/hat": 0.75}
    assert recognition.figures()["r2/slant"] == 1
