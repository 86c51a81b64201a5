"""Workers that share nothing, under the CeleryExecutor with Redis: the same DAGs pass, and a lost worker's task passes on the other."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery_airflow import CeleryAirflow, database, redis_server
from dag_run import Run, until
from fixtures.bucket import created, new_name, s3_connection
from trial_project import PROJECT, trial_file
from wheel import build_wheel

from slipway.records.store import Store

pytestmark = [pytest.mark.stand, pytest.mark.slow]

MODEL = "shared-nothing"
DAG = "refresh_shared_nothing"
ENGINE, NO_ENGINE = "with-engine", "without-engine"
KILLED = "slipway-task-export-"  # the beginning of the name of an export's temporary folder
RECOVERED_S = 120  # 30 s without a heartbeat, 10 s until Airflow looks, 30 s before the next try, and a busy machine


@pytest.fixture(scope="module")
def bucket(s3_server):
    """The URI of a bucket, and the connection `s3` that reaches it; from this process, too."""
    connection = s3_connection(s3_server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_S3", connection)
        yield SimpleNamespace(uri=created(f"s3://s3@{new_name()}"), connection=connection)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """The URL of a Redis."""
    command = [sys.executable, "-m", "local", "env", "redis"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT).stdout.splitlines()[-1]
    with redis_server(Path(found) / "redis-server", tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module")
def airflow(broker, surroundings, kubectl, bucket, tmp_path_factory):
    """The Airflow: the API server gives workers all connections, but only one worker has one to a Docker Engine."""
    root = tmp_path_factory.mktemp("celery")
    own = {"image__builder": "registry", "target__strategy": "preview", "target__deployment": f"tfs-{MODEL}"}
    with database(surroundings["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]) as database_url:
        airflow = CeleryAirflow(
            root, build_wheel(sys.executable, root / "dist"), MODEL, trial_file(**own), redis=broker,
            database_url=database_url, surroundings=surroundings, bucket=bucket,
        )  # fmt: skip
        engine = {"AIRFLOW_CONN_DOCKER_DEFAULT": surroundings["AIRFLOW_CONN_DOCKER_DEFAULT"]}
        try:
            airflow.start({ENGINE: engine, NO_ENGINE: {}})
            yield airflow
        finally:
            airflow.end()
            objects = "deployment,service,hpa,pdb,configmap,lease"
            kubectl("delete", objects, "-l", f"slipway/model={MODEL}", "--wait=false")


@pytest.fixture(scope="module")
def first(airflow):
    """The first run, once it has passed: its tasks by id."""
    until(lambda: knows(airflow.api), f"Airflow knows {DAG}")
    run = Run(airflow.api, DAG)
    assert run.end() == "success", run.states()
    return SimpleNamespace(run=run, tasks=tasks_of(run))


def knows(api):
    """Whether Airflow knows the DAG."""
    return any(dag["dag_id"] == DAG for dag in api("/dags?limit=100")["dags"])


def tasks_of(run):
    """The task instances of a run, by id."""
    return {task["task_id"]: task for task in run.api(f"{run.path}/taskInstances")["task_instances"]}


def hosts_of(tasks):
    """The machines that ran these tasks."""
    return {task["hostname"] for task in tasks.values() if task["state"] == "success"}


def newest_record(bucket):
    """The newest record of the model in the store."""
    store = Store(bucket.uri)
    records = [store.read_json(f"records/{MODEL}/{name}") for name in store.names(f"records/{MODEL}")]
    return max(records, key=lambda record: record["opened"])


def test_a_model_is_live_by_tasks_of_both_workers(first, bucket):
    """No file is shared, no worker has the database, and one has no engine: store, XCom, Redis and cluster are enough."""
    assert newest_record(bucket)["outcome"] == "live"
    assert {first.tasks[task]["state"] for task in ("export", "push", "preview_gate", "gate", "announce", "prune")} == {
        "success"
    }
    assert hosts_of(first.tasks) == {ENGINE, NO_ENGINE}


def test_the_api_server_shows_the_logs_of_both_workers(first):
    """They are in the bucket: no worker listens on a port."""
    for host in (ENGINE, NO_ENGINE):
        task = next(name for name, one in first.tasks.items() if one["hostname"] == host and one["state"] == "success")
        assert "Could not read" not in first.run.log(task)
        assert "slipway" in first.run.log(task)


def test_nothing_is_left_on_the_workers(first, airflow):
    """Temporary folders are empty after a run."""
    assert {name: worker.machine.temporary() for name, worker in airflow.workers.items()} == {ENGINE: [], NO_ENGINE: []}


def test_a_second_run_has_nothing_to_do(first, airflow):
    """Whichever worker plans, it finds the same model file, source and release."""
    run = Run(airflow.api, DAG)
    assert run.end() == "success"
    assert {state for task, state in run.states().items() if task in {"export", "push", "apply"}} == {"skipped"}


@pytest.fixture(scope="module")
def lost(first, airflow):
    """A forced run whose export loses its worker: the worker's `name`, the run's `tasks`, and `seconds` until the next try began."""
    run = Run(airflow.api, DAG, force=True)
    run.wait("export", "running")
    name = tasks_of(run)["export"]["hostname"]
    tmp = airflow.workers[name].machine.place / "tmp"
    until(lambda: list(tmp.glob(f"{KILLED}*")), "the export has a folder")
    killed = datetime.now(UTC)
    airflow.kill_worker(name)
    assert run.end() == "success", run.states()
    tasks = tasks_of(run)
    seconds = (datetime.fromisoformat(tasks["export"]["start_date"]) - killed).total_seconds()
    return SimpleNamespace(name=name, tasks=tasks, seconds=seconds)


def test_a_lost_workers_task_passes_on_the_other(lost, bucket):
    """Its heartbeats stop, Airflow gives it another try in less than two minutes, and the run is green."""
    other = {ENGINE: NO_ENGINE, NO_ENGINE: ENGINE}[lost.name]
    export = lost.tasks["export"]
    assert (export["state"], export["try_number"], export["hostname"]) == ("success", 2, other)
    print(f"the next try of the export began {lost.seconds:.0f} s after the loss of its worker")
    assert lost.seconds < RECOVERED_S
    assert newest_record(bucket)["outcome"] == "live"


def test_a_worker_that_starts_again_removes_what_was_left(lost, airflow):
    """The killed task's folder is deleted by the next task that writes there; the other worker ends cleanly meanwhile.

    The Kubernetes client's copy of the cluster's certificate stays: the client deletes it when its process ends, if it is not killed.
    """
    worker = airflow.workers[lost.name]
    assert [name for name in worker.machine.temporary() if name.startswith(KILLED)]
    airflow.start_worker(lost.name)
    airflow.wait_ready(lost.name)
    [other] = set(airflow.workers) - {lost.name}
    assert airflow.stop_worker(other) == 0
    run = Run(airflow.api, DAG)
    assert run.end() == "success", run.states()
    assert hosts_of(tasks_of(run)) == {lost.name}
    assert [name for name in worker.machine.temporary() if name.startswith("slipway-")] == []
