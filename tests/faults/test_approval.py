"""The question to a person, whose process is killed at seeded random instants of asking, and of taking the answer."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from dag_run import LIMIT_S, Run, until
from doubtful import doubtful
from kills import KILLS, SEED

LOOK_S = 0.02
TAKES_S = {"asked": 1.9, "answered": 1.1}  # seen here; an instant that came too late is drawn again from before it

pytestmark = [pytest.mark.stand, pytest.mark.faults]


@pytest.fixture(scope="module")
def doubt(stand, kubectl, engine, airflow_api):
    """A model of which the gate is in doubt."""
    with doubtful("faults-doubt", stand, kubectl, engine, airflow_api) as trial:
        yield trial


def process_of(task):
    """The process that works on a try of a task; None where there is none."""
    title = f"airflow worker -- {task['id']}".encode()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cmdline").read_bytes().rstrip(b"\0 ") == title:
                return int(place.name)
        except OSError:
            continue
    return None


class Question:
    """What asks a person in one run, whose tasks are there."""

    def __init__(self, run):
        self.run, self.path = run, f"{run.path}/taskInstances/approve"
        until(lambda: "approve" in run.states(), "the run has its tasks")

    def seen(self):
        """The task as Airflow has it."""
        return self.run.api(self.path)

    def works(self, phase):
        """The process in which it asks, or is answered, once there is one."""
        if phase == "answered":
            self.run.answer("Approve")
        end_s = time.monotonic() + LIMIT_S
        while not (pid := process_of(self.seen())):
            assert time.monotonic() < end_s, self.seen()
            time.sleep(LOOK_S)
        return pid

    def state(self):
        """What became of a try whose process has ended."""
        until(lambda: self.seen()["state"] not in {"running", "queued"}, "its end was seen")
        return self.seen()["state"]


def wait_for_end(pid):
    """Until it is there no more."""
    while Path(f"/proc/{pid}").exists():
        time.sleep(LOOK_S)


def test_a_question_whose_worker_dies_is_asked_again(doubt, airflow_api, tell):
    """It is asked anew after every death, also of one that had an answer; the last yes lets one release go live."""
    chance = random.Random(f"{SEED} approve")  # noqa: S311 - to be repeated, not to be kept secret
    span_s, killed = dict(TAKES_S), 0
    while killed < KILLS:
        run = Run(airflow_api, doubt.dag, force=True)
        question = Question(run)
        while killed < KILLS and run.states().get("approve") != "success":
            phase = "answered" if question.seen()["state"] == "awaiting_input" else "asked"
            pid = question.works(phase)
            instant_s = chance.uniform(0.0, span_s[phase])
            time.sleep(instant_s)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                span_s[phase] = instant_s
            wait_for_end(pid)
            state = question.state()
            killed += state == "up_for_retry"
            print(
                f"approve: {phase}, kill {killed} of {KILLS} at {instant_s:.3f} s of at most {span_s[phase]:.1f} s: {state}"
            )
    began_s = time.monotonic()
    if run.states().get("approve") != "success":
        run.answer("Approve")
    assert run.end() == "success"
    record = doubt.records()[-1]
    assert (record["outcome"], record["run_id"]) == ("live", run.id)
    assert record["verdicts"]["approve"]["reason"].startswith("admin approved it at ")
    tell(f"`approve` killed {KILLS} times", "asked again, one release, live", good_s=time.monotonic() - began_s)
