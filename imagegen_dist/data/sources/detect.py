"""Open what is at a URL as a source of pictures."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from os.path import splitext

from imagegen_dist import extensions
from imagegen_dist.data.index import INDEX_NAME, DatasetError, compressed_line, compressed_shards
from imagegen_dist.data.sources import archive, cifar, shards, tables  # noqa: F401 (registers their kinds)
from imagegen_dist.data.sources.base import SOURCE_KINDS, Source, SourceFiles, SourceOptions
from imagegen_dist.data.sources.classes import Entries, find_root, is_hidden
from imagegen_dist.data.sources.conditioned import with_conditions
from imagegen_dist.data.sources.folder import FolderTree, open_folder
from imagegen_dist.data.sources.label_files import STYLEGAN
from imagegen_dist.data.sources.subsets import Subset
from imagegen_dist.storage import Store, unusable_line

_MODULE = re.compile(r"([a-zA-Z_]\w*(?:\.\w+)*):(?!//)(.+)", re.DOTALL)


def resolve_source(text: str) -> str:
    """The URL of a source: a relative path is made absolute, and the module in `package.module:URL` is imported.

    Raises UsageError if that module cannot be imported, StorageError for an unusable URL.
    """
    if (match := _MODULE.fullmatch(text)) and not os.path.exists(text):
        extensions.import_named(match[1])
        text = match[2]
    return text if _protocol(text) in SOURCE_KINDS else Store(text).url


def open_source(url: str, options: SourceOptions | None = None) -> Source:
    """List the pictures at a URL: a folder of pictures, or any kind of source that `register_source` has registered.

    The last part of the URL may be a pattern of files (`train-*.parquet`). Raises DatasetError if nothing fits, or
    several kinds do, and for conditions that do not fit the pictures; StorageError.
    """
    options = options or SourceOptions()
    url, subset = resolve_source(url), Subset(options.subset)
    protocol = _protocol(url)
    source = _open_kind(protocol, url, [], options, subset) if protocol in SOURCE_KINDS else _open(url, options, subset)
    subset.check_used(url)
    return with_conditions(source, options)


def _protocol(url: str) -> str:
    start, colon, _ = url.partition("://")
    return start + colon if colon else ""


def _open_kind(kind: str, url: str, names: list[str], options: SourceOptions, subset: Subset) -> Source:
    registered = SOURCE_KINDS[kind]
    _check_accepted(options, registered.accepts, url)
    return registered.open(SourceFiles(url, names, options, subset))


def _open(url: str, options: SourceOptions, subset: Subset) -> Source:
    """Open files, or a folder."""
    parent, _, last = url.rpartition("/")
    store = Store(url)
    if compressed_shards([last]) and not store.names():
        raise DatasetError(compressed_line(parent, [last]))
    kind = splitext(last)[1].lower()
    if kind in SOURCE_KINDS and parent and not store.names():
        return _open_kind(kind, parent, _matching(Store(parent), last), options, subset)
    tree = FolderTree(store, options.files)
    try:
        source = _open_tree(tree, options, subset)
    except DatasetError as error:
        if not tree.unusable:
            raise
        raise DatasetError(f"{error}; {unusable_line(tree.unusable)}") from error
    return replace(source, notes=(*source.notes, *filter(None, [unusable_line(tree.unusable)])))


def _open_tree(tree: FolderTree, options: SourceOptions, subset: Subset) -> Source:
    """Open what a folder holds."""
    store = tree.store
    kind, names = _kind_of(tree.entries(""), store)
    root, notes = "", tuple[str, ...]()
    if not kind:
        root, notes = find_root(tree, subset, store.url, options.files.noun)
        if root:
            kind, names = _kind_of(tree.entries(root), store / root)
    if kind:
        source = _open_kind(kind, (store / root if root else store).url, names, options, subset)
        return replace(source, notes=(*notes, *source.notes))
    _check_accepted(options, ("label_column", "attributes", "folders"), store.url)
    return open_folder(tree, root, notes, options, subset)


def _matching(folder: Store, pattern: str) -> list[str]:
    """The files of a folder that match a name or pattern. Raises DatasetError if there are none."""
    if folder.exists(pattern):
        return [pattern]
    if not set(pattern) & set("*?["):
        raise DatasetError(f"{folder / pattern} does not exist")
    names = [name for name in folder.names() if fnmatchcase(name, pattern) and not is_hidden(name)]
    if not names:
        raise DatasetError(f"{folder}/{pattern} matches no file there")
    return names


def _kind_of(entries: Entries, folder: Store) -> tuple[str, list[str]]:
    """(the registered kind, the files) if a folder holds files of such a kind and no pictures; else ("", [])."""
    names = [name.rpartition("/")[2] for name in entries.others]
    if STYLEGAN in names or entries.pictures:
        return "", []
    found = {kind: [name for name in names if name.lower().endswith(kind)] for kind in SOURCE_KINDS}
    kinds = [kind for kind in found if SOURCE_KINDS[kind].in_folders and found[kind]]
    if len(kinds) > 1:
        several = " and ".join(
            "shards (*.tar)" if kind == ".tar" else f"{kind[1:]} files" for kind in sorted(kinds)[::-1]
        )
        raise DatasetError(f"{folder} has both {several}: name those you mean, e.g. '*{sorted(kinds)[0]}'")
    if kinds:
        return kinds[0], found[kinds[0]]
    if INDEX_NAME in names:
        return ".tar", []
    if compressed := compressed_shards(names):
        raise DatasetError(compressed_line(folder.url, compressed))
    if len(found[".zip"]) == len(names) > 0 and not entries.folders:
        raise DatasetError(f"{folder} holds zips: name the one you mean, e.g. {folder / found['.zip'][0]}")
    return "", []


def _check_accepted(options: SourceOptions, accepted: tuple[str, ...], url: str) -> None:
    """Raise DatasetError for options that this kind of source does not follow."""
    for names, line in (
        (
            ("image_column", "label_column"),
            f"--image-column and --label-column are for parquet files, and {url} has none",
        ),
        (("member",), f"--member {options.member} is for shards, and {url} has none"),
        (("folders",), f"--folders {options.folders} names folders of {options.files.noun} files, and {url} has none"),
        (
            ("attributes",),
            f"--attributes is for {options.files.noun} files in a folder or a zip, which have names, not for {url}",
        ),
    ):
        if any(getattr(options, name) and name not in accepted for name in names):
            raise DatasetError(line)
