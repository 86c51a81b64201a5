import io
import os
import tarfile

import pytest

from slipway.errors import ExportError
from slipway.model.content import content_hash, pack, unpack

CONTENT = {"config.json": b"{}", "model.safetensors": b"\x00weights", "nested/ätna.txt": b"x"}


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of files: `folder(name, mtime)`."""

    def make(name, *, mtime=1_700_000_000):
        for path, data in CONTENT.items():
            place = tmp_path / name / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            os.utime(place, (mtime, mtime))
        return tmp_path / name

    return make


def test_equal_tar_if_the_content_is_equal(folder, tmp_path):
    """A copy is the same bytes whenever and wherever it is packed."""
    one, two = folder("one"), folder("two", mtime=1)
    (two / "config.json").chmod(0o600)
    assert pack(one, tmp_path / "one.tar").read_bytes() == pack(two, tmp_path / "two.tar").read_bytes()


def test_what_was_packed_comes_back(folder, tmp_path):
    """A copy gives the content that went into it."""
    back = unpack(pack(folder("one"), tmp_path / "one.tar"), tmp_path / "back")
    assert {str(path.relative_to(back)): path.read_bytes() for path in back.rglob("*") if path.is_file()} == CONTENT
    assert content_hash(back) == content_hash(tmp_path / "one")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../evil", tarfile.REGTYPE),
        ("/etc/evil", tarfile.REGTYPE),
        ("a/../../evil", tarfile.REGTYPE),
        ("link", tarfile.SYMTYPE),
        ("hard", tarfile.LNKTYPE),
        ("pipe", tarfile.FIFOTYPE),
    ],
)
def test_refused_if_a_member_would_escape(tmp_path, name, kind):
    """A copy that somebody else has put into the store writes nothing outside its folder."""
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, "/etc/passwd", 1 if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(ExportError, match=r"^evil\.tar is no copy of a source: .*Next: remove it from the store$"):
        unpack(tmp_path / "evil.tar", tmp_path / "out")
    assert {"evil.tar", "out"} == {path.name for path in tmp_path.iterdir()}
    assert list((tmp_path / "out").iterdir()) == []


def test_refused_if_it_is_no_tar(tmp_path):
    """Other bytes are refused in one line."""
    (tmp_path / "x.tar").write_bytes(b"nonsense")
    with pytest.raises(ExportError, match=r"^x\.tar is no copy of a source: .*Next: "):
        unpack(tmp_path / "x.tar", tmp_path / "out")
