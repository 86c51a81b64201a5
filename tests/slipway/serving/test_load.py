"""A load test's request, and what its figures are worth."""

import base64

import pytest

from slipway.load_plan import LoadPlan
from slipway.serving.golden import GoldenCase, Reference
from slipway.serving.load import Server, judge_load, questions_of_cases, render_load_request

PLAN = LoadPlan(rates_per_s=(2, 4), closed_users=(4,), p95_ms=100, least_per_s=4)
CASE = GoldenCase(
    name="three",
    label=("3", "8"),
    min_confidence=0.8,
    reference=Reference(label="3", confidence=0.9, tolerance=0.02),
    rest_body="{}",
    grpc_request="AAAA",
)


def step(*, kind="rate", rate=2, reached=2.0, p95=50.0, **errors):
    """The figures of a step."""
    return {"kind": kind, "asked_per_s": rate, "users": 4, "reached_per_s": reached, "p95_ms": p95, "errors": errors}


def figures(*steps, best):
    """The figures of a test."""
    return {"steps": steps, "holds_up_to_per_s": best, "objective": {"p95_ms": 100}}


def test_a_golden_case_is_asked_with_its_reference():
    """Under load the answer must be 🤗's own, within the gate's tolerance."""
    [question] = questions_of_cases([CASE])
    assert (question.labels, question.confidence, question.tolerance) == (("3",), 0.9, 0.02)


def test_without_a_reference_the_first_answer_counts():
    """A case of a SavedModel archive has only labels."""
    from dataclasses import replace

    [question] = questions_of_cases([replace(CASE, reference=None)])
    assert (question.labels, question.confidence) == (("3", "8"), None)


def test_the_request_has_what_the_program_reads():
    """Addresses, questions, steps and the objective."""
    asked = render_load_request(
        PLAN,
        questions_of_cases([CASE]),
        model="vit",
        server=Server(version=3, rest="http://a", grpc="a:1"),
        descriptors=b"d",
    )
    assert asked["target"] == {"rest": "http://a", "grpc": "a:1", "model": "vit", "version": 3}
    assert asked["beside"] is None
    assert asked["plan"] == {"rates_per_s": [2, 4], "closed_users": [4], "step_s": 20, "settle_s": 5, "rounds": 0}
    assert (asked["grpc_share"], asked["keep_s"]) == (0.5, None)
    assert (asked["objective"], base64.b64decode(asked["descriptors"])) == ({"p95_ms": 100}, b"d")


def test_a_server_with_grpc_alone_is_asked_over_grpc():
    """Whatever share the model file asks for."""
    from dataclasses import replace

    plan, server = replace(PLAN, grpc_share=0), Server(version=3, rest=None, grpc="a:1")
    asked = render_load_request(plan, questions_of_cases([CASE]), model="vit", server=server, descriptors=b"d")
    assert (asked["target"]["rest"], asked["target"]["grpc"]) == (None, "a:1")


def test_passes_if_the_objective_holds_at_the_rate_that_is_asked():
    """The reason says what the release bears."""
    most = step(kind="closed", rate=None, reached=9.5, p95=420.0)
    verdict = judge_load(PLAN, figures(step(), step(rate=4, p95=80.0), most, best=4))
    assert (verdict.outcome, verdict.reason) == (
        "pass",
        "load: the objective (p95 100 ms) holds up to 4/s, with p95 80 ms; at most 9.5/s with 4 users, p95 420 ms",
    )


@pytest.mark.parametrize("best", [2, None])
def test_fails_if_it_holds_only_below(best):
    """The model file's rate is in the reason."""
    verdict = judge_load(PLAN, figures(step(), step(rate=4, p95=None, HTTP=3), best=best))
    assert (verdict.outcome, verdict.reason.rsplit("; ", 1)[1]) == ("fail", "the model file asks 4/s")


def test_only_measures_if_no_rate_is_asked():
    """Refusals under overload are what a test is for."""
    from dataclasses import replace

    overloaded = figures(step(), step(rate=4, p95=None, **{"HTTP 503": 3}), best=2)
    assert judge_load(replace(PLAN, least_per_s=None), overloaded).outcome == "pass"


def test_says_that_the_forms_rates_leave_the_objective_out():
    """A person who names other rates wants figures; the line says that nothing was judged."""
    from dataclasses import replace

    verdict = judge_load(replace(PLAN, least_per_s=None, left_out_per_s=8), figures(step(), best=2))
    said = "only measured: the model file's least_per_s, 8/s, is none of the form's rates"
    assert (verdict.outcome, verdict.reason.rsplit("; ", 1)[1]) == ("pass", said)


@pytest.mark.parametrize("kind", ["wrong label", "wrong confidence", "another version"])
def test_a_wrong_answer_fails_whatever_is_asked(kind):
    """No overload explains it."""
    from dataclasses import replace

    verdict = judge_load(replace(PLAN, least_per_s=None), figures(step(**{kind: 1}), best=None))
    assert (verdict.outcome, verdict.reason) == (
        "fail",
        f"load: 1 times {kind}: the release answers wrongly under load",
    )
