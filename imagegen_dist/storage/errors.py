"""Errors of storage, distinguished by whether repeating can help."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from imagegen_dist import wording
from imagegen_dist.credentials import without_credentials

_MISSING_CREDENTIALS = (
    "NoCredentialsError",  # botocore
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "MetadataRetrievalError",
    "TokenRetrievalError",
    "DefaultCredentialsError",  # google-auth
    "RefreshError",
    "TransportError",
    "CredentialUnavailableError",  # azure-identity
)
_OUTDATED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired", "RequestTimeTooSkewed")
"""S3's codes for outdated credentials, and for a clock that differs from that of the server."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class StorageError(OSError, ValueError):
    """Storage that cannot be read or written; one line that names the URL."""


class CredentialsError(StorageError):
    """Credentials were not found or have expired, or the clock differs from that of the server.

    A slow metadata service and a token that was not renewed in time cause this as well as missing credentials, so a
    later attempt with a new client, which looks for credentials again, may succeed.
    """


class AccessError(StorageError):
    """Storage that does not exist or refuses the credentials: repeating does not help."""


@contextmanager
def named(action: str, path: str) -> Iterator[None]:
    """Turn all errors of a file system into one line that names the path."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        if action == "write":
            raise AccessError(f"cannot write {path}: there is no such bucket or folder") from error
        raise FileNotFoundError(f"cannot {action} {path}: it does not exist") from error
    except Exception as error:  # clients raise errors of their own: botocore's and aiohttp's are not OSErrors
        raise _kind(error)(f"cannot {action} {path}: {first_line(error)}") from error


@contextmanager
def local_disk_errors(path: str) -> Iterator[None]:
    """Name a local file that cannot be written, so that a full disk is not reported as a fault of remote storage."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            real = os.path.realpath(path)
            place = os.path.dirname(real) if path.startswith("/dev/fd/") else real  # a file without a name
            raise StorageError(f"cannot write {place}: {first_line(error)}") from error
        raise


def first_line(error: BaseException) -> str:
    """The message of an error in one line without credentials in URLs, or its type if it has no message."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else wording.first_line(error)
    return without_credentials(text)


def error_code(error: BaseException | None) -> str:
    """The code in the response of S3 that caused an error, "" for other errors."""
    while error is not None:
        response: Any = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def _kind(error: Exception) -> type[StorageError]:
    if type(error).__name__ in _MISSING_CREDENTIALS or error_code(error) in _OUTDATED:
        return CredentialsError
    return AccessError if isinstance(error, PermissionError) else StorageError
