from dataclasses import replace

import pytest

from slipway.facts import Speed
from slipway.release import Bake, Gate, PrometheusQueries
from slipway.serving.bake import UNCOUNTED, Asked, Look, Watch, is_beyond, judge_look, measured_by
from slipway.serving.gate import RoundResult
from slipway.serving.metrics import Counts, Tally
from slipway.verdict import Verdict

INF = float("inf")
RIGHT = RoundResult(rest=(Verdict.passed("right"),), times_ms=(5.0,))
WRONG = RoundResult(rest=(Verdict.failed("golden case 'three': got '8'"),))
MISSING = RoundResult(rest=(Verdict.wait("golden case 'three': no answer yet"),))
BEFORE = Speed(release_id="0" * 12, answers=4950, mean_ms=10.0, errors=50)


def served(answered, *, slow=0, looks=5, restarts=0, mean_ms=10.0, **statuses):
    """The tally of a pod that answered so many predictions, some of them in 20 to 40 ms, the others below 20 ms."""
    within = {20.0: answered - slow, 40.0: answered, INF: answered}
    total = Counts(statuses=statuses, answered=answered, total_ms=mean_ms * answered, within=within)
    return Tally(looks=looks, total=total, restarts=restarts, pods={"a": None})


def judged(*looks, over=False, before=None, gate=None, **bake):
    """The verdict after these looks, and whether it blames the release; `over` is about the last look."""
    watch, rules = Watch(), replace(gate or Gate(), bake=Bake(**bake))
    for number, look in enumerate(looks, start=1):
        watch, verdict = judge_look(watch, look, rules, before=before, over=over and number == len(looks))
    return verdict, watch.blames


def look(golden=RIGHT, tally=None, **others):
    """A look."""
    return Look(golden=golden, tally=tally or served(100), **others)


def test_waits_until_the_bake_is_over_and_passes_then():
    """The reason says how much was seen."""
    said = (
        "2 of 2 rounds of golden requests had all their answers; 100 predictions by 1 pod; "
        "0 of 100 requests failed, at most 0.01 of them may"
    )
    assert judged(look(), look()) == (Verdict.wait(said), False)
    assert judged(look(), look(), over=True) == (Verdict.passed(said), False)


def test_does_not_pass_before_a_second_look_at_the_servers():
    """A trigger that started again at the end of the bake knows nothing of it."""
    assert judged(look(tally=served(0, looks=1)), over=True)[0].outcome == "wait"


def test_does_not_pass_while_the_metrics_are_unread():
    """What nobody has watched does not count as good."""
    unread = Look(golden=RIGHT, unread="the API server: HTTP 503")
    verdict, _ = judged(look(), unread, over=True)
    assert verdict.outcome == "wait"
    assert verdict.reason.endswith("; the metrics could not be read: the API server: HTTP 503")


def test_does_not_pass_while_the_last_round_has_missing_answers():
    """The next look may be the last one."""
    verdict, _ = judged(look(), look(MISSING), over=True)
    assert (verdict.outcome, "the last one: golden case 'three': no answer yet" in verdict.reason) == ("wait", True)


GOLDEN = {
    "a wrong answer": ([look(WRONG)], {}, ("fail", True)),
    "a wrong answer that the gate tolerates": ([look(WRONG)], {"failures": 1}, ("wait", False)),
    "missing answers": ([look(MISSING)] * 2, {}, ("wait", False)),
    "missing answers three times in a row": ([look(MISSING)] * 3, {}, ("fail", False)),
    "missing answers now and then": ([look(MISSING), look()] * 3, {}, ("wait", False)),
    "more missing answers than the gate tolerates": ([look(MISSING), look()] * 2, {"errors": 1}, ("fail", False)),
    "missing answers of a server that ends": (
        [look(MISSING, served(9, restarts=2))] * 3,
        {},
        ("fail", True),
    ),
}


@pytest.mark.parametrize(("looks", "gate", "found"), GOLDEN.values(), ids=GOLDEN)
def test_golden_requests_are_judged_as_by_the_gate(looks, gate, found):
    """A wrong answer blames the release; a missing one only if its servers have started again."""
    verdict, blames = judged(*looks, gate=Gate(**gate))
    assert (verdict.outcome, blames) == found


LIMITS = {
    "errors at the end": (served(98, INTERNAL=2), {}, "2 of 100 requests failed, at most 0.01 of them may"),
    "more errors than the release before": (
        served(94, INTERNAL=6),
        {"max_errors": 0.1, "max_more_errors": 0.04},
        "6 of 100 requests failed, and 50 of 5000 of release 000000000000: the share may be at most 0.04 larger",
    ),
    "refused requests": (
        served(50, NOT_FOUND=50),
        {"max_refused": 0.2},
        "50 of 100 requests were refused, at most 0.2 of them may",
    ),
    "slow answers": (
        served(100, slow=6),
        {"p95_ms": 15},
        "6 of them took more than 20 ms, the next step that the servers count above the limit of 15 ms",
    ),
    "slower than the release before": (
        served(100, mean_ms=16.0),
        {"max_slowdown": 0.5},
        "mean 16 ms, 1.60 times that of release 000000000000, at most 1.5 times allowed",
    ),
}


@pytest.mark.parametrize(("tally", "bake", "reason"), LIMITS.values(), ids=LIMITS)
def test_fails_beyond_a_limit_and_blames_the_release(tally, bake, reason):
    """The reason is what was counted, and the limit."""
    assert judged(look(), look(tally=tally), over=True, before=BEFORE, **bake) == (Verdict.failed(reason), True)


WITHIN = {
    "refused requests without a limit": (served(50, NOT_FOUND=50), {}, "50 predictions by 1 pod"),
    "slow answers that may be fast enough": (served(100, slow=100), {"p95_ms": 25}, "0 of them took more than 40 ms"),
    "five in a hundred slow answers": (served(100, slow=5), {"p95_ms": 15}, "5 of them took more than 20 ms"),
    "too few answers for a latency": (
        served(19, slow=19),
        {"p95_ms": 15},
        "too few to judge their latency, 20 are needed",
    ),
    "too few answers to compare": (
        served(19, mean_ms=99),
        {"max_slowdown": 0.5},
        "too few answers to compare with release 000000000000: 19 of this one, 4950 of that",
    ),
    "as many more errors as allowed": (
        served(96, INTERNAL=4),
        {"max_errors": 0.1, "max_more_errors": 0.04},
        "4 of 100 requests failed, and 50 of 5000 of release 000000000000",
    ),
    "too few requests to compare": (
        served(9, INTERNAL=9),
        {"max_errors": 0.9, "max_more_errors": 0.01},
        "too few requests to compare their errors with release 000000000000: 18 of this one, 5000 of that",
    ),
    "as slow as allowed": (served(100, mean_ms=15.0), {"max_slowdown": 0.5}, "1.50 times that of release"),
}


@pytest.mark.parametrize(("tally", "bake", "words"), WITHIN.values(), ids=WITHIN)
def test_passes_within_the_limits_and_says_what_was_judged(tally, bake, words):
    """What could not be judged is said in words, and is no failure."""
    verdict, _ = judged(look(), look(tally=tally), over=True, before=BEFORE, **bake)
    assert verdict.outcome == "pass", verdict
    assert words in verdict.reason


def test_not_compared_if_the_release_before_is_unknown():
    """A first release has none before it."""
    verdict, _ = judged(look(), look(), over=True, max_slowdown=0.5)
    assert (verdict.outcome, "not compared with the release before" in verdict.reason) == ("pass", True)


@pytest.mark.parametrize("before", [None, replace(BEFORE, errors=None)], ids=["no release", "an earlier Slipway's"])
def test_errors_not_compared_if_those_before_are_unknown(before):
    """`apply` of an earlier Slipway has left no errors."""
    verdict, _ = judged(
        look(), look(tally=served(50, INTERNAL=50)), over=True, before=before, max_errors=1, max_more_errors=0
    )
    assert (verdict.outcome, "errors not compared with the release before" in verdict.reason) == ("pass", True)


MORE_ERRORS = {"by chance": (98, 2, "wait"), "not by chance": (85, 15, "fail")}


@pytest.mark.parametrize(("answered", "failed", "early"), MORE_ERRORS.values(), ids=MORE_ERRORS)
def test_more_errors_fail_early_only_if_it_is_no_chance(answered, failed, early):
    """Before the end the lower end of the difference's interval must be beyond the limit too, even if it is 0."""
    looks = [look(), look(tally=served(answered, INTERNAL=failed))]
    outcomes = [
        judged(*looks, over=over, before=BEFORE, max_errors=1, max_more_errors=0)[0].outcome for over in (False, True)
    ]
    assert outcomes == [early, "fail"]


EARLY = {
    "any error, if none is allowed": (1, 1000, 0.0, True),
    "one error of three": (1, 3, 0.01, False),
    "one error of twenty": (1, 20, 0.01, False),
    "half of all requests is none": (10, 20, 0.01, True),
    "within the limit": (5, 100, 0.05, False),
    "a little beyond it": (6, 100, 0.05, False),
    "far beyond it": (12, 100, 0.05, True),
    "nothing counted": (0, 0, 0.0, False),
}


@pytest.mark.parametrize(("part", "whole", "limit", "early"), EARLY.values(), ids=EARLY)
def test_fails_early_only_if_it_is_no_chance(part, whole, limit, early):
    """Before the end the lower end of Wilson's interval must be beyond the limit too; at the end the share counts."""
    assert is_beyond(part, whole, limit, over=False) is early
    assert is_beyond(part, whole, limit, over=True) is bool(whole and part / whole > limit)


PROMETHEUS = PrometheusQueries(conn_id="p", errors="e", p95_ms="l")


def asked(errors=0.0, p95_ms=20.0):
    """A look with the answers of a Prometheus."""
    return Look(golden=RIGHT, asked=Asked(errors=errors, p95_ms=p95_ms))


ASKED = {
    "within": ([asked()], True, "pass", "95th percentile in ms 20, limit 30, according to the Prometheus"),
    "beyond once": ([asked(p95_ms=40)], False, "wait", "95th percentile in ms 40, limit 30"),
    "beyond twice in a row": ([asked(p95_ms=40)] * 2, False, "fail", "95th percentile in ms 40, limit 30"),
    "beyond now and then": ([asked(p95_ms=40), asked(), asked(p95_ms=40)], False, "wait", "40, limit 30"),
    "beyond at the end": (
        [asked(), asked(errors=0.5)],
        True,
        "fail",
        "share of requests that failed 0.5, limit 0.01",
    ),
    "no requests": ([asked(float("nan"), float("nan"))], True, "pass", "95th percentile in ms: no request was counted"),
    "endless": ([asked(p95_ms=INF)], True, "fail", "95th percentile in ms inf, limit 30"),
    "no answer at the end": (
        [asked(), Look(golden=RIGHT, unread="HTTP 500")],
        True,
        "wait",
        "could not be read: HTTP 500",
    ),
}


@pytest.mark.parametrize(("looks", "over", "outcome", "words"), ASKED.values(), ids=ASKED)
def test_a_prometheus_is_judged_by_its_numbers(looks, over, outcome, words):
    """A number beyond its limit must be seen twice in a row, or at the end."""
    verdict, blames = judged(*looks, over=over, p95_ms=30.0, prometheus=PROMETHEUS)
    assert (verdict.outcome, blames) == (outcome, outcome == "fail"), verdict
    assert words in verdict.reason


def test_record_has_what_was_measured():
    """Figures that do not exist are null: JSON has no NaN."""
    watch, _ = judge_look(
        Watch(), look(tally=served(8, INTERNAL=1, NOT_FOUND=2)), Gate(bake=Bake()), before=None, over=False
    )
    assert measured_by(watch, Bake(), BEFORE) == {
        "rounds": 1, "wrong": 0, "missed": 0, "latency_ms": 5,
        "servers": {
            "answered": 8, "errors": 1, "refused": 2, "statuses": {"INTERNAL": 1, "NOT_FOUND": 2}, "mean_ms": 10.0,
            "p95_within_ms": 20.0, "pods": 1, "restarts": 0,
        },
        "before": {"release": "000000000000", "answered": 4950, "errors": 50, "mean_ms": 10.0},
        "prometheus": None,
    }  # fmt: skip
    watch = Watch(asked=Asked(errors=float("nan")))
    found = measured_by(watch, Bake(prometheus=PROMETHEUS), None)
    assert (found["prometheus"], found["servers"], found["before"]) == (
        {"errors": None, "p95_ms": None},
        None,
        None,
    )
    assert measured_by(Watch(tally=UNCOUNTED), Bake(), None)["servers"] is None
