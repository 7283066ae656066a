"""Which places an index or the settings of a run may name: others may have written these files."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from urllib.parse import unquote, urlsplit

from imagegen_dist.storage import Store

FLAG = "--allow-remote-shards"

# Protocols whose address is configured in the client, or which have no server.
_WITHOUT_HOSTS = frozenset(
    {"file", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "oss", "oci", "obs", "cos", "r2"}
)
# Cloud metadata services that are not at link-local addresses.
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192")))


class UntrustedPlaceError(ValueError):
    """A place that is named by an untrusted file and therefore not opened."""


def check_shards_place(index_at: Store, shards_url: str, remote: bool) -> None:
    """Raise UntrustedPlaceError if the shards of an index are neither below its folder nor beside it.

    Beside means below the parent of the index's folder. remote: whether the user allows other places, which never
    include addresses of this machine or its local network. Raises ValueError for a text that is not a place.
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
    """True if a place is below the folder of the index, or below the parent of that folder."""
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
    """Raise UntrustedPlaceError for a URL of this machine, or of a link-local address such as a metadata service."""
    protocol, there_is_one, _ = url.partition("://")
    if not there_is_one or protocol.lower() in _WITHOUT_HOSTS:
        return
    host = urlsplit(url).hostname or ""
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return  # the client cannot find it either
    for text in found:
        address = ipaddress.ip_address(text)
        address = getattr(address, "ipv4_mapped", None) or address
        local = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
        if local or address in _METADATA:
            raise UntrustedPlaceError(
                f"{url} is at {address}, an address of this machine or its local network, which a file from another "
                "machine may not name"
            )
