"""Hostile copies of a source in the store: unpacked into the new folder alone, or refused in one line."""

import io
import shutil
import tarfile

import pytest
from hostile import LIMIT_KIB, accept_or_refuse, peak_kib, texts
from hypothesis import given
from hypothesis import strategies as st

from slipway.errors import ExportError
from slipway.model.content import pack_folder, unpack_folder

TYPES = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE,
         tarfile.GNUTYPE_SPARSE, b"Z"]  # fmt: skip
names = st.one_of(texts, st.lists(st.sampled_from(["a", "b", "..", ".", "", "c" * 300]), max_size=6).map("/".join))


def unpack(tmp_path, data):
    """Unpack a copy with these bytes; nothing may appear next to the new folder."""
    room = tmp_path / "room"
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    packed = tmp_path / "copy.tar"
    packed.write_bytes(data)
    accept_or_refuse(unpack_folder, packed, room / "new", refusals=ExportError)
    assert {path.name for path in room.iterdir()} == {"new"}
    assert not [path for path in (room / "new").rglob("*") if path.is_symlink()]


def tar_of(members, form=tarfile.PAX_FORMAT):
    """A tar with these members: name, type and content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogatepass") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name.replace("\ud800", "\udc80"))
            member.type, member.linkname, member.size = kind, "/etc/passwd", len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@given(st.lists(st.tuples(names, st.sampled_from(TYPES), st.binary(max_size=20)), max_size=5))
def test_any_members(tmp_path, members):
    """Whatever a copy's members are called and are, nothing is written outside the new folder."""
    unpack(tmp_path, tar_of(members))


@given(st.data())
def test_any_damage(tmp_path, data):
    """A copy with changed bytes, or cut off, is unpacked or refused."""
    (tmp_path / "source" / "nested").mkdir(parents=True, exist_ok=True)
    (tmp_path / "source" / "nested" / "ätna.txt").write_bytes(b"x" * 700)
    content = bytearray(pack_folder(tmp_path / "source", tmp_path / "good.tar").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, min(len(content), 2048) - 1))] = data.draw(st.integers(0, 255))
    unpack(tmp_path, bytes(content[: data.draw(st.sampled_from([len(content), 100, 512, 1100]))]))


@given(st.dictionaries(st.sampled_from(["path", "size", "mtime", "linkpath", "GNU.sparse.map", "GNU.sparse.major", "GNU.sparse.realsize",
                                        "GNU.sparse.name", "hdrcharset", "uid"]), texts, max_size=3))  # fmt: skip
def test_any_extended_header(tmp_path, records):
    """A PAX header's records, whatever they say of a member, lead to no other place."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogatepass") as tar:
        member = tarfile.TarInfo("a")
        member.pax_headers, member.size = (
            {key: value.replace("\x00", "").replace("\ud800", "") for key, value in records.items()},
            3,
        )
        tar.addfile(member, io.BytesIO(b"abc"))
    unpack(tmp_path, buffer.getvalue())


def test_a_sparse_member_is_refused(tmp_path):
    """A member of a few bytes that claims a terabyte of zeros fills no disk."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("zeros")
        member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.realsize": str(2**40), "GNU.sparse.size": str(2**40)}
        tar.addfile(member)
    (tmp_path / "copy.tar").write_bytes(buffer.getvalue())
    with pytest.raises(ExportError, match=r"its member 'zeros' is not a file or folder inside it"):
        unpack_folder(tmp_path / "copy.tar", tmp_path / "new")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_an_endless_header_is_refused(tmp_path, kind):
    """A header of hundreds of megabytes, which Python's tar reader would hold in memory, is not read."""
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 400 * 1024 * 1024
    with (tmp_path / "copy.tar").open("wb") as writer:
        writer.write(header.tobuf(tarfile.USTAR_FORMAT))
        writer.truncate(header.size + 2048)  # a hole: it takes no space on the disk
    before_kib = peak_kib()
    assert accept_or_refuse(unpack_folder, tmp_path / "copy.tar", tmp_path / "new", refusals=ExportError) is None
    assert peak_kib() - before_kib < LIMIT_KIB
