"""The token that clients of a server have to know."""

from __future__ import annotations

import re

from imagegen_dist.errors import UsageError

_SHORTEST = 16
_FORM = re.compile(r"[\w-]+", re.ASCII)


def check_token(token: str) -> str:
    """A token as it is, "" for none. Raises UsageError for one that is easily guessed, or that no header can carry."""
    if token and len(token) < _SHORTEST:
        raise UsageError(f"a token has at least {_SHORTEST} characters: leave it out for a random one")
    if token and not _FORM.fullmatch(token):
        raise UsageError("a token consists of letters, digits, - and _: leave it out for a random one")
    return token
