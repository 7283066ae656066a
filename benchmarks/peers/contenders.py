"""The contenders: each reads one epoch, shuffled, in batches of 64, and is a process of its own.

`python -m peers.contenders JSON`. Each is a function from a `Task` to batches, uint8 [64, C, H, W] of any strides, used
as its documentation says. The peers' decoded pictures are stacked as they come, [64, H, W, C], and permuted as a view,
which costs them nothing. `write` makes the peers' own formats from the shards' very bytes.
"""

import io
import json
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BATCH = 64


@dataclass(frozen=True)
class Task:
    """What a contender reads, and how."""

    url: str  # the dataset's folder in the contender's own format: a path, or s3://
    kind: str  # jpeg, png or npy
    decoder: str  # simplejpeg, PIL or numpy
    workers: int  # loader processes; 0 reads in the main process
    cache: str  # empty folder for what comes from S3


def ours(task: Task) -> Iterator[Tensor]:
    from peers.shard_stream import open_stream

    for item in open_stream(task.url, task.cache, workers=task.workers)[1]:
        yield item.sample[0, 0]


def webdataset(task: Task) -> Iterable[Any]:
    import webdataset

    extension = {"jpeg": "jpg"}.get(task.kind, task.kind)
    decode = decoder(task.decoder)
    dataset = (
        webdataset.WebDataset(_tar_urls(task.url), shardshuffle=100, seed=0, nodesplitter=None)
        .shuffle(1000, initial=1000)
        .to_tuple(extension)
        .map_tuple(lambda member: torch.from_numpy(decode(member)))
        .batched(BATCH)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=task.workers)
    return (_channels_first(pictures, task) for (pictures,) in loader)


def streaming(task: Task) -> Iterable[Any]:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory
    from torch.utils.data import DataLoader

    clean_stale_shared_memory()
    decode = decoder(task.decoder)

    class Pictures(StreamingDataset):
        def __getitem__(self, at: int) -> Tensor:
            return torch.from_numpy(decode(super().__getitem__(at)["picture"]))

    os.environ["S3_ENDPOINT_URL"] = os.environ.get("AWS_ENDPOINT_URL", "")
    remote = task.url if task.url.startswith("s3://") else None
    dataset = Pictures(remote=remote, local=task.cache if remote else task.url, shuffle=True, batch_size=BATCH)
    for part in dataset.streams:
        # Forked workers would share the connection that fetched the index, and take each other's answers.
        part._downloader.clean_up()
    loader = DataLoader(dataset, batch_size=BATCH, num_workers=task.workers)
    return (_channels_first(pictures, task) for pictures in loader)


def litdata(task: Task) -> Iterable[Any]:
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import downloader

    # Its client refuses the plain http of a server on loopback.
    downloader._OBSTORE_CLIENT_OPTIONS = {**downloader._OBSTORE_CLIENT_OPTIONS, "allow_http": True}
    decode = decoder(task.decoder)
    remote = task.url.startswith("s3://")
    dataset = StreamingDataset(
        task.url,
        cache_dir=task.cache if remote else None,
        shuffle=True,
        transform=lambda member: torch.from_numpy(decode(member)),
        max_pre_download=4,
    )
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=task.workers)
    return (_channels_first(pictures, task) for pictures in loader)


CONTENDERS: dict[str, Callable[[Task], Iterable[Any]]] = {
    "ours": ours,
    "webdataset": webdataset,
    "streaming": streaming,
    "litdata": litdata,
}


def _channels_first(pictures: Tensor, task: Task) -> Tensor:
    """[64, H, W, C] of decoders as a view of [64, C, H, W]; arrays are that already."""
    return pictures if task.kind == "npy" else pictures.permute(0, 3, 1, 2)


def decoder(name: str) -> Callable[[bytes], NDArray[np.uint8]]:
    """Encoded bytes -> uint8 [H, W, C]."""
    import simplejpeg
    from PIL import Image

    if name == "numpy":
        return lambda member: np.load(io.BytesIO(member))
    if name == "simplejpeg":
        return lambda member: simplejpeg.decode_jpeg(member, "RGB")
    # A copy, since torch wants memory that can be written.
    return lambda member: np.array(Image.open(io.BytesIO(member)))


def members(shards: Path) -> Iterator[bytes]:
    """The encoded pictures of WebDataset shards, in order."""
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                yield file.read()


def write_streaming(shards: Path, target: str, shard_bytes: int) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=target, columns={"picture": "bytes"}, size_limit=shard_bytes) as writer:
        for member in members(shards):
            writer.write({"picture": member})


def write_litdata(shards: Path, target: str, shard_bytes: int) -> None:
    from litdata.streaming.cache import Cache

    cache = Cache(target, chunk_bytes=shard_bytes)
    for number, member in enumerate(members(shards)):
        cache[number] = member
    cache.done()
    cache.merge()


WRITERS: dict[str, Callable[[Path, str, int], None]] = {"streaming": write_streaming, "litdata": write_litdata}


def read(name: str, began: float, cache: str, **task: Any) -> dict[str, Any]:
    """Read one epoch; every picture is touched, in one place. wall_s: from the process's start to the last batch."""
    shutil.rmtree(cache, ignore_errors=True)
    os.makedirs(cache)
    images, touched = 0, 0
    for batch in CONTENDERS[name](Task(cache=cache, **task)):
        assert batch.dtype == torch.uint8
        assert batch.shape[1] == 3
        images, touched = images + len(batch), touched + int(batch[:, 1, 0, 0].sum())
    return {"images": images, "touched": touched, "wall_s": time.time() - began}


def write(name: str, began: float, shards: str, target: str, shard_bytes: int) -> dict[str, Any]:
    shutil.rmtree(target, ignore_errors=True)
    WRITERS[name](Path(shards), target, shard_bytes)
    return {"seconds": time.time() - began}


def _tar_urls(url: str) -> list[str]:
    """Paths of shards; from S3 presigned URLs, which webdataset reads through curl."""
    if not url.startswith("s3://"):
        return [str(path) for path in sorted(Path(url).glob("*.tar"))]
    from botocore.config import Config
    from botocore.session import get_session

    config = Config(signature_version="s3v4")
    client = get_session().create_client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], config=config)
    bucket, _, folder = url.removeprefix("s3://").partition("/")
    found = client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/")["Contents"]
    keys = sorted(entry["Key"] for entry in found if entry["Key"].endswith(".tar"))
    return [client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}) for key in keys]


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = json.loads(sys.argv[1])
    print(json.dumps((write if "target" in asked else read)(**asked)))
