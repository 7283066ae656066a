"""JSON that is nested deeply is one line for the user, whichever file it is in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imagegen_dist import config, load
from imagegen_dist.cli.train import main_gan
from imagegen_dist.data.index import DatasetIndex
from imagegen_dist.data.pack import pack
from imagegen_dist.data.sources.detect import open_source
from imagegen_dist.documents import DEEPEST, parse_json
from imagegen_dist.errors import MISUSED
from imagegen_dist.inference.latents import LatentStatistics
from imagegen_dist.inference.origin import run_config
from imagegen_dist.metrics.sinks import read_rows
from imagegen_dist.storage import Store
from imagegen_dist.storage.lease import FILE, Lease
from imagegen_dist.sweep.plan import PLAN, read_plan
from imagegen_dist.sweep.trial_store import TRIALS_FILE, TrialStore
from tests.checkpoints import write_checkpoint


def deep(levels: int) -> str:
    return f"{'[' * levels}{']' * levels}"


def index(folder: Path, text: str) -> object:
    store = Store(folder)
    pack([(np.zeros((1, 8, 8), np.uint8), 0)], store)
    document = json.loads(store.read("index.json"))
    text = json.dumps(document).replace('"class_names": null', f'"class_names": {text}')
    store.write("index.json", text.encode())
    return DatasetIndex.load(store)


def manifest(folder: Path, text: str) -> object:
    run = Path(write_checkpoint(folder, "mlp"))
    [path] = run.rglob("manifest.json")
    path.write_text(f'{{"format": 1, "images": {text}}}')
    return load(run)


def state(folder: Path, text: str) -> object:
    run = Path(write_checkpoint(folder, "mlp"))
    [path] = run.rglob("manifest.json")
    facts = path.with_name("state.json")
    facts.write_text(f'{{"experiment": {text}}}')
    document = json.loads(path.read_text())
    digest = hashlib.sha256(facts.read_bytes()).hexdigest()
    document["files"]["state.json"] = {"bytes": facts.stat().st_size, "sha256": digest}
    del document["sha256"]
    path.write_text(json.dumps({**document, "sha256": config.fingerprint(document)}))
    return load(run)


def exported(folder: Path, text: str) -> object:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "config.json").write_text(text)
    return load(folder)


def settings(folder: Path, text: str) -> object:
    folder.mkdir()
    (folder / "settings.json").write_text(f'{{"model": {text}}}')
    if main_gan(["digits", "--config", str(folder / "settings.json"), "--storage", str(folder)]) == MISUSED:
        raise ValueError
    return None


def override(folder: Path, text: str) -> object:
    if main_gan(["digits", "--training.seed", text, "--storage", str(folder)]) == MISUSED:
        raise ValueError
    return None


def labels(folder: Path, text: str) -> object:
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    (folder / "dataset.json").write_text(f'{{"labels": {text}}}')
    return open_source(str(folder))


def rows(folder: Path, text: str) -> object:
    Store(folder).write("metrics.jsonl", f'{text}\n{{"images": 1}}\n'.encode())
    return read_rows(Store(folder))


def written(name: str, read: Callable[[Store], object]) -> Callable[[Path, str], object]:
    def use(folder: Path, text: str) -> object:
        Store(folder).write(name, text.encode())
        return read(Store(folder))

    return use


REFUSED = {
    "index.json": index,
    "manifest.json": manifest,
    "state.json": state,
    "an exported config.json": exported,
    "--config": settings,
    "an override": override,
    "dataset.json": labels,
    "sweep.json": written(PLAN, lambda store: read_plan(store, "sweep")),
    "trials.json": written(TRIALS_FILE, TrialStore.read),
    "latents.json": written("latents.json", LatentStatistics.load),
    "metrics.jsonl": rows,
}


@pytest.mark.parametrize("levels", [800, 100_000])
@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_in_one_line(use, levels, tmp_path, capsys):
    with pytest.raises(ValueError) as refused:
        use(tmp_path / "place", deep(levels))
    said = str(refused.value) or capsys.readouterr().err.strip()
    assert said
    assert "\n" not in said
    assert len(said) < 2000


def test_it_is_no_lease_and_no_run(tmp_path):
    store = Store(tmp_path)
    store.write(FILE, deep(100_000).encode())
    Lease(store).acquire(lambda text: None)
    store.write("config.json", deep(100_000).encode())
    assert run_config(store) == {}


def test_what_is_not_too_deep_is_parsed():
    text = deep(DEEPEST)
    assert json.dumps(parse_json(text)) == text
    with pytest.raises(ValueError, match="nested deeper than 64 levels"):
        parse_json(deep(DEEPEST + 2))
