"""Which kind of source lies at a URL."""

from fnmatch import fnmatchcase
from os.path import splitext

from imagegen_dist.data.index import INDEX_NAME, DatasetError
from imagegen_dist.data.sources.archive import open_zip
from imagegen_dist.data.sources.base import Source
from imagegen_dist.data.sources.classes import LABELS_NAME, is_hidden, is_picture
from imagegen_dist.data.sources.folder import open_folder
from imagegen_dist.data.sources.shards import open_shards
from imagegen_dist.data.sources.tables import Columns, open_tables
from imagegen_dist.storage import Store

_FILES = (".zip", ".parquet", ".tar")


def open_source(url: str, columns: Columns) -> Source:
    """List what lies at a URL: a zip, parquet files, shards, or a folder of pictures.

    The last part of the URL may be a pattern (`train-*.parquet`) for parquet files or shards. Raises DatasetError where
    nothing fits, or several do; StorageError.
    """
    store = Store(url)
    parent, _, last = store.url.rpartition("/")
    kind = splitext(last)[1].lower()
    if kind in _FILES and parent and not store.names():
        folder = Store(parent)
        names = _matching(folder, last)
        if kind == ".zip":
            _check_no_columns(columns, store)
            return open_zip(folder, names[0]) if len(names) == 1 else _refuse_several(store, names)
    else:
        folder, (kind, names) = store, _kind_of(store)
    if kind == ".parquet":
        return open_tables(folder, names, columns)
    _check_no_columns(columns, store)
    return open_shards(folder, names) if kind == ".tar" else open_folder(folder)


def _matching(folder: Store, pattern: str) -> list[str]:
    """The files of a folder that a name means, which may be a pattern. Raises DatasetError where there is none."""
    if folder.exists(pattern):
        return [pattern]
    if not set(pattern) & set("*?["):
        raise DatasetError(f"{folder / pattern} does not exist")
    names = [name for name in folder.names() if fnmatchcase(name, pattern) and not is_hidden(name)]
    if not names:
        raise DatasetError(f"{folder}/{pattern} fits no file there")
    return names


def _kind_of(folder: Store) -> tuple[str, list[str]]:
    """(.parquet or .tar, the files) where a folder holds such files and no pictures; else ("", [])."""
    names = [name for name in folder.names() if not is_hidden(name)]
    if LABELS_NAME in names or any(is_picture(name) for name in names):
        return "", []
    found = {kind: [name for name in names if name.lower().endswith(kind)] for kind in _FILES}
    if found[".tar"] and found[".parquet"]:
        raise DatasetError(f"{folder} has both shards (*.tar) and parquet files: name those you mean, e.g. '*.parquet'")
    if INDEX_NAME in names and not found[".parquet"]:
        return ".tar", found[".tar"]
    for kind in (".tar", ".parquet"):
        if found[kind]:
            return kind, found[kind]
    if len(found[".zip"]) == len(names) > 0:
        raise DatasetError(f"{folder} holds zips: name the one you mean, e.g. {folder / found['.zip'][0]}")
    return "", []


def _check_no_columns(columns: Columns, store: Store) -> None:
    if columns != Columns():
        raise DatasetError(f"--image-column and --label-column are for parquet files, and {store} has none")


def _refuse_several(store: Store, names: list[str]) -> Source:
    raise DatasetError(f"{store} fits {len(names)} zips: name one")
