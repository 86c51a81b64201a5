"""A task killed with SIGKILL from outside, with its whole process group, at seeded random instants of its work."""

import json
import random
import time

SEED = 20261124
KILLS = 5


def result(done):
    """What a task that ended well left."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def kill_again_and_again(road, task_id, facts, run_id="test__1", *, dag="refresh"):
    """Kill a task at seeded instants, each time on what the last one left; then let it run to its end, whose result comes back.

    How long it takes unharmed is in the road's `took_s`. An instant that came when the task had ended already is drawn again
    from before it.
    """
    chance = random.Random(f"{SEED} {task_id}")  # noqa: S311 - to be repeated, not to be kept secret
    killed, span_s = 0, road.took_s[task_id]
    while killed < KILLS:
        instant_s = chance.uniform(0.0, span_s)
        done = road.task(task_id, dag=dag, facts=facts, run_id=run_id, kill_after_s=instant_s)
        assert done.returncode in {-9, 0}, done.stderr[-3000:]
        killed += done.returncode == -9
        span_s = span_s if done.returncode else instant_s
        said = f"kill {killed} of {KILLS}" if done.returncode else "had ended"
        print(f"{task_id}: {said} at {instant_s:.3f} s of at most {span_s:.1f} s")
    began_s = time.monotonic()
    ended = result(road.task(task_id, dag=dag, facts=facts, run_id=run_id))
    return ended, time.monotonic() - began_s
