"""Kills a task with SIGKILL, with its whole process group, at random instants of its work; a seed makes them repeatable."""

import json
import random
import time

SEED = 20261124
KILLS = 5


def result(done):
    """The result of a task that succeeded."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def kill_repeatedly(harness, task_id, facts, run_id="test__1", *, dag="refresh"):
    """Kill a task KILLS times, then let it finish: its result, and the seconds of that last try.

    Each try starts from what the killed one left. `harness.took_s` says how long the task takes undisturbed. If the task
    ended before its instant came, the next instant is drawn from a shorter span.
    """
    chance = random.Random(f"{SEED} {task_id}")  # noqa: S311 - repeatable on purpose; no secret
    killed, span_s = 0, harness.took_s[task_id]
    while killed < KILLS:
        instant_s = chance.uniform(0.0, span_s)
        done = harness.task(task_id, dag=dag, facts=facts, run_id=run_id, kill_after_s=instant_s)
        assert done.returncode in {-9, 0}, done.stderr[-3000:]
        killed += done.returncode == -9
        span_s = span_s if done.returncode else instant_s
        outcome = f"kill {killed} of {KILLS}" if done.returncode else "ended before the kill"
        print(f"{task_id}: {outcome} at {instant_s:.3f} s of at most {span_s:.1f} s")
    began_s = time.monotonic()
    ended = result(harness.task(task_id, dag=dag, facts=facts, run_id=run_id))
    return ended, time.monotonic() - began_s
