"""What pods reach at the gateway of their network: a bucket, and PostgreSQL."""

import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import s3fs
from fixtures.bucket import S3_KEY, S3_LOGIN, new_name, s3_at, s3_connection

from local.builds.packages import postgres_programs
from local.settings import POD_GATEWAY, POD_RANGE

POSTGRES = "postgres"  # PostgreSQL refuses to run as root
START_LIMIT_S = 60


@contextmanager
def pod_bucket(folder):
    """A new bucket: its name, and the connection `aws_default` and the settings with which Airflow keeps store and logs there."""
    with s3_at(POD_GATEWAY, folder) as url:
        name = new_name()
        s3fs.S3FileSystem(key=S3_LOGIN, secret=S3_KEY, endpoint_url=url).mkdir(name)
        settings = {
            "AIRFLOW_VAR_SLIPWAY_STORE": f"s3://aws_default@{name}/slipway",
            "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"s3://{name}/logs",  # a pod and its files are gone with its task
            "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "aws_default",
        }
        yield SimpleNamespace(name=name, connection=s3_connection(url), settings=settings)


@contextmanager
def pod_postgres():
    """A PostgreSQL server with the database `airflow`; its URL, with a password."""
    home, password, programs = Path(tempfile.mkdtemp(prefix="slipway-")), secrets.token_hex(8), postgres_programs()
    word, data = home / "password", home / "data"
    word.write_text(password)
    for path in (home, word):
        shutil.chown(path, POSTGRES)
    ours = ["--auth-host=scram-sha-256", "--auth-local=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
    with socket.create_server((POD_GATEWAY, 0)) as free:
        port = free.getsockname()[1]
    options = [f"listen_addresses={POD_GATEWAY}", f"port={port}", "fsync=off", "max_connections=200"]
    command = [f"{programs}/postgres", "-D", data, "-k", home, *[word for one in options for word in ("-c", one)]]
    try:
        _as_postgres(f"{programs}/initdb", "-D", data, f"--pwfile={word}", *ours)
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {POD_RANGE} scram-sha-256\n")
        with subprocess.Popen(_demoted(command), cwd="/", stderr=subprocess.DEVNULL) as server:
            try:
                _wait_for(port)
                _as_postgres(f"{programs}/createdb", "-h", home, "-p", str(port), "airflow")
                yield f"postgresql://{POSTGRES}:{password}@{POD_GATEWAY}:{port}/airflow"
            finally:
                server.send_signal(signal.SIGINT)  # it does not wait for its clients
    finally:
        shutil.rmtree(home)


def _wait_for(port):
    end_s = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection((POD_GATEWAY, port), timeout=1).close()
        except OSError:
            assert time.monotonic() < end_s, "PostgreSQL does not answer"
            time.sleep(0.1)
        else:
            return


def _demoted(command):
    return ["setpriv", f"--reuid={POSTGRES}", f"--regid={POSTGRES}", "--clear-groups", *map(str, command)]


def _as_postgres(*command):
    done = subprocess.run(_demoted(command), cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
