"""What the tests on the real stand share: its surroundings, and one refresh through the scheduler."""

import json
import os
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from local.google_project import read_google_project

PROJECT = Path(__file__).parents[2]
REFRESH_LIMIT_S = 600 if read_google_project() is None else 3600


@pytest.fixture(scope="session")
def surroundings(stand):
    """The environment that Airflow's processes have on this stand: connections, variables, PATH."""
    return read_surroundings(stand)


@pytest.fixture
def surroundings_now(stand):
    """The same as it is now: `up --gke` changes it."""
    return read_surroundings(stand)


def read_surroundings(stand):
    """The environment file as a dict."""
    environment = dict(os.environ)
    for line in Path(stand["airflow"]["environment_file"]).read_text().splitlines():
        if line.startswith("export ") and not line.startswith("export PATH="):
            name, value = line.removeprefix("export ").split("=", 1)
            environment[name] = shlex.split(value)[0] if value else ""
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return environment


@pytest.fixture(scope="session")
def kubectl(stand):
    """Runs kubectl in the checkout's namespace; its standard output comes back."""

    def run(*words, check=True):
        command = [
            str(Path(sys.executable).parent / "kubectl"), "--kubeconfig", stand["kubeconfig"], "-n", stand["namespace"], *words,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def airflow_api(stand):
    """Asks Airflow's REST API: `airflow_api(path)`, or with `method` and `body`; the parsed answer comes back."""
    url, password = stand["airflow"]["url"], Path(stand["airflow"]["password_file"]).read_text().strip()
    login = json.dumps({"username": stand["airflow"]["user"], "password": password}).encode()
    request = urllib.request.Request(f"{url}/auth/token", login, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        token = json.load(answer)["access_token"]

    def ask(path, method="GET", body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        asked = urllib.request.Request(f"{url}/api/v2{path}", data, headers, method=method)
        with urllib.request.urlopen(asked, timeout=30) as found:
            return json.load(found)

    return ask


def run_refresh(*words):
    """`python3 -m local refresh`, as a person types it."""
    command = [sys.executable, "-m", "local", "refresh", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT, timeout=REFRESH_LIMIT_S)


@pytest.fixture(scope="session")
def refresh():
    """The command, for tests that say more to it: `refresh("digits-vit", "--param", "overlay=local")`."""
    return run_refresh


@pytest.fixture(scope="session")
def refreshed(stand, airflow_api):
    """One run of the shipped model's DAG through the scheduler and the triggerer: its output and what Airflow says of it."""
    done = run_refresh("digits-vit", "--force")  # the model may be live on this stand already
    assert done.returncode == 0, done.stdout + done.stderr
    runs = airflow_api("/dags/refresh_digits_vit/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
    return {"output": done.stdout, "run": runs[0]}


@pytest.fixture(scope="session")
def record(stand, refreshed):
    """The record that the refresh left."""
    folder = Path(stand["store"].removeprefix("file://")) / "records" / "digits-vit"
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return next(found for found in records if found["run_id"] == refreshed["run"]["dag_run_id"])


@pytest.fixture(scope="module")
def gke():
    """What the stand says of Google's side after `up --gke`: the emulator's addresses, or a real project's name."""
    subprocess.run(
        [sys.executable, "-m", "local", "up", "--gke"], cwd=PROJECT, check=True, capture_output=True, timeout=300
    )
    shown = subprocess.run(
        [sys.executable, "-m", "local", "status", "--json"], cwd=PROJECT, check=True, capture_output=True
    )
    return json.loads(shown.stdout)["gke"]


@pytest.fixture(scope="module")
def google(gke):
    """Tells the emulator of Google what to do, and what it knows. Tests that name it are left out against a real project."""
    control = gke["control"]

    def ask(method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        with urllib.request.urlopen(urllib.request.Request(control + path, data, method=method), timeout=30) as answer:
            return json.load(answer)

    ask.control = control
    ask("POST", "/reset")
    yield ask
    ask("POST", "/reset")


@pytest.fixture(scope="session")
def engine(surroundings):
    """The engine that the Docker connection names."""
    import docker

    client = docker.APIClient(base_url=json.loads(surroundings["AIRFLOW_CONN_DOCKER_DEFAULT"])["host"], timeout=120)
    yield client
    client.close()
