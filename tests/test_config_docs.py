"""Every setting says what it means, in a form that tools can read."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Literal

import pytest

from imagegen_dist.config import paths
from imagegen_dist.config_docs import Setting, field_docs, settings
from imagegen_dist.experiment import Experiment
from imagegen_dist.presets import PRESETS, find_preset
from imagegen_dist.schedule import Schedule


def configurations(annotation: object) -> set[type]:
    """The dataclasses that a configuration of the annotated type may be made of."""
    if not dataclasses.is_dataclass(annotation):
        return {found for option in typing.get_args(annotation) for found in configurations(option)}
    hints = typing.get_type_hints(annotation).values()
    return {typing.cast(type, annotation)}.union(*map(configurations, hints))


@pytest.mark.parametrize("cls", sorted(configurations(Experiment) - {Schedule}, key=lambda cls: cls.__name__))
def test_every_field_of_every_configuration_has_a_docstring(cls: type) -> None:
    undocumented = [field.name for field in dataclasses.fields(cls) if not field_docs(cls).get(field.name)]
    assert not undocumented, f"{cls.__name__} lacks docstrings below {undocumented}"


@pytest.mark.parametrize("name", PRESETS)
def test_all_settings_of_a_preset_are_explained(name: str) -> None:
    experiment = find_preset(name).experiment
    found = [setting.path for setting in settings(experiment)]
    assert set(found) >= {path.replace("_", "-") for path in paths(experiment)}
    assert len(found) == len(set(found))


@dataclass(frozen=True)
class Base:
    rate: Schedule = Schedule(1, 0, 10)
    """Rate of
    something."""


@dataclass(frozen=True)
class Derived(Base):
    kind_of: Literal["a", "b"] = "a"
    """Which."""
    several: tuple[int, ...] = (1, 2)
    """Widths."""
    plain: str = ""  # not read
    rate: Schedule = Schedule(2, 2)


def test_a_setting_has_its_path_value_choices_and_documentation() -> None:
    assert list(settings(Derived())) == [
        Setting("rate", "2", "number, or cosine START:END:IMAGES", "Rate of something."),
        Setting("kind-of", "a", "a | b", "Which."),
        Setting("several", "[1, 2]", "whole numbers, separated by commas", "Widths."),
        Setting("plain", "''", "text", ""),
    ]
