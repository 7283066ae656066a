"""The exported page: its gradient program, its files and its runtime; what it does is shown in tests/browser."""

import hashlib
import io
import json
import tarfile

import pytest

from imagegen_dist import load
from imagegen_dist.errors import UsageError
from imagegen_dist.inference import web_runtime
from imagegen_dist.inference.convert import ExportError
from imagegen_dist.inference.web import build_page
from imagegen_dist.inference.web_document import describe
from imagegen_dist.inference.web_programs import made_by, projector
from imagegen_dist.inference.web_runtime import WASM, runtime_files
from tests.checkpoints import write_checkpoint

RUNTIME = dict.fromkeys(WASM.values(), b"runtime")


@pytest.mark.parametrize(
    "family", ["r3gan", *(pytest.param(name, marks=pytest.mark.cluster) for name in ("mlp-vae", "res-vae", "dcgan"))]
)
def test_the_gradient_program_is_pytorchs_gradient(family, tmp_path):
    """It is verified against PyTorch to 1e-5 as it is made, for transposed, strided and grouped convolutions."""
    assert len(projector(load(write_checkpoint(tmp_path / "run", family)))) > 1000


@pytest.mark.parametrize("family", ["r3gan", "ladder", "mlp-vae", "voxels", "r3gan-styled"])
def test_the_document_says_what_the_noise_and_the_label_are(family, tmp_path, monkeypatch):
    monkeypatch.setattr("imagegen_dist.inference.web_document._time_of", lambda *_: 1.0)
    model = load(write_checkpoint(tmp_path / "run", family))
    said = describe(model, {made_by(model): b"onnx"}, RUNTIME, "", [])
    assert sum(said["streams"]) == model.latents(1).numel()
    assert sum(part["size"] for part in said["parts"]) == model.label_width == len(said["label"])
    assert json.loads(json.dumps(said)) == said


def test_codes_have_no_page(tmp_path):
    with pytest.raises(ExportError, match="codes"):
        build_page(load(write_checkpoint(tmp_path / "run", "fsq")), RUNTIME)


def test_a_runtime_of_another_version_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"ort\.wasm\.min\.mjs of onnxruntime-web 1\.30\.0 is not there"):
        runtime_files(str(tmp_path))
    (tmp_path / "ort.wasm.min.mjs").write_bytes(b"other")
    with pytest.raises(UsageError, match="is not that of onnxruntime-web"):
        runtime_files(str(tmp_path))


def test_without_a_network_one_line_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(web_runtime, "_URL", "http://127.0.0.1:9/onnxruntime-web.tgz")
    with pytest.raises(UsageError, match="give its folder by --ort"):
        runtime_files()


def test_fetched_files_are_kept_and_checked(tmp_path, monkeypatch):
    content = {name: name.encode() for name in web_runtime._SHA256}
    monkeypatch.setattr(
        web_runtime, "_SHA256", {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    )
    package = tmp_path / "package.tgz"
    _pack(package, content)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(web_runtime, "_URL", package.as_uri())
    assert runtime_files() == {name: content[name] for name in WASM.values()}
    package.unlink()
    assert runtime_files(webgpu=True) == content
    (web_runtime._cache() / WASM["main"]).write_bytes(b"damaged")
    with pytest.raises(UsageError, match="remove it"):
        runtime_files()


def _pack(path, content):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(f"package/dist/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
