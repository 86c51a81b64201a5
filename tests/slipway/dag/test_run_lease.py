import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped
from leases import ME, OTHER, PLACE

from slipway.dag import run_lease
from slipway.dag.run import Run
from slipway.dag.run_lease import (
    BUILD_S,
    LEASE,
    UNKNOWN_TRIES,
    RunLease,
    acquire_run_lease,
    lease_broken_by,
    renew_held_run_lease,
    renew_run_lease,
    return_own_run_lease,
    return_run_leases,
)
from slipway.dag.stage import StageOperator
from slipway.dag.tasks.build import BuildImageOperator, ExportOperator, PushOperator, SmokeTestOperator
from slipway.dag.tasks.plan import PlanOperator
from slipway.dag.tasks.record import RecordOperator
from slipway.dag.tasks.teardown import RecordTeardownOperator
from slipway.errors import ClusterUnreachable, GoogleUnreachable, LeaseLost, TargetBusy
from slipway.facts import Plan, Teardown, from_dict, to_dict
from slipway.release import Release

LEFT = {"place": to_dict(PLACE), "holder": ME.identity, "attempt": 0, "broke": None}


def test_a_run_keeps_the_installation_name_of_its_first_lease(context_of, release, monkeypatch, leases):
    """A run keeps its Lease if the installation gets another name; a cleared run uses the new name."""
    run = Run(context_of("plan", resolve=release))
    acquire_run_lease(run, 60)
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_INSTALLATION", "renamed")
    later = RunLease.of(run, release)
    assert (later.me.installation, later.had) == ("here", True)
    run.context["dag_run"] = SimpleNamespace(run_type="manual", clear_number=1)
    later = RunLease.of(run, release)
    assert (later.me.installation, later.had) == ("renamed", False)


def test_build_tasks_renew_the_lease_of_the_plan(context_of, release, leases):
    """Each build task renews the Lease for its own time limit, and acquires none if the run holds none."""
    builds = (ExportOperator, BuildImageOperator, SmokeTestOperator, PushOperator)
    assert {kind.keeps_s for kind in builds} == {BUILD_S}
    run = Run(context_of("plan", resolve=release))
    renew_held_run_lease(run, BUILD_S)
    assert leases.asked == []
    acquire_run_lease(run, 60)
    renew_held_run_lease(run, BUILD_S)
    assert leases.asked == [("slipway-tfs-server", "refresh_digits_vit", limit_s) for limit_s in (60, BUILD_S)]


class Stage(StageOperator):
    """A task that does not use the target."""

    keeps_s = 60

    def make(self, _run):
        """Makes nothing."""
        return {}


def test_a_run_that_lost_its_lease_stops_building(context_of, release, leases):
    """A run whose Lease was broken ends at its next task: it could not deploy what it builds."""
    context = context_of("plan", resolve=release)
    acquire_run_lease(Run(context), 60)
    leases.answers.append(LeaseLost("this run no longer holds the lease"))
    with pytest.raises(AirflowFailException, match=r"^LeaseLost: "):
        Stage(task_id="export").execute(context)


def test_a_returned_lease_is_not_lost(context_of, release, leases, monkeypatch):
    """A plan that finds nothing to do returns its Lease; a later task may acquire it again."""
    returned = []
    monkeypatch.setattr(run_lease, "return_lease", lambda place, holder: returned.append((place.name, holder)) or True)
    run = Run(context_of("plan", resolve=release))
    acquire_run_lease(run, 60)
    return_own_run_lease(run)
    assert returned == [("slipway-tfs-server", RunLease.of(run, release).me.identity)]
    assert RunLease.of(run, release).had is False


@pytest.mark.parametrize(
    ("error", "ends"), [(ClusterUnreachable, False), (GoogleUnreachable, False), (TargetBusy, True), (LeaseLost, True)]
)
def test_a_wait_goes_on_if_its_lease_cannot_be_renewed_now(context_of, release, monkeypatch, caplog, error, ends):  # noqa: PLR0917
    """A wait goes on if the API server or Google does not respond; it ends if another run holds the Lease."""

    def refuse(*_words, **_options):
        raise error("away")

    monkeypatch.setattr(run_lease, "acquire_lease", refuse)
    with pytest.raises(error) if ends else nullcontext():
        renew_run_lease(Run(context_of("gate", resolve=release)), 60)
    assert ("not renewed" in caplog.text) is not ends


def test_a_lease_that_cannot_be_returned_fails_no_task(context_of, caplog):
    """If a retry cannot help, as without the connection, the Lease ends with its run."""
    run = Run(context_of("record"))
    run.context["ti"].facts["plan", LEASE] = LEFT
    return_run_leases(run)
    assert "lease/slipway-tfs-server in shop: not returned: connection kubernetes_default: " in caplog.text


def test_returning_is_retried_if_the_api_server_does_not_respond(context_of, connected, closed_url, caplog):
    """A retry of `record` returns it a little later: other runs need not wait until it expires."""
    connected(SimpleNamespace(url=closed_url))
    run = Run(context_of("record"))
    run.context["ti"].facts["plan", LEASE] = LEFT
    with pytest.raises(ClusterUnreachable):
        return_run_leases(run)
    assert "not returned" in caplog.text


def held_by(run_id):
    """The API server's answer: another installation's run holds the Lease."""
    spec = {
        "holderIdentity": f"there/refresh_digits_vit/{run_id}",
        "acquireTime": "2026-11-24T08:00:00.000000Z",
        "renewTime": "2026-11-24T08:00:00.000000Z",
    }
    return 200, json.dumps({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": spec})


@pytest.fixture
def breaker(context_of, release, connected, http_server):
    """Makes a try of a run that may break the Lease: the requests that it sends to an API server with these answers."""

    def tries(*answers, cleared=0):
        server = http_server(*answers)
        connected(server)
        context = context_of("plan", resolve=release)
        context["params"] = {"break_lease": True}
        context["dag_run"] = SimpleNamespace(run_type="manual", clear_number=cleared)
        return Run(context), server.seen

    return tries


def test_a_cleared_run_breaks_no_lease(breaker):
    """The form is about the run that held the Lease when a person filled it in, not about a later holder."""
    run, seen = breaker(held_by("r9"), (200, "{}"), cleared=1)
    with pytest.raises(TargetBusy, match=r"held by run r9 .* break the lease: airflow dags trigger refresh_digits_vit"):
        acquire_run_lease(run, 60)
    assert [one.method for one in seen] == ["GET"]


def test_a_run_breaks_one_lease(breaker):
    """A task that is retried has lost its XCom. It may break the Lease that it broke before, and not another run's."""
    run, seen = breaker(held_by("r1"), (200, "{}"))
    acquire_run_lease(run, 60)
    assert [one.method for one in seen] == ["GET", "PUT"]
    assert lease_broken_by(run).startswith("run r1 of refresh_digits_vit (installation there)")
    again, seen = breaker(held_by("r1"), (200, "{}"))  # the answer to the first write was lost
    acquire_run_lease(again, 60)
    assert [one.method for one in seen] == ["GET", "PUT"]
    third, seen = breaker(held_by("r2"), (200, "{}"))
    with pytest.raises(TargetBusy, match="held by run r2 "):
        acquire_run_lease(third, 60)
    assert [one.method for one in seen] == ["GET"]


def test_a_cleared_teardown_is_refused_while_another_run_writes(breaker, release):
    """Its survey refuses, as if its form had not asked to break the Lease."""
    run, _ = breaker(held_by("r1"), cleared=1)
    with pytest.raises(TargetBusy):
        RunLease.of(run, release).check_free()


@pytest.fixture
def forgotten(connected, http_server):
    """A target whose Lease has this holder, which no task of the run remembers; returns the API server's requests."""

    def have(holder):
        spec = {"holderIdentity": holder, "renewTime": "2026-11-24T08:00:00.000000Z", "leaseDurationSeconds": BUILD_S}
        found = {"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": spec}
        server = http_server((200, json.dumps(found)), (200, "{}"))
        connected(server)
        return server.seen

    return have


def ends_nothing(context):
    """The plan of a run with nothing to do."""
    with pytest.raises(DownstreamTasksSkipped):
        PlanOperator(task_id="plan", builds=["export"], deploys=["apply", "record"]).execute(context)


def ends_red(context):
    """The record of a run whose plan failed in its last try."""
    context["ti"].states = {"plan": "failed", "announce": "upstream_failed"}
    assert RecordOperator(task_id="record", proof_task_id="gate").execute(context)


def ends_teardown(context):
    """The record of a teardown that could not delete the cluster."""
    release = from_dict(Release, context["ti"].facts.pop(("resolve", "return_value")))
    teardown = Teardown(
        model=release.model, run_id="down", store=release.store, target=release.target, deployment=release.deployment,
        objects=(), balancers=(), claim=None, address_timeout_s=600, cluster_timeout_s=600,
    )  # fmt: skip
    context["ti"].facts["look", "return_value"] = {"teardown": to_dict(teardown)}
    context["ti"].states = {"remove_objects": "failed", "delete_cluster": "upstream_failed"}
    RecordTeardownOperator(task_id="record").execute(context)


@pytest.fixture(params=[ends_nothing, ends_red, ends_teardown])
def end(request, context_of, release, monkeypatch):
    """Ends a run; an earlier try of its task acquired the Lease, and Airflow has cleared that try's XCom."""
    monkeypatch.setattr(
        "slipway.steps.plan.make_plan", lambda _release, **_: (Plan(action="nothing", reasons=("so",)), [])
    )

    def run(number=2):
        context = context_of("plan" if request.param is ends_nothing else "record", resolve=release)
        context["ti"].try_number = number
        request.param(context)

    run.of = request.param
    return run


def test_a_lease_of_an_earlier_try_is_returned_at_the_end(end, context_of, release, forgotten):
    """Without that, the target would be busy for an hour for every other installation, though no run writes to it."""
    seen = forgotten(RunLease.of(Run(context_of("plan")), release).me.identity)
    end()
    assert [one.method for one in seen] == ["GET", "DELETE"]
    assert json.loads(seen[1].body)["preconditions"] == {"uid": "u", "resourceVersion": "7"}


@pytest.mark.parametrize("holder", [OTHER.identity, f"there/refresh_digits_vit/{ME.run_id}", ""])
def test_a_lease_of_another_holder_is_kept_at_the_end(end, forgotten, holder):
    """A run that broke or acquired the Lease since keeps it; so does a run of the same id in another installation."""
    seen = forgotten(holder)
    end()
    assert [one.method for one in seen] == ["GET"]


def test_a_first_plan_that_finds_nothing_reads_no_lease(context_of, release, forgotten, monkeypatch):
    """No earlier try can have acquired one."""
    monkeypatch.setattr(
        "slipway.steps.plan.make_plan", lambda _release, **_: (Plan(action="nothing", reasons=("so",)), [])
    )
    seen = forgotten(OTHER.identity)
    ends_nothing(context_of("plan", resolve=release))
    assert seen == []


@pytest.mark.parametrize(("number", "again"), [(2, True), (UNKNOWN_TRIES + 1, False)])
def test_an_unreachable_target_does_not_block_the_end_for_an_unknown_lease(  # noqa: PLR0917
    end, connected, closed_url, caplog, number, again
):
    """A plan with nothing to do ends at once; a record, whose run may hold the Lease, is retried for a minute."""
    connected(SimpleNamespace(url=closed_url))
    with pytest.raises(ClusterUnreachable) if again and end.of is not ends_nothing else nullcontext():
        end(number)
    assert "not returned, if this run holds it" in caplog.text


def test_an_invalid_installation_name_does_not_block_the_end(end, monkeypatch, caplog):
    """No Lease was ever acquired with that name."""
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_INSTALLATION", "a/b")
    end()
    assert "it is unknown whether the run holds one: Variable slipway_installation" in caplog.text
