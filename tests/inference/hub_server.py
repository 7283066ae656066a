"""A Hub on loopback: what huggingface_hub's own client needs to make a repository, push files to it and fetch them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from tests import loopback

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_secret"
_KIND = re.compile("^/api/(models|spaces)/")


@dataclass
class Hub:
    """repositories: what was pushed, by name. asked: what they were made with. tokens: what signed the requests."""

    endpoint: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)


class _Handler(loopback.Handler):
    hub: Hub

    def do_POST(self) -> None:
        body = self.body()
        path = urlsplit(self.path).path
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.hub.repositories[name], self.hub.asked[name] = {}, asked
            return self.answer(200, {"url": f"{self.hub.endpoint}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        name, _, rest = path.split("/", 3)[3].rpartition("/main")[0].rpartition("/")
        if rest == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        assert rest == "commit", path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                file = line["value"]
                self.hub.repositories[name][file["path"]] = base64.b64decode(file["content"])
        return self.answer(200, {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        name = "/".join(_KIND.sub("", path).strip("/").split("/")[:2])
        files = self.hub.repositories.get(name)
        if files is None:
            return self.answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if "/tree/" in path:
            return self.answer(200, [self._entry(file, content) for file, content in files.items()])
        if _KIND.match(path):
            siblings = [{"rfilename": file} for file in files]
            return self.answer(200, {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings})
        content = files[path.split("/resolve/")[1].partition("/")[2]]
        return self.answer(200, content, {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    @staticmethod
    def _entry(file: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": file, "size": len(content), "oid": _digest(content)}


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub that knows one token, on a free port."""
    hub = Hub()
    with loopback.serving(_Handler, hub=hub) as hub.endpoint:
        yield hub
