"""The unpacked sizes of the pages of a parquet file, from their headers: the footer of the file may state less.

(Apache Parquet, Data Pages; Thrift compact protocol)
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

_HEADER_BYTES = (1 << 10, 1 << 16, 1 << 22)  # read for one header, until it is complete
_UNPACKED, _PACKED = 2, 3  # field numbers of a page's header
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
_DEEPEST = 16


class DamagedPageError(ValueError):
    """The header of a page is damaged."""


class Page(NamedTuple):
    """One page of a column."""

    packed: int  # bytes in the file
    unpacked: int  # bytes in memory


def pages(read_range: Callable[[int, int], bytes], start: int, end: int) -> Iterator[Page]:
    """Yield the pages between two offsets of a file. read_range: reads the bytes between two offsets.

    Raises DamagedPageError.
    """
    while start < end:
        length, fields = _page_header(read_range, start, end)
        page = Page(fields.get(_PACKED, -1), fields.get(_UNPACKED, -1))
        if min(page) < 0:
            raise DamagedPageError("a page states no size")
        yield page
        start += length + page.packed


def _page_header(read_range: Callable[[int, int], bytes], start: int, end: int) -> tuple[int, dict[int, int]]:
    """(size of a page's header, its integers by field number)."""
    for most in _HEADER_BYTES:
        data = read_range(start, min(end, start + most))
        try:
            at, fields = _struct(data, 0)
            return at, fields
        except IndexError:
            if start + most >= end:
                break
    raise DamagedPageError("the header of a page is damaged")


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[int, dict[int, int]]:
    """(offset after a struct, its integers by field number); other fields are skipped."""
    fields: dict[int, int] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        kind = head & 15
        if kind in _INTEGERS:
            fields[number], at = _integer(data, at)
        elif kind not in _BOOLEANS:
            at = _past(data, at, kind, depth)
    return at + 1, fields


def _past(data: bytes, at: int, kind: int, depth: int) -> int:
    """The offset after a value. Raises DamagedPageError for an unknown type, IndexError if the data end before."""
    if depth > _DEEPEST:
        raise DamagedPageError("the header of a page is damaged")
    if kind in (*_BOOLEANS, _BYTE):
        return at + 1
    if kind in _INTEGERS:
        return _integer(data, at)[1]
    if kind == _DOUBLE:
        return at + 8
    if kind == _BINARY:
        length, at = _varint(data, at)
        return at + length
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)[0]
    if kind not in _LISTS:
        raise DamagedPageError("the header of a page is damaged")
    count, kind = data[at] >> 4, data[at] & 15
    at += 1
    if count == 15:
        count, at = _varint(data, at)
    for _ in range(count):
        at = _past(data, at, kind, depth + 1)
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, offset after it): seven bits in each byte, lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise DamagedPageError("the header of a page is damaged")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """(signed number, offset after it)."""
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
