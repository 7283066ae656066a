"""Walk the headers of a tar file to find the members of a shard and the positions of their bytes.

This is stricter than tarfile, which takes a corrupt header or a cut between two members for the end of the archive.
Here every header has a correct checksum, every member is complete and the end is marked; otherwise ShardError says what
is wrong. POSIX ustar and PAX, GNU long names, base-256 sizes. (POSIX.1-2017, pax, "ustar Interchange Format")
"""

import re
import zlib
from collections.abc import Callable
from typing import NamedTuple

from imagegen_dist.wording import counted

ReadAt = Callable[[int, int], bytes]
"""(offset, length) -> bytes; fewer than `length` only at the end of the file."""

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_REGULAR = (b"0", b"\0", b"7")
_REFUSED = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a named pipe"}
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"))
_MAGIC_BYTES = 8
_MAX_NAME_BYTES = 1 << 20
_KEY = re.compile(r"^((?:.*/)?[^./]+)[.]([^/]*)$", re.DOTALL)


class ShardError(ValueError):
    """A damaged or unsafe shard, in one line that names it and the member."""


class Member(NamedTuple):
    """One file of a shard."""

    key: str  # name up to the first dot of its last part: webdataset's rule
    extension: str  # the rest, in lower case, e.g. "png"
    offset: int  # first byte of its data
    size: int  # bytes
    name: str


class _Archive(NamedTuple):
    """The members of a shard in file order, and whether its end is marked by a block of zeros."""

    members: list[Member]
    ended: bool


def walk(read_at: ReadAt, size: int, shard: str) -> _Archive:
    """All regular members of a tar file that have a key; names without a dot and hidden names are left out.

    read_at: reads the file; size: its bytes; shard: its name, for errors.
    Raises ShardError for a corrupt or cut header, truncated data, links, devices, and names outside the archive.
    """
    members: list[Member] = []
    position, renamed = 0, _PLAIN
    if size == 0:
        raise ShardError(f"{shard} is empty: 0 bytes")
    beginning = read_at(0, _MAGIC_BYTES)
    if packer := next((name for magic, name in _MAGIC if beginning.startswith(magic)), ""):
        raise ShardError(f"{shard} is compressed ({packer}) and cannot be read in place: unpack it first")
    while position < size:
        header = read_at(position, _BLOCK)
        if header == _ZEROS:
            _check_tail(read_at, position, size, shard)
            break
        name, kind, length = _parse(header, position, shard)
        if renamed is not _PLAIN:
            name, length = renamed.path or name, length if renamed.size is None else renamed.size
        data = position + _BLOCK
        if data + length > size:
            raise ShardError(f"{shard} is truncated in {name}: it lacks {counted(data + length - size, 'byte')}")
        if kind in b"xgLK":
            renamed = _extend(renamed, kind, _read_names(read_at, data, length, name, shard), shard)
        else:
            renamed = _PLAIN
            if kind not in _REGULAR or name[:1] == "/" or ".." in name:
                _check_safe(kind, name, shard)
            match = _KEY.match(name)
            if match and kind in _REGULAR:
                members.append(Member(match[1], match[2].lower(), data, length, name))
        position = data + -(-length // _BLOCK) * _BLOCK
    if renamed is not _PLAIN:
        raise ShardError(f"{shard} is cut after the header of a long name at byte {position}")
    return _Archive(members, ended=position < size)


class _Renamed(NamedTuple):
    """What extended headers state about the member that follows them."""

    path: str = ""
    size: int | None = None


_PLAIN = _Renamed()


def _parse(header: bytes, position: int, shard: str) -> tuple[str, bytes, int]:
    """(name, type, size) in one header block, whose checksum is verified."""
    if len(header) < _BLOCK:
        raise ShardError(f"{shard} is cut in the header at byte {position}")
    stored = header[148:156]
    # Adler-32's low half is 1 + the sum of all bytes, modulo 65521. The checksum counts its own field as eight spaces.
    total = (zlib.adler32(header) & 0xFFFF) - 1 - sum(stored) + 8 * 0x20
    try:
        if (total - int(stored.strip(b" \0"), 8)) % 65521:
            raise ValueError("the checksum differs")
        size = _number(header[124:136])
    except ValueError as error:
        raise ShardError(f"{shard} has a corrupt header at byte {position}: {error}") from error
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and header[345]:
        name = f"{_text(header[345:500])}/{name}"
    return name, header[156:157], size


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or base 256 if the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", errors="backslashreplace")


def _read_names(read_at: ReadAt, offset: int, length: int, name: str, shard: str) -> bytes:
    if length > _MAX_NAME_BYTES:
        raise ShardError(
            f"{shard} has an extended header of {length} bytes at {name}; at most {_MAX_NAME_BYTES} are read"
        )
    return read_at(offset, length)


def _extend(renamed: _Renamed, kind: bytes, text: bytes, shard: str) -> _Renamed:
    """Add one extended header: GNU's long name (L; K is for links) or PAX records (x; g for all that follow)."""
    if kind == b"L":
        return renamed._replace(path=_text(text))
    if kind == b"K":
        return renamed
    records = _pax_records(text, shard)
    if any(name.startswith("GNU.sparse") for name in records) or (kind == b"g" and records.keys() & {"path", "size"}):
        raise ShardError(f"{shard} has PAX records that are not supported: {', '.join(records)}")
    size = _decimal(records["size"], shard) if "size" in records else renamed.size
    return _Renamed(records.get("path", renamed.path), size)


def _pax_records(text: bytes, shard: str) -> dict[str, str]:
    """The "length name=value\\n" records of a PAX header."""
    records = {}
    while text.strip(b"\0"):
        digits, _, _ = text.partition(b" ")
        length = _decimal(digits.decode("ascii", errors="replace"), shard)
        name, equals, value = text[len(digits) + 1 : length - 1].partition(b"=")
        if not equals or text[length - 1 : length] != b"\n":
            raise ShardError(f"{shard} has a corrupt PAX header")
        records[name.decode("utf-8", errors="backslashreplace")] = value.decode("utf-8", errors="backslashreplace")
        text = text[length:]
    return records


def _decimal(digits: str, shard: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise ShardError(f"{shard} has a corrupt PAX header: {digits[:20]!r} is not a number")
    return int(digits)


def _check_safe(kind: bytes, name: str, shard: str) -> None:
    if kind in _REFUSED:
        raise ShardError(f"{shard} has a member that is {_REFUSED[kind]}: {name}")
    if kind not in _REGULAR and kind != b"5":
        raise ShardError(f"{shard} has a member of unknown type {kind!r}: {name}")
    if name.startswith("/") or (".." in name and ".." in name.split("/")):
        raise ShardError(f"{shard} has a member outside the archive: {name}")


def _check_tail(read_at: ReadAt, position: int, size: int, shard: str) -> None:
    """Raise ShardError unless only zeros follow the end mark; other data would be samples that are lost."""
    for start in range(position, size, 1 << 20):
        if read_at(start, min(1 << 20, size - start)).strip(b"\0"):
            raise ShardError(f"{shard} has data after its end mark at byte {position}: archives joined end to end?")
