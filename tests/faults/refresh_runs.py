"""One run of a DAG as the tests see it: finished, with its log and its records, or still going in the background."""

import subprocess
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

WAIT_S = 600  # for an event of a run: far more than it takes on a busy machine


@dataclass
class FinishedRun:
    """What one run of a DAG logged and recorded."""

    green: bool
    log: str
    records: list
    began: float  # Unix time
    seconds: float

    def record(self, cause="refresh"):
        """The one record of this cause."""
        found = [record for record in self.records if record["cause"] == cause]
        assert len(found) == 1, f"{len(found)} records of a {cause}\n{self.log[-4000:]}"
        return found[0]

    def reason(self):
        """The reason of the first verdict that failed."""
        return self._first_failure()[1]["reason"]

    def detect_s(self):
        """Seconds from the first write to the cluster to the first failed verdict; without a write, from the start of the run."""
        failed = timestamp(self._first_failure()[1]["at"])
        opened = timestamp(self.record()["opened"])
        return failed - (opened if opened < failed else self.began)

    def good_s(self):
        """Seconds from the first failed verdict until the good release passed its gate again; 0 if it was never replaced."""
        if not any(record["cause"] == "rollback" for record in self.records):
            return 0.0
        return timestamp(self.record("rollback")["closed"]) - timestamp(self._first_failure()[1]["at"])

    def _first_failure(self):
        verdicts = self.record()["verdicts"].items()
        failed = [(task, verdict) for task, verdict in verdicts if verdict["outcome"] == "fail" and task != "rollback"]
        assert failed, f"no verdict failed\n{self.log[-4000:]}"
        return min(failed, key=lambda found: found[1]["at"])


@dataclass
class BackgroundRun:
    """A run that goes on while the test does something else."""

    harness: object
    process: subprocess.Popen
    log: Path
    before: set
    began: float = field(default_factory=time.time)  # Unix time

    def logs(self, words):
        """Wait until the log contains these words."""
        eventually(lambda: words in self.log.read_text(), seconds=WAIT_S, what=words)

    def ends(self, *, green=True):
        """Wait until the run has ended, and return it."""
        code = self.process.wait(timeout=WAIT_S)
        log = self.log.read_text()
        assert (code == 0) is green, log[-5000:]
        records = self.harness.records_since(self.before)
        return FinishedRun(green, log, records, self.began, time.time() - self.began)


def timestamp(text):
    """A record's time as a Unix time."""
    return datetime.fromisoformat(text).timestamp()


def eventually(check, *, seconds, what, every_s=0.2):
    """Call `check` every so many seconds until it returns something true, and return that."""
    end_s = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < end_s, f"{what}: not within {seconds} s"
        time.sleep(every_s)
    return found
