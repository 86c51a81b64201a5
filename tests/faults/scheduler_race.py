"""Makes Airflow's scheduler read the end of deferrals too late, so that it mistakes them for failures (apache/airflow#66374)."""

import os
import signal
import time
from collections import Counter

from local.parts import checkout
from local.programs.supervision import pids
from local.settings import settings_here

ENDED = {"success", "failed"}
POLL_S = 0.1


def scheduler():
    """The process id of the stand's scheduler."""
    return pids(checkout.supervisor(settings_here()))["scheduler"]


def lose_deferrals(path, ask, *, times, only=None):
    """Follow a run and lose each deferral of its tasks so many times; how many were lost, by task.

    The scheduler is stopped while a task runs, and goes on once the task has deferred and its trigger has resumed it; an
    approval is answered with yes meanwhile. `path` is the run's path in Airflow's API, `ask` sends a request there; `only`
    names tasks, by default all.
    """
    lost, stopped = Counter(), scheduler()

    def state(task):
        return ask(f"{path}/taskInstances/{task}")["state"]

    while ask(path)["state"] not in ENDED:
        for one in ask(f"{path}/taskInstances")["task_instances"]:
            task = one["task_id"]
            if one["state"] == "running" and lost[task] < times and (only is None or task in only):
                lost[task] += _lose_one(stopped, lambda task=task: state(task), lambda: approve(path, ask))
            elif one["state"] == "awaiting_input" and lost[task] >= times:
                approve(path, ask)
        time.sleep(POLL_S)
    return +lost


def approve(path, ask):
    """Answer the run's approval with yes."""
    ask(f"{path}/taskInstances/approve/-1/hitlDetails", "PATCH", {"chosen_options": ["Approve"], "params_input": {}})


def _lose_one(stopped, state, answer):
    """Stop the scheduler until a running task has ended or was resumed; whether it had deferred."""
    os.kill(stopped, signal.SIGSTOP)
    try:
        if (seen := state()) != "running":
            return False
        while seen in {"running", "deferred", "awaiting_input"}:
            time.sleep(POLL_S)
            seen = state()
            if seen == "awaiting_input":
                answer()
        return seen == "scheduled"
    finally:
        os.kill(stopped, signal.SIGCONT)
