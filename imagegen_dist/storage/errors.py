"""What a place can fail with, told apart by whether trying again can help."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
"""S3's codes for credentials or a clock that differ from the server's."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class StorageError(OSError, ValueError):
    """A place that cannot be read or written, in one line that names its URL."""


class CredentialsError(StorageError):
    """Credentials that could not be found or have expired, or a clock that differs from the server's.

    A metadata service that was slow and a token that was not renewed in time cause this as well as a machine that has
    no credentials, so that a later attempt, with a client that looks for credentials anew, may succeed.
    """


class AccessError(StorageError):
    """A place that does not exist or refuses the credentials that were given: trying again does not help."""


@contextmanager
def named(action: str, path: str) -> Iterator[None]:
    """Turn whatever a file system raises into one line that names the path."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        if action == "write":
            raise AccessError(f"cannot write {path}: there is no such bucket or folder") from error
        raise FileNotFoundError(f"cannot {action} {path}: it does not exist") from error
    except Exception as error:  # clients raise errors of their own kinds: botocore's and aiohttp's are no OSErrors
        raise _kind(error)(f"cannot {action} {path}: {first_line(error)}") from error


@contextmanager
def local_room(path: str) -> Iterator[None]:
    """Name a local file that cannot be written, so that a full disk is not taken for a fault of the remote place."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            real = os.path.realpath(path)
            place = os.path.dirname(real) if path.startswith("/dev/fd/") else real  # a file without a name
            raise StorageError(f"cannot write {place}: {first_line(error)}") from error
        raise


def first_line(error: BaseException) -> str:
    """The error's message in one line without the credentials of its URLs, or its kind where it has none."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return without_credentials((text.strip().splitlines() or [type(error).__name__])[0])


def error_code(error: BaseException | None) -> str:
    """The code of S3's answer that an error came from, "" where it came from none."""
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
