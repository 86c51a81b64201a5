"""Makes Airflow's scheduler read the end of deferrals too late, so that it mistakes them for failures (apache/airflow#66374)."""

import os
import signal
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import psycopg2

from local.parts import checkout
from local.parts.airflow import POSTGRES_USER
from local.programs.supervision import pids
from local.settings import settings_here

ENDED = {"success", "failed"}
IDLE = "hrtimer_nanosleep"  # where the kernel says that a sleeping process waits
POLL_S = 0.02  # a task that defers at once runs for a second or two, and must not be missed


def scheduler():
    """The process id of the stand's scheduler."""
    return pids(checkout.supervisor(settings_here()))["scheduler"]


class Seen:
    """The states of a run and of its tasks, from Airflow's database: on a busy machine its API answers too late."""

    def __init__(self, database, path):
        _, _, self.dag_id, _, self.run_id = path.split("/")
        self.database = database

    def _ask(self, query):
        with self.database.cursor() as cursor:
            cursor.execute(f"{query} where dag_id = %s and run_id = %s", (self.dag_id, self.run_id))
            return cursor.fetchall()

    def run(self):
        """The run's state."""
        [(state,)] = self._ask("select state from dag_run")
        return state

    def tasks(self):
        """The state of each task."""
        return dict(self._ask("select task_id, state from task_instance"))

    def title(self, task):
        """The title of the executor's process while it runs a task; afterwards the executor has queued its result."""
        [found] = [found for name, found in self._ask("select task_id, id from task_instance") if name == task]
        return f"airflow worker -- LocalExecutor: {found}".encode()


def stands_database():
    """A connection to the database of the stand's Airflow."""
    database = psycopg2.connect(host=str(settings_here().home_run / "postgres"), user=POSTGRES_USER, dbname="airflow")
    database.autocommit = True
    return closing(database)


def lose_deferrals(path, ask, *, times, only=None):
    """Follow a run and lose each deferral of its tasks so many times; how many were lost, by task.

    The scheduler is stopped while a task runs, and goes on once the task has deferred and its trigger has resumed it; an
    approval is answered with yes meanwhile. `path` is the run's path in Airflow's API, `ask` sends a request there; `only`
    names tasks, by default all.
    """
    lost, stopped = Counter(), scheduler()
    with stands_database() as database:
        seen = Seen(database, path)
        while seen.run() not in ENDED:
            for task, state in seen.tasks().items():
                if state == "running" and lost[task] < times and (only is None or task in only):
                    title = seen.title(task)
                    lost[task] += _lose_one(
                        stopped, title, lambda task=task: seen.tasks()[task], lambda: approve(path, ask)
                    )
                elif state == "awaiting_input" and lost[task] >= times:
                    approve(path, ask)
            time.sleep(POLL_S)
    return +lost


def tries_repeated(path, ask, tasks):
    """How many tries of these tasks were followed by another, by task: those that the scheduler of a busy machine lost count too."""
    return {task: ask(f"{path}/taskInstances/{task}")["try_number"] - 1 for task in tasks}


def approve(path, ask):
    """Answer the run's approval with yes."""
    ask(f"{path}/taskInstances/approve/-1/hitlDetails", "PATCH", {"chosen_options": ["Approve"], "params_input": {}})


def runs(title):
    """Whether a process has this title."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cmdline").read_bytes().rstrip(b"\0 ") == title:
                return True
        except OSError:
            continue
    return False


def _lose_one(stopped, title, state, answer):
    """Stop the scheduler until a running task has ended or was resumed; whether the scheduler then took it for a failure.

    It is stopped where it sleeps between two loops: each loop first queues the resumed task, and only then reads that the executor
    has ended it. So the executor must have queued that end (its process has no longer this `title`) before the task is resumed.
    """
    while Path(f"/proc/{stopped}/wchan").read_text() != IDLE:
        time.sleep(POLL_S)
    os.kill(stopped, signal.SIGSTOP)
    try:
        if (seen := state()) != "running":
            return False
        while seen in {"running", "deferred", "awaiting_input"}:
            time.sleep(POLL_S)
            before, seen = seen, state()
            if seen == "awaiting_input" != before:
                while runs(title):
                    time.sleep(POLL_S)
                answer()
        while runs(title):
            time.sleep(POLL_S)
    finally:
        os.kill(stopped, signal.SIGCONT)
    while seen in {"scheduled", "queued"}:
        time.sleep(POLL_S)
        seen = state()
    return seen == "up_for_retry"
