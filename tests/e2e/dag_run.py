"""A run of a DAG that a test follows and answers through Airflow's API, as a person does in the UI."""

import json
import time

LIMIT_S = 3600  # far more than any run takes: its time depends on the machine
ENDED = {"success", "failed"}
READS_S = 6  # before the answer, like a person: Airflow takes an answer in the second of the request for a lost task


class Run:
    """A run; the constructor starts it."""

    def __init__(self, airflow_api, dag, **conf):
        self.api = airflow_api
        airflow_api(f"/dags/{dag}?update_mask=is_paused", "PATCH", {"is_paused": False})
        made = airflow_api(f"/dags/{dag}/dagRuns", "POST", {"logical_date": None, "conf": conf})
        self.id = made["dag_run_id"]
        self.path = f"/dags/{dag}/dagRuns/{self.id}"

    def states(self):
        """The states of its tasks."""
        tasks = self.api(f"{self.path}/taskInstances")["task_instances"]
        return {task["task_id"]: task["state"] for task in tasks}

    def wait(self, task, *states):
        """Wait until a task is in one of these states; the run must not end before."""

        def holds():
            ended = self.api(self.path)["state"] in ENDED
            found = self.states().get(task)
            assert found in states or not ended, f"the run has ended, and {task} is {found}"
            return found in states

        return until(holds, f"{task} is {states}")

    def end(self):
        """Wait until it has ended; its state."""
        until(lambda: self.api(self.path)["state"] in ENDED, "the run has ended")
        return self.api(self.path)["state"]

    def answer(self, option):
        """Answer the approval once it asks, as a person does; what it showed."""
        self.wait("approve", "awaiting_input")
        asked = f"{self.path}/taskInstances/approve/-1/hitlDetails"
        shown = self.api(asked)
        time.sleep(READS_S)
        self.api(asked, "PATCH", {"chosen_options": [option], "params_input": {}})
        return shown

    def log(self, task):
        """The log of a task's first try."""
        content = self.api(f"{self.path}/taskInstances/{task}/logs/1?full_content=true")["content"]
        return "\n".join(json.dumps(line, ensure_ascii=False) for line in content)


def until(holds, what, limit_s=LIMIT_S):
    """Call `holds` once a second until it returns something true; that value."""
    end_s = time.monotonic() + limit_s
    while not (held := holds()):
        assert time.monotonic() < end_s, f"not in {limit_s} s: {what}"
        time.sleep(1)
    return held
