"""What an evaluation will measure, checked against the model, the data and the storage before anything is measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from imagegen_dist.data.builtin import SPLITS, builtin_dataset, is_builtin
from imagegen_dist.data.index import DatasetError
from imagegen_dist.evaluation.feature_networks import (
    CLASSIFIER,
    FeatureSource,
    Labels,
    open_network,
    trained_classifier,
)
from imagegen_dist.evaluation.figures import check_metrics
from imagegen_dist.evaluation.observer import Dataset
from imagegen_dist.evaluation.restored import Restored, find_checkpoint, run_folder
from imagegen_dist.experiment import Experiment
from imagegen_dist.launch.evaluate.options import MOST_BY_DEFAULT, Options, asked_metrics, feature_sources
from imagegen_dist.launch.flags import UsageError
from imagegen_dist.metrics.features import FeatureNetwork
from imagegen_dist.records import CONFIG
from imagegen_dist.storage import Store, file_at


@dataclass(frozen=True)
class Network:
    """One feature network of an evaluation, and the metrics in its features."""

    source: FeatureSource
    metrics: tuple[str, ...]
    network: FeatureNetwork
    # Of a classifier of the dataset's labels: samples of each class in what it was trained on, [K].
    class_counts: Tensor | None = None


@dataclass(frozen=True)
class Request:
    """A checked evaluation."""

    model: Restored
    # As the model's observer sees real samples, where it is a VAE.
    experiment: Experiment
    dataset: Dataset
    # URL of the real samples, as the user knows them.
    data: str
    samples: int
    references: int
    networks: tuple[Network, ...]
    subset_size: int
    seed: int
    # Tasks at once; None: as many as pay; 0: none.
    workers: int | None
    cache: Store
    out: tuple[Store, str] | None

    @property
    def folder(self) -> Store:
        """The model's run."""
        return run_folder(self.model.checkpoint)


def prepare(options: Options, say: Callable[[str], None]) -> Request:
    """Check what was asked for. Raises ValueError with one line.

    say: is told of what takes long: built-in data are packed on first use, and a classifier of the dataset's labels is
    trained where its features are asked for and nobody has trained it yet.
    """
    metrics = asked_metrics(options.metrics)
    sources = feature_sources(options, metrics)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Restored.open(find_checkpoint(options.model), device)
    folder = run_folder(model.checkpoint)
    storage = Store(folder.url.rpartition("/")[0] or "/")
    cache = Store(options.cache) if options.cache else storage / ".cache"
    run = _config(folder)
    url = _data_url(options, run, model, storage)
    dataset = Dataset.open(url, model.experiment.data)
    _check_fit(url, dataset, model)
    references = _count(options.references, dataset.index.samples, url)
    samples = options.samples or min(references, MOST_BY_DEFAULT)
    networks = []
    for source, named in sources.items():
        if source.kind == CLASSIFIER:
            source = replace(source, labels=_labels(run, url, model, cache))
            reference = trained_classifier(source, device, say)
            network, class_counts = reference.network, reference.class_counts.cpu()
        else:
            network, class_counts = open_network(source, dataset.index.shape, device), None
        if not options.metrics and not network.classes:
            named = tuple(name for name in named if name != "is")
        check_metrics(named, source.kind, network.classes > 0, model.known)
        networks.append(Network(source, named, network, class_counts))
    out = file_at(options.out) if options.out else None
    (out[0] if out else folder).probe()
    return Request(
        model=model,
        experiment=_as_asked(model.experiment, options, references),
        dataset=dataset,
        data=url,
        samples=samples,
        references=references,
        networks=tuple(networks),
        subset_size=_subset_size(options, samples, references, metrics),
        seed=options.seed,
        workers=options.workers,
        cache=cache,
        out=out,
    )


def _config(folder: Store) -> Mapping[str, Any]:
    """The run's config.json; nothing where there is none."""
    try:
        document = json.loads(folder.read(CONFIG))
        return document if isinstance(document, dict) else {}
    except (FileNotFoundError, ValueError):
        return {}


def _data_url(options: Options, run: Mapping[str, Any], model: Restored, storage: Store) -> str:
    """URL of the real samples."""
    if is_builtin(options.data):
        return builtin_dataset(options.data, options.split, storage / ".data").url
    if options.split != SPLITS[0]:
        raise UsageError(f"--split {options.split} is of a built-in dataset: name one by --data, or the shards' URL")
    if options.data:
        return Store(options.data).url
    data = run.get("data", {})
    own = (model.autoencoder is not None and data.get("validation")) or data.get("url")
    if not own:
        raise UsageError(f"{run_folder(model.checkpoint)} does not say what it was trained on: set --data")
    return str(own)


def _labels(run: Mapping[str, Any], url: str, model: Restored, cache: Store) -> Labels:
    """What a classifier is trained on: the run's own data, as in training, where they are to be had, else `url`."""
    data, reading, images = run.get("data", {}), model.experiment.data, model.experiment.evaluation.classifier_images
    with suppress(KeyError, DatasetError, OSError):
        held_out = str(data.get("validation") or "")
        if held_out:
            Dataset.open(held_out)
        if Dataset.open(data["url"]).index.classes:
            return Labels(data["url"], held_out, reading, images, cache.url)
    if not Dataset.open(url).index.classes:
        raise UsageError(
            "--features classifier: the data have no labels to train one on; set --features inception with --weights, "
            "or module:PACKAGE.MODULE:FUNCTION"
        )
    return Labels(url, "", reading, images, cache.url)


def _check_fit(url: str, dataset: Dataset, model: Restored) -> None:
    """Raise UsageError where the model's samples and these are not of one kind."""
    if dataset.index.shape != model.shape:
        raise UsageError(
            f"--data {url} has samples of {dataset.index.shape}, and the model makes {model.shape}: they cannot be "
            "compared; set --data"
        )
    if model.autoencoder is not None and model.known and dataset.index.classes != model.known:
        raise UsageError(
            f"--data {url} has {dataset.index.classes or 'no'} classes, and the model is told one of {model.known}; "
            "set --data"
        )


def _count(asked: int | None, there_are: int, url: str) -> int:
    if asked is not None and asked > there_are:
        raise UsageError(f"--references {asked:,}: {url} has {there_are:,} samples; ask for at most {there_are}")
    if there_are < 2:
        raise UsageError(f"--data {url} has {there_are} samples; two are needed at least")
    return asked or there_are


def _subset_size(options: Options, samples: int, references: int, metrics: tuple[str, ...]) -> int:
    size, fewest = options.kid_subset_size or 0, min(samples, references)
    if "kid" in metrics and size > fewest:
        raise UsageError(
            f"--kid-subset-size {size:,}: there are {fewest:,} samples on one side; set it to {fewest} or less, or ask "
            "for more --samples or --references"
        )
    return size


def _as_asked(experiment: Experiment, options: Options, references: int) -> Experiment:
    """The experiment with the evaluation that was asked for."""
    evaluation = replace(experiment.evaluation, samples=references)
    if options.importance_samples is not None:
        evaluation = replace(evaluation, importance_samples=options.importance_samples)
    return replace(experiment, evaluation=evaluation)
