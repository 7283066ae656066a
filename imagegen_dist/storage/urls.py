"""Parse URLs of storage."""

from __future__ import annotations

import os
import re

import fsspec

from imagegen_dist.credentials import without_credentials
from imagegen_dist.storage.errors import StorageError

_PROTOCOL = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://")


def check_credentials(url: str) -> None:
    """Raise StorageError for a URL that contains credentials, which the error leaves out."""
    shown = without_credentials(url)
    if shown != url:
        raise StorageError(
            f"{shown} carries a password, token or signature: use the environment, a profile or an instance role "
            "instead"
        )


def parse(url: str) -> tuple[str, str]:
    """(protocol, root) of a URL; the root of a local path is absolute. Raises StorageError."""
    check_credentials(url)
    if "::" in url and "://" in url:
        raise StorageError(
            f"{url}: chained URLs are not supported; give the last one itself, e.g. {url.split('::')[-1]}"
        )
    match = _PROTOCOL.match(url)
    if match is None:
        return "file", os.path.abspath(os.path.expanduser(url))
    protocol = match[1].lower()
    if protocol in ("file", "local"):
        return "file", os.path.abspath(url[match.end() :])
    if protocol not in fsspec.available_protocols() and protocol not in fsspec.registry:
        raise StorageError(
            f"{url}: unknown protocol {protocol}://; use a local path, s3://, gs://, az://, hf:// or memory://"
        )
    return protocol, f"{protocol}://{url[match.end() :].rstrip('/')}"
