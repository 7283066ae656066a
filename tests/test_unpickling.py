"""Nothing is unpickled: no code that could, and programs in place of weights, states and shards do not run."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from imagegen_dist import load
from imagegen_dist.cli.data import main as make_shards
from imagegen_dist.cli.train import main_gan
from imagegen_dist.config import fingerprint
from imagegen_dist.errors import MISUSED
from imagegen_dist.models.lpips import load_lpips
from imagegen_dist.records import RunSettings
from imagegen_dist.run_folder import CheckpointError
from imagegen_dist.training.checkpoint import newest
from tests.runs import Listener, settings, tiny, train_here

ROOT = Path(__file__).parents[1]
MARKER = "the-program-ran"
MODULES = {"pickle", "cloudpickle", "_pickle", "dill", "joblib", "marshal", "shelve"}
CALLS = {"torch.load", "torch.jit.load", "torch.hub.load", "pandas.read_pickle", "yaml.load", "eval", "exec"}


class Program:
    """Makes a folder in the working directory when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (MARKER,)


def torch_file() -> bytes:
    """What `torch.save` writes of a dictionary with a program in it."""
    target = io.BytesIO()
    torch.save({"weight": torch.zeros(2), "program": Program()}, target)
    return target.getvalue()


def safetensors_of(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


PROGRAMS = {
    "a pickle": pickle.dumps(Program()),
    "a .pt file": torch_file(),
    "a pickle for a header": safetensors_of(pickle.dumps(Program())),
    "a header longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "a tensor of pickles": safetensors_of(
        json.dumps({"w": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}).encode(), pickle.dumps(Program())[:8]
    ),
    "a tensor beyond the file": safetensors_of(
        json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    ),
}
every_program = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())


def test_no_code_of_ours_can_unpickle() -> None:
    """Also where ruff's list of forbidden names is switched off for a file."""
    found = []
    for folder in ("imagegen_dist", "jobs", "cluster"):
        for path in (ROOT / folder).rglob("*.py"):
            found += [f"{path.relative_to(ROOT)}: {what}" for what in suspects(ast.parse(path.read_text()))]
    assert found == []


def suspects(tree: ast.AST) -> Iterator[str]:
    """Imports and calls that unpickle, or run what they read."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            allowed = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in CALLS or allowed.get("allow_pickle", "False") != "False" or "weights_only" in allowed:
                yield name
            continue
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in MODULES or name in CALLS)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from cloudpickle import loads",
        "from torch import load",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
    ],
)
def test_the_search_finds_what_unpickles(line: str) -> None:
    assert list(suspects(ast.parse(line)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    folder = tmp_path_factory.mktemp("runs")
    where = settings(folder, "run", folder / ".data")
    train_here(tiny(training__total_images=24), where)
    return where


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, in which no program has run after the test."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path
    assert os.listdir() == []


@pytest.fixture
def run(trained: RunSettings, here: Path) -> RunSettings:
    """A copy of the trained run, to be tampered with."""
    source = trained.folder.local_path()
    assert source is not None
    shutil.copytree(source, here / "run")
    return RunSettings(**{**vars(trained), "storage": str(here)})


def forge(where: RunSettings, name: str, content: bytes) -> str:
    """Put `content` in place of a checkpoint's file, and a manifest that vouches for it; the checkpoint's URL."""
    checkpoint = newest(where.folder, lambda why: None)
    assert checkpoint is not None
    manifest = {key: value for key, value in checkpoint.manifest.items() if key != "sha256"}
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["sha256"] = fingerprint(manifest)
    checkpoint.store.write(name, content)
    checkpoint.store.write("manifest.json", json.dumps(manifest).encode())
    return checkpoint.url


@every_program
def test_a_program_in_place_of_weights_does_not_run(run: RunSettings, program: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load(forge(run, "model.safetensors", program))


@every_program
def test_a_program_in_place_of_a_training_state_does_not_run(run: RunSettings, program: bytes) -> None:
    forged, listener = forge(run, "state.safetensors", program), Listener()
    train_here(tiny(training__total_images=48), run, listener)
    assert any(f"skipped {forged}: state.safetensors cannot be read" in message for message in listener.messages)


@every_program
def test_a_program_in_place_of_the_clock_does_not_run(run: RunSettings, program: bytes) -> None:
    with pytest.raises(ValueError):  # of JSON, or of UTF-8
        load(forge(run, "state.json", program))


@every_program
def test_a_program_in_place_of_lpips_weights_does_not_run(here: Path, program: bytes) -> None:
    path = here / "lpips.pt"
    path.write_bytes(program)
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_lpips(str(path), hashlib.sha256(program).hexdigest())


def test_a_pt_file_is_no_model(here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "model.pt").write_bytes(torch_file())
    for place in (here / "run", here / "run" / "model.pt"):
        with pytest.raises(ValueError, match="holds no complete checkpoint"):
            load(place)


@every_program
def test_a_program_in_place_of_settings_or_an_index_does_not_run(
    here: Path, program: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "settings.json").write_bytes(program)
    (here / "set").mkdir()
    (here / "set" / "index.json").write_bytes(program)
    for words in (["--config", str(here / "settings.json")], ["--data", str(here / "set")]):
        assert main_gan(["digits", "--storage", str(here / "runs"), "--dry-run", *words]) == MISUSED
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("extension", ["pt", "pth", "pkl", "pickle", "safetensors", "ckpt", "npz"])
def test_a_program_in_a_tar_is_no_sample(here: Path, extension: str, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "set").mkdir()
    with tarfile.open(here / "set" / "shard-000000.tar", "w") as shard:
        for number, program in enumerate(PROGRAMS.values()):
            for kind in (extension, f"png.{extension}"):
                member = tarfile.TarInfo(f"{number:06d}.{kind}")
                member.size = len(program)
                shard.addfile(member, io.BytesIO(program))
    assert make_shards(["--index-only", str(here / "set")]) == MISUSED
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("extension", ["npy", "png", "jpg", "cls", "json"])
def test_a_program_under_a_known_name_is_refused(
    here: Path, extension: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "set").mkdir()
    with tarfile.open(here / "set" / "shard-000000.tar", "w") as shard:
        for number, program in enumerate(PROGRAMS.values()):
            member = tarfile.TarInfo(f"{number:06d}.{extension}")
            member.size = len(program)
            shard.addfile(member, io.BytesIO(program))
    assert make_shards(["--index-only", str(here / "set")]) == MISUSED
    assert capsys.readouterr().err.count("\n") == 1


def test_the_programs_would_have_run(here: Path) -> None:
    """What these tests guard against is real."""
    pickle.loads(PROGRAMS["a pickle"])  # noqa: S301
    os.rmdir(MARKER)
    torch.load(io.BytesIO(PROGRAMS["a .pt file"]), weights_only=False)
    os.rmdir(MARKER)
