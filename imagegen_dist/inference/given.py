"""Conditions that a user gives for samples: values by part, or the classes of the only part that is a class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.inference.class_names import as_list
from imagegen_dist.wording import counted

Given = Mapping[str, Any]
"""Values by part: {"digit": 7, "style": {"serif": 0.5, "sans": 0.5}, "age": 0.3}."""


def as_conditions(classes: Any, given: Given | Iterable[Given] | None, conditions: Conditions) -> list[Given]:
    """The conditions of samples in turn, at least one. classes: of the only part that is a class.

    Raises ValueError if both are given, if there is no such part or several, and if `given` is empty.
    """
    if classes is None:
        found: list[Any] = [given] if isinstance(given, Mapping) else [{}] if given is None else list(given)
        if not found or not all(isinstance(each, Mapping) for each in found):
            raise ValueError('conditions are values by part, {"digit": 7}, or a list of these that is not empty')
        return found
    if given is not None:
        raise ValueError("classes and conditions both say what to generate: give one of them")
    parts = [part for part in conditions.parts if part.kind == "class"]
    if len(parts) != 1:
        raise ValueError(
            f"this model has {counted(len(parts), 'part')} that are classes ({conditions.describe()}): set them by "
            "conditions"
        )
    return [{parts[0].name: each} for each in as_list(classes)]
