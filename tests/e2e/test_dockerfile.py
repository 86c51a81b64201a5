"""The Airflow image that the Dockerfile makes, built once on a base of the stand's own."""

import json
from pathlib import Path

import pytest

from local.parts.server_image import debian_base
from local.programs.docker_client import build_image, docker
from local.settings import settings_here

PROJECT = Path(__file__).parents[2]
IMAGE = "slipway-stand/airflow:test"
BASE = "slipway-stand/airflow-base:test"

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
    docker(stand["docker_host"], "build", "--tag", BASE, "-", stdin=BASE_DOCKERFILE.format(debian=debian))
    build_image(stand["docker_host"], PROJECT, BASE, IMAGE)
    return IMAGE


def test_the_image_parses_the_dags(stand, image):
    """Airflow in the image finds the shipped model's DAG, without an import error."""
    output = docker(stand["docker_host"], "run", "--rm", "--network=none", image, "python", "-c", PARSE)
    assert "refresh_digits_vit" in output.splitlines()[-1]


def test_the_slim_image_parses_the_dags_and_has_no_exporter(stand, image):
    """It is for models that a pod exports; its layers are those of the whole image, without the exporter's."""
    slim = f"{IMAGE}-slim"
    build_image(stand["docker_host"], PROJECT, BASE, slim, target="slim")
    output = docker(stand["docker_host"], "run", "--rm", "--network=none", slim, "python", "-c", PARSE)
    assert "refresh_digits_vit" in output.splitlines()[-1]
    inside = docker(stand["docker_host"], "run", "--rm", "--network=none", slim, "ls", "/opt/slipway")
    assert "model" not in inside.split()


def test_the_image_exports_the_shipped_model(stand, image):
    """The exporter's environment in the image exports digits-vit, as the user that Airflow runs as, without network."""
    output = docker(stand["docker_host"], "run", "--rm", "--network=none", image, "python", "-c", EXPORT)
    assert json.loads(output.splitlines()[-1])["label"] == "3"
