"""Samples as WebDataset shards, a Ray task a shard."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from imagegen_dist.cli.make_shards import counts, parse_bytes
from imagegen_dist.cli.progress import ProgressBar
from imagegen_dist.data.pack_shards import Target, pack_shards
from imagegen_dist.data.pack_tasks import Recipe
from imagegen_dist.data.sources.base import listing_digest
from imagegen_dist.inference.autoencoder import AutoencoderModel
from imagegen_dist.inference.generated import GeneratedSource, Maker, sample_extension
from imagegen_dist.inference.generator import GeneratorModel
from imagegen_dist.inference.sampling_request import SamplingRequest
from imagegen_dist.ray.tasks import run_tasks
from imagegen_dist.storage import reached

if TYPE_CHECKING:
    from imagegen_dist.cli.sample import Options


def write_shards(
    model: GeneratorModel | AutoencoderModel, maker: Maker, asked: SamplingRequest, options: Options, seeds: str
) -> str:
    """Make the shards that are not there yet; returns a line that describes them. Raises as `pack_shards` does.

    seeds: as they were asked for, by a flag or by default.
    """
    shard_bytes = parse_bytes(options.shard_size)
    flags = {
        "SOURCE": maker.url,
        "--seeds": seeds,
        "--classes": options.classes,
        "--set": options.set,
        "--sweep": options.sweep,
        "--truncation": f"{options.truncation:g}",
        "--engine": options.engine,
        "--batch": f"{maker.batch}",
        "--shard-size": f"{shard_bytes}",
    }
    source = GeneratedSource(
        place=maker.url,
        count=len(asked),
        listing=listing_digest([flags]),
        mixes=False,
        classes=model.classes or None,
        class_names=model.class_names,
        known=model.conditions,
        space=model.space if model.modality == "voxels" else None,
        maker=maker,
        asked=asked,
    )
    store = reached(options.shards)
    packed = pack_shards(
        store,
        [Target("", source, np.arange(len(asked)))],
        Recipe(None, sample_extension(model), modality=model.modality),
        flags,
        shard_bytes,
        workers=options.workers if maker.device == "cpu" else 0,  # a GPU belongs to this process
        run_tasks=run_tasks,
        progress=ProgressBar,
        tell=lambda line: print(line, file=sys.stderr),
    )
    return counts(store, packed.indexes[""]) + ("" if packed.fresh else ", complete already")
