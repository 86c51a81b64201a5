"""Airflow's official Helm chart with docs/platforms/values.yaml: a refresh passes, and the release leaves nothing.

`SLIPWAY_HELM` names the program, `SLIPWAY_AIRFLOW_CHART` the chart: a folder, or an archive. Neither is part of the project.
"""

import json
import os
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import yaml
from dag_run import Run, until
from fixtures.stand import airflow_client
from kube_cluster import PROGRAM, exporter_volume, namespace, registry_sidecar
from kube_image import build_airflow_image
from kube_services import pod_bucket, pod_postgres
from trial_project import PROJECT, trial_file

HELM, CHART = os.environ.get("SLIPWAY_HELM"), os.environ.get("SLIPWAY_AIRFLOW_CHART")
PAGES = PROJECT / "docs" / "platforms"
RELEASE, MODEL = "airflow", "chart"
READY_S = 1200
PATIENT = {"startupProbe": {"failureThreshold": 60}, "livenessProbe": {"failureThreshold": 30, "timeoutSeconds": 60}}

pytestmark = [
    pytest.mark.stand,
    pytest.mark.slow,
]


def stand_values(stand, image):
    """What the stand needs besides values.yaml: it has no DNS and pulls no other image, and its two cores are slow to start."""
    repository, _, tag = image.rpartition(":")
    volume, mount = exporter_volume(stand)
    groomer = {"logGroomerSidecar": {"enabled": False}}  # a script of the official image
    host, port = (f"$(AIRFLOW_API_SERVER_SERVICE_{part})" for part in ("HOST", "PORT"))  # of the chart's Service
    return {
        "defaultAirflowRepository": repository,
        "defaultAirflowTag": tag,
        "images": {"migrationsWaitTimeout": 600},
        "statsd": {"enabled": False},
        "env": [{"name": "AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "value": f"http://{host}:{port}/execution/"}],
        "apiServer": PATIENT,
        "scheduler": PATIENT | groomer,
        "dagProcessor": {"livenessProbe": PATIENT["livenessProbe"]} | groomer,
        "triggerer": {"livenessProbe": PATIENT["livenessProbe"]} | groomer,
        "workers": {
            "kubernetes": {
                "extraInitContainers": [registry_sidecar(stand, image)],
                "extraVolumes": [volume],
                "extraVolumeMounts": [mount],
            }
        },
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for all of it."""
    return tmp_path_factory.mktemp("helm")


@pytest.fixture(scope="module")
def image(stand, folder):
    """The image with the model."""
    models = folder / "models"
    shutil.copytree(PROJECT / "include" / "served" / "digits-vit", models / "served" / "digits-vit")
    own = {"image__builder": "registry", "target__deployment": f"tfs-{MODEL}", "target__strategy": "preview"}
    (models / "served" / f"{MODEL}.yaml").write_text(yaml.safe_dump(trial_file(**own)))
    return build_airflow_image(stand, folder, models)


@pytest.fixture(scope="module")
def release(stand, folder, image, tmp_path_factory):
    """The chart's release, as the page installs it: its API, its objects before and after; `end()` uninstalls it."""
    shop, name = f"{stand['namespace']}-shop", f"{stand['namespace']}-helm"
    with (
        pod_bucket(tmp_path_factory.mktemp("s3")) as bucket,
        pod_postgres() as database,
        namespace(stand, shop),
        namespace(stand, name) as kubectl,
    ):
        settings = dict(line.split("=", 1) for line in (PAGES / "slipway.env").read_text().splitlines())
        connection = settings["AIRFLOW_CONN_KUBERNETES_DEFAULT"].replace('"shop"', f'"{shop}"')
        assert connection != settings["AIRFLOW_CONN_KUBERNETES_DEFAULT"]
        settings |= {
            **bucket.settings,
            "AIRFLOW_VAR_SLIPWAY_REGISTRY": stand["registry"],
            "AIRFLOW_VAR_SLIPWAY_SERVING_IMAGE": stand["serving_image"],
            "AIRFLOW_CONN_KUBERNETES_DEFAULT": connection,
        }
        (folder / "slipway.env").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (folder / "stand.yaml").write_text(yaml.safe_dump(stand_values(stand, image)))
        kubectl("create", "configmap", "slipway", f"--from-env-file={folder}/slipway.env")
        kubectl("create", "secret", "generic", "slipway-connections", f"--from-literal=AIRFLOW_CONN_AWS_DEFAULT={bucket.connection}")  # fmt: skip
        kubectl("create", "secret", "generic", "airflow-database", f"--from-literal=connection={database}")
        access = (PAGES / "access.yaml").read_text().replace("namespace: shop", f"namespace: {shop}")
        access = access.replace("namespace: airflow", f"namespace: {name}").replace("name: slipway", f"name: {name}-slipway")  # fmt: skip
        (folder / "access.yaml").write_text(access)
        helm = [HELM, "--kubeconfig", stand["kubeconfig"], "--namespace", name]
        values = [f"--values={PAGES}/values.yaml", f"--values={folder}/stand.yaml"]
        admin = [*PROGRAM, "--kubeconfig", stand["kubeconfig"]]
        run(*admin, "apply", "-f", f"{folder}/access.yaml", folder=folder)
        try:
            run(*helm, "install", RELEASE, CHART, *values, "--timeout=20m", folder=folder)
            service = json.loads(kubectl("get", f"service/{RELEASE}-api-server", "-o", "json"))
            url = f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
            api = until(lambda: answers(url), "Airflow answers", limit_s=READY_S)
            yield SimpleNamespace(
                api=api, kubectl=kubectl, end=lambda: run(*helm, "uninstall", RELEASE, "--wait", folder=folder)
            )
        finally:
            run(*admin, "delete", "-f", f"{folder}/access.yaml", "--ignore-not-found", folder=folder)
            run(*helm, "uninstall", RELEASE, "--ignore-not-found", folder=folder)


def run(*command, folder):
    """Run Helm or kubectl; their own files are in the folder."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(folder)})
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def answers(url):
    """A client of the chart's Airflow, with the user that the chart makes; None as long as it does not answer."""
    try:
        return airflow_client(url, "admin", "admin")
    except OSError:
        return None


@pytest.fixture(scope="module")
def refreshed(release):
    """A refresh, at its end: its states, the pods of its tasks, and the log of one that is gone."""
    dag = f"refresh_{MODEL}"
    until(lambda: dag in {one["dag_id"] for one in release.api("/dags")["dags"]}, f"Airflow knows {dag}")
    run = Run(release.api, dag)
    ended = run.end()
    states = run.states()
    assert ended == "success", {task: run.log(task)[-3000:] for task, state in states.items() if state == "failed"}
    tasks = release.api(f"{run.path}/taskInstances")["task_instances"]
    pods = {one["task_id"]: one["hostname"] for one in tasks if one["hostname"]}
    return SimpleNamespace(states=states, pods=pods, log=run.log("export"))


def test_a_refresh_passes(refreshed):
    """All processes are pods: the triggerer's waits too, with the rights of access.yaml."""
    assert {refreshed.states[task] for task in ("export", "push", "preview_gate", "gate", "announce", "prune")} == {"success"}  # fmt: skip
    assert len(set(refreshed.pods.values())) == len(refreshed.pods) > 10
    assert re.search(r"Landlock version \d+, seccomp", refreshed.log)


def test_the_release_leaves_nothing(refreshed, release):
    """After `helm uninstall` only the objects that were made by hand are there."""

    def left(kinds, *labels):
        found = json.loads(release.kubectl("get", kinds, *labels, "-o", "json"))["items"]
        return [one["metadata"]["name"] for one in found]

    workers = ("pods", "-l", "kubernetes_executor=True")  # the scheduler deletes them some seconds after their tasks
    until(lambda: not left(*workers), "the workers' pods are gone", limit_s=READY_S)
    release.end()
    kinds = "pods,deployments,statefulsets,jobs,services,persistentvolumeclaims"
    until(lambda: not left(kinds), "the release's objects are gone", limit_s=READY_S)


def test_the_chart_is_the_one_that_the_page_names(tmp_path):
    """The page says which version was run."""
    chart = yaml.safe_load(run(HELM, "show", "chart", CHART, folder=tmp_path))
    assert f"--version {chart['version']}" in (PAGES / "helm.md").read_text()
