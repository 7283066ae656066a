"""Parts of the site that are made from the code: settings, presets, and the modules of the API reference."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Iterable, Iterator

from imagegen_dist import config_docs, metric_table
from imagegen_dist.config import kind, options
from imagegen_dist.config_docs import Setting
from imagegen_dist.experiment import Experiment
from imagegen_dist.metric_table import Metric
from imagegen_dist.presets import PRESETS, Preset


def settings() -> str:
    """Every setting of every config class, with its default, type and meaning."""
    return "\n".join(_sections())


def _sections() -> Iterator[str]:
    """A section for each group of settings of an experiment, and for each class that the group may have."""
    groups = typing.get_type_hints(Experiment)
    for name in (field.name for field in dataclasses.fields(Experiment)):
        classes = options(groups[name])
        yield f"\n## {name}\n\n{config_docs.field_docs(Experiment)[name]}\n"
        for option in classes:
            if len(classes) > 1:
                yield f"\n### {name} {kind(option)}\n\n{inspect.getdoc(option)}\n"
            rows = [
                (f"`--{setting.path}`", _code(setting.value), _choices(setting.allowed), setting.doc)
                for setting in config_docs.settings(option(), f"{name}.")
            ]
            yield _table(("setting", "default", "value", "meaning"), rows)


def presets(job: str) -> str:
    """The presets of a training job: source, data, and the settings that differ from the defaults."""
    return "\n".join(_preset(name, preset) for name, preset in PRESETS.items() if preset.job == job)


def _preset(name: str, preset: Preset) -> str:
    size = "×".join(str(extent) for extent in preset.shape.spatial)
    channels = {1: "grey", 3: "RGB"}.get(preset.shape.channels, f"{preset.shape.channels} channels")
    classes = f", {preset.classes:,} classes" if preset.classes else ""
    rows = [(f"`--{setting.path}`", _code(setting.value)) for setting in _changed(preset.experiment)]
    return (
        f"### {name}\n\n{preset.summary[:1].upper()}{preset.summary[1:]}. Made for {size} {channels}{classes}.\n\n"
        f"{preset.source}\n\n    imagegen train {name}\n\n{_table(('setting', 'value'), rows)}"
    )


def _changed(experiment: Experiment) -> Iterator[Setting]:
    """The settings that differ from the defaults of their classes, and which classes they are."""
    groups = {field.name: type(getattr(experiment, field.name)) for field in dataclasses.fields(experiment)}
    defaults = {setting for name, group in groups.items() for setting in config_docs.settings(group(), f"{name}.")}
    return (setting for setting in config_docs.settings(experiment) if setting not in defaults)


def metrics() -> str:
    """The metric table: a section for each group."""
    registered = metric_table.registered()
    sections = []
    for group, title in metric_table.GROUPS.items():
        rows = [
            (f"`{each.name}`", _sentence(each), each.unit, _BETTER[each.better], _of(each.reference))
            for each in registered
            if each.group == group
        ]
        if rows:
            sections.append(f"## {title}\n\n{_table(('metric', 'meaning', 'unit', 'better', 'reference'), rows)}")
    return "\n".join(sections)


_BETTER = {"higher": "higher", "lower": "lower", "neither": ""}


def _sentence(metric: Metric) -> str:
    label = metric_table.describe(metric.name).label.replace("*", "\\*")
    return f"{label}: {metric.meaning}" if metric.meaning else label


def _of(reference: str) -> str:
    return f"`{reference}`" if reference else ""


def api(package: str) -> str:
    """Directives for a package or a module of imagegen_dist, with all its public modules."""
    module = importlib.import_module(f"imagegen_dist.{package}")
    inner = pkgutil.iter_modules(getattr(module, "__path__", ()), f"{module.__name__}.")
    names = [module.__name__, *(found.name for found in inner if not found.name.rpartition(".")[2].startswith("_"))]
    return "\n".join(
        f"## {name.removeprefix('imagegen_dist.')}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n" for name in names
    )


def restructured(lines: list[str]) -> list[str]:
    """Plain text as reStructuredText: `name: meaning` lines become a list, indented lines are shown as they are."""
    found: list[str] = []
    for line in lines:
        before = found[-1] if found else ""
        if line.startswith("    "):
            found += [line] if before.startswith("    ") else ["", "::", "", line]
            continue
        if not line.strip():
            found.append("")
            continue
        if before.startswith("    "):
            found.append("")
        text = _MARKUP.sub(lambda match: f"``{match[1]}``" if match[1] else f"\\{match[0]}", line.strip())
        if found and re.match(r"\w+(, \w+)*: ", line):
            found += [*([] if before.startswith(("- ", "  ")) else [""]), f"- {text}"]
        else:
            found.append(f"  {text}" if before.startswith(("- ", "  ")) else text)
    return [*found, ""]


_MARKUP = re.compile(r"``?([^`]+)``?|[\\*|_<]")


def _code(value: str) -> str:
    return "empty" if value in ("", "''") else f"`{value}`"


def _choices(allowed: str) -> str:
    return " or ".join(f"`{choice}`" for choice in allowed.split(" | ")) if " | " in allowed else allowed


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
