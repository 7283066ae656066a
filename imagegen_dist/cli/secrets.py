"""Secrets stay where they are: not in a job's records, not on its command line, not in what Ray shows of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from imagegen_dist.credentials import is_connection, is_secret, password_of, token_kind, without_credentials
from imagegen_dist.documents import parse_json
from imagegen_dist.errors import UsageError

_SHORTEST = 8
"""Characters of a secret: what is shorter may be in a text by chance."""

_NO_SECRETS = ("", "0", "1", "true", "false")


def check_secrets(document: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Raise UsageError where a secret is in a run's config.json, or in a Ray job's runtime_env.

    That is the value of a secret variable of the environment, a URL with credentials, or what has a token's shape.
    Neither the message nor anything else says its value.
    """
    if found := _found(_strings(document), environment):
        raise UsageError(f"{found} among the settings, which config.json shows: take it out of them")
    _check_job(environment)


def check_words(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raise UsageError where a secret, as in `check_secrets`, is on a job's command line or in its runtime_env."""
    for word in words:
        shown = without_credentials(word)
        if shown != word:
            raise UsageError(
                f"{shown} carries a password, token or signature: use the environment, a profile or an instance role "
                "instead"
            )
    if found := _found(words, environment):
        raise UsageError(
            f"{found} on the command line, which the list of processes and Ray's dashboard show: take it out, and keep "
            "it in the environment or in a file"
        )
    _check_job(environment)


def _check_job(environment: Mapping[str, str]) -> None:
    """Raise UsageError where what this Ray job was submitted with holds a secret. Does nothing where this is no job."""
    job = parse_json(environment.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    runtime_env = job.get("runtime_env") or {}
    for name, value in (runtime_env.get("env_vars") or {}).items():
        if _shows_secret(name, str(value)):
            raise UsageError(
                f"runtime_env has {name}, which Ray's dashboard and logs show: keep it on the machines, in a file such "
                "as ~/.netrc or as an instance role, and submit without it"
            )
    for part in ("runtime_env", "metadata"):
        if found := _found(_strings(job.get(part) or {}), {}):
            raise UsageError(
                f"{found} in the job's {part}, which Ray's dashboard and logs show: keep it on the machines, and "
                "submit without it"
            )


def _shows_secret(name: str, value: str) -> bool:
    """True if a variable's name says that its value is a secret, or if the value holds one."""
    if value.lower() in _NO_SECRETS:
        return False
    if _kind_of(value):
        return True
    return is_secret(name) and not (is_connection(name) and "://" in value)


def _found(texts: Sequence[str] | Iterator[str], environment: Mapping[str, str]) -> str:
    """What was found in the texts, in the words that begin a sentence; "" for nothing."""
    secrets = {form: name for name, value in environment.items() for form in _forms(name, value)}
    for text in texts:
        for form, name in secrets.items():
            if form in text:
                return f"the value of {name} is"
        if kind := _kind_of(text):
            return f"{kind} is"
    return ""


def _kind_of(text: str) -> str | None:
    """What in a text is a secret by its shape."""
    return "a URL with credentials" if without_credentials(text) != text else token_kind(text)


def _forms(name: str, value: str) -> set[str]:
    """How the secret of a variable may be written: as it is, without quotes around it, encoded for a URL."""
    secret = password_of(value) if "://" in value else value if is_secret(name) else None
    if secret is None:
        return set()
    bare = secret.strip().strip("\"'")
    return {form for form in (secret, bare, quote(bare), quote(bare, safe="")) if len(bare) >= _SHORTEST}


def _strings(value: Any) -> Iterator[str]:
    """All texts in JSON data that are values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)
