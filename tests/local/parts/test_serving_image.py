"""The images of model servers: what they are made of, and the message about one that cannot be pulled."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from local.parts.server_image import SITE_PACKAGES, image_id
from local.parts.serving_image import ONNX_SERVER, STAND_IN, reason
from local.settings import Settings

PROJECT = Path(__file__).parents[3]


def test_reason_is_the_engines_message():
    """The reason of a refused pull is the engine's own message, on one line."""
    assert (
        reason('engine unix:///x: GET /y: 500 {"message":"Get \\"https://r/v2/\\":\\n no such host"}')
        == 'Get "https://r/v2/": no such host'
    )


@pytest.mark.parametrize("image", [STAND_IN, ONNX_SERVER], ids=lambda image: image.name)
def test_image_has_the_protocol_that_both_servers_speak(image):
    """Its modules and its descriptors are among the packages; the entrypoint is one of its programs."""
    files = image.files(PROJECT)
    assert {f"{SITE_PACKAGES}/serving_protocol/{name}" for name in ("rest.py", "descriptors.bin")} <= files.keys()
    assert image.entrypoint in files
    assert all(path.is_file() and path.suffix != ".pyc" for path in files.values())


@pytest.fixture
def settings(tmp_path):
    """The settings of a checkout with a copy of the server's files."""
    shutil.copytree(PROJECT / "include" / "onnx_server", tmp_path / "checkout" / "include" / "onnx_server")
    return Settings(checkout=tmp_path / "checkout", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("place", "counts"),
    [
        ("onnx_server/session.py", True),
        ("requirements.txt", True),
        ("onnx_model_server.py", True),
        ("requirements.in", False),
    ],
)
def test_image_is_built_again_if_one_of_its_files_changed(settings, place, counts):
    """Its tag is a hash of what is in it, by which the engine finds it."""
    before, file = image_id(settings, ONNX_SERVER), settings.checkout / "include" / "onnx_server" / place
    file.write_text(f"{file.read_text()}\n# changed\n")
    assert (image_id(settings, ONNX_SERVER) != before) is counts


def test_stands_image_of_onnx_runtime_is_what_the_dockerfile_makes():
    """Both have the same programs, entrypoint, user, environment, ports and label."""
    text = (PROJECT / "include" / "onnx_server" / "Dockerfile").read_text()
    config = ONNX_SERVER.config()
    environment = dict(word.split("=") for word in re.search(r"^ENV (.*)$", text, re.MULTILINE)[1].split())
    made = dict(word.split("=", 1) for word in config["Env"])
    del made["PATH"]
    assert made == environment
    assert [config["User"]] == re.findall(r"^USER (.*)$", text, re.MULTILINE)
    assert config["Entrypoint"] == re.findall(r'^ENTRYPOINT \["(.*)"\]$', text, re.MULTILINE)
    assert {port.split("/")[0] for port in config["ExposedPorts"]} == set(re.search(r"^EXPOSE (.*)$", text, re.MULTILINE)[1].split())  # fmt: skip
    assert [f"{name}={value}" for name, value in config["Labels"].items()] == re.findall(r"^LABEL (.*)$", text, re.MULTILINE)  # fmt: skip
    copied = dict(reversed(line.split()[-2:]) for line in re.findall(r"^COPY .*$", text, re.MULTILINE))
    programs = {where: f"include/onnx_server/{name}" for where, name in copied.items() if where.startswith("/usr/local/bin/")}  # fmt: skip
    assert programs == ONNX_SERVER.programs


@pytest.mark.parametrize(
    ("base", "refusal"),
    [
        ("python:3.11-slim@sha256:0b23", ""),
        ("python:3.11-slim", "BASE=python:3.11-slim has no digest. Next: name it as python:3.11-slim@sha256:…\n"),
        ("python@sha256:", "BASE=python@sha256: has no digest. Next: name it as python:3.11-slim@sha256:…\n"),
    ],
)
def test_dockerfile_refuses_a_base_without_a_digest(base, refusal):
    """The first step of the build says so in one line."""
    text = (PROJECT / "include" / "onnx_server" / "Dockerfile").read_text()
    step = re.search(r"^RUN (.*)$", text, re.MULTILINE)[1]
    done = subprocess.run(["sh", "-c", step], env={"BASE": base}, capture_output=True, text=True, check=False)
    assert (done.returncode != 0, done.stderr) == (bool(refusal), refusal)
