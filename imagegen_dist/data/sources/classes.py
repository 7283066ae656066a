"""Which pictures a tree of files holds and what their classes are: by sub-folders, or by StyleGAN's dataset.json."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from os.path import splitext
from typing import Any, NamedTuple

from imagegen_dist.data.index import DatasetError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
"""Of the files that are taken for pictures, in any case."""

LABELS_NAME = "dataset.json"
"""StyleGAN's list of labels: {"labels": [["00000/img00000000.png", 6], ...]}, or null for none."""

_SHOWN = 3


class Entries(NamedTuple):
    """What lies in one folder, as names below the top."""

    pictures: list[str]
    folders: list[str]
    others: list[str]


@dataclass(frozen=True)
class Classified:
    """Pictures, sorted by name within each class, with their labels."""

    names: tuple[str, ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()


def is_picture(name: str) -> bool:
    """Whether a file is taken for a picture."""
    return splitext(name)[1].lower() in EXTENSIONS


def is_hidden(name: str) -> bool:
    """Whether a file or one of the folders above it is hidden, or is what macOS adds to its zips."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def by_folders(listed: Callable[[str], Entries], place: str) -> Classified | None:
    """Sub-folders of the top are classes, in the order of their names; without any, no labels. None: no picture.

    listed: what lies in a folder below the top, "" for the top. Raises DatasetError where a class has no picture, and
    where pictures lie beside or below classes.
    """
    pictures, folders, left_out = listed("")
    if pictures and folders:
        raise DatasetError(
            f"{place} has both pictures ({pictures[0]}, ...) and sub-folders ({folders[0]}, ...): "
            "sub-folders are classes, so either all pictures lie in one or there is none"
        )
    if pictures:
        return Classified(tuple(pictures), None, None, tuple(left_out))
    if not folders:
        return None
    names, labels = list[str](), list[int]()
    for label, folder in enumerate(folders):
        found, deeper, others = listed(folder)
        if deeper:
            raise DatasetError(f"{place}/{deeper[0]} lies too deep: classes are sub-folders that hold pictures alone")
        if not found:
            raise DatasetError(f"{place}/{folder} has no pictures ({' '.join(EXTENSIONS)}): fill it or remove it")
        names += found
        labels += [label] * len(found)
        left_out += others
    return Classified(tuple(names), tuple(labels), tuple(folders), tuple(left_out))


def by_labels_file(text: bytes, files: Iterable[str], place: str) -> Classified:
    """The pictures of a tree with the labels of its dataset.json. Raises DatasetError where the two do not fit."""
    files = sorted(files)
    names = [name for name in files if is_picture(name)]
    left_out = tuple(name for name in files if not is_picture(name) and name != LABELS_NAME)
    where = f"{place}/{LABELS_NAME}"
    labels = _read_labels(text, where)
    if not names:
        raise DatasetError(f"{place} has a {LABELS_NAME}, but no pictures ({' '.join(EXTENSIONS)})")
    if labels is None:
        return Classified(tuple(names), None, None, left_out)
    missing, unlabelled = sorted(labels.keys() - set(names)), [name for name in names if name not in labels]
    if missing:
        raise DatasetError(f"{where} names {len(missing):,} files that are not there: {_some(missing)}")
    if unlabelled:
        raise DatasetError(f"{where} has no label for {len(unlabelled):,} pictures: {_some(unlabelled)}")
    return Classified(tuple(names), tuple(labels[name] for name in names), None, left_out)


def _read_labels(text: bytes, where: str) -> dict[str, int] | None:
    """Label by file name; None where it says that there are none. Raises DatasetError."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where} is no JSON: {error}") from error
    if not isinstance(parsed, dict) or not isinstance(parsed.get("labels"), list | None):
        raise DatasetError(f'{where} must be {{"labels": [["name.png", 0], ...]}}, or null for no labels')
    if not parsed.get("labels"):
        return None
    labels: dict[str, int] = {}
    for entry in parsed["labels"]:
        name, label = _read_entry(entry, where)
        if name in labels:
            raise DatasetError(f"{where} names {name} twice")
        labels[name] = label
    return labels


def _read_entry(entry: Any, where: str) -> tuple[str, int]:
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
        raise DatasetError(f'{where} has an entry {str(entry)[:60]}; ["name.png", 0] is needed')
    name, label = entry
    if isinstance(label, list):
        raise DatasetError(f"{where} has vectors as labels ({name}: {str(label)[:40]}); whole numbers are needed")
    if type(label) is not int or label < 0:
        raise DatasetError(f"{where} has the label {label!r:.40} for {name}; whole numbers from 0 are needed")
    return name.removeprefix("./"), label


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
