"""What to do where a Ray cluster wants a token, and this process has sent none or another one's."""

from __future__ import annotations

from ray.exceptions import AuthenticationError

TOKEN_ADVICE = (
    "it wants its token: export RAY_AUTH_MODE=token, with the token in ~/.ray/auth_token, in a file that "
    "RAY_AUTH_TOKEN_PATH names, or in RAY_AUTH_TOKEN (on the head: ray get-auth-token)"
)


def refused(error: BaseException) -> bool:
    """True if Ray has refused a request for want of the cluster's token."""
    said = str(error)
    return isinstance(error, AuthenticationError) or "Unauthorized" in said or "InvalidAuthToken" in said
