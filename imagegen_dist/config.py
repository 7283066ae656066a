"""Frozen dataclasses as configuration: override by dotted path, encode to JSON, decode from it.

A dataclass may read and write its own JSON by `from_json` (a classmethod) and `to_json`. A field that may hold one of
several dataclasses is encoded with a "kind", the class's name without "Config" in lower case.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

from imagegen_dist import extensions
from imagegen_dist.wording import counted

Config = TypeVar("Config")
Member = TypeVar("Member", bound=type)


class Extensible:
    """Base class of the dataclasses that one field of a configuration may hold: those that are registered for it.

        class ObjectiveConfig(Extensible): ...

        @ObjectiveConfig.register
        @dataclass(frozen=True)
        class HingeConfig(ObjectiveConfig): ...

    A field annotated `ObjectiveConfig` then takes the kind "hinge". Any package may register classes of its own.
    """

    registered: ClassVar[dict[str, Any]]
    """By kind; each direct subclass of Extensible has its own."""

    def __init_subclass__(cls) -> None:
        if Extensible in cls.__bases__:
            cls.registered = {}

    @classmethod
    def register(cls, member: Member) -> Member:
        """Class decorator: let configurations hold `member`. Raises ValueError where its kind is another class's."""
        known = cls.registered.get(kind(member), member)
        if _qualified(known) != _qualified(member):
            raise ValueError(f"{_qualified(member)}: {kind(member)!r} is the kind of {_qualified(known)}; rename it")
        cls.registered[kind(member)] = member
        extensions.record(member.__module__)
        return member


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


_LONGEST = 500
"""Characters of a message; of what is longer, as a file that was given for a value, its two ends are shown."""


class ConfigError(ValueError):
    """A value that a configuration cannot take: one line that names the path, the value and what is allowed."""

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__(line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}")


def encode(value: Any) -> Any:
    """The JSON form of a configuration."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": kind(type(value)), **fields}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {str(name): encode(item) for name, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a configuration cannot hold {value!r}")


def decode(annotation: Any, data: Any, path: str = "") -> Any:
    """Build a value of the annotated type from JSON data. Raises ConfigError naming the dotted path."""
    allowed = options(annotation)
    classes = [option for option in allowed if dataclasses.is_dataclass(option)]
    if data is None and type(None) in allowed:
        return None
    if classes:
        return _decode_dataclass(classes, data, path)
    data, allowed = _one_or_several(allowed, data)
    for option in allowed:
        origin = typing.get_origin(option)
        if origin is typing.Literal:
            return _decode_literal(typing.get_args(option), data, path)
        if origin is tuple:
            return _decode_tuple(typing.get_args(option), data, path)
        if origin is dict:
            if not isinstance(data, dict):
                raise ConfigError(f"{path}: {data!r} is not a group of values by name")
            return {name: decode(typing.get_args(option)[1], item, f"{path}.{name}") for name, item in data.items()}
        if option is Any:
            return data
        if option is not type(None):
            return _decode_scalar(option, data, path)
    raise ConfigError(f"{path}: nothing can be set here")


def override(config: Config, path: str, value: Any) -> Config:
    """A copy of `config` with the field at the dotted `path` replaced.

    path: field names joined by dots; dashes count as underscores. value: JSON data, or the text of a command line.
    Raises ConfigError for an unknown path (naming the nearest that exists) or a value that does not fit.
    """
    return overrides(config, [(path, value)])


def overrides(config: Config, assignments: Iterable[tuple[str, Any]]) -> Config:
    """`override`, one assignment after another, validated together at the end.

    Each assignment is applied to the JSON form first, so that two values which only fit together may come in any order.
    """
    data = encode(config)
    for path, value in assignments:
        field_type, value_now = _locate(config, path)
        chosen = decode_text(field_type, value, path, value_now)
        _assign(data, path.replace("-", "_").split("."), encode(chosen))
        if type(chosen) is not type(value_now) and dataclasses.is_dataclass(chosen):
            with suppress(ConfigError):  # what does not fit yet may with the assignments to come
                config = decode(type(config), data)
    return decode(type(config), data)


def paths(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every dotted path of a configuration with its value, nested dataclasses unfolded (schedules are values)."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        path = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value) and not hasattr(value, "to_json"):
            found |= paths(value, f"{path}.")
        else:
            found[path] = value
    return found


def flatten(settings: Mapping[str, Any], prefix: str = "", whole_kinds: bool = False) -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of settings in nested mappings; the kind of a group at `group.kind`. Schedules are values.

    whole_kinds: groups that name their kind are values as well.
    """
    for name, value in settings.items():
        is_group = isinstance(value, Mapping) and not {"start", "end"} <= value.keys()
        if is_group and not (whole_kinds and "kind" in value):
            yield from flatten(value, f"{prefix}{name}.", whole_kinds)
        else:
            yield f"{prefix}{name}", value


def differences(ours: Any, theirs: Any, prefix: str = "") -> list[str]:
    """What differs between two JSON forms, one `path: ours, not theirs` each."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            found += differences(ours.get(key), theirs.get(key), f"{prefix}.{key}" if prefix else key)
        return found
    return [] if ours == theirs else [f"{prefix}: {json.dumps(ours)}, not {json.dumps(theirs)}"]


def fingerprint(data: Any) -> str:
    """sha256 over the canonical JSON form, in hexadecimal."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` where something known is close, else the known words."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.55) or difflib.get_close_matches(
        word.rsplit(".", 1)[-1], known, n=1, cutoff=0.75
    )
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def no_such_setting(path: str, everything: Sequence[str]) -> ConfigError:
    """The error for a path that is none of the paths in `everything`; it names the nearest of them."""
    names = path.replace("_", "-").split(".")
    groups = [".".join(names[:depth]) for depth in range(1, len(names))]
    known = [group for group in groups if any(f"{each}.".startswith(f"{group}.") for each in everything)]
    return ConfigError(f"--{path}: no such setting{f' in {known[-1]}' if known else ''}; {_meant(path, everything)}")


def kind(cls: type) -> str:
    """The name by which JSON tells one dataclass from another: R3GANConfig is "r3gan"."""
    return cls.__name__.removesuffix("Config").lower()


def decode_text(annotation: Any, value: Any, path: str, now: Any = None) -> Any:
    """`decode` for a value that may be the text of a command line: JSON, a bare word, or items joined by commas."""
    if not isinstance(value, str):
        return decode(annotation, value, path)
    allowed = options(annotation)
    if value == "none" and type(None) in allowed:
        return None
    if any(typing.get_origin(option) is tuple for option in allowed) and not value.lstrip().startswith("["):
        return decode(annotation, [part.strip() for part in value.split(",") if part.strip()], path)
    if str in allowed or any(dataclasses.is_dataclass(option) and hasattr(option, "from_json") for option in allowed):
        return decode(annotation, value, path)
    try:
        data = json.loads(value)
    except json.JSONDecodeError:
        data = value
    except ValueError:
        raise ConfigError(f"{path}: {value!r} has too many digits") from None
    except RecursionError:
        raise ConfigError(f"{path}: the value is nested too deeply") from None
    if isinstance(data, dict) and dataclasses.is_dataclass(now) and not isinstance(now, type):
        alike = data.get("kind", kind(type(now))) == kind(type(now))
        data = {**encode(now), **data} if alike else data
    return decode(annotation, data, path)


def options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, the classes registered for an extensible one, or the annotation alone."""
    if isinstance(annotation, type) and issubclass(annotation, Extensible) and Extensible in annotation.__bases__:
        return tuple(annotation.registered.values())
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _field_types(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _decode_dataclass(classes: list[Any], data: Any, path: str) -> Any:
    cls = classes[0]
    if len(classes) > 1:
        tag = data.get("kind") if isinstance(data, dict) else data
        named = {kind(option): option for option in classes}
        if not isinstance(tag, str) or tag not in named:
            raise ConfigError(f"{path}.kind: {tag!r} is not known; {nearest(str(tag), named)}")
        cls = named[tag]
        data = data if isinstance(data, dict) else {}
    try:
        if hasattr(cls, "from_json"):
            return cls.from_json(data)
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: {data!r} is not a group of settings")
        known = _field_types(cls)
        fields = {}
        for name, value in data.items():
            if name == "kind":
                continue
            inner = f"{path}.{name}" if path else name
            if name not in known:
                raise ConfigError(f"{inner}: no such setting; {nearest(name, known)}")
            fields[name] = decode(known[name], value, inner)
        return cls(**fields)
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError(f"{path or 'the configuration'} is nested too deeply") from None
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        where = f"{path}: " if path else ""
        raise ConfigError(f"{where}{data!r}: {error}" if hasattr(cls, "from_json") else f"{where}{error}") from error


def _decode_literal(allowed: tuple[Any, ...], data: Any, path: str) -> Any:
    if data in allowed:
        return data
    raise ConfigError(f"{path}: {data!r} is not known; {nearest(str(data), [str(item) for item in allowed])}")


def _decode_tuple(arguments: tuple[Any, ...], data: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        data = [data]
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(decode(arguments[0], item, path) for item in data)
    if len(data) != len(arguments):
        raise ConfigError(f"{path}: {list(data)} needs {counted(len(arguments), 'value')}")
    return tuple(decode(option, item, path) for option, item in zip(arguments, data, strict=True))


def _one_or_several(allowed: tuple[Any, ...], data: Any) -> tuple[Any, tuple[Any, ...]]:
    """(data, the annotations that fit it) for a union of a tuple and its item: a single item is no tuple."""
    several = tuple(option for option in allowed if typing.get_origin(option) is tuple)
    one = tuple(option for option in allowed if option not in several and option is not type(None))
    if not several or not one:
        return data, allowed
    if isinstance(data, list | tuple) and len(data) != 1:
        return data, several
    return (data[0] if isinstance(data, list | tuple) else data), one


def _decode_scalar(expected: Any, data: Any, path: str) -> Any:
    if expected is bool and isinstance(data, str) and data.lower() in ("true", "false", "yes", "no", "on", "off"):
        return data.lower() in ("true", "yes", "on")
    if expected in (int, float) and isinstance(data, str):
        try:
            data = float(data)
        except ValueError:
            raise ConfigError(f"{path}: {data!r} is not a number") from None
    if expected is int and isinstance(data, float) and data.is_integer():
        data = int(data)
    if isinstance(data, int) and not isinstance(data, bool) and not -_MOST <= data <= _MOST:
        raise ConfigError(f"{path}: {data if abs(data) < 10**30 else 'a number of more than 30 digits'} is too large")
    if expected is float and isinstance(data, int) and not isinstance(data, bool):
        data = float(data)
    if isinstance(data, float) and not math.isfinite(data):
        raise ConfigError(f"{path}: {data} is not finite")
    if not isinstance(data, expected) or (expected is not bool and isinstance(data, bool)):
        raise ConfigError(f"{path}: {data!r} is not {_ARTICLE.get(expected, expected.__name__)}")
    return data


_MOST = 2**64 - 1
"""The largest whole number: of a seed."""

_ARTICLE = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _locate(config: Any, path: str) -> tuple[Any, Any]:
    """The annotation and the present value of the field at `path`."""
    names = path.replace("-", "_").split(".")
    value = config
    annotation: Any = type(config)
    for name in names:
        known = _field_types(type(value)) if dataclasses.is_dataclass(value) else {}
        if name not in known:
            raise no_such_setting(path, [found.replace("_", "-") for found in paths(config)])
        annotation, value = known[name], getattr(value, name)
    return annotation, value


def _meant(path: str, everything: Sequence[str]) -> str:
    path = path.replace("_", "-")
    tail = [known for known in everything if known.rsplit(".", 1)[-1] == path.rsplit(".", 1)[-1]]
    close = tail or difflib.get_close_matches(path, everything, n=1, cutoff=0.5)
    return f"did you mean --{close[0]}?" if close else "see --help"


def _assign(data: dict[str, Any], names: list[str], value: Any) -> None:
    for name in names[:-1]:
        if not isinstance(data[name], dict):
            data[name] = {"start": data[name], "end": data[name], "images": 0}
        data = data[name]
    data[names[-1]] = value
