"""Small files that unpack to much: they are refused within a limit of memory that a process of its own has."""

import io
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from imagegen_dist.data.index import DatasetError
from imagegen_dist.data.png import Png, profile_of_png
from imagegen_dist.data.sources.base import MAX_INFLATED
from imagegen_dist.data.sources.detect import open_source

READ = """
import resource, sys
import numpy as np
import pyarrow.parquet
from imagegen_dist.data.sources.detect import open_source
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = open_source(sys.argv[1])
try:
    for record in source.select(np.arange(source.count)).read():
        print(record.name, len(record.data), record.problem)
except ValueError as error:
    print("refused:", error)
print("MB:", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def read_within(limit_mb, path):
    """What reading all records says; it must take less memory than so much above what the imports take."""
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *lines, memory = done.stdout.splitlines()
    assert int(memory.removeprefix("MB: ")) < limit_mb, memory
    return lines


def write_zeros(archive, name, size):
    with archive.open(name, "w", force_zip64=True) as member:
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))


def test_a_zip_member_that_inflates_to_more_than_any_picture_is_left_out(tmp_path):
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        write_zeros(archive, "a.bmp", 260 << 20)
        archive.writestr("b.png", picture.getvalue())
    assert (tmp_path / "bomb.zip").stat().st_size < 4 << 20
    bomb, good = read_within(100, tmp_path / "bomb.zip")
    said = f"it inflates to 272,629,760 bytes, and at most {MAX_INFLATED:,} are unpacked"
    assert bomb == f"a.bmp 0 is damaged in the zip: {said}"
    assert good == f"b.png {len(picture.getvalue())} "


def test_a_zip_that_states_less_than_it_inflates_to_is_damaged(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        write_zeros(archive, "a.bmp", 300 << 20)
    data = (tmp_path / "bomb.zip").read_bytes()
    size = (300 << 20).to_bytes(4, "little")
    assert size in data
    (tmp_path / "bomb.zip").write_bytes(data.replace(size, (1000).to_bytes(4, "little")))
    assert read_within(100, tmp_path / "bomb.zip") == ["a.bmp 0 is damaged in the zip: its CRC differs"]


def test_huge_values_that_a_dictionary_repeats_are_read_one_by_one(tmp_path):
    value = bytes(24 << 20)
    repeated = pyarrow.DictionaryArray.from_arrays(np.zeros(64, np.int32), pyarrow.array([value], pyarrow.binary()))
    target = pyarrow.parquet.ParquetWriter(
        tmp_path / "bomb.parquet",
        pyarrow.schema([("image", repeated.type)]),
        **{"compression": "zstd", "store_schema": False, "write_statistics": False},
    )
    with target:
        target.write_table(pyarrow.table({"image": repeated}))
    assert (tmp_path / "bomb.parquet").stat().st_size < 1 << 14
    lines = read_within(300, tmp_path / "bomb.parquet")
    assert lines == [f"bomb.parquet row {row} {len(value)} " for row in range(64)]


def varint(value, length):
    """A number in so many bytes of seven bits, as Thrift's compact protocol has it. (its specification, zigzag)"""
    value <<= 1
    parts = [value >> shift & 127 for shift in range(0, 7 * length, 7)]
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])


def states_less_in_its_footer(path):
    """The sizes of unpacked data become 1,000; those in the headers of pages stay."""
    data = path.read_bytes()
    size = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
    assert varint(size, 5) in data or varint(size, 4) in data
    for length in (4, 5):
        data = data.replace(varint(size, length), varint(1000, length))
    path.write_bytes(data)
    assert pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size == 1000


@pytest.mark.parametrize("footer", ["tells", "lies"])
def test_pictures_that_inflate_beyond_all_measure_are_refused(tmp_path, footer):
    values = pyarrow.array([bytes(140 << 20)], pyarrow.binary())
    pyarrow.parquet.write_table(
        pyarrow.table({"image": values}),
        tmp_path / "bomb.parquet",
        **{"compression": "zstd", "use_dictionary": False, "write_statistics": False},
    )
    if footer == "lies":
        states_less_in_its_footer(tmp_path / "bomb.parquet")
    source = open_source(str(tmp_path / "bomb.parquet"))
    with pytest.raises(DatasetError, match=r"row group 0 inflate from [\d,]+ bytes to 146,8"):
        list(source.select(np.arange(1)).read())


def test_a_profile_or_text_that_inflates_without_end_costs_no_memory(tmp_path):
    """In a PNG: see test_formats for its pixels."""
    bomb = zlib.compress(bytes(64 << 20))
    assert profile_of_png(Png(1, 1, 8, 0, 0, b"", profile=b"name\0\0" + bomb)) == b""
