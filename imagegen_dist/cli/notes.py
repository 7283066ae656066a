"""Settings that have another effect than they seem to, said in a line each before a run starts."""

from __future__ import annotations

from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.experiment import Experiment
from imagegen_dist.presets import Preset

_MOST_EPOCHS = 1_000
"""How often each sample is seen, above which a run learns its samples by heart."""


def silent_settings(experiment: Experiment, preset: Preset | None, index: DatasetIndex, draws: int) -> list[str]:
    """What the settings do to these data that nobody may have meant.

    preset: what the run was begun from; None where that is not known any more. draws: samples that a step draws for
    each image that it counts.
    """
    own_data = preset is not None and experiment.data.url == preset.experiment.data.url
    lines = []
    if preset is not None and own_data and preset.shape not in (None, index.shape):
        lines.append(
            f"this preset was made for samples of {preset.shape}, and without --data it trains on the built-in "
            f"{experiment.data.url}, {index.shape}"
        )
    if experiment.data.conditional and not index.distinct_classes:
        has = "labels of only one class" if index.classes else "no labels"
        lines.append(f"--data.conditional true has no effect: the data have {has}")
    if not experiment.data.conditional and index.distinct_classes and not own_data:
        lines.append(
            f"the labels of the data's {index.classes:,} classes are not told to the networks: this preset is "
            "unconditional; --data.conditional true tells them"
        )
    epochs = experiment.training.total_images * draws / index.samples
    if epochs > _MOST_EPOCHS:
        lines.append(
            f"each of the {index.samples:,} samples will be seen {epochs:,.0f} times, after which models repeat them; "
            "lower --training.total-images"
        )
    return lines
