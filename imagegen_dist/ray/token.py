"""What to do where a Ray cluster wants a token, and this process has sent none or another one's."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from ray.exceptions import AuthenticationError

TOKEN_ADVICE = (
    "it wants its token: export RAY_AUTH_MODE=token, with the token in ~/.ray/auth_token, in a file that "
    "RAY_AUTH_TOKEN_PATH names, or in RAY_AUTH_TOKEN (on the head: ray get-auth-token)"
)


def keep_to_owner() -> None:
    """Take the rights of others from this user's ~/.ray/auth_token: Ray writes it with those that the umask leaves."""
    path = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and status.st_mode & 0o077:
            path.chmod(0o600)


def refused(error: BaseException) -> bool:
    """True if Ray has refused a request for want of the cluster's token."""
    said = str(error)
    return isinstance(error, AuthenticationError) or "Unauthorized" in said or "InvalidAuthToken" in said
