"""S3 and compatible stores, with literal keys and precise errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from fsspec.asyn import sync
from s3fs import S3FileSystem

from imagegen_dist.storage.errors import error_code, local_disk_errors
from imagegen_dist.storage.listing import Listing
from imagegen_dist.storage.remote import Progress, Remote, watch

# Many S3-compatible stores do not support the checksums that botocore requests by default.
_CONFIG = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
_CHUNK_BYTES = 1 << 20
_PART_BYTES = 64 << 20  # of an object that is uploaded in parts, of which S3 allows 10,000
_PARTS_AT_ONCE = 4
_DELETED_AT_ONCE = 1000  # the largest number of objects that S3 deletes in one request


class _LiteralS3FileSystem(S3FileSystem):
    """The file system of s3fs, with two corrections."""

    def split_path(self, path: str) -> tuple[str, str, None]:
        """(bucket, key, None), without the version that s3fs takes from a key with "?versionId="."""
        plain = self._strip_protocol(path).lstrip("/")
        if "/" not in plain:
            return plain, "", None
        bucket, key = self._find_bucket_key(plain)
        return bucket, key + path[len(path.rstrip("/")) :], None

    async def _call_s3(self, method: str, *options: Any, **more: Any) -> Any:
        """Repeat a refused HEAD, whose response has no body with the reason, as a GET, whose error is raised."""
        try:
            return await super()._call_s3(method, *options, **more)
        except OSError as error:
            if method not in ("head_object", "head_bucket") or error_code(error) not in ("400", "403"):
                raise
            asked = {"Bucket": more["Bucket"], **self.req_kw}
            if method == "head_bucket":
                await super()._call_s3("list_objects_v2", MaxKeys=1, **asked)
            else:
                answer = await super()._call_s3("get_object", Key=more["Key"], Range="bytes=0-0", **asked)
                answer["Body"].close()
            raise


class S3(Remote):
    """Objects by `s3://bucket/key`."""

    def __init__(self) -> None:
        super().__init__("s3", _LiteralS3FileSystem, config_kwargs=_CONFIG)
        # The callers of `download` repeat it themselves, count that and have a time limit, so the client does not.
        once = {**_CONFIG, "retries": {"total_max_attempts": 1}, "max_pool_connections": 32}
        self._once = _LiteralS3FileSystem(use_listings_cache=False, skip_instance_cache=True, config_kwargs=once)
        self._once.retries = 1

    def read(self, path: str) -> bytes:
        return bytes(self._fs.cat_file(path, max_concurrency=1))  # with more, s3fs asks for the size first

    def publish(self, path: str, produce: Callable[[Any], object]) -> None:
        output = _Upload(self._fs, path)
        try:
            produce(output)
            output.finish()
        except BaseException:
            output.abort()
            raise

    def download(self, path: str, local_path: str, timeout_s: float | None, stall_s: float | None) -> None:
        progress = Progress()
        watch(self._once, _fetch(self._once, path, local_path, progress), progress, timeout_s, stall_s)

    def exists(self, path: str) -> bool:
        if "/" not in str(self._fs._strip_protocol(path)):
            return self._has_bucket(path)
        return bool(self._fs.exists(path))

    def _has_bucket(self, path: str) -> bool:
        """True if the bucket exists. A refusal, which s3fs treats as False, is raised."""
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


class _Upload:
    """An object that is uploaded in parts while it is written, and that exists when `finish` has returned.

    At most _PARTS_AT_ONCE + 1 parts are in memory.
    """

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._bucket, self._key, _ = fs.split_path(path)
        self._buffer = bytearray()
        self._id = ""
        self._sent: list[Future[dict[str, Any]]] = []

    def write(self, data: bytes | memoryview) -> None:
        """Add to the content."""
        view = memoryview(data)
        while len(view) > 0:
            room = _PART_BYTES - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]
            if len(self._buffer) == _PART_BYTES:
                self._send()

    def finish(self) -> None:
        """Upload the rest and publish the object."""
        if not self._id:
            self._ask("put_object", Body=bytes(self._buffer)).result()
            return
        if self._buffer:
            self._send()
        parts = [{"PartNumber": number, "ETag": each.result()["ETag"]} for number, each in enumerate(self._sent, 1)]
        whole = {"UploadId": self._id, "MultipartUpload": {"Parts": parts}}
        self._ask("complete_multipart_upload", **whole).result()

    def abort(self) -> None:
        """Discard the parts."""
        for each in self._sent:
            each.cancel()
        if self._id:
            with suppress(Exception):  # the earlier error is the one to report
                self._ask("abort_multipart_upload", UploadId=self._id).result()

    def _send(self) -> None:
        if not self._id:
            self._id = self._ask("create_multipart_upload").result()["UploadId"]
        if len(self._sent) >= _PARTS_AT_ONCE:
            self._sent[-_PARTS_AT_ONCE].result()
        part = {"UploadId": self._id, "PartNumber": len(self._sent) + 1, "Body": bytes(self._buffer)}
        self._sent.append(self._ask("upload_part", **part))
        self._buffer.clear()

    def _ask(self, method: str, **more: Any) -> Future[dict[str, Any]]:
        asked = self._fs._call_s3(method, Bucket=self._bucket, Key=self._key, **more, **self._fs.req_kw)
        return asyncio.run_coroutine_threadsafe(asked, self._fs.loop)


async def _remove(fs: Any, path: str) -> None:
    """Delete the object at `path` and all below it, by their exact keys."""
    bucket, key, _ = fs.split_path(path)
    keys, _ = await _keys(fs, bucket, f"{key}/" if key else "")
    if key:
        with suppress(FileNotFoundError):
            await fs._call_s3("head_object", Bucket=bucket, Key=key, **fs.req_kw)
            keys.append(key)
    for start in range(0, len(keys), _DELETED_AT_ONCE):
        objects = [{"Key": each} for each in keys[start : start + _DELETED_AT_ONCE]]
        asked = {"Bucket": bucket, "Delete": {"Objects": objects, "Quiet": True}, **fs.req_kw}
        answer = await fs._call_s3("delete_objects", **asked)
        for failed in answer.get("Errors", ()):
            kind = PermissionError if failed.get("Code") == "AccessDenied" else OSError
            raise kind(f"{failed['Key']} was not deleted: {failed.get('Code', 'no reason was given')}")


async def _list(fs: Any, path: str) -> Listing:
    """List one folder of a bucket, and all keys below folders without a usable name, so that they can be counted."""
    bucket, key, _ = fs.split_path(path)
    folder = f"{key}/" if key else ""
    keys, prefixes = await _keys(fs, bucket, folder, delimiter="/")
    found = Listing.of(folder, keys, prefixes)
    unusable: list[str] = []
    for each in found.unusable:
        unusable += (await _keys(fs, bucket, each))[0] if each in prefixes else [each]
    return Listing(found.entries, tuple(f"s3://{bucket}/{each}" for each in unusable))


async def _keys(fs: Any, bucket: str, prefix: str, delimiter: str = "") -> tuple[list[str], list[str]]:
    """(the keys with this prefix, the common prefixes of other keys up to the next delimiter)."""
    keys, prefixes = list[str](), list[str]()
    page = {"Bucket": bucket, "Prefix": prefix, "Delimiter": delimiter, **fs.req_kw}
    while True:
        answer = await fs._call_s3("list_objects_v2", **page)
        keys += [entry["Key"] for entry in answer.get("Contents", ())]
        prefixes += [entry["Prefix"] for entry in answer.get("CommonPrefixes", ())]
        if not answer.get("IsTruncated"):
            return keys, prefixes
        page["ContinuationToken"] = answer["NextContinuationToken"]


async def _fetch(fs: Any, path: str, local_path: str, progress: Progress) -> None:
    """Download an object in one request, beginning where the local file ends.

    The `get_file` of s3fs starts over after a fault, and takes twice the CPU time above 50 MB.
    """
    bucket, key, _ = fs.split_path(path)
    with local_disk_errors(local_path), open(local_path, "ab") as file:
        begun = {"Range": f"bytes={file.tell()}-"} if file.tell() else {}
        response = await fs._call_s3("get_object", Bucket=bucket, Key=key, **begun, **fs.req_kw)
        progress.relative_update()
        async with response["Body"] as body:
            while chunk := await body.read(_CHUNK_BYTES):
                file.write(chunk)
                progress.relative_update(len(chunk))
