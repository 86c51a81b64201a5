"""Airflow's image with the wheel, one line of DAGs and a models folder, as docs/platforms/Dockerfile makes it, in the stand's registry."""

import os
import re
import shutil
import sys
from pathlib import Path

from wheel import DAG_FILE, build_wheel

from local.parts.server_image import debian_base
from local.programs.docker_client import CERTIFICATES, docker
from local.settings import settings_here

PROJECT = Path(__file__).parents[2]
DOCKERFILE = PROJECT / "docs" / "platforms" / "Dockerfile"
USER = 50000  # the official image's
DAGS = "/opt/airflow/dags"
MODELS = "models"  # a folder of the DAG bundle: the same setting in all processes, wherever the bundle is
BASE = "slipway-stand/airflow-base:platforms"
EXPORTER = "/opt/slipway/model"  # an environment without packages: the pods mount those of the stand

# What the official image has: Airflow and its providers, python and pip on PATH, and the user airflow of group 0.
BASE_DOCKERFILE = f"""
FROM {{debian}}
RUN useradd --uid {USER} --gid 0 --create-home airflow && python3 -m venv /home/airflow/python \\
    && python3 -m venv --without-pip {EXPORTER} && install -d -o {USER} -g 0 /opt/airflow && chown -R {USER}:0 /home/airflow
COPY ca.crt /usr/local/share/ca.crt
ENV PATH=/home/airflow/python/bin:$PATH AIRFLOW_HOME=/opt/airflow PIP_CERT=/usr/local/share/ca.crt
USER {USER}
WORKDIR /opt/airflow
COPY uv.txt airflow.txt /home/airflow/
RUN export SSL_CERT_FILE=$PIP_CERT UV_NO_CACHE=1 VIRTUAL_ENV=/home/airflow/python && python3 -m venv /home/airflow/uv \\
    && /home/airflow/uv/bin/pip install --no-cache-dir --require-hashes -r /home/airflow/uv.txt \\
    && /home/airflow/uv/bin/uv pip install --compile-bytecode --require-hashes -r /home/airflow/airflow.txt
COPY constraints.txt /home/airflow/
RUN export SSL_CERT_FILE=$PIP_CERT UV_NO_CACHE=1 VIRTUAL_ENV=/home/airflow/python \\
    && /home/airflow/uv/bin/uv pip install --compile-bytecode -c /home/airflow/constraints.txt \\
    'apache-airflow-providers-amazon[s3fs]' apache-airflow-providers-fab apache-airflow-providers-postgres
ENV PIP_CONSTRAINT=/home/airflow/constraints.txt
"""


def build_airflow_image(stand, folder, models):
    """Build the image with a `models` folder on the stand's engine, and push it; its reference, whose tag is of its content."""
    host = stand["docker_host"]
    base = folder / "base"
    base.mkdir()
    shutil.copy(os.environ.get("SSL_CERT_FILE", CERTIFICATES), base / "ca.crt")
    shutil.copy(PROJECT / "local" / "builds" / "uv.txt", base)
    shutil.copy(PROJECT / "requirements.txt", base / "airflow.txt")
    locked = (PROJECT / "requirements-dev.txt").read_text() + (PROJECT / "requirements.txt").read_text()
    pins = sorted(set(re.findall(r"^[a-z0-9][^\s;\\]*==[^\s;\\]+", locked, re.MULTILINE)))
    (base / "constraints.txt").write_text("\n".join(pins) + "\n")
    (base / "Dockerfile").write_text(BASE_DOCKERFILE.format(debian=debian_base(settings_here(), host)))
    docker(host, "build", "--network=host", "--tag", BASE, base)

    ours = folder / "image"
    (ours / "dags").mkdir(parents=True)
    (ours / "dags" / "slipway_models.py").write_text(DAG_FILE)
    shutil.copytree(models, ours / "dags" / MODELS)
    shutil.copy(DOCKERFILE, ours)
    build_wheel(sys.executable, ours)
    name = f"{stand['registry']}/airflow"
    docker(host, "build", "--network=host", f"--build-arg=BASE={BASE}", "--build-arg=CONSTRAINTS=/dev/null", "--tag", name, ours)  # fmt: skip
    tag = docker(host, "inspect", "--format", "{{.Id}}", name).strip().removeprefix("sha256:")[:12]
    docker(host, "tag", name, f"{name}:{tag}")
    docker(host, "push", f"{name}:{tag}")
    return f"{name}:{tag}"
