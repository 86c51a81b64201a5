import sys
from dataclasses import replace

import pytest

from slipway.errors import ExportError, PromiseBroken, SourceUnreachable
from slipway.model.export import run_export
from slipway.model.exporter import exporter_hash


def test_refused_with_the_exporters_last_line(archive_release, exporter):
    """The error of a failed export is the last line of the exporter's output."""
    exporter(
        "import sys\nprint('step one')\nprint('folder x: no config.json. Next: add it', file=sys.stderr)\nsys.exit(1)"
    )
    with pytest.raises(ExportError) as refusal:
        run_export(archive_release, python=sys.executable)
    assert str(refusal.value) == "exporter ended with status 1: folder x: no config.json. Next: add it"


PRINT_TOKEN = """
import os, sys
assert "hf_reader" not in open(sys.argv[2]).read() + " ".join(sys.argv), "the token is in the request"
print("with", os.environ["HF_TOKEN"], flush=True)
sys.exit("token " + os.environ["HF_TOKEN"] + " was refused. Next: replace it")
"""


def test_only_the_exporter_gets_the_token(archive_release, exporter, monkeypatch, caplog):
    """The connection's token is in the exporter's environment, but not in its request, the log or the error."""
    caplog.set_level("INFO")
    monkeypatch.setenv("AIRFLOW_CONN_HUB", '{"conn_type": "http", "password": "hf_reader"}')
    exporter(PRINT_TOKEN)
    source = replace(archive_release.source, kind="hub", location="me/private", token_conn_id="hub")
    with pytest.raises(ExportError) as refusal:
        run_export(replace(archive_release, source=source), python=sys.executable)
    assert str(refusal.value) == "exporter ended with status 1: token *** was refused. Next: replace it"
    assert "with ***" in caplog.text
    assert "hf_reader" not in caplog.text


def test_retryable_if_the_source_did_not_respond(archive_release, exporter):
    """The exporter has its own exit status for a source that does not respond."""
    exporter("import sys\nprint('source: no answer. Next: look', file=sys.stderr)\nsys.exit(75)")
    with pytest.raises(SourceUnreachable, match=r"^exporter ended with status 75: source: no answer\. Next: look$"):
        run_export(archive_release, python=sys.executable)


def test_release_is_bad_if_the_model_broke_a_promise(archive_release, exporter):
    """The exporter has its own exit status for a model that broke a promise: the schedule does not try it again."""
    exporter("import sys\nprint('golden case three: no', file=sys.stderr)\nsys.exit(65)")
    with pytest.raises(PromiseBroken, match=r"^exporter ended with status 65: golden case three: no$") as broken:
        run_export(archive_release, python=sys.executable)
    assert broken.value.blames_release


def test_refused_if_the_exporter_prints_nothing(archive_release, exporter):
    """An end without output is reported as such."""
    exporter("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ExportError, match=r"^exporter ended with status -9: no output$"):
        run_export(archive_release, python=sys.executable)


def test_refused_if_there_is_no_interpreter(archive_release):
    """The message for a missing interpreter names the Variable that sets it."""
    with pytest.raises(ExportError, match=r"/nowhere/python: .*Next: set the Variable slipway_exporter_python"):
        run_export(archive_release, python="/nowhere/python")


def test_exporter_hash_changes_with_code_and_lock(tmp_path):
    """The hash covers the exporter's code and its locked requirements, but not other files."""
    (tmp_path / "export.py").write_text("a")
    (tmp_path / "requirements.txt").write_text("b")
    known = exporter_hash(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "notes.md").write_text("c")
    assert known == exporter_hash(tmp_path)
    (tmp_path / "requirements.txt").write_text("c")
    assert known != exporter_hash(tmp_path)
