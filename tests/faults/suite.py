"""Runs the whole fault suite, for `make test-faults`, and writes the table of docs/faults.md again.

Each file whose tests have an Airflow of their own (marker `alongside`) gets a pytest process; so do, together, the files that
share a harness (`released`), and those that use the stand's Airflow. Of the files that use the emulator of Google (marker `google`), one runs at a time. When all have ended,
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
    """Run the tests of some places that have these markers and print their output when they have ended; whether they passed."""
    markers, *places = job
    what = f"{' '.join(place.name for place in places)} ({markers})"
    print(f"== {what}: begins", flush=True)
    began_s = time.monotonic()
    command = [sys.executable, "-m", "pytest", "--durations=15", "-m", markers, *places]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    outcome = "passed" if done.returncode == 0 else f"FAILED with status {done.returncode}"
    print(f"{done.stdout}== {what}: {outcome} in {time.monotonic() - began_s:.0f} s", flush=True)
    return done.returncode == 0


def run_in_stands_airflow(others_with_google):
    """Run the tests in the stand's Airflow, those with Google once these others have ended; whether they passed."""
    passed = run_pytest(("faults and not (alongside or alone or google)", HERE))
    wait(others_with_google)
    return run_pytest(("google and not alongside", HERE)) and passed


def main():
    """Run everything, the files with the most text first, as they take the longest; whether all passed."""
    os.environ["SLIPWAY_FAULTS_TABLE"] = "1"
    PAGE.write_text(write_table(PAGE.read_text(), []))
    own = [file for file in sorted(HERE.glob("test_*.py")) if "pytest.mark.alongside" in file.read_text()]
    google = [file for file in own if "pytest.mark.google" in file.read_text()]
    sharing = [file for file in own if "(released" in file.read_text()]
    places = [sharing, *([file] for file in own if file not in google + sharing)]
    places.sort(key=lambda files: sum(file.stat().st_size for file in files), reverse=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        with_google = [pool.submit(run_pytest, ("alongside", file)) for file in google]
        jobs = [pool.submit(run_in_stands_airflow, with_google), *with_google]
        jobs += [pool.submit(run_pytest, ("alongside", *files)) for files in places]
    return all([*(job.result() for job in jobs), run_pytest(("alone", HERE))])


if __name__ == "__main__":
    sys.exit(not main())
