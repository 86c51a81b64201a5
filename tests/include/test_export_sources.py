"""Exports from the Hub and from SavedModel archives, and how their sources are refused."""

import hashlib
import json
import shutil
import tarfile

import pytest
from exporter_checks import assert_refused, contents
from hub_stub import REPO, REVISION

pytestmark = pytest.mark.model


def archive_request(request, path, url):
    """The request with a SavedModel archive as its source."""
    return {
        **request,
        "source": {"kind": "savedmodel", "url": url, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    }


@pytest.mark.slow
def test_hub_checkpoint_gives_same_bytes_as_a_folder(run_exporter, digits_request, digits_export, hub, tmp_path):
    """The Hub's client fetches only the needed files at the commit; the export equals that of a folder with these files."""
    folder = tmp_path / "repo"
    shutil.copytree(digits_request["source"]["path"], folder)
    for name in ("pytorch_model.bin", "tf_model.h5", "README.md"):
        (folder / name).write_bytes(b"never fetched")
    hub.add(folder)
    request = {**digits_request, "source": {"kind": "hub", "repo": REPO, "revision": REVISION}}
    done = run_exporter(request, tmp_path / "out", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    assert contents(digits_export / "savedmodel") == contents(tmp_path / "out" / "savedmodel")
    fetched = {line.rpartition("/")[2] for line in hub.asked if line.startswith("GET /someone/digits/resolve/")}
    assert {"config.json", "preprocessor_config.json", "model.safetensors"} == fetched


@pytest.mark.parametrize(
    ("repo", "revision", "message"),
    [
        ("someone/else", REVISION, "no such model, or a private one"),
        (REPO, "0" * 40, "no such revision"),
    ],
)
def test_unknown_hub_source_is_refused(  # noqa: PLR0917 (fixtures)
    run_exporter, digits_request, digits_checkpoint, hub, tmp_path, repo, revision, message
):
    """A model or commit that the Hub does not have is refused by name, before TensorFlow is loaded."""
    hub.add(digits_checkpoint)
    request = {**digits_request, "source": {"kind": "hub", "repo": repo, "revision": revision}}
    done = run_exporter(request, tmp_path / "out", HF_HOME=str(tmp_path / "hf"))
    assert_refused(done, tmp_path / "out", f"source: {repo} at {revision[:12]}", message)
    assert "TensorFlow" not in done.stdout


def test_unreachable_hub_is_refused(run_exporter, digits_request, tmp_path):
    """If the Hub does not respond, the message says so, and the status means that it can be retried."""
    request = {**digits_request, "source": {"kind": "hub", "repo": "a/b", "revision": "0" * 40}}
    done = run_exporter(request, tmp_path / "out", HF_HOME=str(tmp_path / "hf"))
    assert_refused(done, tmp_path / "out", "source: a/b", "Next: check the network, or HF_ENDPOINT", status=75)


@pytest.mark.parametrize("status", [429, 503])
def test_hub_error_can_be_retried(  # noqa: PLR0917 (fixtures)
    run_exporter, digits_request, digits_checkpoint, hub, tmp_path, status
):
    """If the Hub is overloaded or has an error, the status means that it can be retried."""
    hub.add(digits_checkpoint)
    hub.failing = status
    request = {**digits_request, "source": {"kind": "hub", "repo": REPO, "revision": REVISION}}
    done = run_exporter(request, tmp_path / "out", HF_HOME=str(tmp_path / "hf"))
    assert_refused(done, tmp_path / "out", f"source: {REPO} at ", f"{status} ", status=75)


@pytest.mark.parametrize(
    ("access", "token", "message"),
    [
        ("private", None, "no such model, or a private one"),
        ("private", "hf_other", "no such model, or a private one"),
        ("gated", None, "access is gated"),
        ("gated", "hf_other", "access is gated"),
        ("gated", "hf_unknown", "does not accept the token"),
    ],
)
def test_hub_model_without_access_is_refused(  # noqa: PLR0917 (fixtures)
    run_exporter, digits_request, digits_checkpoint, hub, tmp_path, access, token, message
):
    """A private or gated model is refused without a token that may read it; no output contains the token."""
    hub.tokens = {"hf_other"}
    hub.add(digits_checkpoint, readers={"hf_reader"}, **{access: True})
    request = {**digits_request, "source": {"kind": "hub", "repo": REPO, "revision": REVISION}}
    environment = {"HF_TOKEN": token} if token else {}
    done = run_exporter(request, tmp_path / "out", HF_HOME=str(tmp_path / "hf"), **environment)
    assert_refused(done, tmp_path / "out", f"source: {REPO} at ", message, "HF_TOKEN")
    assert "hf_" not in done.stdout + done.stderr


@pytest.mark.slow
def test_kept_hub_checkpoint_is_reused(run_exporter, digits_request, digits_checkpoint, hub, tmp_path):
    """The files of a gated model are saved to `kept`, and the next export needs neither Hub nor token."""
    hub.add(digits_checkpoint, gated=True, readers={"hf_reader"})
    source = {"kind": "hub", "repo": REPO, "revision": REVISION, "kept": str(tmp_path / "kept")}
    small = {"max_side": 16}  # so that there is little to compare with 🤗
    request = {**digits_request, "source": source, "golden": [], "settings": small}
    first = run_exporter(request, tmp_path / "first", HF_HOME=str(tmp_path / "hf"), HF_TOKEN="hf_reader")
    assert first.returncode == 0, first.stderr
    assert contents(digits_checkpoint) == contents(tmp_path / "kept")
    hub.close()
    second = run_exporter(request, tmp_path / "second", HF_HOME=str(tmp_path / "other"))
    assert second.returncode == 0, second.stderr
    assert contents(tmp_path / "first" / "savedmodel") == contents(tmp_path / "second" / "savedmodel")
    facts = json.loads((tmp_path / "second" / "export.json").read_text())["source"]
    assert facts == {"kind": "hub", "repo": REPO, "revision": REVISION}


def test_savedmodel_archive_is_exported_unchanged(run_exporter, digits_request, digits_export, web, tmp_path):
    """An archive's SavedModel is exported without its fingerprint; it answers the cases and has no reference."""
    folder, url = web
    packed = tmp_path / "packed" / "model" / "1"
    shutil.copytree(digits_export / "savedmodel", packed)
    (packed / "fingerprint.pb").write_bytes(b"differs each time")
    with tarfile.open(folder / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "packed", ".")
    request = archive_request(digits_request, folder / "model.tar.gz", f"{url}/model.tar.gz?token=secret")
    done = run_exporter(request, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert contents(digits_export / "savedmodel") == contents(tmp_path / "out" / "savedmodel")
    assert json.loads((tmp_path / "out" / "golden" / "three" / "case.json").read_text())["reference"] is None
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert facts["source"] == {**request["source"], "url": f"{url}/model.tar.gz"}


@pytest.mark.slow
def test_savedmodel_with_another_signature_is_refused(run_exporter, digits_request, checkpoint_trial, web, tmp_path):
    """A SavedModel that clients could not call is refused; the message has its signature."""
    folder, url = web
    with tarfile.open(folder / "other.tar.gz", "w:gz") as tar:
        tar.add(checkpoint_trial["other-signature"], "1")
    request = archive_request(digits_request, folder / "other.tar.gz", f"{url}/other.tar.gz")
    done = run_exporter(request, tmp_path / "out")
    assert_refused(done, tmp_path / "out", "{'x': 'DT_FLOAT'}", "{'y': 'DT_FLOAT'}", "one string input")
