"""What a sweep's measurements are worth."""

from dataclasses import replace

import pytest

from slipway.facts import Turn
from slipway.serving.sweep import (
    Usage,
    describe_sweep,
    judge_sweep,
    load_plan_of_turn,
    measured_turn,
    render_table,
    requests_per_cpu_s,
)
from slipway.variants import SweepPlan, Variant

OWN, SEED, GRID = Variant(overlay="local"), Variant(overlay="seed"), Variant(overlay="local", inter_op=1)
PLAN = SweepPlan(
    variants=(OWN, SEED, GRID), rate_per_s=5, closed_users=4, p95_ms=None, passes=2, rounds=3, step_s=20, settle_s=5
)


def turn(variant, p95_ms=(), *, per_cpu_s=(), **more):
    """A turn of a variant that reached the rate."""
    found = {"reached_per_s": (5.0,) * len(p95_ms), "most_per_s": (20.0,) * len(p95_ms), "number": 0, **more}
    return Turn(variant=variant.name, p95_ms=tuple(p95_ms), per_cpu_s=tuple(per_cpu_s), **found)


def near(middle, apart=1.0):
    """Three values around a middle."""
    return middle - apart, middle, middle + apart


def judged(*turns, **changes):
    """The judgement of turns."""
    return judge_sweep(replace(PLAN, **changes), turns)


def test_the_smallest_latency_is_recommended_without_an_objective():
    """If the difference is larger than the noise."""
    found = judged(turn(OWN, near(50)), turn(SEED, near(90)), turn(GRID, near(30)))
    assert (found["recommended"], found["by"]) == (GRID.name, "p95_ms")
    assert describe_sweep(found) == (
        "sweep: recommended: local, 1 inter-op, with the smallest p95 at the rate, by more than the noise"
    )


def test_the_own_overlay_stays_if_others_are_better_only_within_the_noise():
    """A second sweep could find the opposite."""
    found = judged(turn(OWN, near(50, 10)), turn(SEED, near(90)), turn(GRID, near(45, 10)))
    assert found["recommended"] == OWN.name
    assert found["best"]["p95_ms"] == {"variant": GRID.name, "first": OWN.name, "within_noise": [OWN.name]}
    assert describe_sweep(found) == (
        "sweep: recommended: local; the smallest p95 at the rate is within the noise of: local, 1 inter-op"
    )


def test_the_cheapest_within_the_objective_is_recommended():
    """A latency that is good enough need not be better; one that is not is out, however cheap."""
    turns = (
        turn(OWN, near(50), per_cpu_s=near(10, 0.1)),
        turn(SEED, near(200), per_cpu_s=near(30, 0.1)),
        turn(GRID, near(90), per_cpu_s=near(20, 0.1)),
    )
    found = judged(*turns, p95_ms=100)
    assert (found["recommended"], found["by"]) == (GRID.name, "per_cpu_s")
    assert [row["holds"] for row in found["rows"]] == [True, False, True]
    assert "the most requests per CPU second, by more than the noise" in describe_sweep(found)


def test_latency_decides_if_the_cpu_of_a_variant_is_unknown():
    """Without metrics-server there is nothing else."""
    found = judged(turn(OWN, near(50), per_cpu_s=near(10)), turn(GRID, near(30), why_no_cpu="none"), p95_ms=100)
    assert (found["recommended"], found["by"]) == (GRID.name, "p95_ms")


NOT_HELD = {
    "an error": [turn(SEED, near(10)), turn(SEED, near(10), errors={"HTTP 503": 2})],
    "it did not start in one pass": [turn(SEED, near(10)), turn(SEED, why_not="it does not fit")],
    "the rate was not reached": [turn(SEED, near(10), reached_per_s=(4.5, 4.6, 4.5))],
    "no round was without an error": [turn(SEED)],
    "its tasks failed": [],
}


@pytest.mark.parametrize("case", NOT_HELD)
def test_not_recommended_if_it_does_not_hold(case):
    """However fast its other rounds were."""
    found = judged(turn(OWN, near(50)), *NOT_HELD[case])
    assert found["recommended"] == OWN.name
    assert [row["holds"] for row in found["rows"]][:2] == [True, False]


def test_two_rounds_are_no_interval():
    """A variant with fewer than three is within the noise of any."""
    found = judged(turn(OWN, near(50)), turn(GRID, (5.0, 5.0)))
    assert found["recommended"] == OWN.name
    assert found["rows"][2]["p95_ms"] == {"mean": 5.0, "low": None, "high": None}


def test_nothing_is_recommended_if_nothing_holds():
    """The table still says what was measured."""
    found = judged(turn(OWN, near(150)), p95_ms=100)
    assert found["recommended"] is None
    assert describe_sweep(found) == (
        "sweep: no variant answers 5/s without errors within p95 100 ms: nothing is recommended"
    )


def test_table():
    """A line for each variant, also for one that was not measured. No latency is reported beside an error."""
    found = judged(
        turn(OWN, near(50), per_cpu_s=near(10)),
        turn(SEED, why_not="pod/x: Unschedulable: 0/1 nodes are available"),
        turn(GRID, near(30), errors={"HTTP 503": 2}, why_no_cpu="the cluster has no metrics-server"),
    )
    assert render_table(found).splitlines() == [
        "variant            p95 ms at 5/s      most/s with 4 users  requests per CPU s",
        "local              50 (47.5 to 52.5)  20 (20 to 20)        10 (7.52 to 12.5)",
        "seed                                                                           not measured: pod/x: Unschedulable: 0/1 nodes are available",
        "local, 1 inter-op  -                  20 (20 to 20)        -                   errors: 2 times HTTP 503; CPU not measured: the cluster has no metrics-server; does not hold the objective",
    ]


def steps(*, rate=5.0, closed=(20.0, 20.0, 20.0), errors=None):
    """The steps of a turn, as load.json has them; in the closed loop some requests are refused."""
    at_rate = [{"kind": "rate", "reached_per_s": rate, "p95_ms": 40 + at, "errors": errors or {}} for at in range(3)]
    refused = {"HTTP 429": 10}
    loops = [{"kind": "closed", "reached_per_s": one, "p95_ms": None, "errors": refused} for one in closed]
    return [*at_rate, *loops]


BEGAN_S = tuple(
    1000 + 20 * number for number in range(6)
)  # the closed loop: 1060 to 1120, without its beginning from 1065


def test_requests_per_cpu_second():
    """Each measurement of the CPU within the closed loop, with the rate of the steps that it overlaps."""
    usages = [
        Usage(began_s=1050, ended_s=1065, cpus=1.0),  # before it had settled
        Usage(began_s=1065, ended_s=1080, cpus=2.0),
        Usage(began_s=1075, ended_s=1095, cpus=2.0),  # a quarter in the first step, three quarters in the second
        Usage(began_s=1110, ended_s=1125, cpus=2.0),  # after its end
    ]
    assert requests_per_cpu_s(PLAN, steps(closed=(20.0, 40.0, 20.0)), BEGAN_S, usages) == (10.0, 17.5)


def test_a_turn_keeps_what_each_round_measured():
    """The rounds at the rate and in the closed loop, and the errors of both."""
    found = measured_turn(
        PLAN, "local", 3, {"steps": steps(errors={"HTTP 503": 1})}, uri="file:///x", began_s=BEGAN_S,
        usages=[Usage(began_s=1070, ended_s=1085, cpus=2.0)], why_no_cpu=None,
    )  # fmt: skip
    assert found == Turn(
        variant="local", number=3, uri="file:///x", p95_ms=(40, 41, 42), reached_per_s=(5.0, 5.0, 5.0), most_per_s=(20.0, 20.0, 20.0),
        per_cpu_s=(10.0,), errors={"HTTP 503": 3, "HTTP 429": 30},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("why_no_cpu", "said"),
    [
        ("the cluster has no metrics-server", "the cluster has no metrics-server"),
        (None, "the closed loop was too short for a measurement of the CPU"),
    ],
)
def test_a_turn_says_why_its_cpu_is_unknown(why_no_cpu, said):
    """For the table."""
    found = measured_turn(PLAN, "local", 0, {"steps": steps()}, uri="u", began_s=BEGAN_S, usages=[], why_no_cpu=why_no_cpu)  # fmt: skip
    assert (found.per_cpu_s, found.why_no_cpu) == ((), said)


def test_load_of_a_turn():
    """All rounds at the rate come first, so that the closed loop is one long time, in which the CPU is measured."""
    plan = load_plan_of_turn(PLAN)
    assert (plan.rates_per_s, plan.closed_users, plan.grpc_share) == ((5, 5, 5), (4, 4, 4), 0)
