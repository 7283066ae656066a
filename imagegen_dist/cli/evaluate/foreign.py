"""What the files of a model that others may have made decide on this machine: less than they say."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from imagegen_dist.data.cache import CacheConfig, is_cache
from imagegen_dist.data.trust import UntrustedPlaceError, check_public
from imagegen_dist.decoding.document import read_origin
from imagegen_dist.experiment import Experiment
from imagegen_dist.inference.origin import run_config
from imagegen_dist.storage import Store


def own_run(folder: Store, say: Callable[[str], None]) -> Mapping[str, Any]:
    """The config.json of a model's run, without data at this machine's own or link-local addresses.

    say: is told of each place that was left out.
    """
    run = run_config(folder)
    data = run.get("data")
    return {**run, "data": _public(data if isinstance(data, dict) else {}, say)}


def _public(data: Mapping[str, Any], say: Callable[[str], None]) -> Mapping[str, Any]:
    kept = {}
    for name, url in data.items():
        try:
            if name in ("url", "validation"):
                check_public(str(url or ""))
            kept[name] = url
        except UntrustedPlaceError as error:
            say(f"the model's own data are left alone: {error}; set --data")
    return kept


def of_pictures(run: Mapping[str, Any], say: Callable[[str], None]) -> Mapping[str, Any]:
    """The same config.json with the datasets that were encoded in place of those of latents.

    Arguments as for `own_run`.
    """
    data = dict(run.get("data", {}))
    for name in ("url", "validation"):
        with suppress(ValueError, OSError):
            if data.get(name) and (origin := read_origin(Store(str(data[name])))):
                data[name] = origin.pictures
    return {**run, "data": _public(data, say)}


def read_here(experiment: Experiment, remote_shards: bool) -> Experiment:
    """The experiment with how data are read decided here.

    Its cache's directory is kept where that is a cache of this user already; the rest of the cache's settings is not.
    There are at most as many loader processes as cores.
    """
    workers = min(experiment.data.workers, os.cpu_count() or 1)
    directory = experiment.data.cache.directory
    cache = CacheConfig(directory=directory if is_cache(Path(directory)) else "")
    data = replace(experiment.data, workers=workers, cache=cache, allow_remote_shards=remote_shards)
    return replace(experiment, data=data)
