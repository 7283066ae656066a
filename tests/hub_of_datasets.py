"""A Hub on loopback with repositories to read: what huggingface_hub's file system asks of one, and no more."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests import loopback

Repositories = Mapping[str, Mapping[str, Mapping[str, bytes]]]
"""Files by their names, by revision, by repository: "datasets/somebody/name" or "models/somebody/name"."""

GATED = "models/somebody/gated"


class _Handler(loopback.Handler):
    repositories: Repositories

    def do_GET(self) -> None:
        path = urlsplit(self.path).path  # a revision's slashes are quoted
        api = re.fullmatch(
            r"/api/((?:datasets|models)/[^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+))?/?(.*)", path
        )
        if api:
            return self._asked(unquote(api[1]), api[2] or "", unquote(api[3] or "main"), unquote(api[4]))
        found = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not found:
            return self._missing("EntryNotFound")  # what newer clients ask besides
        files = self._files(f"{found[1] or 'models/'}{found[2]}", unquote(found[3]))
        content = None if files is None else files.get(unquote(found[4]))
        return self._missing("EntryNotFound") if content is None else self._content(content)

    do_HEAD = do_POST = do_GET

    def _asked(self, repository: str, what: str, revision: str, path: str) -> None:
        """The programming interface."""
        body = self.body()
        if repository == GATED:
            return self.answer(403, {"error": "You must accept its terms."}, {"X-Error-Code": "GatedRepo"})
        if repository not in self.repositories:
            return self._missing("RepoNotFound")
        files = self._files(repository, revision)
        if files is None:
            return self._missing("RevisionNotFound")
        if what == "tree":
            entries = self._tree(files, path)
            return self.answer(200, entries) if entries or not path else self._missing("EntryNotFound")
        if what == "paths-info":
            wanted = parse_qs(body.decode())["paths"] if b"paths=" in body else json.loads(body)["paths"]
            around = [entry for name in wanted for entry in self._tree(files, name.rpartition("/")[0])]
            return self.answer(200, [entry for entry in around if entry["path"] in wanted])
        name = repository.partition("/")[2]
        return self.answer(200, {"id": name, "modelId": name, "sha": "c0ffee", "siblings": []})

    def _files(self, repository: str, revision: str) -> Mapping[str, bytes] | None:
        return self.repositories.get(repository, {}).get(revision)

    @staticmethod
    def _tree(files: Mapping[str, bytes], folder: str) -> list[dict[str, Any]]:
        """One level."""
        prefix, entries = f"{folder}/" if folder else "", dict[str, dict[str, Any]]()
        for name, content in files.items():
            if name.startswith(prefix):
                first, deeper, _ = name[len(prefix) :].partition("/")
                oid = hashlib.sha1(content).hexdigest()
                kind = {"type": "directory", "size": 0} if deeper else {"type": "file", "size": len(content)}
                entries[first] = {"path": prefix + first, "oid": oid, **kind}
        return list(entries.values())

    def _content(self, content: bytes) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        part = content[int(span[1]) : int(span[2] or len(content)) + 1] if span else content
        self.answer(206 if span else 200, part, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def _missing(self, code: str) -> None:
        self.answer(404, {"error": code}, {"X-Error-Code": code})


def serving(repositories: Repositories) -> AbstractContextManager[str]:
    """The endpoint of a Hub with these repositories."""
    return loopback.serving(_Handler, repositories=repositories)
