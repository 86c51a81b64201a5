"""Airflow of one checkout: a PostgreSQL database and four supervised processes."""

import hashlib
import http.client
import json
import os
import pwd
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local.builds.environments import environment_path
from local.builds.packages import postgres_programs
from local.errors import StandError
from local.parts import google
from local.parts.checkout import Slot, password_file, secret, supervisor, write_private
from local.programs.locks import shared_lock
from local.programs.shell import run, wait_until
from local.programs.supervision import Program, start
from local.settings import Settings

POSTGRES_USER = "postgres"  # PostgreSQL refuses to run as root
ADMIN = "admin"
COMPONENTS = {
    # Airflow's log servers listen on all addresses, and have no setting for that. Here every process reads the log files itself.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "api-server": ("api-server",),
}  # the words after `airflow`, by the program's name
HEALTHY_S = 900  # a minute on a quiet machine
HEALTH_NAMES = ("metadatabase", "scheduler", "triggerer", "dag_processor")


@dataclass(frozen=True, slots=True, kw_only=True)
class AirflowInputs:
    """The addresses and paths of the other parts that Airflow's environment names."""

    kubeconfig: Path
    namespace: str
    docker_host: str
    registry: str
    serving_image: str | None
    onnx_serving_image: str  # which exists once `up --onnx` has run, and so does its exporter's interpreter
    exporter_python: Path
    onnx_exporter_python: Path
    load_python: Path


def render_environment(settings: Settings, slot: Slot, inputs: AirflowInputs) -> dict[str, str]:
    """The environment of Airflow's processes, and of tests that replace them."""
    home = settings.home / "airflow"
    url = f"http://127.0.0.1:{slot.airflow_port}"
    environment = {
        "PYTHONDONTWRITEBYTECODE": "",  # each task is a process of its own, which would compile Slipway's modules again
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(settings.checkout / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(settings.checkout / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",  # the default of a second is half of what lies between two tasks
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",  # as the next two, for a busy machine: Airflow's own limits lose tasks there
        "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "600",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",  # else a task whose start is answered after five seconds has failed
        "AIRFLOW__CORE__FERNET_KEY": secret(settings, "fernet-key"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(settings.home / "secrets" / "passwords.json"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url(settings),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database_url(settings, driver="asyncpg"),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(slot.airflow_port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": secret(settings, "api-secret-key"),
        "AIRFLOW__API_AUTH__JWT_SECRET": secret(settings, "jwt-secret"),
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",  # a parse of all files costs seconds of one of two cores
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(settings.home / "logs" / "airflow"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(
            {
                "conn_type": "kubernetes",
                "extra": {"kube_config_path": str(inputs.kubeconfig), "namespace": inputs.namespace},
            }
        ),
        "AIRFLOW_CONN_DOCKER_DEFAULT": json.dumps({"conn_type": "docker", "host": inputs.docker_host}),
        "AIRFLOW_VAR_SLIPWAY_STORE": store_uri(settings),
        "AIRFLOW_VAR_SLIPWAY_REGISTRY": inputs.registry,
        "AIRFLOW_VAR_SLIPWAY_EXPORTER_PYTHON": str(inputs.exporter_python),
        "AIRFLOW_VAR_SLIPWAY_ONNX_EXPORTER_PYTHON": str(inputs.onnx_exporter_python),
        "AIRFLOW_VAR_SLIPWAY_ONNX_SERVING_IMAGE": inputs.onnx_serving_image,
        "AIRFLOW_VAR_SLIPWAY_LOAD_PYTHON": str(inputs.load_python),
    }
    if inputs.serving_image:
        environment["AIRFLOW_VAR_SLIPWAY_SERVING_IMAGE"] = inputs.serving_image
    if google.emulated(settings):
        return environment | google.render_environment(settings, slot, inputs.serving_image, inputs.onnx_serving_image)
    if google.requested(settings) and settings.google:
        return settings.google.environment(environment)
    return environment


def database_url(settings: Settings, name: str = "airflow", *, driver: str = "psycopg2") -> str:
    """The URL of a database in the checkout's PostgreSQL."""
    return f"postgresql+{driver}://{POSTGRES_USER}@/{name}?host={_socket_folder(settings)}"


def store_uri(settings: Settings) -> str:
    """The URI of the checkout's artifact store."""
    return f"file://{settings.home}/store"


def render_script(environment: Mapping[str, str], bin_folder: Path) -> str:
    """A shell script that sets this environment and puts Airflow's programs first on PATH."""
    lines = [f"export {key}={shlex.quote(value)}" for key, value in sorted(environment.items())]
    return "\n".join(["# The environment of the stand's Airflow. Source it to use that Airflow from a shell.",
                      *lines, f"export PATH={shlex.quote(str(bin_folder))}:\"$PATH\"", ""])  # fmt: skip


def environment_file(settings: Settings) -> Path:
    """The shell script that Airflow's processes source."""
    return settings.home / "airflow.env"


def programs(settings: Settings, slot: Slot, *, own_cluster: bool, script: str) -> list[Program]:
    """The checkout's supervised programs. Those of Airflow restart if `script` changes."""
    python = environment_path(settings, "dev") / "bin" / "python"
    changes = {"SLIPWAY_ENVIRONMENT": hashlib.sha256(script.encode()).hexdigest()[:12]}
    launcher = str(settings.home / "airflow.sh")
    first = [
        Program(
            name="lock", command=("flock", "--shared", "--no-fork", str(shared_lock(settings)), "sleep", "infinity")
        ),
        Program(name="postgres", command=postgres_command(settings), user=POSTGRES_USER, stop_signal="INT"),
    ]
    balancer = Program(
        name="load-balancer",
        command=(
            str(python),
            "-m",
            "local.parts.loadbalancer",
            str(settings.home_kubeconfig),
            settings.namespace,
            slot.address_prefix,
        ),
    )
    airflow = [
        Program(name=name, command=(launcher, *words), environment=changes, stop_wait_s=10)
        for name, words in COMPONENTS.items()
    ]
    emulator = google.programs(settings, slot) if google.emulated(settings) else []
    return first + ([balancer] if own_cluster else []) + emulator + airflow


def write_launcher(settings: Settings, environment: Mapping[str, str]) -> str:
    """Write the environment's script and a program that runs `airflow` with it. Returns the script's text."""
    bin_folder = environment_path(settings, "dev") / "bin"
    script = render_script(environment, bin_folder)
    write_private(environment_file(settings), script)
    launcher = settings.home / "airflow.sh"
    launcher.write_text(f'#!/bin/sh\n. {environment_file(settings)}\nexec {bin_folder}/airflow "$@"\n')
    launcher.chmod(0o755)
    write_private(
        settings.home / "secrets" / "passwords.json", json.dumps({ADMIN: password_file(settings).read_text()})
    )
    for folder in ("airflow/config", "store"):
        (settings.home / folder).mkdir(parents=True, exist_ok=True)
    return script


def postgres_command(settings: Settings) -> tuple[str, ...]:
    """The command of PostgreSQL: on a unix socket only, and fast rather than safe against a power failure."""
    options = [
        "listen_addresses=",
        "fsync=off",
        "synchronous_commit=off",
        "full_page_writes=off",
        "max_connections=100",
    ]
    data = settings.home / "postgres"
    return (
        f"{postgres_programs()}/postgres",
        "-D",
        str(data),
        "-k",
        str(_socket_folder(settings)),
        *[word for option in options for word in ("-c", option)],
    )


def start_database(settings: Settings) -> None:
    """Start PostgreSQL. The first `up` creates the database `airflow`."""
    data, sockets = settings.home / "postgres", _socket_folder(settings)
    sockets.mkdir(parents=True, exist_ok=True)
    user = pwd.getpwnam(POSTGRES_USER)
    os.chown(sockets, user.pw_uid, user.pw_gid)
    if not (data / "complete").exists():
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(mode=0o700)
        os.chown(data, user.pw_uid, user.pw_gid)
        _as_postgres("initdb", "-D", str(data), "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")
        (data / "complete").touch()
    start(supervisor(settings), "postgres")
    wait_until(lambda: _database_answers(settings), seconds=60, what="PostgreSQL: no answer", every_s=0.1)
    exists = "select count(*) from pg_database where datname = 'airflow'"
    if _as_postgres("psql", "-h", str(sockets), "-Atc", exists, "postgres").strip() == "0":
        _as_postgres("createdb", "-h", str(sockets), "airflow")


def _database_answers(settings: Settings) -> bool:
    try:
        _as_postgres("psql", "-h", str(_socket_folder(settings)), "-Atc", "select 1", "postgres")
    except StandError:
        return False
    return True


def _as_postgres(program: str, *words: str) -> str:
    return run(
        [
            "setpriv",
            f"--reuid={POSTGRES_USER}",
            f"--regid={POSTGRES_USER}",
            "--clear-groups",
            f"{postgres_programs()}/{program}",
            *words,
        ],
        directory=Path("/"),
    )


def migrate_database(settings: Settings) -> None:
    """Create or migrate Airflow's tables, once for each dev environment."""
    done = settings.home / "postgres" / f"migrated-{environment_path(settings, 'dev').name}"
    if not done.exists():
        run([settings.home / "airflow.sh", "db", "migrate"], directory=settings.checkout, timeout_s=600)
        done.touch()


def wait_healthy(slot: Slot) -> None:
    """Wait until every Airflow process has a fresh heartbeat."""
    wait_until(
        lambda: not unhealthy(slot),
        seconds=HEALTHY_S,
        what=f"Airflow at http://127.0.0.1:{slot.airflow_port}: not healthy",
        every_s=0.5,
    )


def unhealthy(slot: Slot) -> list[str]:
    """The parts of Airflow that its API server reports as unhealthy, or the API server itself if it does not respond."""
    connection = http.client.HTTPConnection("127.0.0.1", slot.airflow_port, timeout=5)
    try:
        connection.request("GET", "/api/v2/monitor/health")
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return ["api-server"]
    finally:
        connection.close()
    return [name for name in HEALTH_NAMES if (answer.get(name) or {}).get("status") != "healthy"]


def _socket_folder(settings: Settings) -> Path:
    return settings.home_run / "postgres"
