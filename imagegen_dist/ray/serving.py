"""Models on a Ray Serve cluster: replicas of the application that `imagegen serve` runs on one machine.

`serve deploy cluster/serve.yaml` calls `application` with the arguments of that file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ray import serve

from imagegen_dist import config
from imagegen_dist.errors import UsageError
from imagegen_dist.extensions import import_named
from imagegen_dist.serving.access import TOKEN, Access
from imagegen_dist.serving.app import create_app
from imagegen_dist.serving.served import Settings, named

_WAITING = 256  # requests of a replica, which wait for a batch there


def application(arguments: Mapping[str, Any]) -> serve.Application:
    """The application of Ray Serve.

    arguments: "checkpoints", a list of URLs; "package", the module that registers a model's own networks; "open": true
    to answer without a token; and the fields of `Settings`, such as "device", "engine", "most" and "follow_s". Each
    replica loads the models and has its own batches. Its environment holds IMAGEGEN_TOKEN, unless it is open. Raises
    UsageError for arguments that are not known or missing.
    """
    rest = dict(arguments)
    checkpoints, package, is_open = rest.pop("checkpoints", []), rest.pop("package", ""), rest.pop("open", False)
    if not checkpoints or not isinstance(checkpoints, list) or not all(isinstance(each, str) for each in checkpoints):
        raise UsageError("args.checkpoints is a list of runs, checkpoints or exported folders, one at least")
    try:
        settings = config.decode(Settings, rest)
    except (TypeError, ValueError) as error:
        raise UsageError(f"args: {error}") from error

    def build() -> Access:
        """The application of one replica."""
        token = os.environ.get(TOKEN, "")
        if not token and not is_open:
            raise UsageError(f"{TOKEN} is not set in this replica's environment: set it, or args.open: true")
        if package:
            import_named(package)
        return Access(create_app(named(checkpoints, settings)), token, ())

    deployment = serve.deployment(name="models", max_ongoing_requests=_WAITING)(serve.ingress(build)())
    return deployment.bind()
