"""Names and summaries that help and the answers to misspelt words need, kept in a file: loading them needs no torch.

`python -m imagegen_dist.cli.catalogue` writes the file from the presets, searches and metrics themselves; a test fails
where it is out of date.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("catalogue.json")


@cache
def catalogue() -> Mapping[str, Any]:
    """The tables of the file.

    presets: {name: {job, summary, kinds}}; settings: {kind or group: {path: "" or "list"}};
    searches: {name: {summary, space}}; metrics: {name: summary}; features: names.
    """
    return json.loads(_FILE.read_text())


def presets_of(job: str) -> dict[str, str]:
    """The built-in presets that a job trains, with their summaries; those of all kinds for the job "train"."""
    return {name: each["summary"] for name, each in catalogue()["presets"].items() if job in ("train", each["job"])}


def job_of(preset: str) -> str:
    """The job that trains a preset; "" for one that is not built in."""
    return catalogue()["presets"].get(preset, {}).get("job", "")


def settings_of(preset: str = "") -> list[str]:
    """The dotted paths of a built-in preset's settings; preset "": those of all kinds."""
    settings = catalogue()["settings"]
    kinds = catalogue()["presets"][preset]["kinds"] if preset else settings
    return [path for each in kinds for path in settings[each]]


def list_settings() -> frozenset[str]:
    """Paths of settings that hold several values, of which a command line may have each as a word of its own."""
    return frozenset(
        path for paths in catalogue()["settings"].values() for path, shape in paths.items() if shape == "list"
    )


def build() -> dict[str, Any]:
    """What the file has to hold."""
    from imagegen_dist.evaluation.feature_networks import FEATURES
    from imagegen_dist.evaluation.figures import METRICS
    from imagegen_dist.presets import PRESETS
    from imagegen_dist.sweep.searches import SEARCHES

    presets: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for name, preset in PRESETS.items():
        groups = dict(_groups(preset.experiment))
        settings |= groups
        presets[name] = {"job": preset.job, "summary": preset.summary, "kinds": list(groups)}
    return {
        "presets": presets,
        "searches": {
            name: {"summary": search.summary, "space": str(search.space)} for name, search in SEARCHES.items()
        },
        "metrics": {name: metric.summary for name, metric in METRICS.items()},
        "features": list(FEATURES),
        "settings": dict(sorted(settings.items())),
    }


def _groups(experiment: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """The settings of each group of an experiment, under the group's name and kind, "model r3gan"."""
    from imagegen_dist import config

    for group in vars(experiment):
        inner = config.paths(getattr(experiment, group), f"{group}.")
        shapes = {path.replace("_", "-"): "list" if isinstance(value, tuple) else "" for path, value in inner.items()}
        yield f"{group} {config.kind(type(getattr(experiment, group)))}", shapes


if __name__ == "__main__":
    _FILE.write_text(json.dumps(build(), indent=1, ensure_ascii=False) + "\n")
