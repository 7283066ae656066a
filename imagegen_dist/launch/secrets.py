"""Secrets stay where they are: in none of a run's records, and in nothing that Ray shows of a job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from imagegen_dist.credentials import is_secret
from imagegen_dist.launch.flags import UsageError

_SHORTEST = 8
"""Characters of a secret: what is shorter may be in a text by chance."""


def check_secrets(document: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Raise UsageError where a secret of the environment is in a run's config.json, or in a Ray job's runtime_env.

    Neither the message nor anything else says its value.
    """
    text = json.dumps(document)
    for name, value in environment.items():
        if is_secret(name) and len(value) >= _SHORTEST and value in text:
            raise UsageError(f"the value of {name} is among the settings, which config.json shows: take it out of them")
    job = json.loads(environment.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    shown = (job.get("runtime_env") or {}).get("env_vars") or {}
    for name in shown:
        if is_secret(name):
            raise UsageError(
                f"runtime_env has {name}, which Ray's dashboard and logs show: keep it on the machines, in a file such "
                "as ~/.netrc or as an instance role, and submit without it"
            )
