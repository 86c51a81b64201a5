"""The Airflow image that the Dockerfile makes, built once on a base of the stand's own."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from local.parts.server_image import debian_base
from local.settings import settings_here

PROJECT = Path(__file__).parents[2]
IMAGE = "slipway-stand/airflow:test"
BASE = "slipway-stand/airflow-base:test"
BUILD_LIMIT_S = 1500

# What the official Airflow image gives the Dockerfile: python and pip on PATH, and the user airflow, 50000.
BASE_DOCKERFILE = """
FROM {debian}
RUN useradd --uid 50000 --create-home airflow && python3 -m venv /home/airflow/python && chown -R airflow /home/airflow
ENV PATH=/home/airflow/python/bin:$PATH
USER 50000
"""

PARSE = """
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("/opt/airflow/dags")
assert bag.import_errors == {}, bag.import_errors
print(sorted(bag.dag_ids))
"""

EXPORT = """
import json, subprocess
served = "/opt/airflow/include/served/digits-vit"
request = {"model": "digits-vit", "source": {"kind": "folder", "path": f"{served}/checkpoint"},
           "golden": [{"name": "three", "image": f"{served}/golden/three.png", "label": "3", "min_confidence": 0.8}]}
open("/tmp/request.json", "w").write(json.dumps(request))
subprocess.run(["/opt/slipway/model/bin/python", "/opt/airflow/include/model/export.py",
                "--request", "/tmp/request.json", "--out", "/tmp/out"], check=True)
print(json.dumps(json.load(open("/tmp/out/golden/three/case.json"))["reference"]))
"""

pytestmark = [pytest.mark.stand, pytest.mark.slow]


@pytest.fixture(scope="module")
def image(stand):
    """The image, built on the stand's engine; layers that did not change come from the engine's cache."""
    debian = debian_base(settings_here(), stand["docker_host"])
    docker(stand, "build", "--tag", BASE, "-", text=BASE_DOCKERFILE.format(debian=debian))
    bundle = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    docker(
        stand,
        "build",
        "--tag",
        IMAGE,
        "--network=host",
        f"--build-arg=BASE={BASE}",
        f"--secret=id=ca,src={bundle}",
        str(PROJECT),
    )
    return IMAGE


def docker(stand, *words, text=None):
    """Run a docker client on the stand's engine, Debian's if there is one; its output."""
    client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
    done = subprocess.run(
        [client, *words], input=text, capture_output=True, text=True, check=False, timeout=BUILD_LIMIT_S,
        env={**os.environ, "DOCKER_HOST": stand["docker_host"], "DOCKER_BUILDKIT": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_image_parses_the_dags(stand, image):
    """Airflow in the image finds the shipped model's DAG, without an import error."""
    output = docker(stand, "run", "--rm", "--network=none", image, "python", "-c", PARSE)
    assert "refresh_digits_vit" in output.splitlines()[-1]


def test_the_image_exports_the_shipped_model(stand, image):
    """The exporter's environment in the image exports digits-vit, as the user that Airflow runs as, without network."""
    output = docker(stand, "run", "--rm", "--network=none", image, "python", "-c", EXPORT)
    assert json.loads(output.splitlines()[-1])["label"] == "3"
