"""Write samples as shards with an index, with webdataset's tar writer. Equal samples give equal bytes."""

import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import webdataset
from numpy.typing import NDArray

from imagegen_dist.conditions.part import Conditions
from imagegen_dist.data.conditioned_shard import plain_value
from imagegen_dist.data.index import INDEX_NAME, DatasetError, DatasetIndex
from imagegen_dist.data.labels import Label, as_label
from imagegen_dist.data.modality import Modality, modality
from imagegen_dist.data.scanning import ShardScan, combine_scans, scan_shard
from imagegen_dist.shape import SampleShape
from imagegen_dist.storage import Store

_SHARD_BYTES = 128 << 20


def pack(
    samples: Iterable[tuple[NDArray[np.uint8], Label | Mapping[str, Any] | None]],
    store: Store,
    modality_name: str = "image",
    extension: str = "png",
    shard_bytes: int = _SHARD_BYTES,
    shard_samples: int = 100_000,
    classes: int | None = None,
    class_names: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    within: Conditions | None = None,
) -> DatasetIndex:
    """Write samples, (uint8 [C, *S], label or None), as shards in a store, in the given order, and then the index.

    A label is a whole number from 0 of any integer type, or the name of a class. A record, which is stored as JSON, may
    take its place; the label is then its "label", if it has one, or its condition what is under "condition", such as
    {"condition": {"digit": 7, "slant": 0.3}}.

    shard_bytes, shard_samples: a shard is closed when it has reached one of them. classes: None takes one more than the
    largest label. kinds: of parts of conditions, by name, that are not what their values suggest
    (`conditions.tally.REQUESTED_KINDS`). within: conditions of the dataset of which this one is a part, e.g. the
    held-out part: its names, means and deviations are taken. Raises DatasetError if the store holds a dataset already
    and if samples do not fit together, ValueError for an extension that the modality does not have, StorageError.
    """
    if store.exists(INDEX_NAME):
        raise DatasetError(f"{store} holds a dataset already: remove it, or choose another place")
    kind = modality(modality_name)
    store.sweep()
    scans: list[ShardScan] = []
    channels = set[int]()
    for data in _shards(_noting_channels(samples, channels), kind, extension, shard_bytes, shard_samples):
        name = f"shard-{len(scans):06d}.tar"
        scans.append(scan_shard(name, data, kind))
        store.write(name, data)
    names = None if class_names is None else tuple(class_names)
    index = combine_scans(scans, modality_name, classes, names, kinds, within)
    if extension != "npy" and 4 in channels:  # headers of pictures are read without transparency
        index = replace(index, shape=SampleShape(4, index.shape.spatial))
    index.save(store)
    return index


def _noting_channels(samples: Iterable[tuple[NDArray[np.uint8], Any]], channels: set[int]) -> Iterator[Any]:
    """Yield the samples unchanged and add their numbers of channels to the set."""
    for sample in samples:
        channels.add(len(sample[0]))
        yield sample


def _shards(
    samples: Iterable[tuple[NDArray[np.uint8], Label | Mapping[str, Any] | None]],
    kind: Modality,
    extension: str,
    shard_bytes: int,
    shard_samples: int,
) -> Iterator[bytes]:
    """Yield whole shards, divided as by webdataset's ShardWriter; one at a time is in memory."""
    numbered = enumerate(samples)
    for first in numbered:
        target, size = io.BytesIO(), 0
        with webdataset.TarWriter(target, encoder=False, mtime=0) as writer:
            for count, (number, (sample, label)) in enumerate(itertools.chain([first], numbered), start=1):
                members = {"__key__": f"{number:09d}", extension: kind.encode(sample, extension)}
                size += writer.write(members | _label_members(label))
                if count >= shard_samples or size >= shard_bytes:
                    break
        yield target.getvalue()


def _label_members(label: Label | Mapping[str, Any] | None) -> dict[str, bytes]:
    if isinstance(label, Mapping):
        return {"json": json.dumps(dict(label), default=plain_value).encode()}
    if label is None:
        return {}
    try:
        found = as_label(label)
    except ValueError as error:
        raise DatasetError(f"a label is {error}; a whole number from 0, a name or None is needed") from None
    if found is None:
        raise DatasetError("a label is an empty text; a whole number from 0, a name or None is needed")
    return {"cls": str(found).encode()}
