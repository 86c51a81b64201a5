"""Runs one task of a DAG the way a worker does, in a process and a home of its own.

`python worker.py PROJECT DAG_ID TASK_ID RUN_ID FACTS.json` prints the task's result as JSON on its last line. FACTS.json
holds what earlier tasks left, by task id, as XCom would. A deferred task's trigger runs here to its first event.
"""

import asyncio
import json
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace


class TaskInstance:
    """The part of Airflow's task instance that tasks use: facts and states of other tasks, and their own XComs."""

    def __init__(self, dag_id, task_id, facts):
        self.dag_id, self.task_id, self.facts = dag_id, task_id, facts
        self.pushed = {}
        self.try_number, self.max_tries = 1, 0

    def xcom_pull(self, *, task_ids, key="return_value"):
        """A task's fact; with another key, what that task, or this one, has pushed."""
        if key == "return_value":
            return self.facts.get(task_ids)
        return self.pushed.get(key) if task_ids == self.task_id else self.facts.get(f"{task_ids}/{key}")

    @staticmethod
    def get_dagrun_state(_dag_id, _run_id):
        """No other run has ended."""
        return "running"

    def xcom_push(self, *, key, value):
        """Print the value for the process that started this one."""
        self.pushed[key] = json.loads(json.dumps(value))
        print(f"{key}: {json.dumps(value)}")

    def get_task_states(self, *, dag_id, run_ids):
        """The states that FACTS.json has under `states`, of its one DAG."""
        assert dag_id == self.dag_id
        return {run_id: self.facts.get("states", {}) for run_id in run_ids}


def main(project, dag_id, task_id, run_id, facts_file):
    """Execute the task; its result."""
    sys.path[:0] = [str(Path(project) / "plugins")]
    import os

    os.environ.setdefault("AIRFLOW_VAR_SLIPWAY_INSTALLATION", "worker")  # there is no Airflow that could store one
    os.environ.setdefault("AIRFLOW_VAR_SLIPWAY_LOOK_S", "12")
    from airflow.sdk.exceptions import DownstreamTasksSkipped, TaskDeferred
    from airflow.sdk.execution_time.context import OutletEventAccessors

    facts = json.loads(Path(facts_file).read_text())
    task = getattr(import_module("slipway.dags"), dag_id).get_task(task_id)
    if task_id == "export":
        prefix = "AIRFLOW_VAR_SLIPWAY"
        pythons = {"tensorflow": f"{prefix}_EXPORTER_PYTHON", "onnxruntime": f"{prefix}_ONNX_EXPORTER_PYTHON"}
        task.exporter_pythons = {runtime: os.environ.get(name) for runtime, name in pythons.items()}
    context = {
        "params": facts.get("params", {}),
        "run_id": run_id,
        "outlet_events": OutletEventAccessors(),
        "ti": TaskInstance(dag_id, task_id, facts),
        "dag_run": SimpleNamespace(run_type=facts.get("run_type", "manual"), clear_number=0),
    }
    if began := os.environ.get("WORKER_BEGAN"):
        Path(began).touch()
    method = task.execute
    arguments = ()
    while True:
        try:
            return method(context, *arguments)
        except DownstreamTasksSkipped:
            return context["ti"].pushed["return_value"]
        except TaskDeferred as deferred:
            arguments = (asyncio.run(first_event(through_the_database(deferred.trigger))),)
            method = getattr(task, deferred.method_name)


def through_the_database(trigger):
    """The trigger as a triggerer gets it: from its class path and its arguments as JSON."""
    path, arguments = trigger.serialize()
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))


async def first_event(trigger):
    """The payload of the trigger's first event."""
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
