"""Runs the whole fault suite, for `make test-faults`, and writes the table of docs/faults.md again.

Each file whose tests have an Airflow of their own (marker `alongside`) gets a pytest process; so do, together, the files that
use the stand's Airflow. Of the files that use the emulator of Google (marker `google`), one runs at a time. When all have ended,
the files that need the stand to themselves (marker `alone`) run.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from table import PAGE, write_table

HERE = Path(__file__).parent
AT_ONCE = 3  # tests mostly wait for pods and outages: three keep two cores busy


def run_pytest(job):
    """Run the tests of one place that have these markers and print their output when they have ended; whether they passed."""
    markers, place = job
    print(f"== {place.name} ({markers}): begins", flush=True)
    began_s = time.monotonic()
    command = [sys.executable, "-m", "pytest", "--durations=15", "-m", markers, place]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    outcome = "passed" if done.returncode == 0 else f"FAILED with status {done.returncode}"
    print(f"{done.stdout}== {place.name} ({markers}): {outcome} in {time.monotonic() - began_s:.0f} s", flush=True)
    return done.returncode == 0


def run_in_stands_airflow(others_with_google):
    """Run the tests in the stand's Airflow, those with Google once these others have ended; whether they passed."""
    passed = run_pytest(("faults and not (alongside or alone or google)", HERE))
    wait(others_with_google)
    return run_pytest(("google and not alongside", HERE)) and passed


def main():
    """Run everything, the largest file first, as it takes the longest; whether all passed."""
    os.environ["SLIPWAY_FAULTS_TABLE"] = "1"
    PAGE.write_text(write_table(PAGE.read_text(), []))
    files = sorted(HERE.glob("test_*.py"), key=lambda file: file.stat().st_size, reverse=True)
    own = [file for file in files if "pytest.mark.alongside" in file.read_text()]
    google = [file for file in own if "pytest.mark.google" in file.read_text()]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        with_google = [pool.submit(run_pytest, ("alongside", file)) for file in google]
        jobs = [pool.submit(run_in_stands_airflow, with_google), *with_google]
        jobs += [pool.submit(run_pytest, ("alongside", file)) for file in own if file not in google]
    return all([*(job.result() for job in jobs), run_pytest(("alone", HERE))])


if __name__ == "__main__":
    sys.exit(not main())
