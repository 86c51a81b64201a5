"""The process of `approve` is killed at random instants: while it asks a person, and while it reads the answer."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from dag_run import LIMIT_S, Run, until
from random_kills import KILLS, SEED
from scheduler_race import lose_deferrals, tries_repeated
from stand_model import stand_model

POLL_S = 0.02
TAKES_S = {"asked": 1.9, "answered": 1.1}  # measured; after an instant that came too late, the span is shorter

pytestmark = [pytest.mark.stand, pytest.mark.faults]


@pytest.fixture(scope="module")
def inconclusive(stand, kubectl, engine, airflow_api):
    """A model whose gate is inconclusive."""
    with stand_model("faults-inconclusive", stand, kubectl, engine, airflow_api, gate__latency_ms=1) as trial:
        yield trial


def process_of(task):
    """The id of the process that runs a task instance; None if there is none."""
    title = f"airflow worker -- {task['id']}".encode()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cmdline").read_bytes().rstrip(b"\0 ") == title:
                return int(place.name)
        except OSError:
            continue
    return None


class Approval:
    """The task `approve` of one run."""

    def __init__(self, run):
        self.run, self.path = run, f"{run.path}/taskInstances/approve"
        until(lambda: "approve" in run.states(), "the run has its tasks")

    def seen(self):
        """The task instance in Airflow's API."""
        return self.run.api(self.path)

    def process(self, phase):
        """Wait for the process that asks, or reads the answer; its id."""
        if phase == "answered":
            self.run.answer("Approve")
        end_s = time.monotonic() + LIMIT_S
        while not (pid := process_of(self.seen())):
            assert time.monotonic() < end_s, self.seen()
            time.sleep(POLL_S)
        return pid

    def state(self):
        """Wait until Airflow has noticed the end of the process; the task's state."""
        until(lambda: self.seen()["state"] not in {"running", "queued"}, "Airflow has noticed the end of the process")
        return self.seen()["state"]


def wait_for_end(pid):
    """Wait until the process has ended."""
    while Path(f"/proc/{pid}").exists():
        time.sleep(POLL_S)


def test_approve_asks_again_if_its_process_is_killed(inconclusive, airflow_api, write_row):
    """It asks again after every kill, even if there was an answer already; after the last yes, one release goes live."""
    chance = random.Random(f"{SEED} approve")  # noqa: S311 - repeatable on purpose; no secret
    span_s, killed = dict(TAKES_S), 0
    while killed < KILLS:
        run = Run(airflow_api, inconclusive.dag, force=True)
        approval = Approval(run)
        while killed < KILLS and run.states().get("approve") != "success":
            phase = "answered" if approval.seen()["state"] == "awaiting_input" else "asked"
            pid = approval.process(phase)
            instant_s = chance.uniform(0.0, span_s[phase])
            time.sleep(instant_s)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                span_s[phase] = instant_s
            wait_for_end(pid)
            state = approval.state()
            killed += state == "up_for_retry"
            print(
                f"approve: {phase}, kill {killed} of {KILLS} at {instant_s:.3f} s of at most {span_s[phase]:.1f} s: {state}"
            )
    began_s = time.monotonic()
    if run.states().get("approve") != "success":
        run.answer("Approve")
    assert run.end() == "success"
    record = inconclusive.records()[-1]
    assert (record["outcome"], record["run_id"]) == ("live", run.id)
    assert record["verdicts"]["approve"]["reason"].startswith("admin approved it at ")
    write_row(f"`approve` killed {KILLS} times", "asks again, one release, live", good_s=time.monotonic() - began_s)


def test_the_scheduler_mistakes_the_approvals_wait_for_a_failure(inconclusive, airflow_api, write_row):
    """Airflow loses two answers: the person is asked again, and after the third yes one release goes live."""
    run = Run(airflow_api, inconclusive.dag, force=True)
    began_s = time.monotonic()
    lost = lose_deferrals(run.path, airflow_api, times=2, only={"approve"})
    record = inconclusive.records()[-1]
    assert (run.end(), lost["approve"]) == ("success", 2)
    assert (record["outcome"], record["run_id"]) == ("live", run.id)
    counted = {"approve": record["verdicts"]["approve"]["lost_tries"]}
    assert counted == tries_repeated(run.path, airflow_api, ["approve"])
    write_row(
        "the scheduler takes two answers to `approve` for failures",
        "asks again, live; the record counts the lost tries",
        good_s=time.monotonic() - began_s,
    )
