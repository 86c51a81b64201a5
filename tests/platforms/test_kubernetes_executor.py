"""Workers that share nothing: each task in a pod of its own, from an image with the wheel, and the same DAGs pass."""

import json
import re
import secrets
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from dag_run import Run, until
from kube_airflow import airflow_environment, kubernetes_airflow
from kube_cluster import namespace, pod_environment, pod_template, write_kubeconfig
from kube_image import build_airflow_image
from kube_services import pod_bucket
from trial_project import PROJECT, remove_images, trial_file

pytestmark = [pytest.mark.stand, pytest.mark.slow]

APPENDED, BUILT = "pods-registry", "pods-engine"  # the models: one without an engine, one with the node's
GONE_S = 120  # until the executor has deleted the last pod


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for all of it; the object store is in another, because it removes its own."""
    return tmp_path_factory.mktemp("kubernetes")


@pytest.fixture(scope="module")
def image(stand, folder):
    """The image with both models."""
    models = folder / "models"
    shutil.copytree(PROJECT / "include" / "served" / "digits-vit", models / "served" / "digits-vit")
    for name, builder, strategy in ((APPENDED, "registry", "preview"), (BUILT, "engine", "rolling")):
        own = {"image__builder": builder, "target__deployment": f"tfs-{name}", "target__strategy": strategy}
        (models / "served" / f"{name}.yaml").write_text(yaml.safe_dump(trial_file(**own)))
    return build_airflow_image(stand, folder, models)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A new bucket that pods reach."""
    with pod_bucket(tmp_path_factory.mktemp("s3")) as found:
        yield found


@pytest.fixture(scope="module")
def airflow(stand, surroundings, folder, image, bucket):
    """The Airflow: its API, `kubectl` in its namespace, and `template(…)`, which changes the pods' template."""
    shared = {
        **bucket.settings,
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": surroundings["AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT"],
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": surroundings["AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT"],
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_AWS_DEFAULT": bucket.connection,
        "AIRFLOW_VAR_SLIPWAY_REGISTRY": stand["registry"],
        "AIRFLOW_VAR_SLIPWAY_SERVING_IMAGE": stand["serving_image"],
    }
    name, path = f"{stand['namespace']}-pods-{secrets.token_hex(2)}", folder / "template.yaml"
    with namespace(stand, name) as kubectl:
        write_kubeconfig(stand, kubectl, folder / "kubeconfig")
        environment = airflow_environment(
            surroundings, folder, folder / "image",
            shared=shared, kubeconfig=stand["kubeconfig"], namespace=name, template=path,
        )  # fmt: skip
        inside = pod_environment(environment["AIRFLOW__API__BASE_URL"], shared, name)

        def template(**how):
            path.write_text(pod_template(stand, image, inside, **how))

        template()
        with kubernetes_airflow(environment, folder) as api:
            yield SimpleNamespace(api=api, kubectl=kubectl, template=template)


def refreshed(airflow, model):
    """A refresh of the model, at its end: its states, and the pods that its tasks ran in, by task."""
    dag = f"refresh_{model.replace('-', '_')}"
    until(lambda: dag in {one["dag_id"] for one in airflow.api("/dags")["dags"]}, f"Airflow knows {dag}")
    run = Run(airflow.api, dag)
    ended = run.end()
    tries = airflow.api(f"{run.path}/taskInstances")["task_instances"]
    red = [one["task_id"] for one in tries if one["state"] == "failed"]
    assert ended == "success", {task: run.log(task)[-3000:] for task in red[:3]}
    return SimpleNamespace(
        run=run, states=run.states(), pods={one["task_id"]: one["hostname"] for one in tries if one["hostname"]}
    )


@pytest.fixture(scope="module")
def first(airflow):
    """A refresh whose pods have no engine."""
    return refreshed(airflow, APPENDED)


def test_a_refresh_passes_without_an_engine(first):
    """The registry makes the image, the preview is asked over REST and gRPC, and the model is live and proven."""
    assert not {"build_image", "smoke_test"} & first.states.keys()
    assert {first.states[task] for task in ("export", "push", "preview_gate", "gate", "announce", "prune")} == {"success"}  # fmt: skip


def test_each_task_ran_in_a_pod_of_its_own(first):
    """Each task's host is a pod that Kubernetes named for it, and no two are the same."""
    assert len(set(first.pods.values())) == len(first.pods) > 10
    for task, pod in first.pods.items():
        assert pod.startswith(f"refresh-pods-registry-{task.replace('_', '-')}"[:40])


def test_the_log_of_a_pod_that_is_gone_can_be_read(first):
    """From the bucket: how the exporter was shut in, in a pod without root and with the runtime's own seccomp filter."""
    assert re.search(r"Landlock version \d+, seccomp", first.run.log("export"))


@pytest.fixture(scope="module")
def second(first, airflow, engine, stand):
    """A refresh whose pods have the engine of their node, by its socket."""
    socket = Path(stand["docker_host"].removeprefix("unix://"))
    airflow.template(engine_group=socket.stat().st_gid)
    yield refreshed(airflow, BUILT)
    remove_images(engine, BUILT)


def test_a_mounted_engine_builds_and_tests_the_image(second):
    """The smoke test asks the container at the node's address: at a pod's own loopback nothing listens."""
    assert {second.states[task] for task in ("build_image", "smoke_test", "push", "gate", "announce")} == {"success"}
    assert re.search(r"golden|gRPC", second.run.log("smoke_test"))


def test_nothing_is_left(second, airflow, engine):
    """No worker's pod, and on the engine neither a container nor a network of the run."""

    def workers():
        pods = json.loads(airflow.kubectl("get", "pods", "-l", "kubernetes_executor=True", "-o", "json"))["items"]
        return [pod["metadata"]["name"] for pod in pods]

    until(lambda: not workers(), "the executor has deleted the pods", limit_s=GONE_S)
    assert not [one for one in engine.containers(all=True) if BUILT in json.dumps(one["Names"])]
    assert not [one for one in engine.networks() if BUILT in one["Name"]]
