from dataclasses import FrozenInstanceError

import pytest

from slipway.facts import from_dict
from slipway.verdict import Verdict


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
