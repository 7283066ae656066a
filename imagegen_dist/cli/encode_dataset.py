"""What `imagegen encode` does: latents of a dataset, packed into shards, a Ray task a shard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from imagegen_dist.cli.device import pick_device
from imagegen_dist.cli.make_shards import counts, parse_bytes
from imagegen_dist.cli.progress import ProgressBar
from imagegen_dist.cli.suggestion import train_line
from imagegen_dist.commands import command
from imagegen_dist.cpu_threads import torch_threads
from imagegen_dist.data.builtin import is_builtin
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.pack_shards import Target, pack_shards
from imagegen_dist.data.pack_tasks import Recipe
from imagegen_dist.data.sources.base import listing_digest
from imagegen_dist.decoding.document import FOLDER, NAME, read_origin, write_document
from imagegen_dist.decoding.pictures import origin_of
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.batches import batch_on
from imagegen_dist.inference.class_names import differing_classes
from imagegen_dist.inference.diffusers_autoencoder import read_diffusers
from imagegen_dist.inference.encoded import EncodedSource, latents_of
from imagegen_dist.inference.folder import fingerprint_of, write_autoencoder
from imagegen_dist.inference.generated import Maker
from imagegen_dist.inference.latents import LatentStatistics, check_latents, codes_as_they_are, latent_statistics
from imagegen_dist.inference.loading import Trained, build_model, read_trained
from imagegen_dist.lineage.diffusers import folder_of
from imagegen_dist.ray.tasks import run_tasks
from imagegen_dist.storage import Store, reached
from imagegen_dist.wording import counted

if TYPE_CHECKING:
    from imagegen_dist.cli.encode import Options


def run(options: Options) -> str:
    """Encode; what to print at the end. Raises ValueError, TaskError, ShardError."""
    if is_builtin(options.data):
        raise UsageError(f"--data {options.data}: pack it first, {command('make_shards', options.data, 'DIR')}")
    shard_bytes = parse_bytes(options.shard_size)
    device, data, dest = pick_device(options.device), reached(options.data), reached(options.dest)
    index = DatasetIndex.load(data, options.allow_remote_shards)
    place, trained = _trained(options, index, dest)
    model = check_latents(build_model(trained).to(device))
    model.batch = options.batch or batch_on(model)
    _check_data(data, index, model)
    pictures, index = index, index.told_as(model.known)
    flags = {
        "SOURCE": data.url,
        "CHECKPOINT": place,
        "--statistics": f"{options.statistics}",
        **({"--like": options.like} if options.like else {}),
        **({"--flip": "true"} if options.flip else {}),
        "--batch": f"{model.batch}",
        "--shard-size": f"{shard_bytes}",
    }
    statistics = _statistics(options, model, index, data, dest)
    source = EncodedSource(
        place=data.url,
        count=_count(options, index),
        listing=listing_digest([flags, index.fingerprint]),
        mixes=False,
        classes=index.classes,
        class_names=index.class_names,
        known=index.conditions,
        maker=Maker(trained.url, device, batch=model.batch),
        statistics=statistics,
        remote_shards=options.allow_remote_shards,
    )
    packed = pack_shards(
        dest,
        [Target("", source, np.arange(source.count))],
        Recipe(None, "npy", modality=model.modality),
        flags,
        shard_bytes,
        workers=options.workers if device == "cpu" else 0,  # a GPU belongs to this process
        run_tasks=run_tasks,
        progress=lambda _: ProgressBar("encoding"),
    )
    autoencoder = write_autoencoder(model, dest / FOLDER)
    write_document(dest, statistics.payload(), origin_of(data, pictures, autoencoder))
    latents = packed.indexes[""]
    lines = counts(dest, latents), _cut(model, index), _described(dest, statistics), _advice(options, dest, latents)
    return "\n".join(filter(None, lines))


def _advice(options: Options, dest: Store, index: DatasetIndex) -> str:
    """The command that trains on the latents; those whose statistics are another dataset's are held out from it."""
    if options.like:
        return train_line(reached(options.like), index, dest, latents=True)
    return train_line(dest, index, latents=True)


def _cut(model: AutoencoderModel, index: DatasetIndex) -> str:
    """How samples were cut, if they have other extents than the autoencoder was trained on."""
    if model.encodes(index.shape):
        return ""
    how = "equal to whole samples" if model.tiles_are_exact else "blended where they meet"
    return f"samples of {_extents(index.shape.spatial)} in tiles of {_extents(model.shape.spatial)}, {how}"


def _described(dest: Store, statistics: LatentStatistics) -> str:
    return (
        f"{dest / NAME}: scale factor {statistics.scale_factor:.4g}, values up to {statistics.span:.2f} deviations "
        f"from their mean, in steps of {statistics.span / 127.5:.3f}"
    )


def _trained(options: Options, index: DatasetIndex, dest: Store) -> tuple[str, Trained]:
    """URL of the autoencoder, and the stored model; one of diffusers is stored below DEST. Raises ValueError."""
    if folder := folder_of(reached(options.checkpoint)):
        write_autoencoder(build_model(read_diffusers(folder, index)), dest / FOLDER)
        return folder.url, read_trained(dest / FOLDER)
    trained = read_trained(options.checkpoint)
    return trained.url, trained


def _check_data(data: Store, index: DatasetIndex, model: AutoencoderModel) -> None:
    """Raise UsageError for data that the autoencoder cannot encode."""
    fits = model.encodes(index.shape) or model.encodes_in_tiles(index.shape)
    if index.modality != model.modality or not fits:
        raise UsageError(
            f"--data {data} has {index.modality} of {index.shape}; the autoencoder takes {model.shape}{_others(model)}"
        )
    if model.conditions is not None and (differing := model.conditions.differing(index.conditions)):
        raise UsageError(f"--data {data} does not fit the autoencoder: {differing}")
    if model.classes and model.classes != index.classes:
        has = counted(index.classes or 0, "class")
        raise UsageError(f"--data {data} has {has}; the autoencoder has {model.classes}")
    if model.classes and (differing := differing_classes(model.class_names, index.class_names)):
        raise UsageError(f"--data {data}: {differing}")


def _others(model: AutoencoderModel) -> str:
    """What else an autoencoder takes than the shape that it was trained on, for a message."""
    factors: tuple[int, ...] = getattr(model.networks["encoder"], "factors", ())
    return f" and others in multiples of {_extents(factors)}" if factors else ""


def _extents(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))


def _statistics(
    options: Options, model: AutoencoderModel, index: DatasetIndex, data: Store, dest: Store
) -> LatentStatistics:
    """Those that an earlier command wrote, those of other latents, or new ones. Raises UsageError."""
    if dest.exists(NAME):
        return LatentStatistics.load(dest)
    if options.like:
        return _taken_statistics(options, model)
    samples = options.statistics
    count = _count(options, index)
    rows = np.unique(np.linspace(0, count - 1, min(samples, count)).astype(np.int64)).tolist()
    if not model.autoencoder.continuous:
        return codes_as_they_are(model.autoencoder.group_dims[0][0], len(rows))
    chunks = (rows[start : start + 256] for start in range(0, len(rows), 256))
    with torch_threads(1):
        return latent_statistics(latents_of(model, index, data, chunk)[0] for chunk in chunks)


def _count(options: Options, index: DatasetIndex) -> int:
    """Number of samples to encode."""
    return index.samples * (2 if options.flip else 1)


def _taken_statistics(options: Options, model: AutoencoderModel) -> LatentStatistics:
    """The statistics of the latents at --like. Raises UsageError if they are not of this autoencoder."""
    like = reached(options.like)
    origin = read_origin(like)
    if origin is None:
        raise UsageError(f"--like {options.like} holds no {NAME} that says which autoencoder made its latents")
    if origin.autoencoder != fingerprint_of(model):
        raise UsageError(f"--like {options.like} has latents of another autoencoder than {options.checkpoint}")
    return LatentStatistics.load(like)
