"""Samples as shards, by the packing that makes shards of pictures: a Ray task a shard, restartable."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from imagegen_dist.cli.make_shards import counts, parse_bytes
from imagegen_dist.cli.packing import Packing, Request, Target
from imagegen_dist.cli.progress import ProgressBar
from imagegen_dist.cli.sample.options import SEEDS, Options
from imagegen_dist.data.pack_tasks import Recipe
from imagegen_dist.data.sources.base import listing_digest
from imagegen_dist.errors import UsageError
from imagegen_dist.inference.generated import GeneratedSource, Maker, sample_extension
from imagegen_dist.inference.model import AutoencoderModel, GeneratorModel
from imagegen_dist.inference.sampling_request import Asked
from imagegen_dist.storage import reached


def check_shards(asked: Asked) -> None:
    """Raise UsageError for blends, which have no label."""
    if any(isinstance(each, Mapping) for each in asked.classes):
        raise UsageError("--mix with --shards: a blend of classes has no label; take --grid or --folder")


def pack_samples(model: GeneratorModel | AutoencoderModel, maker: Maker, asked: Asked, options: Options) -> str:
    """Make the shards that are not there yet; what to say of them. Raises as Packing.run does."""
    shard_bytes = parse_bytes(options.shard_size)
    flags = {
        "SOURCE": maker.url,
        "--seeds": options.seeds or SEEDS,
        "--classes": options.classes,
        "--truncation": f"{options.truncation:g}",
        "--engine": options.engine,
        "--batch": f"{options.batch}",
        "--shard-size": f"{shard_bytes}",
    }
    source = GeneratedSource(
        place=maker.url,
        count=len(asked),
        listing=listing_digest([flags]),
        mixes=False,
        classes=model.classes or None,
        class_names=model.class_names,
        maker=maker,
        asked=asked,
    )
    recipe = Recipe(None, sample_extension(model), modality=model.modality)
    # A GPU is this process's; on CPUs every task computes in one thread.
    workers = 0 if maker.device != "cpu" else options.workers
    request = Request(flags, recipe, shard_bytes, workers)
    store = reached(options.shards)
    packing = Packing(store, [Target("", source, np.arange(len(asked)))], request)
    try:
        with ProgressBar() as bar:
            made = packing.run(bar)
    finally:
        for line in packing.notes:
            print(line, file=sys.stderr)
    done = "" if made.fresh else ", complete already"
    return counts(store, made.indexes[0]) + done
