from dataclasses import FrozenInstanceError, replace

import pytest

from slipway.errors import PreflightFailed
from slipway.facts import from_dict
from slipway.verdict import Finding, Verdict, require_nothing_missing


@pytest.mark.parametrize(
    ("make", "outcome"), [(Verdict.wait, "wait"), (Verdict.passed, "pass"), (Verdict.failed, "fail")]
)
def test_outcome_and_reason_if_made(make, outcome):
    """A verdict has an outcome and a reason."""
    assert Verdict(outcome=outcome, reason="1 of 2") == make("1 of 2")
    assert f"{outcome}: 1 of 2" == str(make("1 of 2"))


def test_same_verdict_from_its_dict():
    """A verdict is read back unchanged from the dict in XCom and events."""
    verdict = Verdict.wait("1 of 2 replicas ready, generation 4 observed")
    assert {"outcome": "wait", "reason": verdict.reason} == verdict.to_dict()
    assert verdict == from_dict(Verdict, verdict.to_dict())


def test_refused_if_changed():
    """A verdict cannot be changed."""
    with pytest.raises(FrozenInstanceError):
        Verdict.wait("not yet").outcome = "pass"


def test_preflight_error_names_everything_missing():
    """One line with every missing finding and the first one's command; a warning raises nothing."""
    warned, missing = Finding(outcome="warned", said="w"), Finding(outcome="missing", said="no a", then="do a")
    require_nothing_missing("here", [warned])
    with pytest.raises(PreflightFailed, match=r"^here: no a\. Next: do a$"):
        require_nothing_missing("here", [warned, missing])
    with pytest.raises(
        PreflightFailed, match=r"^here: no a; no b\. Next: do a; the log has the next step for each of the others$"
    ):
        require_nothing_missing("here", [missing, replace(missing, said="no b", then="do b")])
