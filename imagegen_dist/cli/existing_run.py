"""What is at the place of a command's run: nothing yet, a run that it continues, or one that is finished."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import TextIO

from imagegen_dist import records
from imagegen_dist.experiment import Experiment
from imagegen_dist.metrics.console import Screen
from imagegen_dist.records import RunSettings
from imagegen_dist.run_folder import CONFIG
from imagegen_dist.storage import Store
from imagegen_dist.training.checkpoint import newest_images
from imagegen_dist.wording import counted

_COMPARED = 3  # folders with a similar name, of which some may be no runs


@dataclass(frozen=True)
class Standing:
    """What a command does with the run of its name."""

    text: str
    """Whether the run is new, continues or is finished, in a few words."""
    finished: bool = False
    """True if nothing is left to train or to measure."""


def standing(settings: RunSettings, experiment: Experiment, named: bool) -> Standing:
    """Look at the run's directory. named: whether the user gave the run's name, which may be misspelt."""
    folder = settings.folder
    if not folder.exists(CONFIG):
        similar = _similar(Store(settings.storage), settings.name) if named else ""
        there = f"; the run there with the most similar name is {similar}" if similar else ""
        return Standing(f"a new run of {settings.preset}{there}")
    images, total = newest_images(folder), experiment.training.total_images
    if records.is_finished(settings, experiment, images):
        return Standing(f"finished, with all of its {counted(images, 'image')}", finished=True)
    if images < 0:
        return Standing("an existing run without a checkpoint, which starts from its beginning")
    return Standing(f"an existing run, which continues at {images:,} of {total:,} images")


def show_finished(settings: RunSettings, screen: TextIO | None = None) -> None:
    """Print figures, files and next commands of a finished run, as at its end. screen: by default standard output."""
    log = records.log_path(settings)
    table = records.closing_table(settings, str(log) if log.exists() else "")
    Screen(settings.name, screen).summary(table, partial(records.last_picture, settings))


def _similar(storage: Store, name: str) -> str:
    """The name of the run in a storage that is most similar to a name; "" if none is."""
    folders = [each for each, is_folder in storage.entries().items() if is_folder and each != name]
    close = get_close_matches(name, folders, n=_COMPARED)
    return next((each for each in close if (storage / each).exists(CONFIG)), "")
