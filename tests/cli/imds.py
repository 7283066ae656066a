"""EC2's instance metadata service on loopback: a real HTTP server that keeps the rules of IMDSv2."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tests import loopback

_HEADER = "X-aws-ec2-metadata-token"
_ROLES = "iam/security-credentials/"


class FakeIMDS:
    """Answers with a document only who shows a token that was put out here and has not run out.

    documents: by path below /latest/meta-data/. tokens: those put out. refused: requests without a good one.
    lent: how often the machine's role gave its credentials away. unanswered: requests that came in its sleep.
    """

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, str] | str] = {}
        self.tokens: list[str] = []
        self.refused = 0
        self.lent = 0
        self.unanswered = 0
        self.endpoint = ""
        self._awake = threading.Event()
        self._awake.set()

    def interrupt(self, seconds: float, action: str = "terminate") -> None:
        """From now on, say that the machine ends in so many seconds."""
        self.documents["spot/instance-action"] = {"action": action, "time": stamp(time.time() + seconds)}

    def recommend(self, seconds_ago: float) -> None:
        """From now on, say that since then an interruption is likely."""
        self.documents["events/recommendations/rebalance"] = {"noticeTime": stamp(time.time() - seconds_ago)}

    def lend(self, key_id: str, secret: str) -> None:
        """From now on, give the machine's role these credentials, good for some hours."""
        self.documents[_ROLES] = "role"
        self.documents[f"{_ROLES}role"] = {
            "Code": "Success",
            "AccessKeyId": key_id,
            "SecretAccessKey": secret,
            "Token": "session",
            "Expiration": stamp(time.time() + 6 * 3600),
        }

    def lend_nothing(self) -> None:
        """From now on, have no role."""
        self.documents.pop(_ROLES, None)

    def sleep(self) -> None:
        """From now on, take requests and answer none until `wake`."""
        self._awake.clear()

    def wake(self) -> None:
        """Answer again."""
        self._awake.set()

    def wait_until_awake(self) -> None:
        """Return once requests are to be answered."""
        self.unanswered += not self._awake.is_set()
        self._awake.wait()

    def forget_tokens(self) -> None:
        """Let all run out."""
        self.tokens = ["run out"] * len(self.tokens)


def stamp(unix_time: float) -> str:
    """As EC2 writes it, in whole seconds."""
    return datetime.fromtimestamp(unix_time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Handler(loopback.Handler):
    imds: FakeIMDS

    def do_PUT(self) -> None:
        self.imds.wait_until_awake()
        ttl = self.headers.get(f"{_HEADER}-ttl-seconds", "")
        if self.path != "/latest/api/token" or not ttl.isdecimal() or not 1 <= int(ttl) <= 21_600:
            return self.answer(400, b"")
        if "X-Forwarded-For" in self.headers:
            return self.answer(403, b"")
        self.imds.tokens.append(f"token-{len(self.imds.tokens)}")
        return self.answer(200, self.imds.tokens[-1].encode())

    def do_GET(self) -> None:
        self.imds.wait_until_awake()
        if self.headers.get(_HEADER) not in self.imds.tokens:
            self.imds.refused += 1
            return self.answer(401, b"")
        found = self.imds.documents.get(self.path.removeprefix("/latest/meta-data/"))
        self.imds.lent += isinstance(found, dict) and "SecretAccessKey" in found
        if found is None:
            return self.answer(404, b"")
        return self.answer(200, found.encode() if isinstance(found, str) else found)


@contextmanager
def serving() -> Iterator[FakeIMDS]:
    """The service for the block."""
    imds = FakeIMDS()
    with loopback.serving(_Handler, imds=imds) as imds.endpoint:
        try:
            yield imds
        finally:
            imds.wake()
