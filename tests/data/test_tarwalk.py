import io
import tarfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagegen_dist.data.tarwalk import Member, ShardError, walk


def tar(files, form=tarfile.USTAR_FORMAT, **fields):
    """A tar of (name, bytes); `fields` are set on the last member."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as archive:
        for number, (name, data) in enumerate(files):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if number == len(files) - 1:
                for field, value in fields.items():
                    setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def walk_bytes(data):
    return walk(lambda offset, length: data[offset : offset + length], len(data), "s.tar")


def with_checksum(header):
    header = bytearray(header)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


TWO = [("a.png", b"x" * 700), ("a.cls", b"7"), ("b.png", b"y" * 10), ("b.cls", b"1")]


def test_members_are_found_with_their_bytes():
    data = tar(TWO)
    members, ended = walk_bytes(data)
    assert ended
    assert [(m.name, data[m.offset : m.offset + m.size]) for m in members] == TWO


def test_the_key_is_the_name_to_the_first_dot_of_its_last_part():
    members, _ = walk_bytes(tar([("v1.2/a.seg.PNG", b""), ("./b.jpg", b""), ("README", b""), ("x/.hidden", b"")]))
    assert [(m.key, m.extension) for m in members] == [("v1.2/a", "seg.png"), ("./b", "jpg")]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.text("abcdéß/x", min_size=1, max_size=180), st.integers(0, 1500)), max_size=6),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_the_walk_agrees_with_tarfile(named, form):
    files = [(f"d/{number}{name.strip('/')}.png", bytes(size)) for number, (name, size) in enumerate(named)]
    data = tar(files, form)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(info.name, info.offset_data, info.size) for info in archive.getmembers()]
    assert [(m.name, m.offset, m.size) for m in walk_bytes(data).members] == expected


def test_the_ustar_prefix_is_part_of_the_name():
    name = f"{'p' * 120}/{'n' * 90}.png"
    assert walk_bytes(tar([(name, b"1")])).members[0].name == name


def test_a_size_in_base_256_is_read():
    data = bytearray(tar([("a.png", b"12345")]))
    data[124:136] = b"\x80" + (5).to_bytes(11, "big")
    data[:512] = with_checksum(data[:512])
    assert walk_bytes(bytes(data)).members == [Member("a", "png", 512, 5, "a.png")]


def test_directories_are_passed_over():
    data = tar([("folder", b"")], type=tarfile.DIRTYPE)[:512] + tar(TWO)
    assert len(walk_bytes(data).members) == 4


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.lists(st.tuples(st.integers(0, 4000), st.binary(max_size=9)), min_size=1, max_size=4),
    st.booleans(),
)
def test_damage_is_refused_or_harmless_but_nothing_else(form, damages, mend):
    data = bytearray(tar([("é" * 120 + ".png", b"x" * 700), ("b.png", b"y")], form))
    for start, piece in damages:
        data[start : start + len(piece)] = piece
    if mend:
        data[:512] = with_checksum(data[:512])
    with suppress(ShardError):
        walk_bytes(bytes(data))


def test_an_empty_file_is_refused():
    with pytest.raises(ShardError, match=r"s\.tar is empty: 0 bytes"):
        walk_bytes(b"")


@pytest.mark.parametrize("at", [0, 50, 130, 150, 257, 511])
def test_a_flipped_byte_in_a_header_is_refused(at):
    data = bytearray(tar(TWO))
    data[2560 + at] ^= 1
    with pytest.raises(ShardError, match="corrupt header at byte 2560"):
        walk_bytes(bytes(data))


def test_a_cut_in_a_header_is_refused():
    with pytest.raises(ShardError, match="cut in the header at byte 2560"):
        walk_bytes(tar(TWO)[: 2560 + 100])


def test_a_cut_in_data_names_the_member():
    with pytest.raises(ShardError, match=r"truncated in a\.png: it lacks 200 bytes"):
        walk_bytes(tar(TWO)[: 512 + 500])


def test_a_cut_between_members_is_told():
    assert walk_bytes(tar(TWO)[: 512 + 1024]) == ([Member("a", "png", 512, 700, "a.png")], False)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_cut_after_the_header_of_a_long_name_is_refused(form):
    data = tar([("é" * 150 + ".png", b"")], form)
    with pytest.raises(ShardError, match="cut after the header of a long name"):
        walk_bytes(data[:1024])


def test_archives_joined_end_to_end_are_refused():
    with pytest.raises(ShardError, match="data after its end mark"):
        walk_bytes(tar(TWO) + tar(TWO))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (tarfile.SYMTYPE, "a symbolic link: evil"),
        (tarfile.LNKTYPE, "a hard link: evil"),
        (tarfile.CHRTYPE, "a device: evil"),
        (tarfile.FIFOTYPE, "a named pipe: evil"),
        (b"S", "unknown type b'S': evil"),
    ],
)
def test_what_is_no_file_is_refused(kind, told):
    with pytest.raises(ShardError, match=told):
        walk_bytes(tar([("evil.png", b"")], type=kind, linkname="/etc/passwd"))


@pytest.mark.parametrize("name", ["../a.png", "a/../../b.png", "/etc/a.png"])
def test_names_outside_the_archive_are_refused(name):
    with pytest.raises(ShardError, match="outside the archive"):
        walk_bytes(tar([(name, b"")]))


def test_a_damaged_pax_record_is_refused():
    data = bytearray(tar([("é" * 150 + ".png", b"")], tarfile.PAX_FORMAT))
    data[512:516] = b"zzz "
    with pytest.raises(ShardError, match="corrupt PAX header"):
        walk_bytes(bytes(data))


def test_sparse_members_are_refused():
    with pytest.raises(ShardError, match="not supported"):
        walk_bytes(tar([("a.png", b"")], tarfile.PAX_FORMAT, pax_headers={"GNU.sparse.major": "1"}))


def test_a_huge_extended_header_is_refused_unread():
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    data = header.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(ShardError, match="at most"):
        walk(lambda offset, length: data[offset : offset + length], 1 << 31, "s.tar")
