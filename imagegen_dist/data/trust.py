"""Which places an index, or a run's settings, may name: others write these files, and this machine opens the places."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from urllib.parse import unquote, urlsplit

from imagegen_dist.storage import Store

FLAG = "--allow-remote-shards"

# Their addresses are the client's own configuration, or there is no machine behind them.
_WITHOUT_HOSTS = frozenset(
    {"file", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "oss", "oci", "obs", "cos", "r2"}
)
# Metadata services of clouds that are not at link-local addresses.
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192")))


class UntrustedPlaceError(ValueError):
    """A place that a file of somebody else's names and that is not opened, in one line."""


def check_shards_place(index_at: Store, shards_url: str, remote: bool) -> None:
    """Raise UntrustedPlaceError where the shards of an index lie neither below its folder nor beside it.

    Beside: below the folder that holds the index's folder. remote: whether the user lets them lie elsewhere, which
    never includes this machine's own network addresses. Raises ValueError for what is no place.
    """
    if not re.match(r"/|[a-zA-Z][a-zA-Z0-9+.-]*://", shards_url):
        raise ValueError(f"shards_url is {shards_url!r}; an absolute path or a URL is needed")
    steps = re.split(r"[/\\]", unquote(shards_url))
    if ".." in steps or "." in steps or "\0" in shards_url:
        raise ValueError(f"shards_url is {shards_url!r}; it must not have '.' or '..' parts")
    place = Store(shards_url)
    if shards_are_near(index_at, place):
        return
    if not remote:
        raise UntrustedPlaceError(
            f"its shards are at {place}, which is neither below nor beside the index: give {FLAG} if you trust whoever "
            "wrote the index"
        )
    check_public(place.url)


def shards_are_near(index_at: Store, place: Store) -> bool:
    """True if a place is below the folder of the index, or below the one that holds it."""
    if index_at.protocol != place.protocol:
        return False
    here, there = index_at.url, place.url
    if index_at.protocol == "file":
        here, there = os.path.realpath(here), os.path.realpath(there)
    root = f"{index_at.protocol}:/" if "://" in here else ""
    parent = here.rpartition("/")[0]
    near = here if parent in ("", root) else parent
    return there == here or there.startswith(f"{near.rstrip('/')}/")


def check_public(url: str) -> None:
    """Raise UntrustedPlaceError where a URL leads to this machine, or to a link-local address such as a cloud's
    metadata service.
    """
    protocol, there_is_one, _ = url.partition("://")
    if not there_is_one or protocol.lower() in _WITHOUT_HOSTS:
        return
    host = urlsplit(url).hostname or ""
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return  # a client will not find it either
    for text in found:
        address = ipaddress.ip_address(text)
        address = getattr(address, "ipv4_mapped", None) or address
        local = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
        if local or address in _METADATA:
            raise UntrustedPlaceError(
                f"{url} is at {address}, an address of this machine or of its own network, which no file of another "
                "machine may name"
            )
