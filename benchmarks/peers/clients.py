"""Clients of object storage, fetching whole objects to a local file: one a process, `python -m peers.clients JSON`."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.server import measure, s3_server

Fetch = Callable[[str, str], None]


def s3fs_get_file(bucket: str) -> Fetch:
    return _s3fs().get_file


def s3fs_get_file_sequential(bucket: str) -> Fetch:
    files = _s3fs()
    return lambda source, target: files.get_file(source, target, max_concurrency=1)


def s3fs_cat_file(bucket: str) -> Fetch:
    files = _s3fs()
    return lambda source, target: _write(target, [files.cat_file(source)])


def obstore_get(bucket: str) -> Fetch:
    import obstore

    stores = _obstore(bucket)
    return lambda source, target: _write(target, [obstore.get(stores, source.split("/", 1)[1]).buffer()])


def obstore_stream(bucket: str) -> Fetch:
    import obstore

    stores = _obstore(bucket)
    return lambda source, target: _write(target, obstore.get(stores, source.split("/", 1)[1]).stream(1 << 20))


def obstore_fsspec_get_file(bucket: str) -> Fetch:
    from obstore.fsspec import FsspecStore

    files = FsspecStore("s3", client_options={"allow_http": True}, config=_s3_config())
    return files.get_file


def obstore_fsspec_cat_file(bucket: str) -> Fetch:
    from obstore.fsspec import FsspecStore

    files = FsspecStore("s3", client_options={"allow_http": True}, config=_s3_config())
    return lambda source, target: _write(target, [files.cat_file(source)])


# Each takes the bucket, and returns what fetches "bucket/key" to a local path.
CLIENTS: dict[str, Callable[[str], Fetch]] = {
    "s3fs get_file": s3fs_get_file,
    "s3fs get_file, max_concurrency=1": s3fs_get_file_sequential,
    "s3fs cat_file": s3fs_cat_file,
    "obstore get, buffer": obstore_get,
    "obstore get, stream of 1 MiB": obstore_stream,
    "obstore FsspecStore get_file": obstore_fsspec_get_file,
    "obstore FsspecStore cat_file": obstore_fsspec_cat_file,
}


def compare(folder: Path, rounds: int, object_mb: int, objects: int) -> list[list[dict[str, Any]]]:
    """Measurements of every client, [rounds][clients]."""
    bucket = folder / "s3" / f"objects-{object_mb}"
    bucket.mkdir(parents=True, exist_ok=True)
    for number in range(objects + 1):
        path = bucket / f"{number}.bin"
        if not path.exists():
            path.write_bytes(os.urandom(object_mb << 20))
    found = []
    with s3_server(folder / "s3") as environment:
        for _ in range(rounds):
            arguments = {"bucket": bucket.name, "objects": objects, "target": str(folder / "fetched")}
            found.append([measure("peers.clients", {"client": name, **arguments}, environment) for name in CLIENTS])
    return found


def run(client: str, bucket: str, objects: int, target: str, began: float) -> dict[str, Any]:
    """Fetch objects 1 .. objects, after object 0, which is not counted (imports, connections).

    start_s: from the process's start until object 0 is there.
    """
    fetch = CLIENTS[client](bucket)
    fetch(f"{bucket}/0.bin", target)
    size = os.path.getsize(target)
    start = time.time() - began
    cpu, wall = time.process_time(), time.perf_counter()
    for number in range(1, objects + 1):
        fetch(f"{bucket}/{number}.bin", target)
        assert os.path.getsize(target) == size
    return {
        "mb": objects * size / 1e6,
        "fetch_cpu_s": time.process_time() - cpu,
        "fetch_wall_s": time.perf_counter() - wall,
        "start_s": start,
    }


def _s3fs() -> Any:
    import s3fs

    checks = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    return s3fs.S3FileSystem(config_kwargs=checks, use_listings_cache=False)


def _obstore(bucket: str) -> Any:
    from obstore.store import S3Store

    return S3Store(bucket, client_options={"allow_http": True}, config=_s3_config())


def _s3_config() -> dict[str, Any]:
    return {
        "endpoint": os.environ["AWS_ENDPOINT_URL"],
        "access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
        "region": os.environ["AWS_DEFAULT_REGION"],
        "virtual_hosted_style_request": False,
    }


def _write(target: str, chunks: Any) -> None:
    with open(target, "wb") as file:
        for chunk in chunks:
            file.write(chunk)


if __name__ == "__main__":
    print(json.dumps(run(**json.loads(sys.argv[1]))))
