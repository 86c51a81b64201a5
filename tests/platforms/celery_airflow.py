"""An Airflow with the CeleryExecutor: Redis, a database, a control machine, and workers that share no file with it or each other."""

import json
import secrets
import socket
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

from cryptography.fernet import Fernet
from dag_run import until
from fixtures.stand import airflow_client
from machines import Machine, end, kill, running
from sqlalchemy import create_engine, make_url, text

from local.parts.airflow import unhealthy
from tests.local.ports import free_ports

ADMIN = "admin"
START_LIMIT_S = 900  # half a minute on a quiet machine
HELD = ("AIRFLOW_VAR_SLIPWAY_REGISTRY", "AIRFLOW_VAR_SLIPWAY_SERVING_IMAGE", "AIRFLOW_VAR_SLIPWAY_EXPORTER_PYTHON")
CONTROL = {
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "api-server": ("api-server",),
}  # the words after `airflow`, as on the stand


@contextmanager
def redis_server(program, folder):
    """Run Redis on loopback, with a password and without persistence; its URL without a database's number."""
    [port], password = free_ports(1), secrets.token_urlsafe(16)
    lines = ["bind 127.0.0.1", f"port {port}", f"requirepass {password}", 'save ""', "appendonly no", f"dir {folder}"]
    with running([program, "-"], {}, folder, folder / "log", given="\n".join(lines)):
        until(lambda: listens(port), "Redis listens", START_LIMIT_S)
        yield f"redis://:{quote(password)}@127.0.0.1:{port}"


def listens(port):
    """Whether a process listens on this port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def database(url):
    """Create a database beside the one at this URL, and drop it afterwards; its URL."""
    own = make_url(url).set(database=f"celery_{secrets.token_hex(4)}")
    server = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {own.database}"))
        yield own.render_as_string(hide_password=False)
    finally:
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {own.database} WITH (FORCE)"))
        server.dispose()


class CeleryAirflow:
    """Airflow's processes on the control machine and on workers; `end()` ends all that it started."""

    def __init__(self, root, wheel, model, model_file, *, redis, database_url, surroundings, bucket):
        self.root, self.made, self.workers = root, (wheel, model, model_file), {}
        self.ended = ExitStack()
        [self.port] = free_ports(1)
        url = f"http://127.0.0.1:{self.port}"
        self.everywhere = {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__CELERY__BROKER_URL": f"{redis}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"{redis}/1",  # Airflow's default is its database, which no worker needs
            "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{bucket.uri.rpartition('@')[2]}/logs",
            "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "s3",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
        }
        home = root / "control" / "airflow"
        self.control = {
            **self.everywhere,
            **{name: surroundings[name] for name in HELD},
            "AIRFLOW_CONN_KUBERNETES_DEFAULT": inlined(surroundings["AIRFLOW_CONN_KUBERNETES_DEFAULT"]),
            "AIRFLOW_CONN_S3": bucket.connection,
            "AIRFLOW_VAR_SLIPWAY_STORE": bucket.uri,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database_url.replace("psycopg2", "asyncpg"),
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",  # a task sends one every 5 s
        }

    def start(self, workers):
        """Start all processes; `workers` gives each worker's own settings by its name."""
        machine, password = self.machine("control"), secrets.token_urlsafe(12)
        (machine.place / "airflow" / "passwords.json").write_text(json.dumps({ADMIN: password}))
        with machine.airflow("db", "migrate", **self.control) as migration:
            assert migration.wait(START_LIMIT_S) == 0, machine.log.read_text()[-3000:]
        control = [self.ended.enter_context(machine.airflow(*words, **self.control)) for words in CONTROL.values()]
        for name, own in workers.items():
            self.workers[name] = SimpleNamespace(machine=self.machine(name), own=own, process=None)
            self.start_worker(name)

        def healthy():
            assert all(process.poll() is None for process in control), machine.log.read_text()[-3000:]
            return not unhealthy(SimpleNamespace(airflow_port=self.port))

        until(healthy, "Airflow is healthy", START_LIMIT_S)
        self.api = airflow_client(f"http://127.0.0.1:{self.port}", ADMIN, password)
        for name in workers:
            self.wait_ready(name)

    def machine(self, name):
        """Make a machine."""
        return Machine(self.root / name, *self.made)

    def start_worker(self, name):
        """Start a worker's process, on the machine that it had before if it was killed: one task at a time, no log server."""
        worker = self.workers[name]
        words = ("celery", "worker", "--concurrency", "1", "--celery-hostname", name, "--skip-serve-logs")
        worker.began = worker.machine.log.stat().st_size if worker.machine.log.exists() else 0
        worker.process = self.ended.enter_context(worker.machine.airflow(*words, **self.everywhere, **worker.own))

    def wait_ready(self, name):
        """Wait until a worker takes tasks."""
        worker = self.workers[name]

        def ready():
            assert worker.process.poll() is None, worker.machine.log.read_text()[-3000:]
            return b"ready." in worker.machine.log.read_bytes()[worker.began :]

        until(ready, f"the worker {name} is ready", START_LIMIT_S)

    def kill_worker(self, name):
        """Kill a worker and all that runs on it, as if the machine were lost; wait until its programs have ended, too."""
        worker = self.workers[name]
        kill(worker.process)
        until(lambda: worker.machine.is_quiet(worker.process.pid), f"nothing runs on {name}", 60)

    def stop_worker(self, name):
        """End a worker as Kubernetes and Celery do, with SIGTERM: it finishes its task first. Its exit status."""
        return end(self.workers[name].process)

    def end(self):
        """End all that was started."""
        self.ended.close()


def inlined(connection):
    """A connection to Kubernetes with its kubeconfig inside, in place of a file's path: no worker has the file."""
    connection = json.loads(connection)
    extra = connection["extra"]
    extra["kube_config"] = Path(extra.pop("kube_config_path")).read_text()
    return json.dumps(connection)
