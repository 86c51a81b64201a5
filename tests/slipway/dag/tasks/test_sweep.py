"""The tasks of a sweep: what a turn leaves, whatever happens to its variant, and what the last task cleans up."""

from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from slipway.dag import run_lease
from slipway.dag.run import Run
from slipway.dag.tasks.sweep import ChooseSweepOperator, EndSweepOperator, MeasureVariantOperator, RecommendOperator
from slipway.dag.triggers.rollout import RolloutTrigger
from slipway.errors import ApplyRefused
from slipway.facts import SweepTarget, Turn, to_dict
from slipway.kubernetes.kustomize import render_manifests
from slipway.records.history import read_records
from slipway.steps.deploy import store_manifests
from slipway.steps.settings import Settings
from slipway.steps.sweep import start_variant
from slipway.variants import SweepPlan, Variant
from slipway.verdict import Verdict

OWN, GONE = Variant(overlay="local"), Variant(overlay="gone")
PLAN = SweepPlan(
    variants=(OWN, GONE), rate_per_s=5, closed_users=4, p95_ms=None, passes=1, rounds=3, step_s=5, settle_s=1
)
NO_PODS = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}


@pytest.fixture
def target(release, export, pushed):
    """What `choose` leaves; its rollouts have a second."""
    release = replace(release, overlay="local", rollout_timeout_s=1)
    live = render_manifests(release, reference=pushed.reference, version=pushed.version, release_id=pushed.release_id)
    kept = store_manifests(release, pushed, live)
    return SweepTarget(
        release=release, export=export, pushed=pushed, manifests_uri=kept.uri, manifests_hash=kept.hash, plan=PLAN
    )


@pytest.fixture
def measured(context_of, target, api_server, leases, monkeypatch):
    """Runs a turn: `measured(number, variant)`; the variables of its Airflow are real, its Lease is replaced."""
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_STORE", target.release.store)
    api_server.pods = [NO_PODS]

    def measure(number, variant):
        context = context_of("measure", choose=target)
        context["ti"].map_index = number
        return MeasureVariantOperator(task_id="measure", variant=variant.name, load_python="python").execute(context)

    return measure


def test_a_variant_that_does_not_run_is_a_result(measured, api_server, store, leases):
    """The turn passes, says why nothing was measured, and leaves nothing; the Lease covers all that it may take."""
    found = measured(0, OWN)
    assert "deployment/tfs-server-sweep-0 in shop: generation 0 observed, 1 applied" in found["why_not"]
    assert "time is up" in found["why_not"]
    assert "Next:" not in found["why_not"]
    assert api_server.names("Deployment") == []
    assert [record["preview"] for record in read_records(store, "digits-vit").records] == [[]]
    assert [limit_s for _, _, limit_s in leases.asked] == [751, 751, 600]


def test_a_variant_that_is_refused_is_a_result(measured, api_server):
    """An overlay that does not exist ends only its own turn, before anything is written."""
    assert "overlay 'gone': there is no" in measured(1, GONE)["why_not"]
    assert api_server.writes == []


def test_a_variant_is_deleted_if_its_load_fails(measured, api_server, monkeypatch):
    """The task is red, for the reason of the load, and the variant's objects are gone."""

    async def runs(*_):
        return Verdict.passed("it runs")

    monkeypatch.setattr(RolloutTrigger, "poll_release", runs)
    with pytest.raises(AirflowFailException, match=r"StoreError: file:///store/.*golden\.json: cannot be read"):
        measured(0, OWN)
    assert [one.partition(" ")[0] for one in api_server.writes] == ["PATCH"] * 3 + ["DELETE"] * 3


def test_a_lease_that_is_lost_ends_the_turn(measured, api_server, leases):
    """Nothing is written then."""
    leases.answers.append(ApplyRefused("the lease is gone"))
    with pytest.raises(AirflowFailException, match="the lease is gone"):
        measured(0, OWN)
    assert api_server.writes == []


def test_recommend_reads_all_turns(context_of, target, monkeypatch):
    """Those that left a result; a turn whose task failed left none."""
    seen = []
    monkeypatch.setattr("slipway.steps.sweep.recommend", lambda _target, turns, **_: seen.extend(turns) or turns[0])
    context = context_of("recommend", choose=target)
    turns = [Turn(variant="local", number=0, p95_ms=(1.0,)), Turn(variant="gone", number=1, why_not="no")]
    context["ti"].facts["measure", "return_value"] = [to_dict(turns[0]), None, to_dict(turns[1])]
    RecommendOperator(task_id="recommend", load_python="python").execute(context)
    assert seen == turns


def test_a_misspelt_param_is_refused(context_of):
    """As in every form."""
    context = {**context_of("choose"), "params": {"overlays": ["seed"]}}
    with pytest.raises(AirflowFailException, match="Param overlays: there is no such Param"):
        ChooseSweepOperator(task_id="choose", model="digits-vit").execute(context)


def test_the_last_task_deletes_what_is_left_and_returns_the_lease(  # noqa: PLR0917 - fixtures
    context_of, target, api_server, leases, store, monkeypatch
):
    """Also what a turn left that was killed; the sweep's record goes with it."""
    returned = []
    monkeypatch.setattr(run_lease, "return_lease", lambda place, _holder: returned.append(place.name) or True)
    start_variant(target, OWN, 0, Settings(store=store.uri, registry=None), check=lambda: None)
    context = context_of("choose", choose=target)
    run_lease.acquire_run_lease(Run(context), 60)
    context["ti"].task_id = "end_sweep"
    EndSweepOperator(task_id="end_sweep").execute(context)
    assert (api_server.names("Deployment"), returned) == ([], ["slipway-tfs-server"])
    assert read_records(store, "digits-vit").records == ()


def test_the_last_task_is_skipped_if_nothing_was_chosen(context_of):
    """There is nothing to delete."""
    with pytest.raises(AirflowSkipException):
        EndSweepOperator(task_id="end_sweep").execute(context_of("end_sweep"))
