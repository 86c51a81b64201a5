import io
import os
import tarfile

import pytest

from slipway.errors import ExportError
from slipway.model.content import content_hash, pack_folder, unpack_folder, write_model_layer

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
    """A copy has the same bytes whenever and wherever it is packed."""
    one, two = folder("one"), folder("two", mtime=1)
    (two / "config.json").chmod(0o600)
    assert pack_folder(one, tmp_path / "one.tar").read_bytes() == pack_folder(two, tmp_path / "two.tar").read_bytes()


def test_unpacked_content_is_the_packed_content(folder, tmp_path):
    """Unpacking a copy gives the content that was packed."""
    back = unpack_folder(pack_folder(folder("one"), tmp_path / "one.tar"), tmp_path / "back")
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
def test_refused_if_a_member_is_outside_the_folder(tmp_path, name, kind):
    """A copy from the store, whoever put it there, writes nothing outside its folder."""
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, "/etc/passwd", 1 if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(ExportError, match=r"^evil\.tar is not a copy of a source: .*Next: remove it from the store$"):
        unpack_folder(tmp_path / "evil.tar", tmp_path / "out")
    assert {"evil.tar", "out"} == {path.name for path in tmp_path.iterdir()}
    assert list((tmp_path / "out").iterdir()) == []


def test_refused_if_it_is_not_a_tar(tmp_path):
    """Other bytes are refused in one line."""
    (tmp_path / "x.tar").write_bytes(b"nonsense")
    with pytest.raises(ExportError, match=r"^x\.tar is not a copy of a source: .*Next: "):
        unpack_folder(tmp_path / "x.tar", tmp_path / "out")


SAVED_MODEL = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"i",
    "variables/variables.data-00000-of-00001": b"d",
}


def test_content_hash_ignores_times_modes_and_order(saved_model):
    """Equal content has an equal hash, whenever and however it was written."""
    one, two = saved_model("one", SAVED_MODEL), saved_model("two", dict(reversed(SAVED_MODEL.items())), mtime=1)
    (two / "saved_model.pb").chmod(0o600)
    assert content_hash(one) == content_hash(two)


CHANGES = {
    "a byte": {**SAVED_MODEL, "saved_model.pb": b"grapg"},
    "a name": {"saved_model.pbtxt": b"graph", **{name: data for name, data in SAVED_MODEL.items() if name != "saved_model.pb"}},
    "a folder": {**{name: data for name, data in SAVED_MODEL.items() if name != "saved_model.pb"}, "variables/saved_model.pb": b"graph"},
    "one file more": {**SAVED_MODEL, "assets/vocabulary.txt": b""},
    "one file less": {"saved_model.pb": b"graph"},
}  # fmt: skip


@pytest.mark.parametrize("content", CHANGES.values(), ids=CHANGES)
def test_content_hash_changes_with_the_content(saved_model, content):
    """Names, folders and bytes are content."""
    assert content_hash(saved_model("one", SAVED_MODEL)) != content_hash(saved_model("two", content))


def test_refused_if_the_folder_does_not_exist(tmp_path):
    """A missing folder is refused; the message names it."""
    with pytest.raises(ExportError, match=r"gone: no such folder\. Next: "):
        content_hash(tmp_path / "gone")


def layer_of(folder, tmp_path):
    """The bytes of a SavedModel's layer."""
    layer = tmp_path / f"{folder.name}.tar"
    write_model_layer(folder, "/models/digits-vit/7", layer)
    return layer.read_bytes()


def test_same_layer_if_the_content_is_the_same(saved_model, tmp_path):
    """Two folders with equal content hashes give layers with equal bytes, despite other times and empty folders."""
    one = saved_model("one", SAVED_MODEL)
    two = saved_model("two", dict(reversed(SAVED_MODEL.items())), mtime=1, empty=())
    assert content_hash(one) == content_hash(two)
    assert layer_of(one, tmp_path) == layer_of(two, tmp_path)


def test_layer_has_the_model_with_fixed_times_and_owners(saved_model, tmp_path):
    """Each folder has its own entry, and no entry shows who wrote it and when."""
    layer_of(saved_model("one", SAVED_MODEL), tmp_path)
    with tarfile.open(tmp_path / "one.tar") as tar:
        entries = tar.getmembers()
        assert tar.extractfile("models/digits-vit/7/saved_model.pb").read() == b"graph"
    assert [entry.name for entry in entries if entry.isdir()] == [
        "models",
        "models/digits-vit", "models/digits-vit/7", "models/digits-vit/7/variables",
    ]  # fmt: skip
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries} == {(0, 0, 0, "", "")}
    assert {entry.mode for entry in entries if entry.isfile()} == {0o644}
    assert {entry.mode for entry in entries if entry.isdir()} == {0o755}
