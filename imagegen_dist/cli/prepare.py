"""Check a training before any worker starts, show it with --dry-run, and hand it over to the driver."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from imagegen_dist import records
from imagegen_dist.cli.beginning import beginning
from imagegen_dist.cli.command import check_name
from imagegen_dist.cli.estimate import PATIENCE_S, estimate
from imagegen_dist.cli.existing_run import Standing, show_finished, standing
from imagegen_dist.cli.progress import packing_of
from imagegen_dist.cli.secrets import check_secrets
from imagegen_dist.cli.train_options import Command, describe, given_flags
from imagegen_dist.commands import programs
from imagegen_dist.data.builtin import builtin_dataset, is_builtin
from imagegen_dist.data.factors import choose_factors
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.stream import check_cache, read_records
from imagegen_dist.errors import DONE
from imagegen_dist.evaluation.checks import check_held_out, foreseen
from imagegen_dist.evaluation.feature_networks import open_network
from imagegen_dist.evaluation.figures import check_training_metrics
from imagegen_dist.evaluation.named_reference import named_source
from imagegen_dist.experiment import (
    Experiment,
    build_networks,
    build_objective,
    build_plan,
    parameter_counts,
    with_absolute_paths,
)
from imagegen_dist.metrics.formatting import duration, figure
from imagegen_dist.presets import PRESETS, Preset, find_preset
from imagegen_dist.ray.environment import set_ray_environment
from imagegen_dist.records import RunSettings, identified
from imagegen_dist.resources import check_demand, is_own_ray, local_threads, local_workers
from imagegen_dist.run.held_out import check_measured
from imagegen_dist.run.latents import measured_index
from imagegen_dist.run_folder import CONFIG, check_own_checkpoints
from imagegen_dist.storage import Store, check_temporary_room
from imagegen_dist.training.checkpoint import check_room
from imagegen_dist.training.freezing import frozen_parameters
from imagegen_dist.wording import counted

if TYPE_CHECKING:
    from imagegen_dist.ray.driver import Driver
    from imagegen_dist.ray.early import EarlyRay
    from imagegen_dist.ray.signals import Interruption


def train(prepared: Prepared, early: EarlyRay | None = None) -> int:
    """Train what was prepared; the exit code. A finished run is shown alone. Raises UsageError as `build_driver`.

    early: as in `Driver`.
    """
    if prepared.standing.finished:
        show_finished(prepared.settings)
        return DONE
    return build_driver(prepared, early=early).run()


def build_driver(prepared: Prepared, interruption: Interruption | None = None, early: EarlyRay | None = None) -> Driver:
    """The driver of a prepared training. Raises UsageError if this machine lacks resources for the workers.

    interruption: requests its end; None for signals to this process. early: as in `Driver`.
    """
    demand, workers = prepared.command.demand, prepared.command.workers
    check_demand(demand.gpus, demand.cpus, workers.low if workers else 1)
    set_ray_environment()
    from imagegen_dist.ray.driver import Driver  # after the environment that Ray reads when it is imported

    return Driver(
        prepared.experiment, prepared.settings, prepared.index, workers, demand, interruption=interruption, early=early
    )


@dataclass(frozen=True)
class Prepared:
    """A command that was checked against data and storage: everything that the workers need."""

    command: Command
    experiment: Experiment
    settings: RunSettings
    index: DatasetIndex
    standing: Standing
    """Whether the run is new, continues or is finished."""
    notes: tuple[str, ...] = ()
    """What the user should know of these settings, in a line each."""

    @property
    def opening(self) -> str:
        """The line that says where the run is, and whether it is new, continues or is finished."""
        return f"{self.settings.folder.url}: {self.standing.text}"


def prepare(command: Command) -> Prepared:
    """Resolve and check a command before any worker starts. Raises ValueError with one line, nothing changed or lost.

    Built-in data are packed on first use; the storage is written to and read back; the networks are built once.
    """
    options, experiment = command.options, with_absolute_paths(command.experiment)
    if command.workers:
        experiment.training.batching.check_workers(command.workers.high)
    storage = Store(options.storage)
    storage.probe()
    data, validation = _datasets(experiment, storage)
    remote_shards = experiment.data.allow_remote_shards
    index = DatasetIndex.load(Store(data), remote_shards)
    held_out = DatasetIndex.load(Store(validation), remote_shards) if validation else None
    if held_out:
        check_held_out(index, held_out)
    check_measured(experiment, index, held_out)
    _check_figures(experiment, held_out or index, Store(validation or data))
    networks = build_networks(experiment, index.shape, index.labels)
    draws = len(build_objective(experiment, networks, index).phases())
    measured, unmeasured = measured_index(experiment, index, data)
    if experiment.evaluation.samples and (source := named_source(experiment.evaluation)):
        open_network(source, measured.shape, torch.device("cpu"))
    if is_own_ray():  # all workers will be on this node
        plan = build_plan(experiment, index, draws)
        check_cache(index, Store(data), plan, range(plan.microbatches), experiment.data.cache)
    settings = identified(_settings(command, storage, data, validation))
    settings = replace(settings, lineage=beginning(options, settings, experiment, index, networks))
    frozen_parameters(networks, experiment.training.freeze_d)
    check_temporary_room()
    weights = sum(parameter.numel() for network in networks.values() for parameter in network.parameters())
    check_room(settings.folder, weights, settings.keep)
    document = records.document(settings, experiment, index, {})
    check_secrets(document, os.environ)
    if settings.folder.exists(CONFIG):
        records.check_config(settings.folder, document)
    check_own_checkpoints(settings.folder, settings.id)
    preset = find_preset(options.preset) if options.preset in PRESETS or ":" in options.preset else None
    notes = silent_settings(experiment, preset, index, draws) + foreseen(experiment, index, held_out)
    found = standing(settings, experiment, named=bool(options.run))
    return Prepared(command, experiment, settings, index, found, (*notes, *unmeasured))


def _check_figures(experiment: Experiment, looked_at: DatasetIndex, store: Store) -> None:
    """Check that metrics can be computed during training. looked_at: the samples, whose index is in `store`.

    Raises ValueError.
    """
    if asked := experiment.evaluation.factors:
        place = looked_at.location(store)
        [first] = read_records(looked_at, place, range(1), experiment.data.cache)
        choose_factors(list(first.get("factors", {})), asked, place)
    check_training_metrics(experiment.evaluation, looked_at)


def _settings(command: Command, storage: Store, data: str, validation: str) -> RunSettings:
    """What determines where a run is and how it is logged."""
    options = command.options
    return RunSettings(
        name=_run_name(options.run, options.preset),
        storage=storage.url,
        preset=options.preset,
        job=command.job,
        data=data,
        validation=validation,
        wandb_mode="" if options.wandb == "auto" else options.wandb,
        wandb_directory=_wandb_directory(storage),
        wandb_key=_has_wandb_key(),
        programs=programs(),
        flags=given_flags(options),
    )


def _datasets(experiment: Experiment, storage: Store) -> tuple[str, str]:
    """URLs of the training and held-out shards; "" for none."""
    data = experiment.data
    if is_builtin(data.url):
        folder = storage / ".data"
        held_out = data.validation or data.url
        given = None if is_builtin(held_out) else Store(held_out)
        validation = builtin_dataset(held_out, "val", folder, packing_of(held_out)) if given is None else given
        return builtin_dataset(data.url, "train", folder, packing_of(data.url)).url, validation.url
    return Store(data.url).url, Store(data.validation).url if data.validation else ""


def _run_name(asked: str, preset: str) -> str:
    name = asked or f"{preset.rpartition(':')[2]}-{time.strftime('%Y%m%d-%H%M%S')}"
    check_name("run", name)
    return name


def _wandb_directory(storage: Store) -> str:
    local = storage.local_path()
    return str(local / ".wandb" if local else Path.home() / ".cache" / "imagegen_dist" / "wandb")


def _has_wandb_key() -> bool:
    """Whether W&B would find a key: in the environment, or where `wandb login` keeps it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    with suppress(OSError):
        return "api.wandb.ai" in netrc.read_text()
    return False


_NAMED = 10  # classes


def dry_run_text(prepared: Prepared) -> str:
    """What --dry-run prints: settings, networks, data, storage."""
    experiment, index, settings = prepared.experiment, prepared.index, prepared.settings
    counts = parameter_counts(experiment, index.shape, index.labels)
    batching = experiment.training.batching
    lines = [
        f"experiment  {settings.preset}",
        describe(experiment),
        f"networks    {', '.join(f'{name} {count:,} parameters' for name, count in counts.items())}",
        f"samples     {index.shape}, {index.describe_labels(_NAMED)}",
        f"data        {settings.data}: {counted(index.samples, 'sample')} in {counted(len(index.shards), 'shard')}, "
        f"fingerprint {index.fingerprint[:12]}",
        f"steps       {experiment.training.steps:,} of {batching.batch_size} images in {batching.microbatches} "
        f"microbatches: at most {counted(batching.microbatches, 'worker')}",
        f"storage     {settings.folder.url}: written and read back",
        f"run         {prepared.standing.text}",
        *_beginning_lines(settings),
        f"time        {_time_text(prepared)}",
        "Nothing was trained.",
    ]
    return "\n".join(lines)


def _beginning_lines(settings: RunSettings) -> list[str]:
    """Where the run begins, if not with new weights."""
    lines = settings.lineage.lines() if settings.lineage else []
    return [f"{'' if at else 'beginning':<12}{line}" for at, line in enumerate(lines)]


def _time_text(prepared: Prepared) -> str:
    """How long the training will take, by a few of its steps on this machine."""
    command, training = prepared.command, prepared.experiment.training
    total, gpus = training.total_images, 0 if command.demand.gpus == 0 else torch.cuda.device_count()
    workers = local_workers(command.workers, gpus, training.batching.microbatches)
    speed = estimate(prepared.experiment, prepared.index, workers, local_threads(command.demand.cpus, workers))
    if not speed.images_per_s:
        step = f"a step of {counted(training.microbatch_size, 'image')}"
        slow = f"unknown: {step} was given up after {PATIENCE_S:.0f} s on this machine"
        return f"{slow} ({speed.conditions});\n{'':12}--gpu-type h200 predicts speed, memory and cost on GPUs"
    about = duration(total / speed.images_per_s)
    lines = [
        f"about {about} at {figure(speed.images_per_s)} images/s, measured on this machine",
        f"({speed.conditions}); figures, pictures and waiting for data come on top",
    ]
    return ("\n" + " " * 12).join(lines)


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
    if experiment.data.conditional and not index.tells:
        has = "labels of only one class" if index.classes else "no labels"
        lines.append(f"--data.conditional true has no effect: the data have {has}")
    if not experiment.data.conditional and index.tells and not own_data:
        labels = "conditions" if index.conditions else f"labels of the data's {index.classes:,} classes"
        lines.append(
            f"the {labels} are not told to the networks: this preset is "
            "unconditional; --data.conditional true tells them"
        )
    epochs = experiment.training.total_images * draws / index.samples
    if epochs > _MOST_EPOCHS:
        lines.append(
            f"each of the {index.samples:,} samples will be seen {epochs:,.0f} times, after which models repeat them; "
            "lower --training.total-images"
        )
    return lines
