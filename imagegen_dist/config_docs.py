"""What every setting of a configuration is: its value, its type in words, its choices and its documentation.

The documentation of a field is the docstring below it, which tyro, Sphinx and mkdocstrings read as well.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from imagegen_dist.config import decode_text, kind, options
from imagegen_dist.schedule import Schedule
from imagegen_dist.shape import PerAxis

_NAMES = {bool: "true or false", int: "whole number", float: "number", str: "text"}
_SCHEDULE = "number, or cosine START:END:IMAGES"


@dataclass(frozen=True)
class Setting:
    """One setting of an experiment."""

    path: str
    """Dotted path, as on the command line: training.batch-size."""
    value: str
    """Its value, as it would be written on the command line."""
    allowed: str
    """Its choices, separated by " | ", or its type in words."""
    doc: str
    """What it means, in one paragraph."""

    @property
    def group(self) -> str:
        """The group of the experiment that the setting belongs to: "training"."""
        return self.path.partition(".")[0]


def settings(config: Any, prefix: str = "") -> Iterator[Setting]:
    """All settings of a configuration, nested ones included. A group of several kinds is itself a setting."""
    hints, docs = typing.get_type_hints(type(config)), field_docs(type(config))
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value) and not isinstance(value, Schedule):
            kinds = sorted(kind(option) for option in options(hints[field.name]))
            if len(kinds) > 1:
                yield Setting(path, kind(type(value)), " | ".join(kinds), docs.get(field.name, ""))
            yield from settings(value, f"{path}.")
        else:
            yield Setting(path, value_text(value), _type_text(hints[field.name]), docs.get(field.name, ""))


def check_text(setting: Setting, text: str) -> None:
    """Raise ConfigError, as decoding would, where a text is no value of a setting by its choices or type in words."""
    if "." not in setting.path:
        if not text.lstrip().startswith("{"):  # a kind alone
            decode_text(Literal[*setting.allowed.split(" | ")], text, f"{setting.path}.kind")
    elif " | " in setting.allowed:
        decode_text(Literal[*setting.allowed.split(" | ")], text, setting.path)
    elif setting.allowed in _TYPES:
        decode_text(_TYPES[setting.allowed], text, setting.path)


def field_docs(cls: type) -> dict[str, str]:
    """The docstring below each field of a dataclass, those of inherited fields included, each as one paragraph."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


def value_text(value: Any) -> str:
    """A setting's value, as it would be written on the command line."""
    if value is None:
        return "none"
    return (json.dumps(value) if isinstance(value, bool | tuple | list) else str(value)) or "''"


def _type_text(annotation: Any) -> str:
    """The choices or the type of a setting in words."""
    allowed = options(annotation)
    if annotation == PerAxis:
        return "whole number, or one for each axis, separated by commas"
    if len(allowed) > 1:
        return " or ".join(_type_text(option) for option in allowed)
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(map(str, arguments))
    if typing.get_origin(annotation) is tuple:
        return f"{_type_text(arguments[0])}s, separated by commas" if arguments[0] is not str else "names with commas"
    if annotation is Schedule:
        return _SCHEDULE
    return "none" if annotation is type(None) else _NAMES.get(annotation, getattr(annotation, "__name__", "value"))


_DECODED: tuple[Any, ...] = (
    bool,
    int,
    float,
    str,
    PerAxis,
    tuple[int, ...],
    tuple[float, ...],
    tuple[str, ...],
    Schedule,
)
_TYPES = {_type_text(annotation): annotation for annotation in _DECODED}
