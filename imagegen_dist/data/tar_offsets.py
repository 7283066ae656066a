"""Where each sample of a shard lies, kept on the node: its headers are walked by one process once, and not by each.

A walk takes some microseconds a member, which every loader process would pay for every shard in every epoch.
"""

import hashlib
import os
import uuid
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imagegen_dist.data.index import ShardInfo
from imagegen_dist.data.node_folder import PLACES, NodeFolder
from imagegen_dist.data.shard import PLACE

_CRC_BYTES = 4


class KnownPlaces:
    """Places by the shard's SHA-256; a file that does not fit its shard counts as absent."""

    def __init__(self, folder: NodeFolder, extensions: Sequence[str]) -> None:
        self._folder = folder
        self._kind = hashlib.sha256(repr((*extensions, PLACE.descr)).encode()).hexdigest()[:8]

    def load(self, info: ShardInfo, stamp: int) -> NDArray[np.void] | None:
        """Places of a shard's samples, [n], or None where they are not known.

        stamp: distinguishes states of a file that is read in place, by its time of modification.
        """
        path = self._folder.path / self._name(info, stamp)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        content = data[:-_CRC_BYTES]
        if len(content) != info.samples * PLACE.itemsize or zlib.crc32(content).to_bytes(4, "little") != data[-4:]:
            return None
        return np.frombuffer(content, PLACE)

    def keep(self, info: ShardInfo, stamp: int, places: NDArray[np.void]) -> None:
        """Write down a shard's places; a full disk is no fault."""
        content = places.tobytes()
        partial = self._folder.path / f"{uuid.uuid4().hex}.part"
        try:
            partial.write_bytes(content + zlib.crc32(content).to_bytes(_CRC_BYTES, "little"))
            os.replace(partial, self._folder.path / self._name(info, stamp))
        except OSError:
            partial.unlink(missing_ok=True)
        else:
            self._folder.sweep(len(content))

    def _name(self, info: ShardInfo, stamp: int) -> str:
        return f"{info.sha256}-{stamp}-{self._kind}{PLACES}"
