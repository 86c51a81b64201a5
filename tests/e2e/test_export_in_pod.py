"""A model that a pod exports, with the exporter's real image: the worker has no exporter."""

import json
import tarfile

import pytest
from dag_run import Run
from stand_model import stand_model

from local.parts.server_image import debian_base
from local.programs.docker_client import build_image, docker
from local.settings import settings_here
from slipway.model.content import content_hash
from slipway.paths import INCLUDE

pytestmark = [pytest.mark.stand, pytest.mark.slow]

MODEL = "podded"
WARMUP = "assets.extra/tf_serving_warmup_requests"


@pytest.fixture(scope="module")
def image(stand):
    """The exporter's image in the stand's registry, built from its own Dockerfile on the stand's base."""
    name, host = f"{stand['registry']}/exporter:{content_hash(INCLUDE / 'model')[7:19]}", stand["docker_host"]
    build_image(host, INCLUDE / "model", debian_base(settings_here(), host), name)
    docker(host, "push", name)
    return name


@pytest.fixture(scope="module")
def connection(airflow_api, exports_kubeconfig):
    """An Airflow connection with the rights that an export needs."""
    extra = json.dumps({"kube_config_path": str(exports_kubeconfig)})
    airflow_api("/connections", "POST", {"connection_id": "exports", "conn_type": "kubernetes", "extra": extra})
    yield "exports"
    airflow_api("/connections/exports", "DELETE")


@pytest.fixture(scope="module")
def podded(stand, kubectl, engine, airflow_api, image, connection):  # noqa: PLR0917 (fixtures)
    """The model."""
    pod = {"conn_id": connection, "namespace": stand["namespace"], "image": image, "cpu": 0.5, "memory_mib": 1024}
    own = {"export__run_in": "pod", "export__pod": pod}
    with stand_model(MODEL, stand, kubectl, engine, airflow_api, **own) as trial:
        yield trial


def test_it_is_live_and_the_export_is_the_same(podded, airflow_api, kubectl, digits_export):
    """The run is green, graph and weights are the worker's to the byte, the sandbox holds in the pod, and no pod is left."""
    run = Run(airflow_api, podded.dag, force=True)  # the store may have this export of an earlier test
    assert run.end() == "success", run.states()
    [record] = podded.records()
    assert record["outcome"] == "live"
    saved = digits_export / "savedmodel"
    with tarfile.open(record["export"]["model_uri"].removeprefix("file://")) as layer:
        made = {
            member.name.partition(f"{MODEL}/1/")[2]: layer.extractfile(member).read()
            for member in layer
            if member.isfile()
        }
    names = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    assert made.keys() == names
    for name in names - {WARMUP}:  # which has the model's name
        assert made[name] == (saved / name).read_bytes()
    assert "seccomp" in record["export"]["sandbox"]
    assert kubectl("get", "pods", "-l", "app.kubernetes.io/name=slipway-export", "-o", "name") == ""
