"""Classes by number, or by the names that the training data give them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeGuard

import numpy as np

from imagegen_dist.wording import counted

Class = int | str | Mapping[Any, float]
"""A class by its number or name, or a blend: the weight of each in the class embedding, {"cat": 0.5, "dog": 0.5}."""

_SUGGESTED = 3


def _class_number(asked: Any, classes: int, names: Sequence[str] | None) -> int:
    """The number of a class, given by its number, of any integer type, or by its name.

    Raises ValueError if there is no such class, or if several have that name.
    """
    if isinstance(asked, str):
        return _by_name(asked, names)
    if isinstance(asked, bool | np.bool_):
        raise ValueError(f"class {asked}: a number or a name is needed")
    try:
        number = operator.index(asked)
    except TypeError:
        raise ValueError(f"class {asked}: a number or a name is needed") from None
    if not 0 <= number < classes:
        raise ValueError(f"class {number}: the model's classes are 0 to {classes - 1}")
    return number


def as_list(classes: Any) -> list[Any]:
    """Several classes as a list; a single class becomes a list of one."""
    if isinstance(classes, str | Mapping) or not isinstance(classes, Iterable) or _is_scalar(classes):
        return [classes]
    return list(classes)


def numbered(asked: Any, classes: int, names: Sequence[str] | None) -> int | dict[int, float]:
    """A class or blend by number only. Raises as `class_number`."""
    if isinstance(asked, Mapping):
        found = [(_class_number(each, classes, names), float(weight)) for each, weight in asked.items()]
        if len(dict(found)) < len(found):
            raise ValueError(f"class {asked}: a class occurs twice in it")
        return dict(found)
    return _class_number(asked, classes, names)


def differing_classes(ours: Sequence[str] | None, theirs: Sequence[str] | None) -> str:
    """How a dataset's class numbering differs from a model's, or an empty string; unknown names agree."""
    if not ours or not theirs or tuple(ours) == tuple(theirs):
        return ""
    at = next((at for at, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    if at is None:
        return f"the model has {counted(len(ours), 'class')}, and the data have {len(theirs):,}"
    return f"class {at} is {theirs[at]!r} in the data, and {ours[at]!r} in the model"


def _by_name(name: str, names: Sequence[str] | None) -> int:
    if names is None:
        raise ValueError(f"class {name}: this model's classes have no names, only numbers")
    found = [number for number, each in enumerate(names) if each == name]
    if len(found) > 1:
        raise ValueError(
            f"class {name}: several classes have that name ({', '.join(map(str, found))}): give the number"
        )
    if not found:
        close = get_close_matches(name, names, _SUGGESTED) or list(names[:_SUGGESTED])
        known = "is it one of" if get_close_matches(name, names, 1) else f"the model has {len(names):,}:"
        raise ValueError(f"class {name}: no class has that name; {known} {', '.join(close)}, ...")
    return found[0]


def _is_scalar(value: Any) -> TypeGuard[Any]:
    """True for an array or tensor that holds one number."""
    return getattr(value, "ndim", None) == 0
