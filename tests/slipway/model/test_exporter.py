import sys
from dataclasses import replace

import pytest

from slipway.errors import ExportError, ExportOverLimit, PromiseBroken, SourceUnreachable
from slipway.model.export import run_export
from slipway.model.exporter import WorkerHost, exporter_hash
from slipway.release import ExportLimits, Gate, QualityBounds
from slipway.runtimes import TENSORFLOW


def test_refused_with_the_exporters_last_line(archive_release, exporter):
    """The error of a failed export is the last line of the exporter's output."""
    exporter(
        "import sys\nprint('step one')\nprint('folder x: no config.json. Next: add it', file=sys.stderr)\nsys.exit(1)"
    )
    with pytest.raises(ExportError) as refusal:
        run_export(archive_release, WorkerHost(sys.executable))
    assert str(refusal.value) == "exporter ended with status 1: folder x: no config.json. Next: add it"


PRINT_TOKEN = """
import os, sys
assert "hf_reader" not in open(sys.argv[2]).read() + " ".join(sys.argv), "the token is in the request"
print("with", os.environ["HF_TOKEN"], flush=True)
sys.exit("token " + os.environ["HF_TOKEN"] + " was refused. Next: replace it")
"""


def test_only_the_fetcher_gets_the_token(archive_release, exporter, monkeypatch, caplog):
    """The connection's token is in the environment of the program that fetches, but not in its request, the log or the error."""
    caplog.set_level("INFO")
    monkeypatch.setenv("AIRFLOW_CONN_HUB", '{"conn_type": "http", "password": "hf_reader"}')
    exporter("raise SystemExit('not to be run')", fetcher=PRINT_TOKEN)
    source = replace(archive_release.source, kind="hub", location="me/private", token_conn_id="hub")
    with pytest.raises(ExportError) as refusal:
        run_export(replace(archive_release, source=source), WorkerHost(sys.executable))
    assert str(refusal.value) == "exporter ended with status 1: token *** was refused. Next: replace it"
    assert "with ***" in caplog.text
    assert "hf_reader" not in caplog.text


KEEP = "import json, sys; open(json.load(open(sys.argv[2]))['source']['kept'], 'w').close()\n"
PRINT_ENVIRONMENT = "import os; print('environment:', *sorted(os.environ), flush=True)\n"


def test_programs_get_no_secret_of_the_worker(archive_release, exporter, monkeypatch, caplog):
    """The exporter gets nothing of the worker's environment that is not on the list; only the fetcher knows the way to a network."""
    caplog.set_level("INFO")
    for name in (
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW_CONN_HUB",
        "AWS_SECRET_ACCESS_KEY",
        "PYTHONPATH",
        "HF_TOKEN",
        "HTTPS_PROXY",
    ):
        monkeypatch.setenv(name, "canary")
    exporter(PRINT_ENVIRONMENT + "raise SystemExit(1)", fetcher=PRINT_ENVIRONMENT + KEEP)
    with pytest.raises(ExportError):
        run_export(archive_release, WorkerHost(sys.executable))
    fetched, exported = (set(line.split()) for line in caplog.text.splitlines() if "environment:" in line)
    secrets = {"AIRFLOW__CORE__FERNET_KEY", "AIRFLOW_CONN_HUB", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH"}
    assert {"HF_TOKEN", "HTTPS_PROXY"} == fetched & (secrets | {"HF_TOKEN", "HTTPS_PROXY"})
    assert set() == exported & (secrets | {"HF_TOKEN", "HTTPS_PROXY"})
    assert {"PATH", "HOME", "TMPDIR"} < exported


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("open('large', 'wb').truncate(40 << 20)\n", r"export\.limits\.disk_mib, 20"),
        (
            "import threading, time\nfor _ in range(40): threading.Thread(target=time.sleep, args=(60,)).start()\n",
            r"limits\.processes, 20",
        ),
        ("kept = bytearray(b'x') * (700 << 20)\n", r"limits\.memory_mib, 512"),
        ("while True: pass\n", r"limits\.cpu_s, 1\b"),
        ("raise MemoryError\n", r"it needs more memory than export\.limits\.memory_mib, 512"),
    ],
)
def test_ended_if_it_exceeds_a_limit(archive_release, exporter, program, message):
    """A program that uses more than the model file allows is ended, and the error names the limit."""
    exporter(f"import os\nos.chdir(os.environ['TMPDIR'])\n{program}\nimport time; time.sleep(60)")
    limits = ExportLimits(memory_mib=512, cpu_s=1, processes=20, disk_mib=20)
    with pytest.raises(ExportOverLimit, match=message + r"\. Next: check the source, or raise the limit"):
        run_export(replace(archive_release, limits=limits), WorkerHost(sys.executable))


def test_retryable_if_the_source_did_not_respond(archive_release, exporter):
    """The exporter's programs have their own exit status for a source that does not respond."""
    exporter("", fetcher="import sys\nprint('source: no answer. Next: look', file=sys.stderr)\nsys.exit(75)")
    with pytest.raises(SourceUnreachable, match=r"^exporter ended with status 75: source: no answer\. Next: look$"):
        run_export(archive_release, WorkerHost(sys.executable))


def test_release_is_bad_if_the_model_broke_a_promise(archive_release, exporter):
    """The exporter has its own exit status for a model that broke a promise: the schedule does not try it again."""
    exporter("import sys\nprint('golden case three: no', file=sys.stderr)\nsys.exit(65)")
    with pytest.raises(PromiseBroken, match=r"^exporter ended with status 65: golden case three: no$") as broken:
        run_export(archive_release, WorkerHost(sys.executable))
    assert broken.value.blames_release


def test_refused_if_the_exporter_prints_nothing(archive_release, exporter):
    """An end without output is reported as such."""
    exporter("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ExportError, match=r"^exporter ended with status -9: no output$"):
        run_export(archive_release, WorkerHost(sys.executable))


@pytest.mark.parametrize(
    ("runtime", "then"),
    [
        ("tensorflow", "slipway_exporter_python to the python of an environment with include/model/"),
        ("onnxruntime", "slipway_onnx_exporter_python to the python of an environment with include/onnx_model/"),
    ],
)
def test_refused_if_there_is_no_interpreter(archive_release, runtime, then):
    """The message for a missing interpreter names the Variable that sets the runtime's."""
    with pytest.raises(ExportError, match=rf"/nowhere/python: .*Next: set the Variable {then}requirements\.txt$"):
        run_export(replace(archive_release, runtime=runtime), WorkerHost("/nowhere/python"))


@pytest.fixture
def code(tmp_path):
    """An exporter of two files: the runtime."""
    (tmp_path / "export.py").write_text("a")
    (tmp_path / "requirements.txt").write_text("b")
    return replace(TENSORFLOW, exporter=tmp_path / "export.py", code=(tmp_path,))


def test_exporter_hash_changes_with_code_and_lock(code, tmp_path):
    """The hash covers the exporter's code and its locked requirements, but not other files."""
    known = exporter_hash(code)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "notes.md").write_text("c")
    assert known == exporter_hash(code)
    (tmp_path / "requirements.txt").write_text("c")
    assert known != exporter_hash(code)


def test_exporter_hash_of_tensorflow_is_as_before_there_were_runtimes(code):
    """Another way to hash the same files would export every model again. The value was computed before the second runtime."""
    assert exporter_hash(code) == "sha256:1db443d61d9262a2ed51d69fafd795471c821d511845800a9ff9f62810e2ee82"


def test_exporter_hash_covers_every_folder_that_the_exporter_imports_from(code, tmp_path):
    """Two files of one name in two folders both count, and so do those of a package in a folder."""
    known = {exporter_hash(code)}
    shared = tmp_path.with_name(f"{tmp_path.name}-shared")
    (shared / "package").mkdir(parents=True)
    both = replace(code, code=(tmp_path, shared))
    for place in (shared / "requirements.txt", shared / "package" / "decode.py"):
        place.write_text("a")
        known.add(exporter_hash(both))
    assert len(known) == 3


PRINT_SET = "import json, sys; print(open(json.load(open(sys.argv[2]))['labelled']).read(), flush=True); sys.exit(1)"


def test_exporter_of_int8_gets_the_labelled_set(archive_release, store, exporter, caplog):
    """It gets the store's copy, as a file on this worker; another precision gets none."""
    caplog.set_level("INFO")
    exporter(PRINT_SET)
    uri = store.put_json({"images": [{"name": "3/a.png", "label": "3", "data": "aQ=="}]}, "quality.json")
    quality = QualityBounds(uri=uri, digest="sha256:5", min_top1=0.9, max_drop=None)
    int8 = replace(archive_release, runtime="onnxruntime", precision="int8", gate=Gate(quality=quality))
    with pytest.raises(ExportError):
        run_export(int8, WorkerHost(sys.executable))
    assert "3/a.png" in caplog.text
    with pytest.raises(ExportError, match="KeyError: 'labelled'"):
        run_export(replace(int8, precision="float16_weights"), WorkerHost(sys.executable))


PRINT_REQUEST = "import json, sys; print('settings', json.load(open(sys.argv[2]))['settings'], flush=True); sys.exit(1)"


@pytest.mark.parametrize(
    ("runtime", "told"), [("tensorflow", False), ("onnxruntime", True)], ids=["TensorFlow", "ONNX Runtime"]
)
def test_precision_is_told_only_where_there_is_a_choice(archive_release, exporter, caplog, runtime, told):
    """TensorFlow's exporter refuses settings that it does not know."""
    caplog.set_level("INFO")
    exporter(PRINT_REQUEST)
    with pytest.raises(ExportError):
        run_export(replace(archive_release, runtime=runtime, precision="float32"), WorkerHost(sys.executable))
    assert ("'precision': 'float32'" in caplog.text) is told
