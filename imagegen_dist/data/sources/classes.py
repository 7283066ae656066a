"""The pictures in a tree of files and their classes, from a file of labels or from sub-folders."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os.path import splitext
from typing import Any, NamedTuple, Protocol

import numpy as np

from imagegen_dist.data.conditioned_shard import VECTOR_PART
from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.labels import Label, clean_name, number_labels
from imagegen_dist.data.sources.attributes import parse_attributes
from imagegen_dist.data.sources.base import SOURCE_KINDS, SourceOptions
from imagegen_dist.data.sources.condition_table import ConditionTable, column_of
from imagegen_dist.data.sources.files import FileKinds
from imagegen_dist.data.sources.label_files import (
    METADATA,
    STYLEGAN,
    Labelled,
    Names,
    read_stylegan,
    read_table,
    some,
)
from imagegen_dist.data.sources.subsets import ALL, Subset, split_of
from imagegen_dist.data.sources.table_files import is_table
from imagegen_dist.natural import natural_key
from imagegen_dist.storage import Store
from imagegen_dist.wording import counted


class Entries(NamedTuple):
    """The contents of one folder, as names below the top of the tree."""

    pictures: list[str]
    folders: list[str]
    others: list[str]


class _Tree(Protocol):
    """The files and folders below a place, without hidden ones."""

    def entries(self, folder: str) -> Entries:
        """The contents of a folder, "" for the top."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        ...


@dataclass(frozen=True)
class _Classified:
    """Pictures with their labels, sorted by name within each class where folders are the classes."""

    names: tuple[str, ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # lines for the user about how the files were interpreted
    conditions: ConditionTable | None = None  # in files of labels

    def fields(self) -> dict[str, Any]:
        """The fields of a `Source` that follow."""
        labels = None if self.labels is None else np.array(self.labels, dtype=np.int64)
        classes = None if labels is None else int(labels.max()) + 1
        named = {"class_names": self.class_names, "left_out": self.left_out, "notes": self.notes}
        found = {"labels": labels, "classes": classes, "conditions": self.conditions}
        return {"count": len(self.names), "mixes": True, **found, **named}


def is_hidden(name: str) -> bool:
    """True if a file or a folder above it is hidden, or was added to a zip by macOS."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def find_root(tree: _Tree, subset: Subset, place: str, noun: str = "picture") -> tuple[str, tuple[str, ...]]:
    """(the folder that holds the pictures or the classes, lines for the user if it is not the top).

    It may be inside the folder of a split, or inside a single folder around all others. Raises DatasetError if there
    are folders of several splits and none was requested. noun: what messages call a picture.
    """
    root = ""
    while True:
        here = tree.entries(root)
        chosen = _choose_folders(here.folders, subset, _below(place, root))
        if here.pictures or len(chosen) != 1:
            if len(chosen) > 1 and len(chosen) < len(here.folders):
                raise DatasetError(f"{place} has several folders of one split ({some(chosen)}): name one of them")
            break
        of_split = split_of(_last(chosen[0])) is not None and subset.asked != ALL
        if not of_split and (any(map(_may_label, here.others)) or not _is_around(tree.entries(chosen[0]))):
            break
        root = chosen[0]
    return root, (f"{_below(place, root)} is taken for the folder of the {noun}s",) if root else ()


def classify(
    tree: _Tree, place: str, options: SourceOptions, subset: Subset, root: str, notes: tuple[str, ...]
) -> _Classified | None:
    """The pictures of a tree and their classes, or None if there are no pictures.

    root, notes: as `find_root` returns them. The labels come from a dataset.json, a table of the pictures' names, or
    else the sub-folders of the root, which are classes in their natural order, or parts of conditions by
    `options.folders`. Conditions come from the columns of a table that `options.conditions` names. Raises DatasetError
    if labels or conditions and pictures do not fit.
    """
    found = _by_files_or_folders(tree, place, options, subset, root, notes)
    if found is None or not options.conditions or options.attributes or found.conditions is not None:
        return found
    for level in (root, *_folders_above(root)):
        for name in filter(is_table, tree.entries(level).others):
            table = parse_attributes(tree.read(name), _below(place, name))
            if set(options.conditions) & set(table.columns):
                conditions, _ = table.of_pictures(found.names, level, options.conditions, options.files.noun)
                left_out = tuple(other for other in found.left_out if other != name)
                return replace(found, conditions=conditions, left_out=left_out)
    return found


def _by_files_or_folders(
    tree: _Tree, place: str, options: SourceOptions, subset: Subset, root: str, notes: tuple[str, ...]
) -> _Classified | None:
    """As `classify`, without the conditions in a table."""
    pictures, left_out, _ = _all_below(tree, root, subset, place)
    left_out = [name for name in left_out if not _is_given(options, place, name)]
    if not options.labelled:
        return _Classified(tuple(pictures), None, None, tuple(left_out), notes) if pictures else None
    for level in (root, *_folders_above(root)):
        labelled, more = _find_labels(tree, level, pictures, place, options, subset)
        notes += more
        if labelled is not None:
            strict = level == root and subset.asked in ("", ALL)
            names, values = _by_labels(labelled, Names(pictures, level), pictures, strict, options.files)
            left_out = [name for name in left_out if _below(place, name) != labelled.place]
            rest = tuple(left_out), notes
            if labelled.vectors and values is not None:
                return _Classified(names, None, None, *rest, _vectors(values, names, labelled.place))
            return _Classified(names, *_numbered(values, labelled.place), *rest)
    if options.label_column:
        raise DatasetError(
            f"--label-column {options.label_column}: {place} has no table that names its {options.files.noun}s"
        )
    if options.folders:
        return _Classified(tuple(sorted(pictures)), None, None, tuple(left_out), notes) if pictures else None
    classified = _by_folders(tree, root, place, options.files, subset, notes)
    if classified is None:
        return None
    shown = tuple(name for name in classified.left_out if not _is_given(options, place, name))
    return replace(classified, left_out=shown)


def _by_folders(
    tree: _Tree, root: str, place: str, files: FileKinds, subset: Subset, notes: tuple[str, ...]
) -> _Classified | None:
    """Take the sub-folders of the root as classes, with all pictures below them; without sub-folders, no labels."""
    pictures, folders, left_out = tree.entries(root)
    if pictures and folders:
        raise DatasetError(
            f"{place} has both {files.noun}s ({pictures[0]}, ...) and sub-folders ({folders[0]}, ...): "
            f"sub-folders are classes, so either all {files.noun}s are in sub-folders or none"
        )
    if pictures:
        prefix = f"{root}/" if root else ""
        chosen = subset.alike([_last(name) for name in pictures], f"{files.noun}s", _below(place, root))
        return _Classified(tuple(prefix + name for name in chosen), None, None, tuple(left_out), notes)
    if not folders:
        return None
    names, labels, class_names, left_out = list[str](), list[int](), list[str](), list(left_out)
    for label, folder in enumerate(sorted(folders, key=lambda folder: natural_key(_last(folder)))):
        found, others, deepest = _all_below(tree, folder, subset, place)
        if not found:
            what = files.elsewhere(others) or ": fill it or remove it"
            raise DatasetError(f"{_below(place, folder)} has no {files.noun}s ({files.listed}){what}")
        if deepest and len(notes) < 2:
            notes += (f"{_below(place, deepest)} is part of the class {_last(folder)}: the first folder is the class",)
        class_names.append(clean_name(_last(folder)) or _last(folder))
        names += found
        labels += [label] * len(found)
        left_out += others
    return _Classified(tuple(names), tuple(labels), tuple(class_names), tuple(left_out), notes)


def _all_below(tree: _Tree, folder: str, subset: Subset, place: str) -> tuple[list[str], list[str], str]:
    """(all pictures below a folder, all other files, the first sub-folder that holds pictures or "")."""
    pictures, folders, others = tree.entries(folder)
    pictures, others, deepest = list(pictures), list(others), ""
    for deeper in _choose_folders(folders, subset, _below(place, folder)):
        found, more, _ = _all_below(tree, deeper, subset, place)
        deepest = deepest or (deeper if found else "")
        pictures += found
        others += more
    return pictures, others, deepest


def _choose_folders(folders: Sequence[str], subset: Subset, place: str) -> list[str]:
    chosen = set(subset.alike([_last(folder) for folder in folders], "folders", place))
    return [folder for folder in folders if _last(folder) in chosen]


def _find_labels(
    tree: _Tree, level: str, pictures: Sequence[str], place: str, options: SourceOptions, subset: Subset
) -> tuple[Labelled | None, tuple[str, ...]]:
    """(the labels in the file of labels in this folder, lines for the user). Raises DatasetError for several files."""
    others = tree.entries(level).others
    by_name = {_last(name): name for name in others}
    if STYLEGAN in by_name:
        return read_stylegan(tree.read(by_name[STYLEGAN]), _below(place, by_name[STYLEGAN])), ()
    tables = [name for name in others if is_table(name) and not _is_given(options, place, name)]
    metadata = [by_name[name] for name in METADATA if by_name.get(name) in tables]
    tables = metadata or [
        name for name in tables if _last(name) in subset.files([*map(_last, tables)], "tables", place)
    ]
    names, found, notes = Names(pictures, level), list[Labelled](), list[str]()
    for table in tables:
        where = _below(place, table)
        read = read_table(tree.read(table), where, names, options.label_column, subset)
        if isinstance(read, Labelled):
            found.append(read)
        elif read and not options.conditions:
            notes.append(f"{where} has no column of labels ({read}): --label-column chooses one")
        elif metadata and not read:
            raise DatasetError(f"{where} names no existing {options.files.noun}; a column file_name is needed")
    if len(found) > 1:
        raise DatasetError(f"{place} has several tables of labels ({some(each.place for each in found)}): keep one")
    return (found[0] if found else None), tuple(notes)


def _is_given(options: SourceOptions, place: str, name: str) -> bool:
    """True for the table that `--attributes` names."""
    return bool(options.attributes) and Store(options.attributes).url == _below(place, name)


def _by_labels(
    said: Labelled, names: Names, pictures: Sequence[str], strict: bool, files: FileKinds
) -> tuple[tuple[str, ...], list[Any] | None]:
    """(the pictures, their labels as the file has them). strict: False allows labels of missing pictures.

    Raises DatasetError if labels and pictures do not fit.
    """
    where = said.place
    if not pictures:
        raise DatasetError(f"{where} labels {files.noun}s, but there are none ({files.listed})")
    if said.labels is None:
        return tuple(sorted(pictures)), None
    labels: dict[str, Any] = {}
    missing = []
    for called, label in said.labels.items():
        name = names.find(called)
        if name is None:
            missing.append(called)
        elif labels.setdefault(name, label) != label:
            raise DatasetError(f"{where} names {name} twice, with the labels {labels[name]} and {label}")
    unlabelled = [name for name in sorted(pictures) if name not in labels]
    if missing and strict:
        raise DatasetError(f"{where} names {counted(len(missing), 'missing file')}: {some(sorted(missing))}")
    if unlabelled and not said.partial:
        raise DatasetError(
            f"{where} has no label for {counted(len(unlabelled), files.noun)}: {some(unlabelled)}; "
            "--labels none packs without labels"
        )
    chosen = sorted(labels)
    return tuple(chosen), [labels[name] for name in chosen]


def _numbered(labels: Sequence[Label] | None, place: str) -> tuple[tuple[int, ...] | None, tuple[str, ...] | None]:
    """(the numbers of labels, the names of the classes). Raises DatasetError."""
    if labels is None:
        return None, None
    try:
        numbers, class_names = number_labels(labels)
    except ValueError as error:
        raise DatasetError(f"{place}: {error}") from error
    return tuple(numbers.tolist()), class_names


def _vectors(values: list[Any], names: Sequence[str], place: str) -> ConditionTable:
    """The part "vector" of labels that are lists of numbers. Raises DatasetError."""
    table = ConditionTable({VECTOR_PART: column_of(values, "", is_text=False)})
    table.check({}, place, lambda number: names[number])
    return table


def _may_label(name: str) -> bool:
    return _last(name) == STYLEGAN or is_table(name)


def _is_around(inside: Entries) -> bool:
    """True for a folder that is not a class itself: it holds folders, files of a source or a file of labels."""
    if any(_last(name) in (STYLEGAN, *METADATA) for name in inside.others):
        return True
    archives = any(
        kind is not None and kind.in_folders
        for kind in (SOURCE_KINDS.get(splitext(name)[1].lower()) for name in inside.others)
    )
    return not inside.pictures and bool(inside.folders or archives)


def _folders_above(folder: str) -> list[str]:
    """The folders above a folder, nearest first; the top, "", is last."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:depth]) for depth in reversed(range(len(parts)))]


def _below(place: str, name: str) -> str:
    return f"{place}/{name}" if name else place


def _last(name: str) -> str:
    return name.rpartition("/")[2]
