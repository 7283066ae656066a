"""Classes of shards that hold only pictures: one tar for each class, or one folder for each class in the tars."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from imagegen_dist.data.conditioned_shard import ConditionedShard
from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.labels import Label, clean_name, number_names
from imagegen_dist.data.order import IntArray
from imagegen_dist.data.shard import group
from imagegen_dist.data.sources.label_files import plain_path
from imagegen_dist.data.sources.subsets import SPLIT_WORDS, Subset
from imagegen_dist.data.tarwalk import ReadAt, walk
from imagegen_dist.natural import natural_order
from imagegen_dist.storage import Store
from imagegen_dist.wording import counted

CLASS_NAMES = "classes.txt"
"""A file beside shards that names their classes, one in each line."""

_SYNSET = re.compile(r"[nvars][0-9]{8}")  # WordNet ids, which name the classes of ImageNet
_NUMBERED = re.compile(r"[-_. ]*[0-9]+$|(^|[-_. ])[a-z]{1,2}$")  # part-000, part-aa


class Survey(NamedTuple):
    """What the headers and labels of a shard say."""

    samples: int
    labels: tuple[Label | None, ...]  # of each sample
    plain: bool  # True if every sample is a picture and nothing else
    folders: tuple[str, ...]  # of each sample in the tar, "" for none
    parts: tuple[str, ...] = ()  # of the condition of the first sample


def survey(read_at: ReadAt, size: int, name: str, extensions: Sequence[str], labelled: bool = True) -> Survey:
    """Read a shard's headers and labels. Raises ShardError."""
    shard = ConditionedShard(read_at, size, name, extensions)
    samples = group(walk(read_at, size, name).members, name)
    labels = [shard.label(row) if labelled else None for row in range(len(shard))]
    folders = (plain_path(members[0].key).rpartition("/")[0] for members in samples)
    parts = tuple(shard.condition(0)) if labelled and shard.has_conditions else ()
    return Survey(len(shard), tuple(labels), all(len(members) == 1 for members in samples), tuple(folders), parts)


def classes_of_tars(
    names: Sequence[str], surveys: Sequence[Survey], place: str
) -> tuple[IntArray, tuple[str, ...], tuple[str, ...]] | None:
    """(the class of each sample, the names of the classes, lines for the user) of shards without labels.

    None if samples have captions or records, and if neither tars nor folders are classes. Raises DatasetError if
    folders in the tars are splits.
    """
    if not all(each.plain for each in surveys):
        return None
    folders = _below_common([folder for each in surveys for folder in each.folders])
    if all(folders) and not _is_series(set(folders)):
        firsts = [folder.partition("/")[0] for folder in folders]
        try:
            Subset().alike(sorted(set(firsts)), "folders within its tars", place)
        except DatasetError as error:
            raise DatasetError(
                f"{str(error).partition(': take one')[0]}: unpack them first, and --subset takes one"
            ) from None
        if len(set(firsts)) > 1:
            return _numbered(firsts, "a folder within the tars is a class")
    classes = tar_classes(names)
    if classes is None:
        return None
    counted = zip(classes, surveys, strict=True)
    return _numbered([name for name, each in counted for _ in range(each.samples)], "each tar is a class")


def tar_classes(names: Sequence[str]) -> list[str] | None:
    """The class in the name of each tar; None if the tars are numbered parts of one dataset.

    Tars are classes if their names differ in more than the word of a split and a number or two letters at the end, or
    if they are WordNet ids, as those of ImageNet.
    """
    stems = [name.rpartition("/")[2].rpartition(".")[0] for name in names]
    if len(stems) > 1 and all(_SYNSET.fullmatch(stem) for stem in stems):
        return stems
    bases = [_without_split(_NUMBERED.sub("", stem)) for stem in stems]
    return bases if len(set(bases)) > 1 and all(bases) else None


def class_names_beside(store: Store) -> tuple[str, ...] | None:
    """The names of the classes in classes.txt, or None. Raises DatasetError, StorageError."""
    if not store.exists(CLASS_NAMES):
        return None
    try:
        lines = store.read(CLASS_NAMES).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{store / CLASS_NAMES} is not text in UTF-8: {error.reason}") from error
    names = [clean_name(line) for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        raise DatasetError(f"{store / CLASS_NAMES} has an empty line; each line must be the name of a class")
    return tuple(names)


def _numbered(classes: Sequence[str], told: str) -> tuple[IntArray, tuple[str, ...], tuple[str, ...]]:
    names = tuple(natural_order({clean_name(name) for name in classes}))
    number = number_names(names)
    labels = np.array([number[clean_name(name)] for name in classes], dtype=np.int64)
    return (
        labels,
        names,
        (f"the shards have no labels, and {told}: {counted(len(names), 'class')}; --labels none packs without",),
    )


def _below_common(folders: list[str]) -> list[str]:
    """The folders without the part of their paths that all of them share."""
    while folders and all("/" in folder for folder in folders):
        if len({folder.partition("/")[0] for folder in folders}) > 1:
            break
        folders = [folder.partition("/")[2] for folder in folders]
    return folders


def _is_series(names: set[str]) -> bool:
    """True if all names are numbers: parts of one dataset, such as 00000/, 00001/."""
    return all(re.fullmatch(r"[0-9/]+", name) for name in names)


def _without_split(stem: str) -> str:
    words = re.split(r"([-_. ]+)", stem)
    kept = [word for word in words if word.lower() not in SPLIT_WORDS]
    return "".join(kept).strip("-_. ")
