"""What an evaluation will measure, checked against the model, the data and the storage before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from imagegen_dist.cli.device import best_device
from imagegen_dist.cli.evaluate.foreign import of_pictures, own_run, read_here
from imagegen_dist.cli.evaluate.options import Options, asked_metrics
from imagegen_dist.cli.progress import packing_of
from imagegen_dist.conditions.rows import ConditionRows
from imagegen_dist.data.builtin import SPLITS, builtin_dataset, is_builtin
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import DatasetError, DatasetIndex
from imagegen_dist.errors import UsageError
from imagegen_dist.evaluation.copying import SAMPLES
from imagegen_dist.evaluation.feature_networks import (
    CLASSIFIER,
    FeatureSource,
    Labels,
    open_network,
    trained_classifier,
)
from imagegen_dist.evaluation.figures import (
    COPIES,
    DEFAULT_METRICS,
    METRICS,
    check_metrics,
    check_requests,
    check_samples,
)
from imagegen_dist.evaluation.requested_classes import RequestedClasses
from imagegen_dist.evaluation.weightless import WEIGHTLESS, main_kind, weightless_kinds
from imagegen_dist.experiment import Experiment
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.class_names import differing_classes
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.loading import build_model, read_trained
from imagegen_dist.inference.model import Model
from imagegen_dist.inference.origin import run_of
from imagegen_dist.metrics.features import KEPT_AT_MOST, FeatureNetwork
from imagegen_dist.storage import PATIENCE_S, Store, file_at
from imagegen_dist.wording import counted

_MOST_BY_DEFAULT = 50_000
"""Generated samples where the user does not say: as many as there are real ones, and no more than published figures."""

_WEIGHTED = ("inception", "dinov2")


@dataclass(frozen=True)
class Network:
    """One feature network of an evaluation, and the metrics in its features."""

    source: FeatureSource
    metrics: tuple[str, ...]
    network: FeatureNetwork
    # Of a classifier of the dataset's labels: samples of each class in what it was trained on, [K].
    class_counts: Tensor | None = None
    # Of one of the dataset's conditions: how well it recognises those of held-out samples.
    recognised: Mapping[str, float] = field(default_factory=dict)
    # Its accuracy on held-out samples, if it is known.
    accuracy: float | None = None
    # What it recognises hardly better than chance.
    doubts: Mapping[str, float] = field(default_factory=dict)

    @property
    def has_beside(self) -> bool:
        """Whether a metric has its value of other real samples beside it."""
        return any(METRICS[name].features in WEIGHTLESS for name in self.metrics)

    @property
    def keeps(self) -> bool:
        """Whether a metric needs the features themselves."""
        return any(METRICS[name].of_each_sample for name in self.metrics)


@dataclass(frozen=True)
class RealSamples:
    """The first so many samples of a dataset."""

    dataset: Dataset
    samples: int


@dataclass(frozen=True)
class Request:
    """A checked evaluation."""

    # Of the checkpoint or exported folder.
    url: str
    model: GeneratorModel | AutoencoderModel
    # As the model's evaluator sees real samples, where it is a VAE.
    experiment: Experiment
    # What generated samples are compared with.
    real: RealSamples
    # Its URL, as the user knows it.
    data: str
    # Where copies are looked for: among what training has seen, and of what else has not been seen, if there is any.
    seen: RealSamples | None
    held_out: RealSamples | None
    # Other real samples, whose distances stand beside some of the generated ones'.
    beside: RealSamples | None
    samples: int
    # The classes that these are asked for.
    classes: RequestedClasses
    networks: tuple[Network, ...]
    subset_size: int
    seed: int
    # Tasks at once; None: as many as pay; 0: none.
    workers: int | None
    cache: Store
    out: tuple[Store, str] | None

    @property
    def folder(self) -> Store:
        """The model's run; its own folder where that is none of a run."""
        return run_of(self.url) or Store(self.url, PATIENCE_S)


def prepare(options: Options, say: Callable[[str], None]) -> Request:
    """Check what was asked for. Raises ValueError with one line.

    say: is told of what takes long: built-in data are packed on first use, and a classifier of the dataset's labels is
    trained where its features are asked for and nobody has trained it yet.
    """
    metrics = asked_metrics(options.metrics, METRICS) or DEFAULT_METRICS
    feature_sources(options, metrics)
    device = best_device()
    trained = read_trained(options.model)
    model = build_model(trained).to(device)
    experiment = read_here(trained.experiment, options.allow_remote_shards)
    folder = run_of(trained.url) or Store(trained.url, PATIENCE_S)
    storage = Store(folder.url.rpartition("/")[0] or "/", PATIENCE_S)
    cache = Store(options.cache, PATIENCE_S) if options.cache else storage / ".cache"
    run = own_run(folder, say)
    if isinstance(model, GeneratorModel) and model.latent is not None:
        run = of_pictures(run, say)
    url = _data_url(options, run, model, storage)
    opened = Dataset.open(url, experiment.data)
    _check_fit(url, opened, model)
    dataset = _told_as(opened, model)
    if not options.metrics:
        metrics = (*metrics, *weightless_kinds(dataset.index.modality, dataset.index.shape))
    sources = feature_sources(options, metrics, _default_features(dataset.index))
    check_requests(metrics, model.classes, model.conditions, _is_labelled(dataset, model))
    references = _count(options.references, dataset.index.samples, url)
    samples = options.samples or min(references, _MOST_BY_DEFAULT)
    networks = []
    for source, named in sources.items():
        if source.kind == CLASSIFIER:
            source = replace(source, labels=_labels(run, url, experiment, cache, model.known))
            reference = trained_classifier(source, device, say)
            known = reference.recognised, reference.accuracy, reference.doubts
            found = Network(source, named, reference.network, reference.class_counts.cpu(), *known)
        else:
            found = Network(source, named, open_network(source, dataset.index.shape, device))
        networks.append(_checked(found, bool(options.metrics), dataset.index))
    real = RealSamples(dataset, references)
    seen, held_out = _for_copies(options, run, dataset, storage, model) if COPIES in metrics else (None, None)
    out = file_at(options.out, PATIENCE_S) if options.out else None
    Store((out[0] if out else folder).url).probe()  # a place that cannot be written is reported at once
    return Request(
        url=trained.url,
        model=model,
        experiment=_as_asked(experiment, options, references),
        real=real,
        data=url,
        seen=seen,
        held_out=held_out,
        beside=_beside(options, run, dataset, storage, samples),
        samples=samples,
        classes=_classes(options, opened.index, model, networks),
        networks=tuple(networks),
        subset_size=_subset_size(options, samples, references, metrics),
        seed=options.seed,
        workers=options.workers,
        cache=cache,
        out=out,
    )


def _checked(network: Network, asked: bool, index: DatasetIndex) -> Network:
    """The network with metrics that it can give. asked: True if the user named them; ValueError for others."""
    scores_classes = network.network.classes > 0
    if not asked and not scores_classes:
        network = replace(network, metrics=tuple(name for name in network.metrics if name != "is"))
    check_metrics(network.metrics, network.source.kind, scores_classes)
    check_samples(network.metrics, index.modality, index.shape, network.source.kind)
    return network


def _default_features(index: DatasetIndex) -> str:
    """The network where the user names none: the classifier of labels, where the samples have any or need it."""
    return CLASSIFIER if index.tells else main_kind(index.modality) or CLASSIFIER


def _data_url(options: Options, run: Mapping[str, Any], model: Model, storage: Store) -> str:
    """URL of the real samples."""
    if is_builtin(options.data):
        return builtin_dataset(options.data, options.split, storage / ".data", packing_of(options.data)).url
    if options.split != SPLITS[0]:
        raise UsageError(f"--split {options.split} is of a built-in dataset: name one by --data, or the shards' URL")
    if options.data:
        return Store(options.data).url
    data = run.get("data", {})
    own = (isinstance(model, AutoencoderModel) and data.get("validation")) or data.get("url")
    if not own:
        raise UsageError(f"{options.model} does not say where the data are that it was trained on: set --data")
    return str(own)


def _classes(options: Options, index: DatasetIndex, model: Model, networks: Sequence[Network]) -> RequestedClasses:
    """The classes of generated samples. Raises UsageError where the data's are asked for and cannot be had."""
    if model.known is not None:
        return _conditions(options, index, model.known)
    known = model.classes
    counts = next((network.class_counts.tolist() for network in networks if network.class_counts is not None), [])
    found = RequestedClasses.as_in(known, index, options.label_distribution or "data", counts)
    if options.label_distribution == "data" and found.distribution == "uniform":
        raise UsageError(
            f"--label-distribution data: the data's index does not count the samples of each of the "
            f"{counted(known, 'class')}; "
            "set it to uniform, or write the index anew"
        )
    return found


def _conditions(options: Options, index: DatasetIndex, known: ConditionRows) -> RequestedClasses:
    """The conditions of generated samples: those of the real ones, else of the training data. Raises UsageError."""
    if options.label_distribution == "uniform":
        raise UsageError(
            "--label-distribution uniform is of classes: conditions are requested as they occur together in the data; "
            "leave it out"
        )
    of_data = index.known_conditions
    return RequestedClasses(0, conditions=known if of_data is None else of_data.told_as(known.conditions))


def _labels(
    run: Mapping[str, Any], url: str, experiment: Experiment, cache: Store, known: ConditionRows | None
) -> Labels:
    """What a classifier is trained on: the run's own data, as in training, where they are to be had, else `url`.

    known: the conditions of the model, as which those of the data are told.
    """
    data, reading, images = run.get("data", {}), experiment.data, experiment.evaluation.classifier_images
    with suppress(KeyError, DatasetError, OSError):
        held_out = str(data.get("validation") or "")
        if held_out:
            Dataset.open(held_out, reading)
        if Dataset.open(data["url"], reading).told_as(known).index.tells:
            return Labels(data["url"], held_out, reading, images, cache.url, known)
    if not Dataset.open(url, reading).told_as(known).index.tells:
        raise UsageError(
            "--features classifier: the data have no labels to train one on, or of one class; set --features inception "
            "with --weights, or module:PACKAGE.MODULE:FUNCTION"
        )
    return Labels(url, "", reading, images, cache.url, known)


def _for_copies(
    options: Options, run: Mapping[str, Any], dataset: Dataset, storage: Store, model: Model
) -> tuple[RealSamples, RealSamples | None]:
    """(what training has seen: --data, or the run's own; held-out samples, where they are to be had)."""
    data = run.get("data", {})
    seen = dataset if options.data else _told_as(Dataset.open(data["url"], dataset.reading), model)
    url, held_out = data.get("validation"), None
    if is_builtin(options.data) and options.split == SPLITS[0]:
        url = builtin_dataset(options.data, SPLITS[1], storage / ".data").url
    with suppress(DatasetError, OSError):
        if url:
            other = _told_as(Dataset.open(url, dataset.reading), model)
            if other.index.fingerprint != seen.index.fingerprint:
                held_out = RealSamples(other, min(other.index.samples, SAMPLES))
    return RealSamples(seen, min(seen.index.samples, KEPT_AT_MOST)), held_out


def _beside(
    options: Options, run: Mapping[str, Any], dataset: Dataset, storage: Store, samples: int
) -> RealSamples | None:
    """As many of the real samples' other split: of the run's training and held-out data, or of a built-in dataset."""
    data = run.get("data", {})
    urls = [data.get("url"), data.get("validation")]
    if is_builtin(options.data):
        urls = [builtin_dataset(options.data, split, storage / ".data").url for split in SPLITS]
    found: list[Dataset] = []
    with suppress(DatasetError, OSError):
        found = [Dataset.open(url, dataset.reading) for url in urls if url]
    others = [other for other in found if other.index.fingerprint != dataset.index.fingerprint]
    if len(others) != 1 or len(found) != 2 or min(samples, others[0].index.samples) < 2:
        return None
    return RealSamples(others[0], min(samples, others[0].index.samples))


def _check_fit(url: str, dataset: Dataset, model: Model) -> None:
    """Raise UsageError where the model's samples and these are not of one kind."""
    if dataset.index.shape != model.shape:
        raise UsageError(
            f"--data {url} has samples of {dataset.index.shape}, and the model makes {model.shape}: they cannot be "
            "compared; set --data"
        )
    told = model.conditions if isinstance(model, AutoencoderModel) or dataset.index.conditions else None
    if told is not None and (differing := told.differing(dataset.index.conditions)):
        raise UsageError(f"--data {url}: {differing}; set --data")
    if isinstance(model, AutoencoderModel) and model.classes and dataset.index.classes != model.classes:
        raise UsageError(
            f"--data {url} has {counted(dataset.index.classes or 0, 'class')}, and the model is told one of "
            f"{model.classes}; "
            "set --data"
        )
    if differing := differing_classes(model.class_names, dataset.index.class_names):
        raise UsageError(f"--data {url}: {differing}; set --data")


def _told_as(dataset: Dataset, model: Model) -> Dataset:
    """The dataset with its conditions, if any, as those of the model. Raises DatasetError if they differ."""
    return dataset if dataset.index.conditions is None else dataset.told_as(model.known)


def _is_labelled(dataset: Dataset, model: Model) -> bool:
    """True if the samples have the classes, or the conditions, that the model is told."""
    return dataset.index.conditions == model.conditions and (
        model.conditions is not None or bool(dataset.index.classes)
    )


def _count(asked: int | None, there_are: int, url: str) -> int:
    if asked is not None and asked > there_are:
        raise UsageError(
            f"--references {asked:,}: {url} has {counted(there_are, 'sample')}; ask for at most {there_are}"
        )
    if there_are < 2:
        raise UsageError(f"--data {url} has {counted(there_are, 'sample')}; two are needed at least")
    return asked or there_are


def _subset_size(options: Options, samples: int, references: int, metrics: tuple[str, ...]) -> int:
    size, fewest = options.kid_subset_size or 0, min(samples, references)
    if "kid" in metrics and size > fewest:
        raise UsageError(
            f"--kid-subset-size {size:,}: there are {counted(fewest, 'sample')} on one side; set it to {fewest} "
            f"or less, or ask "
            "for more --samples or --references"
        )
    return size


def _as_asked(experiment: Experiment, options: Options, references: int) -> Experiment:
    """The experiment with the evaluation that was asked for."""
    evaluation = replace(experiment.evaluation, samples=references)
    if options.importance_samples is not None:
        evaluation = replace(evaluation, importance_samples=options.importance_samples)
    return replace(experiment, evaluation=evaluation)


def feature_sources(
    options: Options, metrics: Sequence[str], otherwise: str = CLASSIFIER
) -> dict[FeatureSource, tuple[str, ...]]:
    """The networks that are needed, each with the metrics in its features; a classifier still without weights.

    otherwise: the network where the user names none, and gives no weights. Raises UsageError, ValueError.
    """
    weights, hashes = _by_network(options.weights), _by_network(options.weights_sha256)
    only_dinov2 = set(metrics) == {"fd-dinov2"}
    asked = options.features or ("inception" if weights.keys() & {"", "inception"} and not only_dinov2 else otherwise)
    found: dict[FeatureSource, tuple[str, ...]] = {}
    main = FeatureSource.parse(asked, options.resize)
    if first := tuple(name for name in metrics if name != "fd-dinov2" and _is_of_any(name)):
        found[main] = first
    if of_labels := tuple(name for name in metrics if METRICS[name].of_a_classifier):
        classifier = main if main.kind == CLASSIFIER else FeatureSource.parse(CLASSIFIER)
        found[classifier] = (*found.get(classifier, ()), *of_labels)
    if "fd-dinov2" in metrics:
        dinov2 = main if main.kind.startswith("dinov2") else FeatureSource.parse("dinov2")
        found[dinov2] = (*found.get(dinov2, ()), "fd-dinov2")
    for name in metrics:
        if kind := METRICS[name].features:
            own = FeatureSource.parse(kind)
            own = main if main.kind == kind else own
            found[own] = (*found.get(own, ()), name)
    weighted = [source for source in found if source.has_weights]
    for given, name in ((weights, "--weights"), (hashes, "--weights-sha256")):
        if "" in given and len(weighted) > 1:
            raise UsageError(f"{name} {given['']}: of which network? give inception=...,dinov2=...")
        unused = given.keys() - {"", *(_family(source) for source in weighted)}
        if unused or (given and not weighted):
            raise UsageError(f"{name} {','.join(given.values())}: --features {asked} takes none of it; leave it out")
    return {
        _with_file(source, weights, hashes) if source.has_weights else source: named for source, named in found.items()
    }


def _is_of_any(metric: str) -> bool:
    """True if a metric is taken in the features of whatever network the user names."""
    return not METRICS[metric].of_a_classifier and not METRICS[metric].features


def _with_file(source: FeatureSource, weights: dict[str, str], hashes: dict[str, str]) -> FeatureSource:
    family = _family(source)
    return replace(
        source, weights=weights.get(family, weights.get("", "")), sha256=hashes.get(family, hashes.get("", ""))
    )


def _family(source: FeatureSource) -> str:
    return source.kind.partition("-")[0]


def _by_network(text: str) -> dict[str, str]:
    """NAME=VALUE,... by name, or one value under no name."""
    named: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, given, value = part.partition("=")
        if given and name in _WEIGHTED:
            named[name] = value
        else:
            return {"": text}
    return named
