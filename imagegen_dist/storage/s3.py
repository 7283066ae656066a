"""S3 and stores that speak its language: keys are literal, and what a faulty answer means is asked for."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fsspec.asyn import sync
from s3fs import S3FileSystem

from imagegen_dist.storage.errors import error_code, local_room
from imagegen_dist.storage.listing import Listing
from imagegen_dist.storage.remote import Progress, Remote, watch

# Many S3-compatible stores cannot answer the checksums that botocore asks for by default.
_CONFIG = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
_CHUNK_BYTES = 1 << 20
_DELETED_AT_ONCE = 1000  # objects, the most that S3 takes in a request


class LiteralS3FileSystem(S3FileSystem):
    """s3fs's file system, with two things mended."""

    def split_path(self, path: str) -> tuple[str, str, None]:
        """(bucket, key, no version): s3fs cuts a key at "?versionId="."""
        plain = self._strip_protocol(path).lstrip("/")
        if "/" not in plain:
            return plain, "", None
        bucket, key = self._find_bucket_key(plain)
        return bucket, key + path[len(path.rstrip("/")) :], None

    async def _call_s3(self, method: str, *options: Any, **more: Any) -> Any:
        """A refused HEAD has no body, which would say why: the same is asked for by a GET, whose error is raised."""
        try:
            return await super()._call_s3(method, *options, **more)
        except OSError as error:
            if method not in ("head_object", "head_bucket") or error_code(error) not in ("400", "403"):
                raise
            bucket = more["Bucket"]
            if method == "head_bucket":
                await super()._call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)
            else:
                answer = await super()._call_s3("get_object", Bucket=bucket, Key=more["Key"], Range="bytes=0-0")
                answer["Body"].close()
            raise


class S3(Remote):
    """Objects by `s3://bucket/key`."""

    def __init__(self) -> None:
        super().__init__("s3", LiteralS3FileSystem, config_kwargs=_CONFIG)
        # Who downloads large files tries again by himself, counts that and has a time limit: no retries below him.
        once = {**_CONFIG, "retries": {"total_max_attempts": 1}, "max_pool_connections": 32}
        self._once = LiteralS3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=once)
        self._once.retries = 1

    def read(self, path: str) -> bytes:
        return bytes(self._fs.cat_file(path, max_concurrency=1))  # with more, s3fs asks for the size first

    def download(self, path: str, local_path: str, timeout_s: float | None, stall_s: float | None) -> None:
        progress = Progress()
        watch(self._once, _fetch(self._once, path, local_path, progress), progress, timeout_s, stall_s)

    def exists(self, path: str) -> bool:
        if "/" not in str(self._fs._strip_protocol(path)):
            return self._has_bucket(path)
        return bool(self._fs.exists(path))

    def _has_bucket(self, path: str) -> bool:
        """Whether there is such a bucket; a refusal, which s3fs takes for a no, is raised."""
        try:
            self._fs.ls(path, detail=False)
        except FileNotFoundError:
            return False
        return True

    def list(self, path: str) -> Listing:
        try:
            return sync(self._fs.loop, _list, self._fs, path)
        except FileNotFoundError:
            return Listing()

    def remove(self, path: str) -> None:
        sync(self._fs.loop, _remove, self._fs, path)


async def _remove(fs: Any, path: str) -> None:
    """Delete the object at `path` and all below it, by their exact keys."""
    bucket, key, _ = fs.split_path(path)
    keys, _ = await _keys(fs, bucket, f"{key}/" if key else "")
    if key:
        with suppress(FileNotFoundError):
            await fs._call_s3("head_object", Bucket=bucket, Key=key)
            keys.append(key)
    for start in range(0, len(keys), _DELETED_AT_ONCE):
        objects = [{"Key": each} for each in keys[start : start + _DELETED_AT_ONCE]]
        answer = await fs._call_s3("delete_objects", Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        for failed in answer.get("Errors", ()):
            kind = PermissionError if failed.get("Code") == "AccessDenied" else OSError
            raise kind(f"{failed['Key']} was not deleted: {failed.get('Code', 'no reason was given')}")


async def _list(fs: Any, path: str) -> Listing:
    """One folder of a bucket. Below what has no name, every key is listed, so that it can be counted."""
    bucket, key, _ = fs.split_path(path)
    folder = f"{key}/" if key else ""
    keys, prefixes = await _keys(fs, bucket, folder, delimiter="/")
    found = Listing.of(folder, keys, prefixes)
    unusable: list[str] = []
    for each in found.unusable:
        unusable += (await _keys(fs, bucket, each))[0] if each in prefixes else [each]
    return Listing(found.entries, tuple(f"s3://{bucket}/{each}" for each in unusable))


async def _keys(fs: Any, bucket: str, prefix: str, delimiter: str = "") -> tuple[list[str], list[str]]:
    """(the keys that begin so, what others begin with up to the delimiter that follows)."""
    keys, prefixes = list[str](), list[str]()
    page = {"Bucket": bucket, "Prefix": prefix, "Delimiter": delimiter}
    while True:
        answer = await fs._call_s3("list_objects_v2", **page)
        keys += [entry["Key"] for entry in answer.get("Contents", ())]
        prefixes += [entry["Prefix"] for entry in answer.get("CommonPrefixes", ())]
        if not answer.get("IsTruncated"):
            return keys, prefixes
        page["ContinuationToken"] = answer["NextContinuationToken"]


async def _fetch(fs: Any, path: str, local_path: str, progress: Progress) -> None:
    """Download an object in one request, from where the local file ends.

    s3fs's own `get_file` begins anew after a fault, and takes twice the processor time above 50 MB.
    """
    bucket, key, _ = fs.split_path(path)
    with local_room(local_path), open(local_path, "ab") as file:
        begun = {"Range": f"bytes={file.tell()}-"} if file.tell() else {}
        response = await fs._call_s3("get_object", Bucket=bucket, Key=key, **begun)
        progress.relative_update()
        async with response["Body"] as body:
            while chunk := await body.read(_CHUNK_BYTES):
                file.write(chunk)
                progress.relative_update(len(chunk))
