"""The parts of Google Cloud's APIs that `ray up` and the autoscaler call, on loopback, in place of the real ones.

Bodies of requests are checked against the discovery documents that come with google-api-python-client: a field that the
API does not know, or a value that is none of a field's, is an answer of 400.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import googleapiclient
from googleapiclient import discovery

from tests import loopback

PROJECT = "tests-project"
_RULES = re.compile(r"/(?P<api>\w+)/(?:compute/)?(?:v1/)?projects/(?P<project>[\w-]+)(?P<rest>.*)")


@dataclass
class Cloud:
    """What was asked for. instances: bodies of new machines. roles: of each account. refused: why requests were."""

    instances: list[dict[str, Any]] = field(default_factory=list)
    accounts: set[str] = field(default_factory=set)
    policy: dict[str, Any] = field(default_factory=lambda: {"bindings": []})
    ssh_keys: str = ""
    refused: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        found = _RULES.fullmatch(path.partition("?")[0])
        if found is None or found["project"] != PROJECT:
            return self.refuse(f"{method} {path}")
        account = {"email": f"ray-autoscaler-sa-v1@{PROJECT}.iam.gserviceaccount.com", "projectId": PROJECT}
        api, rest = found["api"], found["rest"]
        if api == "cloudresourcemanager":
            if rest == ":setIamPolicy":
                self.policy = body["policy"]
            return 200, {"projectId": PROJECT, "lifecycleState": "ACTIVE"} if not rest else self.policy
        if api == "iam":
            if method == "POST":
                self.accounts.add(account["email"])
            return (200, account) if account["email"] in self.accounts else (404, {"error": {"code": 404}})
        if "operations/" in rest:
            return 200, {"name": "operation", "status": "DONE"}
        if rest.endswith("/subnetworks"):
            return 200, {"items": [{"selfLink": f"projects/{PROJECT}/regions/us-central1/subnetworks/default"}]}
        if rest == "/setCommonInstanceMetadata":
            self.ssh_keys = next(item["value"] for item in body["items"] if item["key"] == "ssh-keys")
            return 200, {"name": "operation"}
        if method == "POST" and rest.endswith("/instances"):
            if faults := list(unknown(body, "Instance")):
                return self.refuse(", ".join(faults))
            self.instances.append(body)
            return 200, {"name": "operation"}
        if not rest:
            return 200, {"name": PROJECT, "commonInstanceMetadata": {"items": []}}
        return self.refuse(f"{method} {path}")

    def refuse(self, why: str) -> tuple[int, Any]:
        self.refused.append(why)
        return 400, {"error": {"code": 400, "message": why}}


def unknown(value: Any, schema: str, where: str = "") -> Iterator[str]:
    """The fields and values of a body that the schema of Compute's API does not have."""
    yield from _unknown(value, {"$ref": schema}, where or schema)


def _unknown(value: Any, rule: dict[str, Any], where: str) -> Iterator[str]:
    rule = SCHEMAS[rule["$ref"]] if "$ref" in rule else rule
    if rule["type"] == "object" and "properties" in rule:
        if not isinstance(value, dict):
            yield f"{where} is no object"
            return
        for name, inner in value.items():
            if name in rule["properties"]:
                yield from _unknown(inner, rule["properties"][name], f"{where}.{name}")
            else:
                yield f"{where}.{name} is not known"
    elif rule["type"] == "array":
        for number, inner in enumerate(value if isinstance(value, list) else [value]):
            yield from _unknown(inner, rule["items"], f"{where}[{number}]")
        if not isinstance(value, list):
            yield f"{where} is no list"
    elif (rule["type"] == "boolean" and not isinstance(value, bool)) or ("enum" in rule and value not in rule["enum"]):
        yield f"{where} is {value!r}"


_DOCUMENTS = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
SCHEMAS: dict[str, Any] = json.loads((_DOCUMENTS / "compute.v1.json").read_text())["schemas"]


class _Handler(loopback.Handler):
    cloud: Cloud
    protocol_version = "HTTP/1.0"  # Ray leaves its clients' connections to the garbage collector

    def do_GET(self) -> None:
        content = self.body()
        self.answer(*self.cloud.answer(self.command, self.path, json.loads(content) if content else None))

    do_POST = do_GET


@contextmanager
def serving_gcp() -> Iterator[Cloud]:
    """The APIs in place of Google's for the block, for all clients of google-api-python-client."""
    cloud, build = Cloud(), discovery.build
    with loopback.serving(_Handler, cloud=cloud) as url:

        def build_here(name: str, version: str, **options: Any) -> Any:
            return build(name, version, client_options={"api_endpoint": f"{url}/{name}/"}, **options)

        with mock.patch.object(discovery, "build", build_here):
            yield cloud
