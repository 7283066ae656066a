"""Where the run of a command begins: with new weights, with those of a source, or at another run's checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from torch import nn

from imagegen_dist.cli.train_options import Options
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.errors import UsageError
from imagegen_dist.experiment import Experiment
from imagegen_dist.lineage import beginning as weights
from imagegen_dist.lineage import forking
from imagegen_dist.lineage.diffusers import HUB_NAME
from imagegen_dist.lineage.record import FORK, INIT, Lineage
from imagegen_dist.lineage.source import read_source, run_at
from imagegen_dist.records import RunSettings
from imagegen_dist.run_folder import CONFIG
from imagegen_dist.storage import Store, reached
from imagegen_dist.storage.lease import Lease


def beginning(
    options: Options,
    settings: RunSettings,
    experiment: Experiment,
    index: DatasetIndex,
    networks: Mapping[str, nn.Module],
) -> Lineage | None:
    """The beginning that the flags ask for; that of a run which exists is the one that it has had.

    networks: by role, with their initial weights. Raises UsageError if an existing run began elsewhere, if the source
    does not fit, or if a run is to be forked while it trains.
    """
    given = options.init_from or options.fork_from
    if not given:
        return settings.lineage
    place = _url(run_at(given, options.storage))
    how = INIT if options.init_from else FORK
    if settings.folder.exists(CONFIG):
        had = settings.lineage
        places = (place, Store(place).url)
        if had is None or had.how != how or had.given not in places or options.at not in (None, had.images):
            began = f"began by --{had.how} {had.summary}" if had else "began with new weights"
            raise UsageError(f"{settings.folder} holds a run that {began}: choose another --run, or leave --{how} out")
        return had
    if how == INIT:
        return weights.plan(place, read_source(place), experiment, index, networks)
    run = reached(place)
    try:
        Lease(run).check_free(lambda text: print(text, file=sys.stderr))
    except UsageError as error:
        holds = str(error).partition(":")[0]
        raise UsageError(f"--{FORK} {given}: {holds}; stop it first, or wait for its end") from error
    return forking.plan(place, forking.choose(run, options.at), experiment, index)


def _url(place: str) -> str:
    """The URL of a place; the name of a repository on the Hub stays as it is."""
    store = Store(place)
    on_hub = store.protocol == "file" and not store.exists() and HUB_NAME.fullmatch(place)
    return place if on_hub else store.url
