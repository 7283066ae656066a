"""Which kind of source lies at a URL."""

from dataclasses import replace
from fnmatch import fnmatchcase
from os.path import splitext

from imagegen_dist.data.index import INDEX_NAME, DatasetError, compressed_line, compressed_shards
from imagegen_dist.data.sources.archive import open_zip
from imagegen_dist.data.sources.base import Source
from imagegen_dist.data.sources.classes import Entries, Wanted, find_root, is_hidden
from imagegen_dist.data.sources.folder import FolderTree, open_folder
from imagegen_dist.data.sources.label_files import STYLEGAN
from imagegen_dist.data.sources.shards import ShardSource, open_shards
from imagegen_dist.data.sources.subsets import Subset
from imagegen_dist.data.sources.tables import Columns, open_tables
from imagegen_dist.storage import Store, unusable_line

_FILES = (".zip", ".parquet", ".tar")


def open_source(
    url: str,
    columns: Columns,
    subset: str = "",
    labelled: bool = True,
    remote_shards: bool = False,
    member: str = "",
) -> Source:
    """List what lies at a URL: a zip, parquet files, shards, or a folder of pictures.

    The last part of the URL may be a pattern (`train-*.parquet`) for parquet files or shards. subset: the split to
    take where several lie side by side, as a word of SPLIT_WORDS, or "all". labelled: False passes labels over.
    remote_shards: as for DatasetIndex.load. member: extension of the pictures in shards whose samples have several.
    Raises DatasetError where nothing fits, or several do; StorageError.
    """
    store, wanted = Store(url), Wanted(Subset(subset), labelled, columns.label, remote_shards, member)
    source = _open(store, columns, wanted)
    if member and not isinstance(source, ShardSource):
        raise DatasetError(f"--member {member} is for shards, and {store} has none")
    wanted.subset.check_used(store.url)
    return source


def _open(store: Store, columns: Columns, wanted: Wanted) -> Source:
    parent, _, last = store.url.rpartition("/")
    if compressed_shards([last]) and not store.names():
        raise DatasetError(compressed_line(parent, [last]))
    kind = splitext(last)[1].lower()
    if kind in _FILES and parent and not store.names():
        folder = Store(parent)
        names = _matching(folder, last)
        if kind == ".zip":
            _check_no_columns(columns._replace(label=""), store)
            names = wanted.subset.files(names, "zips", folder.url)
            return open_zip(folder, names[0], wanted) if len(names) == 1 else _refuse_several(store, names)
        return _open_files(kind, folder, names, columns, wanted, ())
    tree = FolderTree(store)
    try:
        source = _open_tree(tree, columns, wanted)
    except DatasetError as error:
        if not tree.unusable:
            raise
        raise DatasetError(f"{error}; {unusable_line(tree.unusable)}") from error
    return replace(source, notes=(*source.notes, *filter(None, [unusable_line(tree.unusable)])))


def _open_tree(tree: FolderTree, columns: Columns, wanted: Wanted) -> Source:
    """What a folder holds."""
    store = tree.store
    kind, names = _kind_of(tree.entries(""), store)
    found: tuple[str, tuple[str, ...]] = ("", ())
    if not kind:
        found = find_root(tree, wanted.subset, store.url)
        if found[0]:
            kind, names = _kind_of(tree.entries(found[0]), store / found[0])
    if kind:
        return _open_files(kind, store / found[0] if found[0] else store, names, columns, wanted, found[1])
    _check_no_columns(columns._replace(label=""), store)
    return open_folder(tree, wanted, found)


def _open_files(
    kind: str, folder: Store, names: list[str], columns: Columns, wanted: Wanted, notes: tuple[str, ...]
) -> Source:
    """Shards or parquet files. names: none for the shards that an index lists."""
    if kind == ".parquet":
        source: Source = open_tables(folder, names, columns, wanted)
    else:
        _check_no_columns(columns, folder)
        source = open_shards(folder, names, wanted)
    return replace(source, notes=(*notes, *source.notes))


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


def _kind_of(entries: Entries, folder: Store) -> tuple[str, list[str]]:
    """(.parquet or .tar, the files) where a folder holds such files and no pictures; else ("", [])."""
    names = [name.rpartition("/")[2] for name in entries.others]
    if STYLEGAN in names or entries.pictures:
        return "", []
    found = {kind: [name for name in names if name.lower().endswith(kind)] for kind in _FILES}
    if found[".tar"] and found[".parquet"]:
        raise DatasetError(f"{folder} has both shards (*.tar) and parquet files: name those you mean, e.g. '*.parquet'")
    if INDEX_NAME in names and not found[".parquet"]:
        return ".tar", found[".tar"]
    for kind in (".tar", ".parquet"):
        if found[kind]:
            return kind, found[kind]
    if compressed := compressed_shards(names):
        raise DatasetError(compressed_line(folder.url, compressed))
    if len(found[".zip"]) == len(names) > 0 and not entries.folders:
        raise DatasetError(f"{folder} holds zips: name the one you mean, e.g. {folder / found['.zip'][0]}")
    return "", []


def _check_no_columns(columns: Columns, store: Store) -> None:
    """Raises DatasetError where columns are asked for of a source that has none."""
    if columns != Columns():
        raise DatasetError(f"--image-column and --label-column are for parquet files, and {store} has none")


def _refuse_several(store: Store, names: list[str]) -> Source:
    raise DatasetError(f"{store} fits {len(names)} zips: name one")
