"""Makes Airflow's scheduler read the end of deferrals too late, so that it takes them for failures (apache/airflow#66374)."""

import os
import signal
import time
from collections import Counter

ENDED = {"success", "failed"}
POLL_S = 0.1


def lose_deferrals(scheduler, path, ask, *, times, only=None):
    """Follow a run and lose each deferral of its tasks so many times; how many were lost, by task.

    The scheduler is stopped while a task runs, and goes on once the task has deferred and its trigger has resumed it.
    `path` is the run's path in Airflow's API, `ask` sends a request there; `only` names tasks, by default all.
    """
    lost = Counter()

    def state(task):
        return ask(f"{path}/taskInstances/{task}")["state"]

    while ask(path)["state"] not in ENDED:
        for one in ask(f"{path}/taskInstances")["task_instances"]:
            task = one["task_id"]
            if one["state"] == "running" and lost[task] < times and (only is None or task in only):
                lost[task] += lose_one(scheduler, lambda task=task: state(task))
        time.sleep(POLL_S)
    return +lost


def lose_one(scheduler, state):
    """Stop the scheduler until a running task has ended or was resumed; whether it had deferred."""
    os.kill(scheduler, signal.SIGSTOP)
    try:
        if (seen := state()) != "running":
            return False
        while seen in {"running", "deferred", "awaiting_input"}:
            time.sleep(POLL_S)
            seen = state()
        return seen == "scheduled"
    finally:
        os.kill(scheduler, signal.SIGCONT)
