"""The image of ONNX Runtime's server: when it is built again, and which bases its Dockerfile takes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from local.parts.onnx_image import CONTEXT, FILES, image_id
from local.settings import Settings

PROJECT = Path(__file__).parents[3]
DOCKERFILE = PROJECT / CONTEXT / "Dockerfile"


@pytest.fixture
def settings(tmp_path):
    """The settings of a checkout with a copy of the server's files."""
    shutil.copytree(PROJECT / CONTEXT, tmp_path / "checkout" / CONTEXT)
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
    before, file = image_id(settings), settings.checkout / CONTEXT / place
    file.write_text(f"{file.read_text()}\n# changed\n")
    assert (image_id(settings) != before) is counts


def test_tag_is_of_all_files_that_the_dockerfile_takes():
    """No file of the image is left out of its hash."""
    text = DOCKERFILE.read_text()
    copied = {line.split()[-2] for line in re.findall(r"^COPY .*$", text, re.MULTILINE)}
    mounted = set(re.findall(r"type=bind,source=([^,]+),", text))
    assert copied | mounted | {"Dockerfile"} == set(FILES)


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
    step = re.search(r"^RUN (.*)$", DOCKERFILE.read_text(), re.MULTILINE)[1]
    done = subprocess.run(["sh", "-c", step], env={"BASE": base}, capture_output=True, text=True, check=False)
    assert (done.returncode != 0, done.stderr) == (bool(refusal), refusal)
