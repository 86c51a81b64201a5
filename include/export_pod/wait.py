"""The first program of an exporter's pod: waits for the inputs, then becomes the exporter.

    python -c THIS LOCK SHA256 EXPORTER WAIT_S

LOCK is the image's own copy of the requirements that it was built from, and SHA256 that of Slipway's.
"""

import hashlib
import os
import sys
import time
from pathlib import Path

TRY_LATER = 75  # EX_TEMPFAIL of sysexits.h

lock, sha256, exporter, wait_s = sys.argv[1:]
found = hashlib.sha256(Path(lock).read_bytes()).hexdigest() if Path(lock).exists() else "none"
if found != sha256:
    sys.exit(
        f"the image has other requirements ({lock}) than this Slipway's exporter. Next: build it again, push it, and name it in export.pod.image"
    )
end = time.monotonic() + float(wait_s)
while not Path("/inputs/complete").exists():
    if time.monotonic() > end:
        print(f"no inputs came within {wait_s} s: the task that sends them has ended", file=sys.stderr)
        sys.exit(TRY_LATER)
    time.sleep(0.05)
command = [sys.executable, exporter, "--request", "/inputs/request.json", "--out", "/airflow/xcom/out"]
os.execv(sys.executable, command)  # noqa: S606 - the exporter takes the place of this program
