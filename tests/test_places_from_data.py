"""No string of an index, a manifest, a config or an exported model leads out of the place that it came from.

Each document is taken as others could have written it: one string after another is replaced by a path or URL of theirs,
with checksums that fit, and the document is used. An audit hook sees what Python opens, makes, removes, connects to and
starts meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagegen_dist import config, load
from imagegen_dist.cli.evaluate.options import parse
from imagegen_dist.cli.evaluate.request import prepare
from imagegen_dist.cli.train_options import parse as parse_training
from imagegen_dist.data.cache import CacheConfig
from imagegen_dist.data.dataset import Dataset
from imagegen_dist.data.index import INDEX_NAME, DatasetIndex
from imagegen_dist.data.pack import pack
from imagegen_dist.data.sources.detect import open_source
from imagegen_dist.data.stream import StreamConfig
from imagegen_dist.data.tarwalk import ShardError
from imagegen_dist.data.verification import check_dataset
from imagegen_dist.inference.folder import card_of, write_folder
from imagegen_dist.inference.loading import build_model, read_trained
from imagegen_dist.storage import Store
from tests.checkpoints import write_checkpoint
from tests.evaluation.small import PIXELS

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

HOSTILE: dict[str, Callable[[Path], str]] = {
    "an absolute path": lambda victim: f"{victim}/x",
    "the folder itself": lambda victim: f"{victim}",
    "a way up": lambda victim: f"../../../../../../../../..{victim}/x",
    "a file URL": lambda victim: f"file://{victim}/x",
    "this machine": lambda victim: "http://127.0.0.1:9/x",
    "a metadata service": lambda victim: "http://169.254.169.254/latest/meta-data",
    "a shell": lambda victim: f"pipe:touch {victim}/x",
    "a null": lambda victim: "x\0y",
    "a long name": lambda victim: "x" * 5000,
}


@dataclass
class Watch:
    """What happened outside of a test's own folder, while it is on."""

    victim: str = ""
    read: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    on: bool = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in ("socket.connect", "socket.sendto", "subprocess.Popen", "os.system", "os.posix_spawn", "os.exec"):
            if "AF_UNIX" not in str(arguments[0]):
                self.reached.append(f"{event} {arguments[1:]}")
        elif event == "open":
            path, _, flags = arguments
            if self._is_there(path):
                (self.written if flags & WRITING else self.read).append(f"{event} {path}")
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"):
            self.written += [f"{event} {each}" for each in arguments if self._is_there(each)]
        elif event in ("os.listdir", "os.scandir"):
            self.read += [f"{event} {each}" for each in arguments if self._is_there(each)]

    def _is_there(self, path: object) -> bool:
        named = isinstance(path, str | bytes | os.PathLike)
        return named and os.path.abspath(os.fsdecode(path)).startswith(self.victim)

    @contextmanager
    def watching(self, victim: Path) -> Iterator[None]:
        self.victim, self.on = str(victim), True
        self.read, self.written, self.reached = [], [], []
        try:
            yield
        finally:
            self.on = False


WATCH = Watch()
sys.addaudithook(WATCH)


def strings(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all strings in a JSON document, and of its null values, where a string may be as well."""
    if isinstance(document, dict):
        for name, value in document.items():
            yield from strings(value, (*path, name))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            yield from strings(value, (*path, number))
    elif document is None or isinstance(document, str):
        yield path


def changed(document: Any, path: tuple[Any, ...], value: str) -> Any:
    """A copy of the document with another value there."""
    copy = json.loads(json.dumps(document))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return copy


def index_vouched(document: Any) -> Any:
    """An index with the fingerprint that fits; the one it has where it is none."""
    payload = {name: document[name] for name in FINGERPRINTED}
    return {**document, "fingerprint": config.fingerprint(payload)}


FINGERPRINTED = ("version", "modality", "channels", "spatial", "classes", "class_names", "shards")


def manifest_vouched(document: Any) -> Any:
    rest = {name: value for name, value in document.items() if name != "sha256"}
    return {**rest, "sha256": config.fingerprint(rest)}


def put_dataset(store: Store) -> DatasetIndex:
    samples = ((np.full((1, 12, 12), number, np.uint8), number % 5) for number in range(12))
    return pack(samples, store, shard_samples=6)


class Case:
    """A document, who vouches for it, and what is done with it."""

    hostile: tuple[str, ...] = tuple(HOSTILE)
    path: tuple[Any, ...] = ()  # of the string that was changed

    def __init__(self, folder: Path, victim: Path) -> None:
        self.folder, self.victim = folder, victim
        self.cache = CacheConfig(directory=str(folder / "cache"))
        self.store, self.name = self.made()

    def made(self) -> tuple[Store, str]:
        raise NotImplementedError

    def use(self) -> None:
        raise NotImplementedError

    def vouched(self, document: Any) -> Any:
        return document

    def may_read(self, path: tuple[Any, ...]) -> bool:
        return False


class Index(Case):
    """A dataset's index.json, beside it a shards_url."""

    def place(self) -> Store:
        return Store(self.folder / "set")

    def made(self) -> tuple[Store, str]:
        store = self.place()
        put_dataset(store)
        document = {**json.loads(store.read(INDEX_NAME)), "shards_url": store.url, "class_names": list("abcde")}
        store.write(INDEX_NAME, json.dumps(index_vouched(document)).encode())
        return store, INDEX_NAME

    def vouched(self, document: Any) -> Any:
        return index_vouched(document)

    def use(self) -> None:
        with suppress(ValueError):
            check_dataset(self.store)
        with suppress(ValueError):
            open_source(self.store.url).select(np.arange(3))
        Dataset.open(self.store.url, StreamConfig(cache=self.cache)).read(range(12))


class RemoteIndex(Index):
    """That of a dataset in an object store, whose shards go through the cache."""

    def place(self) -> Store:
        return Store(f"memory://{self.folder}/set")


class Manifest(Case):
    """A checkpoint's manifest.json."""

    name = "manifest.json"

    def made(self) -> tuple[Store, str]:
        run = Path(write_checkpoint(self.folder / "run", "r3gan"))
        [manifest] = run.rglob("manifest.json")
        return Store(manifest.parent), self.name

    def vouched(self, document: Any) -> Any:
        return manifest_vouched(document)

    def use(self) -> None:
        load(self.folder / "run")


class State(Manifest):
    """A checkpoint's state.json: the experiment, the data, how it was trained."""

    name = "state.json"
    hostile = ("the folder itself", "this machine")

    def vouched(self, document: Any) -> Any:
        data = json.dumps(document, indent=1).encode()
        manifest = json.loads(self.store.read("manifest.json"))
        manifest["files"]["state.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.store.write("manifest.json", json.dumps(manifest_vouched(manifest)).encode())
        return document

    def use(self) -> None:
        own = Store(self.folder / "data")
        if not own.exists(INDEX_NAME):
            put_dataset(own)
        evaluated(self.folder / "run", "--data", own.url)


class Exported(Case):
    """The config.json of an exported model."""

    hostile = State.hostile

    def made(self) -> tuple[Store, str]:
        model = load(write_checkpoint(self.folder / "run", "r3gan"))
        store = Store(self.folder / "exported")
        write_folder(model, card_of(model), store)
        return store, "config.json"

    def use(self) -> None:
        trained = read_trained(self.folder / "exported")
        model = build_model(trained)
        card_of(model, trained.url, trained.facts.get("license", ""))


class RunConfig(Case):
    """The config.json of a run, which says on which data it was trained; a folder of this machine may be meant."""

    hostile = State.hostile

    def made(self) -> tuple[Store, str]:
        run = Store(write_checkpoint(self.folder / "run", "r3gan"))
        [checkpoint] = Path(run.url).rglob("state.json")
        facts = json.loads(checkpoint.read_text())
        data = Store(self.folder / "data")
        put_dataset(data)
        about = {"url": data.url, "validation": data.url, **facts["data"]}
        document = {"run": "run", "preset": "digits", "job": "train_gan", "experiment": facts["experiment"]}
        run.write("config.json", json.dumps({**document, "data": about, "git_commit": "0" * 40}).encode())
        return run, "config.json"

    def may_read(self, path: tuple[Any, ...]) -> bool:
        return path in (("data", "url"), ("data", "validation"))

    def use(self) -> None:
        if self.path[:1] == ("experiment",):  # what --run alone takes from it; an evaluation reads state.json
            parse_training("train_gan", ["--run", "run", "--storage", str(self.folder)])
        else:
            evaluated(self.folder / "run")


def evaluated(model: Path, *words: str) -> None:
    """Begin to evaluate a model: everything is checked and loaded, and some real samples are read."""
    request = prepare(parse([str(model), *words, "--features", f"module:{PIXELS}"]), lambda text: None)
    request.real.dataset.read(range(4))


@pytest.mark.parametrize("kind", [Index, RemoteIndex, Manifest, State, Exported, RunConfig])
def test_no_string_leads_out(kind: type[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # whose cache is empty
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (victim / "x").write_bytes(b"theirs")
    case = kind(tmp_path / "own", victim)
    original = json.loads(case.store.read(case.name))
    case.use()
    places = list(strings(original))
    assert len(places) > 1
    for path in places:
        for said in case.hostile:
            case.path = path
            hostile = case.vouched(changed(original, path, HOSTILE[said](victim)))
            case.store.write(case.name, json.dumps(hostile, indent=1).encode())
            told = ""
            with WATCH.watching(victim):
                try:
                    case.use()
                except (ValueError, ShardError, FileNotFoundError) as error:
                    told = str(error)
            where = f"{said} as {'.'.join(map(str, path))}"
            assert "\n" not in told, where
            assert not WATCH.written + WATCH.reached, where
            assert case.may_read(path) or not WATCH.read, where
    assert [entry.name for entry in victim.iterdir()] == ["x"]
    assert (victim / "x").read_bytes() == b"theirs"
