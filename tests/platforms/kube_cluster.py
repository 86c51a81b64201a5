"""The cluster's side: a namespace with the account of a user's Airflow, addresses that pods reach, and the pods' template."""

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import kube_forward
import yaml
from kube_image import DAGS, EXPORTER, MODELS, USER

from local.parts.access import ACCOUNT, remove_access, render_access
from local.settings import API_SERVER_PORT, POD_GATEWAY

FORWARD = Path(kube_forward.__file__)
SOCKET = "/var/run/docker.sock"
PROGRAM = [str(Path(sys.executable).parent / "kubectl")]
CLOSED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
ADDRESSES = "10.216"  # plus a number of the checkout: addresses for Services, which pods reach too


@contextmanager
def running(*commands, **how):
    """Run programs for the length of a block."""
    with ExitStack() as stack:
        for command in commands:
            process = stack.enter_context(subprocess.Popen(command, **how))
            stack.callback(process.terminate)
        yield


@contextmanager
def namespace(stand, name):
    """A namespace with the account `airflow` and the rights that docs/eks.md lists, and with addresses for its Services.

    Pods reach the API server and the registry at the gateway of their network. All that is in the namespace goes with it.
    """
    admin = [*PROGRAM, "--kubeconfig", stand["kubeconfig"]]

    def kubectl(*words, stdin=None):
        command = [*admin, "--namespace", name, *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    prefix = f"{ADDRESSES}.{stand['airflow']['url'].rpartition(':')[2][-2:].lstrip('0')}"
    balancer = [sys.executable, "-m", "local.parts.loadbalancer", stand["kubeconfig"], name, prefix]
    port = stand["registry"].partition("/")[0].rpartition(":")[2]
    pairs = [f"{POD_GATEWAY}:{one}=127.0.0.1:{one}" for one in (API_SERVER_PORT, port)]
    try:
        kubectl("create", "namespace", name)
        kubectl("apply", "-f", "-", stdin=json.dumps(render_access(name)))
        with running(balancer, [sys.executable, str(FORWARD), *pairs], cwd=FORWARD.parents[2]):
            yield kubectl
    finally:
        remove_access(admin, name)
        kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=300s")


def write_kubeconfig(stand, kubectl, path):
    """A kubeconfig of the account, for the processes that are not in the cluster."""
    config = json.loads(kubectl("--kubeconfig", stand["kubeconfig"], "config", "view", "--raw", "-o", "json"))
    token = kubectl("create", "token", ACCOUNT, "--duration=8h").strip()
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path.write_text(json.dumps(config))


def exporter_volume(stand):
    """The exporter's packages from the node, so that they need not be in the image: a volume, and its mount."""
    packages = next(Path(stand["exporter_python"]).parents[1].glob("lib/python*/site-packages"))
    where = f"{EXPORTER}/lib/{packages.parent.name}/{packages.name}"
    return (
        {"name": "exporter", "hostPath": {"path": str(packages), "type": "Directory"}},
        {"name": "exporter", "mountPath": where, "readOnly": True},
    )


def registry_sidecar(stand, image):
    """A sidecar that forwards the registry, whose name on the stand is a loopback address."""
    registry = stand["registry"].partition("/")[0]
    pair = f"{registry}={POD_GATEWAY}:{registry.rpartition(':')[2]}"
    return {
        "name": "registry",
        "image": image,
        "restartPolicy": "Always",
        "command": ["python3", "-c", FORWARD.read_text(), pair],
        "securityContext": CLOSED,
    }


def pod_template(stand, image, environment, *, engine_group=None):
    """The template of worker pods; with the group of an engine's socket, the socket is mounted.

    Two things are the stand's own: the volume of the exporter's packages, and the sidecar for the registry.
    """
    volume, mount = exporter_volume(stand)
    volumes, mounts = [volume], [mount]
    user = {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}}
    if engine_group is not None:
        path = stand["docker_host"].removeprefix("unix://")
        volumes.append({"name": "engine", "hostPath": {"path": path, "type": "Socket"}})
        mounts.append({"name": "engine", "mountPath": SOCKET})
        user["supplementalGroups"] = [engine_group]
    own = [{"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]
    base = {
        "name": "base",
        "image": image,
        "env": own + [{"name": name, "value": value} for name, value in environment.items()],
        "volumeMounts": mounts,
        "securityContext": CLOSED,
    }
    spec = {
        "serviceAccountName": ACCOUNT,
        "restartPolicy": "Never",
        "securityContext": user,
        "initContainers": [registry_sidecar(stand, image)],
        "containers": [base],
        "volumes": volumes,
    }
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": spec})


def pod_environment(url, shared, namespace):
    """What a user writes into the template: where Airflow and the DAGs are, and the connection to the pod's own cluster."""
    own = {"conn_type": "kubernetes", "extra": {"in_cluster": True, "namespace": namespace}}
    return {
        **shared,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__DAGS_FOLDER": DAGS,
        "AIRFLOW__SLIPWAY__FOLDER": MODELS,
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(own),
        "AIRFLOW_CONN_DOCKER_DEFAULT": json.dumps(
            {"conn_type": "docker", "host": f"unix://{SOCKET}", "extra": {"ports_host": "$HOST_IP"}}
        ),
    }
