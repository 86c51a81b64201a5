from dataclasses import replace

import pytest

from slipway.records.history import History
from slipway.release import Gate, QualityBounds
from slipway.steps.plan import Observation, make_plan
from slipway.verdict import Verdict

SET = QualityBounds(uri="u", digest="sha256:5", min_top1=0.9, max_drop=0.02)
COMPARED = {
    "a limit": (Gate(quality=SET), True),
    "no limit": (Gate(quality=replace(SET, max_drop=None)), False),
    "no limit, and a person approves": (Gate(quality=replace(SET, max_drop=None), approval="always"), True),
    "no labelled set": (Gate(approval="always"), False),
}


@pytest.mark.parametrize(("gate", "compared"), COMPARED.values(), ids=COMPARED)
def test_live_release_is_measured_for_a_limit_or_for_a_person(release, record_of, monkeypatch, gate, compared):
    """A person who approves every release sees how the live one classifies the set, also without `max_drop`."""
    seen = Observation(history=History((record_of("r0"),)), health=Verdict.passed("healthy"))
    monkeypatch.setattr("slipway.steps.plan.observe", lambda *_, **__: seen)
    plan, _ = make_plan(replace(release, exporter="sha256:new", gate=gate), by_hand=False)
    assert compared is (plan.baseline is not None)
