"""Safetensors files written one tensor at a time, without extra memory or disk space.

A file is the header's length in 8 bytes, the header, which is JSON padded with spaces, and the concatenated tensors.
(https://github.com/huggingface/safetensors, "Format") The library's own writers need a path or all bytes at once.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = 8


class Writable(Protocol):
    """Takes bytes in order."""

    def write(self, data: bytes | memoryview, /) -> object: ...


class Digest:
    """Passes bytes on, counting them and computing their SHA-256."""

    def __init__(self, file: Writable) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Pass bytes on."""
        self._file.write(data)
        self._sha256.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        """The SHA-256 of all bytes so far, in hexadecimal."""
        return self._sha256.hexdigest()


def write_tensors(tensors: Mapping[str, Tensor], file: Writable) -> None:
    """Write tensors as a safetensors file. Raises ValueError for a dtype that no checkpoint has."""
    ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))
    file.write(_header(ordered))
    for tensor in ordered.values():
        if tensor.numel():
            file.write(_bytes(tensor))


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    """Wider dtypes come first, so that every tensor is aligned."""
    described, at = dict[str, object](), 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"{name} has dtype {tensor.dtype}; a checkpoint stores {', '.join(_DTYPES.values())}")
        end = at + tensor.numel() * tensor.element_size()
        described[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _bytes(tensor: Tensor) -> memoryview:
    """A tensor's memory, without a copy if it is on the host."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
