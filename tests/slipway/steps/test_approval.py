from dataclasses import replace

import pytest

from slipway.facts import Accuracy, Baseline, to_dict
from slipway.release import Gate, QualityBounds
from slipway.steps.approval import does_person_decide, explain_refusal, list_findings, why_not_approved

PASSED, FAILED, INCONCLUSIVE = ({"outcome": outcome, "reason": ""} for outcome in ("pass", "fail", "inconclusive"))
ALWAYS, DEFAULT = Gate(approval="always"), Gate()
DECIDES = {
    "inconclusive": (DEFAULT, INCONCLUSIVE, True),
    "passed": (DEFAULT, PASSED, False),
    "always, and passed": (ALWAYS, PASSED, True),
    "always, and inconclusive": (ALWAYS, INCONCLUSIVE, True),
    "always, and failed": (ALWAYS, FAILED, False),
    "always, and a person set the gate's state": (ALWAYS, None, False),
}


@pytest.mark.parametrize(("gate", "verdict", "decides"), DECIDES.values(), ids=DECIDES)
def test_person_decides_on_what_the_gate_did_not_refuse(gate, verdict, decides):
    """On an inconclusive result; with `approval: always` also on a pass. Nobody can approve what failed or was not gated."""
    assert decides is does_person_decide(gate, verdict)


QUALITY = QualityBounds(uri="u", digest="sha256:5", min_top1=0.9, max_drop=None)
MEASURED = {"latency_ms": 40, "quality": {"digest": "sha256:5", "images": 100, "wrong": ["a.png"]}}
LIVE = Baseline(measured=Accuracy(digest="sha256:5", images=100, wrong=("a.png", "b.png")), source="measured by run r1")
UNKNOWN = Baseline(measured=None, source="it could not be measured: busy")
REASON = "3 of 3 rounds in a row passed; quality: 99 of 100 images"
NO_LIMIT, BETTER = (
    "95 of 100 answers within 40 ms, no limit",
    "quality: 99 of 100 correct, the live release 98 (measured by run r1)",
)
UNCOMPARED = "quality: not compared with the live release: "
FINDINGS = {
    "no limits": (Gate(quality=QUALITY), LIVE, [NO_LIMIT, BETTER]),
    "all limits: the reason has it all": (Gate(latency_ms=50, quality=replace(QUALITY, max_drop=0.1)), LIVE, []),
    "no labelled set": (Gate(), None, [NO_LIMIT]),
    "no live release": (Gate(latency_ms=50, quality=QUALITY), None, [f"{UNCOMPARED}there is no live release"]),
    "a live release that was not measured": (
        Gate(latency_ms=50, quality=QUALITY),
        UNKNOWN,
        [f"{UNCOMPARED}it could not be measured: busy"],
    ),
}


@pytest.mark.parametrize(("gate", "live", "more"), FINDINGS.values(), ids=FINDINGS)
def test_findings_are_the_reasons_and_what_no_limit_judged(gate, live, more):
    """A person sees latency and the accuracy next to the live release's, whether or not the model file limits them."""
    verdict = {"outcome": "pass", "reason": REASON, "measured": MEASURED}
    assert [*REASON.split("; "), *more] == list_findings(gate, verdict, to_dict(live) if live else None)


def test_findings_name_the_load_tests_figures():
    """A person who has to decide on a load test finds its rounds."""
    verdict = {**INCONCLUSIVE, "reason": "load: p95 112 ms", "measured": {"load": {"uri": "file:///l/load.json"}}}
    assert list_findings(Gate(), verdict, None) == ["load: p95 112 ms", "load: each round is in file:///l/load.json"]


def test_findings_of_a_verdict_that_measured_nothing():
    """A gate without answers to time, or an earlier Slipway's verdict, leaves only its reason."""
    assert list_findings(Gate(quality=QUALITY), {"outcome": "pass", "reason": "a"}, None) == ["a"]
    assert list_findings(
        Gate(), {**PASSED, "reason": "a", "measured": {"latency_ms": None, "quality": None}}, None
    ) == ["a"]


REFUSALS = {
    "passed, and rejected": (PASSED, True, "the gate passed, but ada rejected it. Next: fix the model, or trigger refresh_digits_vit to be asked again"),
    "inconclusive, and rejected": (INCONCLUSIVE, True, "the gate's result was inconclusive, and ada rejected it. Next: fix the model, or its gate in the model file"),
    "not asked": (PASSED, False, "the gate passed, but ada rejected it. Next: trigger again"),
}  # fmt: skip


@pytest.mark.parametrize(("verdict", "answered", "line"), REFUSALS.values(), ids=REFUSALS)
def test_refusal_says_what_the_gate_found(release, verdict, answered, line):
    """A release that passed its gate and was rejected does not read as if the gate had doubted it."""
    assert line == explain_refusal(release, verdict, "ada rejected it", answered=answered)


MISSING = "nobody has approved this release in this run. Next: clear preview, or trigger refresh_digits_vit again"
APPROVALS = {
    "not required": (DEFAULT, None, None),
    "approved": (ALWAYS, PASSED, None),
    "a person set the state of approve": (ALWAYS, None, MISSING),
    "rejected": (ALWAYS, FAILED, MISSING),
}


@pytest.mark.parametrize(("gate", "approval", "words"), APPROVALS.values(), ids=APPROVALS)
def test_required_approval_is_an_answer_not_a_state(release, gate, approval, words):
    """Without a person's yes a new release is not applied."""
    why = why_not_approved(replace(release, gate=gate), approval)
    assert (why is None) if words is None else why.endswith(words)
