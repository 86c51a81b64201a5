"""Sources: which files are fetched, and what is refused before anything is opened."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from errors import ExportRefused
from sources import check_checkpoint, find_savedmodel, plain_url, unpack, wanted_files

MANY = 1 << 30
CONFIGS = ["config.json", "preprocessor_config.json"]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["model.safetensors", "tf_model.h5", "pytorch_model.bin"], ["model.safetensors"]),
        (["tf_model.h5", "flax_model.msgpack", "README.md"], ["tf_model.h5"]),
        (["tf_model.h5", "model.safetensors.index.json"], ["model.safetensors.index.json"]),
        (
            ["model.safetensors.index.json", "model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"],
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
    ],
)
def test_one_set_of_weights_is_fetched(there, expected):
    """The configs and one set of weights are fetched, safetensors if there are any, and nothing that needs unpickling."""
    assert [*CONFIGS, *expected] == wanted_files([*there, *CONFIGS], where="here", allow=frozenset({"h5"}))


def test_old_format_needs_leave():
    """Weights in HDF5 are refused, in words that say what they risk, unless the model file allows them."""
    with pytest.raises(
        ExportRefused, match=r"^here: its weights are in tf_model\.h5, in the old format HDF5.*allow to \[h5\]"
    ):
        wanted_files([*CONFIGS, "tf_model.h5"], where="here", allow=frozenset())
    with pytest.raises(ExportRefused, match=r"neither model\.safetensors nor tf_model\.h5"):
        wanted_files([*CONFIGS, "pytorch_model.bin"], where="here", allow=frozenset())


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("../elsewhere.safetensors", "names '../elsewhere.safetensors', which is no file next to it"),
        ("/etc/passwd", "names '/etc/passwd', which is no file next to it"),
        ("a\nb", "names 'a\\nb', which is no file next to it"),
        (7, "names 7, which is no file next to it"),
        ("model-2.safetensors", "names model-2.safetensors, which is missing"),
    ],
)
def test_index_names_only_files_next_to_it(tmp_path, shard, message):
    """A shard outside the folder is refused: the revision's hash does not cover it."""
    (tmp_path / "elsewhere.safetensors").touch()
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in (*CONFIGS, "model-1.safetensors"):
        (folder / name).touch()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    assert folder == check_checkpoint(folder, frozenset())
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": shard}}))
    with pytest.raises(ExportRefused) as refused:
        check_checkpoint(folder, frozenset())
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', "[" * 100_000])
def test_invalid_index_is_refused(tmp_path, text):
    """An index that is not JSON, or has no map of shards, is refused by name."""
    for name in CONFIGS:
        (tmp_path / name).touch()
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ExportRefused, match=r"model\.safetensors\.index\.json (is not JSON|has no weight_map)"):
        check_checkpoint(tmp_path, frozenset())


def test_incomplete_checkpoint_is_refused(tmp_path):
    """A missing or incomplete folder is refused; the message has the missing part."""
    with pytest.raises(ExportRefused, match="no folder"):
        check_checkpoint(tmp_path / "nowhere", frozenset())
    for name in CONFIGS:
        with pytest.raises(ExportRefused, match=f"has no {name}"):
            check_checkpoint(tmp_path, frozenset())
        (tmp_path / name).touch()
    with pytest.raises(ExportRefused, match=r"neither model\.safetensors nor tf_model\.h5"):
        check_checkpoint(tmp_path, frozenset())


def packed(path, *members):
    """A tar.gz of (name, content or TarInfo type) pairs."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes) and not isinstance(content, TarType):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = bytes(content), "/etc/passwd"
                tar.addfile(info)
    return path


class TarType(bytes):
    """A member's type, as tarfile names it."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("../evil", b"x", "'../evil' would escape"),
        ("/etc/evil", b"x", "'/etc/evil' would escape"),
        ("a/../../evil", b"x", "'a/../../evil' would escape"),
        ("link", TarType(tarfile.SYMTYPE), "'link' is neither file nor folder"),
        ("hard", TarType(tarfile.LNKTYPE), "'hard' is neither file nor folder"),
        ("device", TarType(tarfile.CHRTYPE), "'device' is neither file nor folder"),
        ("pipe", TarType(tarfile.FIFOTYPE), "'pipe' is neither file nor folder"),
    ],
)
def test_dangerous_member_is_refused(tmp_path, name, content, message):
    """A member that would escape, or is neither file nor folder, stops the unpacking; nothing is written outside."""
    archive = packed(tmp_path / "m.tar.gz", (name, content))
    with pytest.raises(ExportRefused) as refused:
        unpack(archive, tmp_path / "out", where="here", max_bytes=MANY)
    assert message in str(refused.value)
    assert {"m.tar.gz", "out"} == {path.name for path in tmp_path.iterdir()}


def test_invalid_archive_is_refused(tmp_path):
    """A file that is not a tar archive is refused."""
    (tmp_path / "m.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ExportRefused, match="not a readable tar archive"):
        unpack(tmp_path / "m.tar.gz", tmp_path / "out", where="here", max_bytes=MANY)


def test_archive_has_a_size(tmp_path):
    """An archive that unpacks to more than the limit is refused before the member that exceeds it is written."""
    archive = packed(tmp_path / "m.tar.gz", ("a", bytes(600)), ("b", bytes(600)))
    with pytest.raises(ExportRefused, match="unpacks to over 1000 bytes"):
        unpack(archive, tmp_path / "out", where="here", max_bytes=1000)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


UNPACK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from errors import ExportRefused
from sources import unpack
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack(Path(sys.argv[2]), Path(sys.argv[3]), where="here", max_bytes=1 << 40)
except ExportRefused as refused:
    print(refused)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_large_header_costs_no_memory(tmp_path, kind):
    """A small archive with a header of 400 MiB is refused: it took 1.4 GiB before."""
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 400 << 20
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.addfile(header, Zeros())
    command = [
        sys.executable,
        "-c",
        UNPACK,
        Path(__file__).parents[2] / "include" / "model",
        tmp_path / "m.tar.gz",
        tmp_path / "out",
    ]
    *refused, mib = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.partition(" (")[0] for line in refused] == ["source: here: not a readable tar archive"]
    assert int(mib) < 50


class Zeros(io.RawIOBase):
    """A file of zeros without an end."""

    def read(self, size=-1):
        """So many zeros."""
        return bytes(size)


def test_one_savedmodel_is_found_at_any_depth(tmp_path):
    """The SavedModel's folder may be at any depth, but there must be exactly one."""
    with pytest.raises(ExportRefused, match="holds 0 SavedModels"):
        find_savedmodel(tmp_path, where="here")
    for folder in ("a/b/1", "c"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "a/b/1/saved_model.pb").touch()
    assert tmp_path / "a/b/1" == find_savedmodel(tmp_path, where="here")
    (tmp_path / "c/saved_model.pb").touch()
    with pytest.raises(ExportRefused, match=r"holds 2 SavedModels \(a/b/1, c\)"):
        find_savedmodel(tmp_path, where="here")


def test_credentials_never_reach_a_message():
    """A URL is shown without user, password and query."""
    assert plain_url("https://me:secret@example.org/m.tar.gz?token=x") == "https://example.org/m.tar.gz"
