import base64
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from urllib.parse import quote

import pytest
from canaries import Canaries


def packed(data):
    """A tar.gz with a zip with the data."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", data)
    with tarfile.open(fileobj=outer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("b.zip")
        entry.size = len(inner.getvalue())
        archive.addfile(entry, io.BytesIO(inner.getvalue()))
    return outer.getvalue()


FORMS = {
    "as it is": lambda secret: f"token={secret}".encode(),
    "in JSON": lambda secret: json.dumps({"password": secret}).encode(),
    "quoted": lambda secret: quote(secret, safe="").encode(),
    "quoted twice": lambda secret: quote(quote(secret, safe="")).encode(),
    "Basic": lambda secret: b"Basic " + base64.b64encode(f"shop:{secret}".encode()),
    "Basic, another offset": lambda secret: base64.urlsafe_b64encode(f"it:{secret}:x".encode()),
    "base64, the third offset": lambda secret: base64.b64encode(f"{secret}".encode()),
    "a Docker file in a Secret": lambda secret: base64.b64encode(
        b'{"auth": "' + base64.b64encode(f"me:{secret}".encode())
    ),
    "hexadecimal": lambda secret: secret.encode().hex().encode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_canary_is_found_in_each_form(form):
    """Only the one that is there, by its place."""
    canaries = Canaries()
    secret = canaries.plant("here")
    canaries.plant("elsewhere")
    assert canaries.found_in(b"x" + form(secret) + b"y") == ["here"]
    assert canaries.found_in(b"nothing") == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress, packed])
def test_a_canary_is_found_in_files(tmp_path, pack):
    """In the file of a folder, also if it is packed; and in a file's name."""
    canaries = Canaries()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(pack(canaries.plant("content").encode()))
    name = tmp_path / canaries.plant("name").replace("/", "")
    name.touch()
    assert canaries.found_in_files(tmp_path) == [f"{tmp_path}/a/b: content", f"{name}: its name: name"]


def test_a_canary_is_found_in_a_process():
    """In the arguments and in the environment of a process that still runs."""
    canaries = Canaries()
    given = {**os.environ, "SECRET": canaries.plant("environment")}
    waits = [sys.executable, "-c", "print(flush=True); input()", canaries.plant("arguments")]
    with subprocess.Popen(waits, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()  # it runs, so that the kernel has its arguments
        found = canaries.found_in_processes([process.pid, os.getpid()])
        process.communicate(b"\n")
    assert found == [f"{process.pid} cmdline: arguments", f"{process.pid} environ: environment"]
