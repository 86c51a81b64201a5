"""What all tests share: an Airflow home that nobody else has, set before anything imports Airflow."""

import atexit
import importlib.util
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.own_stand import own_stand
from local.google_project import read_google_project
from local.settings import settings_here
from local.shared import supervisor
from local.supervision import pids

PROJECT = Path(__file__).parents[1]
LIMIT_S = 1800  # far beyond what anything here takes: how long is the machine's business

home = tempfile.mkdtemp(prefix="slipway-tests-")
atexit.register(shutil.rmtree, home, ignore_errors=True)

os.environ["AIRFLOW_HOME"] = home
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(PROJECT / "dags")
os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(PROJECT / "plugins")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# A Hub that nobody answers for unless a test opens it: the client reads these once, when it is imported.
with socket.create_server(("127.0.0.1", 0)) as free:
    HUB_PORT = free.getsockname()[1]
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{HUB_PORT}"
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # asks Google over gRPC, which the emulator does not speak
os.environ["HF_HOME"] = f"{home}/huggingface"
os.environ.pop("HF_TOKEN", None)
os.environ["PATH"] = (
    f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # kubectl is a package of the environment
)


def _load_hub_stub():
    """The module beside this file."""
    spec = importlib.util.spec_from_file_location("hub_stub", Path(__file__).with_name("hub_stub.py"))
    module = sys.modules["hub_stub"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hub_stub = _load_hub_stub()


def pytest_collection_modifyitems(config, items):
    """Tests of the second checkout come first, and its Airflow goes with the last of them.

    With a real project of Google's, tests that tell the emulator what to be are left out: pytest counts them as deselected.
    """
    items.sort(key=lambda item: "second" not in item.fixturenames)
    if read_google_project() is None:
        return
    told = [item for item in items if {"google", "emulator"} & set(item.fixturenames)]
    config.hook.pytest_deselected(items=told)
    items[:] = [item for item in items if item not in told]


@pytest.fixture
def hub():
    """The Hub that HF_ENDPOINT names in these tests, without a model in it; `close()` makes it unreachable."""
    server = hub_stub.Hub(HUB_PORT)
    yield server
    server.close()


@pytest.fixture(scope="session")
def fake_gcs():
    """The URL of fake-gcs-server, an emulator of Google Cloud Storage, with nothing in it."""
    built = subprocess.run(
        [sys.executable, "-m", "local", "env", "fake-gcs"], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        f"{built.stdout.splitlines()[-1]}/fake-gcs-server", "-backend", "memory", "-log-level", "error",
        "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", url,
    ]  # fmt: skip
    with subprocess.Popen(command) as process:
        for _ in range(2400):
            try:
                urllib.request.urlopen(f"{url}/storage/v1/b?project=slipway", timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield url
        process.terminate()


@pytest.fixture
def bucket(fake_gcs, monkeypatch):
    """A new bucket in the emulator, as a URI with the Airflow connection `gcs` that reaches it."""
    name = f"slipway-{uuid.uuid4().hex[:8]}"
    create = urllib.request.Request(
        f"{fake_gcs}/storage/v1/b?project=slipway",
        json.dumps({"name": name}).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(create, timeout=30).close()
    extra = {"is_anonymous": True, "project": "slipway", "gcs.endpoint": fake_gcs}
    monkeypatch.setenv("AIRFLOW_CONN_GCS", json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))
    return f"gs://gcs@{name}"


@pytest.fixture(scope="session")
def stand():
    """The running stand, as `python3 -m local status --json` names it."""
    done = subprocess.run(
        ["python3", "-m", "local", "status", "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, f"the stand is not up: {done.stderr.strip()}. Next: make up"
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def second(stand):
    """A second checkout beside this one, with a stand of its own: its `project` and `status`; and the shared parts' `pids` before it."""
    before = pids(supervisor(settings_here()))
    with own_stand() as (project, status):
        yield SimpleNamespace(project=project, status=status, pids=before)


@pytest.fixture(scope="session")
def demos(second):
    """Both checkouts' `make demo`, every step of it, at once: the output of this one's and of the other's."""
    command = ["make", "demo", "FORCE=1"]
    running = [
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for folder in (PROJECT, second.project)
    ]
    said = [one.communicate()[0] for one in running]
    assert [one.returncode for one in running] == [0, 0], said
    return said


@pytest.fixture(scope="session")
def surroundings(stand):
    """The environment that Airflow's processes have on this stand without --gke: connections, variables, PATH."""
    environment = read_surroundings(stand)
    if read_google_project() is None:
        environment.pop("AIRFLOW_VAR_SLIPWAY_REGISTRY_CONN_ID", None)
        environment |= {
            "AIRFLOW_VAR_SLIPWAY_REGISTRY": stand["registry"],
            "AIRFLOW_VAR_SLIPWAY_SERVING_IMAGE": stand["serving_image"],
        }
    return environment


@pytest.fixture(scope="session")
def surroundings_now(stand):
    """The same as it is: --gke puts a token before the registry."""
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
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def airflow_api(stand):
    """Asks Airflow's REST API: `airflow_api(path)`, or with `method` and `body`; the parsed answer comes back."""
    url, password = stand["airflow"]["url"], Path(stand["airflow"]["password_file"]).read_text().strip()
    login = json.dumps({"username": stand["airflow"]["user"], "password": password}).encode()
    request = urllib.request.Request(f"{url}/auth/token", login, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        token = json.load(answer)["access_token"]

    def ask(path, method="GET", body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        asked = urllib.request.Request(f"{url}/api/v2{path}", data, headers, method=method)
        with urllib.request.urlopen(asked, timeout=LIMIT_S) as found:
            return json.load(found)

    return ask


@pytest.fixture(scope="session")
def engine(surroundings):
    """The engine that the Docker connection names."""
    import docker

    client = docker.APIClient(base_url=json.loads(surroundings["AIRFLOW_CONN_DOCKER_DEFAULT"])["host"], timeout=120)
    yield client
    client.close()


# --- the exporter's environment ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def model_python():
    """The interpreter of the exporter's environment: the stand's, or built (once) and found by `local`."""
    given = os.environ.get("AIRFLOW_VAR_SLIPWAY_EXPORTER_PYTHON")
    if given:
        return Path(given)
    built = subprocess.run(
        [sys.executable, "-m", "local", "env", "model"], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    return Path(built.stdout.splitlines()[-1]) / "bin" / "python"


@pytest.fixture(scope="session")
def serving_python():
    """The interpreter of the stand-in's environment."""
    built = subprocess.run(
        [sys.executable, "-m", "local", "env", "serving"], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    return Path(built.stdout.splitlines()[-1]) / "bin" / "python"


@pytest.fixture(scope="session")
def run_exporter(model_python):
    """Runs export.py on a request (a dict) in its own process; the finished process comes back."""

    def run(request, out, **environment):
        file = out.with_name(f"{out.name}-request.json")
        file.write_text(json.dumps(request))
        command = [model_python, PROJECT / "include" / "model" / "export.py", "--request", file, "--out", out]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=LIMIT_S, env={**os.environ, **environment}
        )

    return run


@pytest.fixture(scope="session")
def digits_checkpoint():
    """The folder of digits-vit's checkpoint."""
    return PROJECT / "include" / "served" / "digits-vit" / "checkpoint"


@pytest.fixture(scope="session")
def digits_request():
    """The request for digits-vit: its checkpoint, and its three golden images with what they promise."""
    served = PROJECT / "include" / "served" / "digits-vit"
    labels = {"three": "3", "seven": "7", "eight": "8"}
    return {
        "model": "digits-vit",
        "source": {"kind": "folder", "path": str(served / "checkpoint")},
        "golden": [
            {"name": name, "image": str(served / "golden" / f"{name}.png"), "label": label, "min_confidence": 0.85}
            for name, label in labels.items()
        ],
    }


@pytest.fixture(scope="session")
def digits_export(run_exporter, digits_request, tmp_path_factory):
    """digits-vit as the exporter leaves it: one export for the whole session."""
    out = tmp_path_factory.mktemp("digits") / "out"
    done = run_exporter(digits_request, out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def gke():
    """What the stand says of Google's side after `up --gke`: the emulator's addresses, or a real project's name."""
    subprocess.run(
        [sys.executable, "-m", "local", "up", "--gke"], cwd=PROJECT, check=True, capture_output=True, timeout=LIMIT_S
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
        with urllib.request.urlopen(
            urllib.request.Request(control + path, data, method=method), timeout=LIMIT_S
        ) as answer:
            return json.load(answer)

    ask.control = control
    ask("POST", "/reset")
    yield ask
    ask("POST", "/reset")
