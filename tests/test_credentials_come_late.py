"""Credentials that come late, run out, or do not fit the clock: tried again with a fresh client, then final."""

import time
from unittest import mock

import pytest

from imagegen_dist.storage import AccessError, CredentialsError, Store, forget_clients
from tests.cli.imds import serving
from tests.s3.server import KEY_ID, SECRET


@pytest.fixture
def imds(bucket, monkeypatch):
    """The machine's own credentials are the only ones, and its metadata service has none to lend yet."""
    with serving() as service:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint)
        monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "1")
        forget_clients()
        yield service


@pytest.fixture
def pauses(monkeypatch):
    """Pauses between attempts, which take no time here; the last entry's action is run at the first."""
    taken, actions = [], []

    def sleep(seconds):
        taken.append(seconds)
        if actions:
            actions.pop(0)()

    monkeypatch.setattr(time, "sleep", sleep)
    return mock.Mock(taken=taken, then=actions.append)


@pytest.mark.parametrize("fault", ["sleeps", "has no role"])
def test_a_metadata_service_that_lends_nothing_for_a_while_is_outlasted(bucket, imds, pauses, fault):
    if fault == "sleeps":
        imds.lend(KEY_ID, SECRET)
        imds.sleep()
        pauses.then(imds.wake)
    else:
        pauses.then(lambda: None)
        pauses.then(lambda: imds.lend(KEY_ID, SECRET))
    store = Store(bucket.url, patience_s=60.0)
    (store / "run").write("a", b"content")
    assert len(pauses.taken) == (1 if fault == "sleeps" else 2)
    assert (store / "run").read("a") == b"content"
    assert imds.lent == 1


def test_a_download_that_found_no_credentials_finds_them_at_the_next_attempt(bucket, imds, tmp_path):
    (bucket.folder / "a").write_bytes(b"content")
    store = Store(bucket.url)
    with pytest.raises(CredentialsError, match=f"cannot read {bucket.url}/a: Unable to locate credentials"):
        store.download("a", tmp_path / "a")
    imds.lend(KEY_ID, SECRET)
    store.download("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"content"


def test_credentials_that_never_come_end_in_one_line_when_patience_does(bucket, imds):
    started = time.monotonic()
    with pytest.raises(CredentialsError) as error:
        Store(bucket.url, patience_s=0.5).write("a", b"content")
    assert str(error.value) == f"cannot write {bucket.url}/a: Unable to locate credentials"
    assert 0.1 < time.monotonic() - started < 20


ACTIONS = {
    "GET": lambda store: store.read("a") == b"content",
    "HEAD": lambda store: store.size("a") == 7,
    "PUT": lambda store: store.write("b", b"new") is None,
    "DELETE": lambda store: store.remove("a") is None,
}


@pytest.mark.parametrize(
    ("verb", "kind"),
    [("GET", "expired"), ("HEAD", "skewed"), ("HEAD", "expired"), ("PUT", "skewed"), ("DELETE", "expired")],
)
def test_a_clock_that_differs_and_a_token_that_expired_are_tried_again_with_a_fresh_client(
    bucket, network, imds, pauses, verb, kind
):
    imds.lend(KEY_ID, SECRET)
    (bucket.folder / "a").write_bytes(b"content")
    network.inject(kind, share=1.0, match="")
    pauses.then(network.heal)
    assert ACTIONS[verb](Store(bucket.url, patience_s=60.0))
    assert network.done[kind] >= 1
    assert len(pauses.taken) == 1
    assert imds.lent == 2


@pytest.mark.parametrize("verb", ["HEAD", "PUT"])
def test_a_refusal_is_final_at_once(bucket, network, pauses, verb):
    (bucket.folder / "a").write_bytes(b"content")
    network.inject("denied", share=1.0, match="")
    with pytest.raises(AccessError, match=f"cannot [a-z]+ {bucket.url}/[ab]: "):
        ACTIONS[verb](Store(bucket.url, patience_s=60.0))
    assert pauses.taken == []
