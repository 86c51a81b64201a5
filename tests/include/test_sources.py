"""Sources: which files are fetched, and what is refused before anything is opened."""

import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from errors import ExportRefused, SourceUnreachable
from request import Archive
from sources import check_checkpoint, download, fetch, find_savedmodel, plain_url, unpack, wanted_files

CONFIGS = ["config.json", "preprocessor_config.json"]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["model.safetensors", "tf_model.h5", "pytorch_model.bin"], ["model.safetensors"]),
        (["tf_model.h5", "flax_model.msgpack", "README.md"], ["tf_model.h5"]),
        (
            ["model.safetensors.index.json", "model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"],
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (["pytorch_model.bin"], []),
    ],
)
def test_one_set_of_weights_is_fetched(there, expected):
    """The configs and one set of weights are fetched, and nothing that needs unpickling."""
    assert [*CONFIGS, *expected] == wanted_files([*there, *CONFIGS])


def test_incomplete_checkpoint_is_refused(tmp_path):
    """A missing or incomplete folder is refused; the message has the missing part."""
    with pytest.raises(ExportRefused, match="no folder"):
        check_checkpoint(tmp_path / "nowhere")
    for name in CONFIGS:
        with pytest.raises(ExportRefused, match=f"has no {name}"):
            check_checkpoint(tmp_path)
        (tmp_path / name).touch()
    with pytest.raises(ExportRefused, match=r"neither model\.safetensors nor tf_model\.h5"):
        check_checkpoint(tmp_path)


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
        unpack(archive, tmp_path / "out", where="here")
    assert message in str(refused.value)
    assert {"m.tar.gz", "out"} == {path.name for path in tmp_path.iterdir()}


def test_invalid_archive_is_refused(tmp_path):
    """A file that is not a tar archive is refused."""
    (tmp_path / "m.tar.gz").write_bytes(b"no archive")
    with pytest.raises(ExportRefused, match="not a readable tar archive"):
        unpack(tmp_path / "m.tar.gz", tmp_path / "out", where="here")


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


def test_archive_with_another_sha256_is_refused(tmp_path):
    """Only an archive with the requested sha256 is accepted; a missing one is named."""
    content = tmp_path / "m.tar.gz"
    content.write_bytes(b"content")
    url = content.as_uri()
    download(Archive(url=url, sha256=hashlib.sha256(b"content").hexdigest()), tmp_path / "taken")
    assert (tmp_path / "taken").read_bytes() == b"content"
    with pytest.raises(ExportRefused, match=f"its sha256 is {hashlib.sha256(b'content').hexdigest()}, expected 0000"):
        download(Archive(url=url, sha256="0" * 64), tmp_path / "taken")
    with pytest.raises(ExportRefused, match="No such file"):
        download(Archive(url=url + ".gone", sha256="0" * 64), tmp_path / "taken")


def test_sha256_of_kept_archive_is_checked(tmp_path):
    """A kept archive is checked like a download."""
    kept = packed(tmp_path / "m.tar.gz", ("1/saved_model.pb", b"graph"))
    source = Archive(url="http://127.0.0.1:9/m", sha256=hashlib.sha256(kept.read_bytes()).hexdigest(), kept=kept)
    (tmp_path / "one").mkdir()
    assert tmp_path / "one" / "archive" / "1" == fetch(source, tmp_path / "one")
    kept.write_bytes(b"other")
    with pytest.raises(ExportRefused, match="its sha256 is "):
        fetch(source, tmp_path / "two")


@pytest.mark.parametrize(
    ("status", "kind"), [(404, ExportRefused), (403, ExportRefused), (429, SourceUnreachable), (503, SourceUnreachable)]
)
def test_only_server_errors_can_be_retried(tmp_path, status, kind):
    """429, 5xx and a server that does not respond can be retried; 403 and 404 are final."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(status)

        def log_message(self, *args):
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        source = Archive(url=f"http://127.0.0.1:{server.server_port}/m", sha256="0" * 64)
        with pytest.raises(ExportRefused, match=f"HTTP {status} ") as refused:
            download(source, tmp_path / "taken")
        server.shutdown()
    assert type(refused.value) is kind
    with pytest.raises(SourceUnreachable, match="refused"):
        download(source, tmp_path / "taken")


def test_credentials_never_reach_a_message():
    """A URL is shown without user, password and query."""
    assert plain_url("https://me:secret@example.org/m.tar.gz?token=x") == "https://example.org/m.tar.gz"
