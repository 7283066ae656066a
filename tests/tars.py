"""Tar archives in memory, with members as they are given."""

import io
import tarfile
from collections.abc import Iterable


def tar_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    """An archive of (name, content) in this order."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()
