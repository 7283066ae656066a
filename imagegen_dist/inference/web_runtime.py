"""ONNX Runtime Web (MIT), which runs a model in a browser: files of one version of an npm package, pinned by SHA-256.

The package of this project carries none of them. They are fetched once into a cache, or taken from a folder.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from imagegen_dist.errors import UsageError
from imagegen_dist.wording import first_line

VERSION = "1.30.0"
_URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
_SHA256 = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
WASM = {
    "main": "ort.wasm.min.mjs",
    "loader": "ort-wasm-simd-threaded.mjs",
    "wasm": "ort-wasm-simd-threaded.wasm",
}
"""The files of the WebAssembly backend, by their part in it."""
WEBGPU = {
    "main": "ort.webgpu.min.mjs",
    "loader": "ort-wasm-simd-threaded.asyncify.mjs",
    "wasm": "ort-wasm-simd-threaded.asyncify.wasm",
}
"""The files of the WebGPU backend."""

_TIMEOUT_S = 60.0
_LARGEST = 1 << 27  # bytes of the package


def runtime_files(folder: str = "", webgpu: bool = False) -> dict[str, bytes]:
    """The runtime's files by name. folder: that holds them, e.g. node_modules/onnxruntime-web/dist.

    Without a folder they are those of the cache, into which they are fetched first. Raises UsageError, in one line,
    if they cannot be fetched or are not those of this version.
    """
    names = [*WASM.values(), *(WEBGPU.values() if webgpu else ())]
    place = Path(folder).expanduser() if folder else _cache()
    if not folder and not all((place / name).is_file() for name in names):
        _fetch(place)
    return {name: _read(place / name, folder) for name in names}


def _cache() -> Path:
    """The folder in which this version is kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "imagegen_dist" / f"onnxruntime-web-{VERSION}"


def _read(path: Path, folder: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError:
        raise UsageError(f"--ort {folder}: {path.name} of onnxruntime-web {VERSION} is not there") from None
    if hashlib.sha256(data).hexdigest() != _SHA256[path.name]:
        said = f"--ort {folder}: " if folder else f"{path}: remove it; "
        raise UsageError(f"{said}{path.name} is not that of onnxruntime-web {VERSION}")
    return data


def _fetch(place: Path) -> None:
    """Fetch the package and keep its pinned files. Raises UsageError."""
    try:
        with urllib.request.urlopen(_URL, timeout=_TIMEOUT_S) as answer:
            package = answer.read(_LARGEST)
        found = _extract(package)
    except (OSError, tarfile.TarError, EOFError) as error:
        raise UsageError(
            f"onnxruntime-web {VERSION} cannot be fetched from the npm registry ({first_line(error)}): give its folder "
            "by --ort node_modules/onnxruntime-web/dist"
        ) from None
    place.mkdir(parents=True, exist_ok=True)
    for name, data in found.items():
        temporary = place / f".{name}.{os.getpid()}"
        temporary.write_bytes(data)
        temporary.replace(place / name)


def _extract(package: bytes) -> Mapping[str, bytes]:
    """The pinned files of an npm package. Raises OSError if one is missing or another."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
        for member in archive:
            name = member.name.removeprefix("package/dist/")
            if name in _SHA256 and member.isfile() and (file := archive.extractfile(member)) is not None:
                found[name] = file.read()
    for name, digest in _SHA256.items():
        if hashlib.sha256(found.get(name, b"")).hexdigest() != digest:
            raise OSError(f"{name} does not have the pinned SHA-256")
    return found
