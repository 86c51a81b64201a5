"""What a run observes before it plans, for tests of the plan."""

from slipway.kubernetes.apply import Trial
from slipway.steps.plan import Observation
from slipway.verdict import Verdict

HEALTHY = Verdict.passed("it answers")
CHANGED = Trial(
    name="deployment/tfs-server",
    before={"metadata": {"name": "tfs-server"}, "spec": {"paused": False}},
    after={"metadata": {"name": "tfs-server"}, "spec": {"paused": True}},
)


def observed(history, health=HEALTHY, trials=(), bad=None):
    """What a run observes."""
    return Observation(history=history, health=health, trials=trials, bad=bad)
