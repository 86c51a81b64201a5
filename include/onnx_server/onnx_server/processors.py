"""How many processors the process may use."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # in a container: the container's own control group


def processors(cgroup: Path = CGROUP) -> int:
    """The processors that the process may run on, but no more than the quota of its control group, rounded up, pays for."""
    own = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return own if quota is None else max(min(own, math.ceil(quota)), 1)


def _quota(cgroup: Path) -> float | None:
    """The processors' worth of time that a control group gets, by version 2 or 1; None if it has no limit."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None  # version 1 has -1 for no limit
    except (OSError, ValueError, ZeroDivisionError):  # version 2 has "max"; or there are no such files
        return None
