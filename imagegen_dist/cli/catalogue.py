"""What help and the answers to misspelt words say of presets, settings, searches and metrics; it needs no torch.

`python -m imagegen_dist.cli.catalogue` writes the file that is read here from the presets, searches and metrics
themselves; a test fails where it is out of date.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from imagegen_dist import config, config_docs
from imagegen_dist.config_docs import Setting

_FILE = Path(__file__).with_name("catalogue.json")


@cache
def catalogue() -> Mapping[str, Any]:
    """The tables of the file.

    presets: {name: {job, summary, kinds, values}}; settings: {kind of a group: {path: {value, allowed, doc, list}}},
    of which a preset's values replace those that differ; searches: {name: {summary, preset, space}}; metrics:
    {name: summary}; features: names.
    """
    return json.loads(_FILE.read_text())


def presets_of(job: str) -> dict[str, str]:
    """The built-in presets that a job trains, with their summaries; those of all kinds for the job "train"."""
    return {name: each["summary"] for name, each in catalogue()["presets"].items() if job in ("train", each["job"])}


def job_of(preset: str) -> str:
    """The job that trains a preset; "" for one that is not built in."""
    return catalogue()["presets"].get(preset, {}).get("job", "")


def settings_of(preset: str = "") -> list[str]:
    """The dotted paths of a built-in preset's settings; preset "": those of all kinds. Groups are not among them."""
    return [path for path in _rows(preset) if "." in path]


def described_settings(preset: str) -> list[Setting]:
    """The settings of a built-in preset with its values, groups of several kinds included."""
    values = catalogue()["presets"][preset]["values"]
    return [
        Setting(path, values.get(path, row["value"]), row["allowed"], row["doc"]) for path, row in _rows(preset).items()
    ]


def list_settings() -> frozenset[str]:
    """Paths of settings that hold several values, of which a command line may have each as a word of its own."""
    return frozenset(path for path, row in _rows().items() if row["list"])


def _rows(preset: str = "") -> dict[str, Mapping[str, Any]]:
    """The settings of a built-in preset by path, as the file has them; preset "": those of all kinds."""
    settings = catalogue()["settings"]
    kinds = catalogue()["presets"][preset]["kinds"] if preset else settings
    return {path: row for kind in kinds for path, row in settings[kind].items()}


def build() -> dict[str, Any]:
    """What the file has to hold."""
    from imagegen_dist.evaluation.feature_networks import FEATURES
    from imagegen_dist.evaluation.figures import METRICS
    from imagegen_dist.presets import PRESETS
    from imagegen_dist.sweep.searches import SEARCHES

    presets: dict[str, Any] = {}
    settings: dict[str, dict[str, Any]] = {}
    for name, preset in PRESETS.items():
        experiment = preset.experiment
        groups = {group: f"{group} {config.kind(type(value))}" for group, value in vars(experiment).items()}
        lists = {path for path, value in config.paths(experiment).items() if isinstance(value, tuple)}
        presets[name] = {"job": preset.job, "summary": preset.summary, "kinds": list(groups.values()), "values": {}}
        for setting in config_docs.settings(experiment):
            row = {**vars(setting), "list": setting.path.replace("-", "_") in lists}
            known = settings.setdefault(groups[setting.group], {}).setdefault(row.pop("path"), row)
            if known["value"] != setting.value:
                presets[name]["values"][setting.path] = setting.value
    return {
        "presets": presets,
        "searches": {
            name: {"summary": search.summary, "preset": search.preset, "space": str(search.space)}
            for name, search in SEARCHES.items()
        },
        "metrics": {name: metric.summary for name, metric in METRICS.items()},
        "features": list(FEATURES),
        "settings": dict(sorted(settings.items())),
    }


if __name__ == "__main__":
    _FILE.write_text(json.dumps(build(), indent=1, ensure_ascii=False) + "\n")
