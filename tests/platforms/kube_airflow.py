"""An Airflow of a test's own with KubernetesExecutor: four processes on this machine, a database, and workers that are pods."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from zipfile import ZipFile

from fixtures.stand import airflow_client
from kube_cluster import MODELS

from local.settings import POD_GATEWAY

COMPONENTS = (("api-server",), ("scheduler", "--skip-serve-logs"), ("dag-processor",), ("triggerer", "--skip-serve-logs"))  # fmt: skip
# Composer syncs no plugins to the triggerer, and promises nothing of DAGs: here it has the package, and no file of a user.
WITHOUT_FILES = {"AIRFLOW__CORE__DAGS_FOLDER": "/nonexistent", "AIRFLOW__SLIPWAY__FOLDER": "/nonexistent"}
USER, PASSWORD = "admin", "only-for-this-test"
START_LIMIT_S = 900
PLENTY_S = "300"  # for a busy machine: Airflow's own limits lose tasks there


@contextmanager
def database(url):
    """A database beside the one of this URL, on the same server; its URL."""
    import psycopg2

    server, _, query = url.partition("?")
    name = f"slipway_test_{secrets.token_hex(4)}"
    there = psycopg2.connect(url.replace("+psycopg2", ""))
    there.autocommit = True
    try:
        there.cursor().execute(f"create database {name}")
        yield f"{server.rpartition('/')[0]}/{name}?{query}"
    finally:
        there.cursor().execute(f"drop database if exists {name} with (force)")
        there.close()


def airflow_environment(surroundings, folder, image_folder, *, shared, kubeconfig, namespace, template):
    """The environment of the four processes, which have the wheel, the line of DAGs and the models, and no checkout.

    `shared` are the connections and Variables of the workers too; `kubeconfig` has the executor's rights.
    """
    [wheel] = image_folder.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    home = folder / "airflow"
    (home / "plugins").mkdir(parents=True)
    (home / "passwords.json").write_text(json.dumps({USER: PASSWORD}))
    with socket.create_server((POD_GATEWAY, 0)) as free:
        port = free.getsockname()[1]
    url = f"http://{POD_GATEWAY}:{port}"
    kept = {name: value for name, value in surroundings.items() if not name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_"))}  # fmt: skip
    own = {"conn_type": "kubernetes", "extra": {"kube_config_path": f"{folder}/kubeconfig", "namespace": namespace}}
    return {
        **kept,
        **shared,
        "PYTHONPATH": str(folder / "site"),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(image_folder / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
        "AIRFLOW__SLIPWAY__FOLDER": MODELS,
        "AIRFLOW__CORE__EXECUTOR": "KubernetesExecutor",
        "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": namespace,
        "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
        "AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE": kubeconfig,
        "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE": str(template),
        "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_PODS_CREATION_BATCH_SIZE": "4",
        "AIRFLOW__API__HOST": POD_GATEWAY,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(own),
    }


@contextmanager
def kubernetes_airflow(environment, folder):
    """Run that Airflow; a client of its REST API."""
    with database(environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]) as url, ExitStack() as stack:
        environment = {
            **environment,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": url.replace("psycopg2", "asyncpg"),
        }
        airflow = str(Path(sys.executable).parent / "airflow")
        subprocess.run([airflow, "db", "migrate"], env=environment, cwd=folder, check=True, capture_output=True)
        for words in COMPONENTS:
            own = WITHOUT_FILES if words[0] == "triggerer" else {}
            log = stack.enter_context((folder / f"{words[0]}.log").open("w"))
            process = subprocess.Popen([airflow, *words], env={**environment, **own}, cwd=folder, stdout=log, stderr=log, start_new_session=True)  # fmt: skip
            stack.callback(end, process)
        yield _client(environment["AIRFLOW__API__BASE_URL"], folder)


def end(process):
    """End a process, and all that it started."""
    for signal_number in (15, 9):
        try:
            os.killpg(process.pid, signal_number)
            process.wait(timeout=30)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _client(url, folder):
    """The client, once Airflow answers."""
    end_s = time.monotonic() + START_LIMIT_S
    while True:
        try:
            return airflow_client(url, USER, PASSWORD)
        except OSError:
            assert time.monotonic() < end_s, (folder / "api-server.log").read_text()[-3000:]
            time.sleep(1)
