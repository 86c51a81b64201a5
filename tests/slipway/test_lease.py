import json
import os
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from slipway import holding
from slipway.dismantle import RecordTeardownOperator
from slipway.errors import ClusterUnreachable, GoogleUnreachable, LeaseLost, TargetBusy
from slipway.facts import from_dict, to_dict
from slipway.handover import Handover
from slipway.holding import (
    BUILD_S,
    FORGOTTEN_TRIES,
    LEASE,
    Hold,
    broken_by,
    give_back_leases,
    hold_target,
    keep_target,
    let_go,
    renew_target,
)
from slipway.lease import MARGIN_S, Holder, Lease, Place, give_back, hold, judge_lease, look, render_lease
from slipway.operators import (
    BuildImageOperator,
    ExportOperator,
    PlanOperator,
    PushOperator,
    RecordOperator,
    SmokeTestOperator,
    StageOperator,
)
from slipway.plan import Plan
from slipway.release import Release
from slipway.sensors import PredictionSensor
from slipway.target import Target
from slipway.teardown import Teardown

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
ME = Holder(installation="aaaaaaaaaaaa", dag_id="refresh_digits_vit", run_id="manual__2026-11-24T08:00:00+00:00")
MATE = replace(ME, dag_id="rollback_digits_vit")  # another run of the same installation
OTHER = replace(ME, installation="bbbbbbbbbbbb")
PLACE = Place(
    target=Target(conn_id="kubernetes_default", namespace="shop"), deployment="tfs-server", model="digits-vit"
)

LEFT = {"place": to_dict(PLACE), "holder": ME.identity, "attempt": 0, "broke": None}


def lease(holder, *, ago_s=10, duration_s=60, **changes):
    """A Lease that was renewed some seconds ago."""
    found = Lease(
        holder=holder if isinstance(holder, str) else holder.identity, acquired="2026-11-24T07:00:00.000000Z",
        renewed=NOW - timedelta(seconds=ago_s), duration_s=duration_s, transitions=3, broke=None, uid="u", version="7",
    )  # fmt: skip
    return replace(found, **changes)


JUDGED = {
    "none": (None, "pass", "free"),
    "given back": (lease(""), "pass", "free"),
    "ours": (lease(ME), "pass", "ours"),
    "ours, run out": (lease(ME, ago_s=9999), "pass", "ours"),
    "a mate's": (lease(MATE), "wait", "held by run "),
    "a mate's that ended": (lease(replace(MATE, run_id="ended")), "pass", "its run has ended: run ended of rollback_digits_vit"),
    "a mate's, run out": (lease(MATE, ago_s=60 + MARGIN_S + 1), "pass", "has run out: run "),
    "another's": (lease(OTHER), "wait", "held by run "),
    "another's that ended there": (lease(replace(OTHER, run_id="ended")), "wait", "held by run ended"),
    "another's, just within the margin": (lease(OTHER, ago_s=60 + MARGIN_S), "wait", "held by run "),
    "another's, run out": (lease(OTHER, ago_s=60 + MARGIN_S + 1), "pass", "has run out: run "),
    "renewed in the future": (lease(OTHER, ago_s=-3600), "wait", "held by run "),
    "somebody else's": (lease("kube-controller"), "wait", "held by 'kube-controller', until"),
    "somebody else's, run out": (lease("kube-controller", ago_s=999), "pass", "has run out: 'kube-controller'"),
    "without a time": (lease(OTHER, renewed=None), "wait", "held by run "),
    "without a duration": (lease(OTHER, ago_s=9999, duration_s=None), "wait", "without saying until when"),
}  # fmt: skip


@pytest.mark.parametrize(("found", "outcome", "words"), JUDGED.values(), ids=JUDGED)
def test_who_may_have_it(found, outcome, words):
    """Free, our own, run out, or of a run that Airflow knows to have ended: it may be had. Every other is somebody's."""
    verdict = judge_lease(found, ME, now=NOW, is_over=lambda holder: holder.run_id == "ended")
    assert verdict.outcome == outcome
    assert words in verdict.reason


def test_airflow_is_asked_only_about_its_own_runs():
    """What another installation's Airflow runs, ours cannot know: a run of the same id may be another one."""
    asked = []
    judge_lease(lease(OTHER), ME, now=NOW, is_over=asked.append)
    assert asked == []


def test_a_lease_names_its_holder():
    """Who holds it is read in the Lease as it was written, a run id with slashes too."""
    for run_id in ("manual__2026-11-24T08:00:00+00:00", "a/b"):
        holder = replace(ME, run_id=run_id)
        assert Holder.of(holder.identity) == holder
    assert Holder.of("kube-controller") is None


def test_taken_from_another_counts_and_begins_anew():
    """A Lease that changes hands counts that, and tells since when; a renewed one only until when."""
    taken = render_lease(PLACE, ME, lease(OTHER), now=NOW, limit_s=90, broke=None)
    renewed = render_lease(PLACE, ME, lease(ME), now=NOW, limit_s=90, broke=None)
    assert taken["spec"] == {
        "holderIdentity": ME.identity, "acquireTime": "2026-11-24T08:00:00.000000Z", "renewTime": "2026-11-24T08:00:00.000000Z",
        "leaseDurationSeconds": 90, "leaseTransitions": 4,
    }  # fmt: skip
    assert renewed["spec"] == {**taken["spec"], "acquireTime": "2026-11-24T07:00:00.000000Z", "leaseTransitions": 3}
    assert taken["metadata"]["resourceVersion"] == "7"
    assert taken["metadata"]["labels"] == {"slipway/model": "digits-vit"}
    assert "resourceVersion" not in render_lease(PLACE, ME, None, now=NOW, limit_s=90, broke=None)["metadata"]


def test_two_airflows_on_one_store_are_two(context_of, release, monkeypatch):
    """What tells installations apart is each one's own name: neither the store nor a run's id, which two of one schedule share."""
    run = Handover(context_of("plan"))
    ours = Hold.of(run, release).me
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_INSTALLATION", "there")
    theirs = Hold.of(run, release).me
    assert (ours.installation, theirs.installation) == ("here", "there")
    assert (ours.dag_id, ours.run_id) == (theirs.dag_id, theirs.run_id)
    assert judge_lease(lease(theirs), ours, now=NOW, is_over=lambda _: True).outcome == "wait"


def test_a_run_keeps_the_name_that_it_first_held_by(context_of, release, monkeypatch, leases):
    """An Airflow that is named anew while a run has a Lease takes it away from no run; a run that is cleared has the new one."""
    run = Handover(context_of("plan", resolve=release))
    hold_target(run, 60)
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_INSTALLATION", "renamed")
    later = Hold.of(run, release)
    assert (later.me.installation, later.had) == ("here", True)
    run.context["dag_run"] = SimpleNamespace(run_type="manual", clear_number=1)
    later = Hold.of(run, release)
    assert (later.me.installation, later.had) == ("renamed", False)


def test_what_builds_keeps_what_the_plan_has_taken(context_of, release, leases):
    """Each task renews the Lease for its own limit, also one that does not touch the target; it takes none that the run has not."""
    builds = (ExportOperator, BuildImageOperator, SmokeTestOperator, PushOperator)
    assert {kind.keeps_s for kind in builds} == {BUILD_S}
    run = Handover(context_of("plan", resolve=release))
    keep_target(run, BUILD_S)
    assert leases.asked == []
    hold_target(run, 60)
    keep_target(run, BUILD_S)
    assert leases.asked == [("slipway-tfs-server", "refresh_digits_vit", limit_s) for limit_s in (60, BUILD_S)]


class Stage(StageOperator):
    """A stage that does not touch the target."""

    keeps_s = 60

    def make(self, _run):
        """Nothing."""
        return {}


def test_what_has_lost_the_target_builds_no_more(context_of, release, leases):
    """A run whose Lease was broken ends at its next task: what it would build could not be brought."""
    context = context_of("plan", resolve=release)
    hold_target(Handover(context), 60)
    leases.answers.append(LeaseLost("this run's no more"))
    with pytest.raises(AirflowFailException, match=r"^LeaseLost: "):
        Stage(task_id="export").execute(context)


def test_what_is_let_go_was_never_held(context_of, release, leases, monkeypatch):
    """A plan that finds nothing left to do gives its Lease back, and a task after it that needs one is no loser of it."""
    given = []
    monkeypatch.setattr(holding, "give_back", lambda place, holder: given.append((place.name, holder)) or True)
    run = Handover(context_of("plan", resolve=release))
    hold_target(run, 60)
    let_go(run)
    assert given == [("slipway-tfs-server", Hold.of(run, release).me.identity)]
    assert Hold.of(run, release).had is False


@pytest.mark.parametrize(
    ("error", "ends"), [(ClusterUnreachable, False), (GoogleUnreachable, False), (TargetBusy, True), (LeaseLost, True)]
)
def test_a_wait_goes_on_if_its_lease_cannot_be_renewed_now(context_of, release, monkeypatch, caplog, error, ends):  # noqa: PLR0917
    """An API server or a Google that is away is no reason to end it; a target that another run has is."""

    def refuse(*_words, **_options):
        raise error("away")

    monkeypatch.setattr(holding, "hold", refuse)
    with pytest.raises(error) if ends else nullcontext():
        renew_target(Handover(context_of("gate", resolve=release)), 60)
    assert ("not renewed" in caplog.text) is not ends


def test_a_lease_that_cannot_be_given_back_fails_nothing(context_of, caplog):
    """Where another try would not help, as without the connection, it is over with its run."""
    run = Handover(context_of("record"))
    run.context["ti"].facts["plan", LEASE] = LEFT
    give_back_leases(run)
    assert "lease/slipway-tfs-server in shop: not given back: connection kubernetes_default: " in caplog.text


def test_one_that_an_api_server_out_of_reach_keeps_is_worth_another_try(context_of, connected, closed_url, caplog):
    """The record's own retry gives it back a little later: others need not wait until it runs out."""
    connected(SimpleNamespace(url=closed_url))
    run = Handover(context_of("record"))
    run.context["ti"].facts["plan", LEASE] = LEFT
    with pytest.raises(ClusterUnreachable):
        give_back_leases(run)
    assert "not given back" in caplog.text


@pytest.fixture
def forgotten(connected, http_server):
    """A target where this holder has the Lease, of which the run's tasks say nothing; what the API server was asked."""

    def have(holder):
        spec = {"holderIdentity": holder, "renewTime": "2026-11-24T08:00:00.000000Z", "leaseDurationSeconds": BUILD_S}
        found = {"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": spec}
        server = http_server((200, json.dumps(found)), (200, "{}"))
        connected(server)
        return server.seen

    return have


def ends_nothing(context):
    """A plan that comes to nothing."""
    with pytest.raises(DownstreamTasksSkipped):
        PlanOperator(task_id="plan", builds=["export"], deploys=["apply", "record"]).execute(context)


def ends_red(context):
    """The record of a run whose plan has failed in its last try."""
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
    """Ends a run of which an earlier try of a task took the Lease, and whose word of it Airflow has cleared."""
    monkeypatch.setattr("slipway.plan.make_plan", lambda _release, **_: (Plan(action="nothing", reasons=("so",)), []))

    def run(number=2):
        context = context_of("plan" if request.param is ends_nothing else "record", resolve=release)
        context["ti"].try_number = number
        request.param(context)

    run.of = request.param
    return run


def test_what_an_earlier_try_took_is_given_back_at_the_end(end, context_of, release, forgotten):
    """Else a target would be busy for an hour for every other installation, with nobody there who writes."""
    seen = forgotten(Hold.of(Handover(context_of("plan")), release).me.identity)
    end()
    assert [one.method for one in seen] == ["GET", "DELETE"]
    assert json.loads(seen[1].body)["preconditions"] == {"uid": "u", "resourceVersion": "7"}


@pytest.mark.parametrize("holder", [OTHER.identity, f"there/refresh_digits_vit/{ME.run_id}", ""])
def test_what_another_has_is_not_given_back_at_the_end(end, forgotten, holder):
    """Whoever has broken the Lease, or taken it since, keeps it; so does a run of the same id in another Airflow."""
    seen = forgotten(holder)
    end()
    assert [one.method for one in seen] == ["GET"]


def test_a_first_plan_that_finds_nothing_looks_at_no_lease(context_of, release, forgotten, monkeypatch):
    """No try before it can have taken one."""
    monkeypatch.setattr("slipway.plan.make_plan", lambda _release, **_: (Plan(action="nothing", reasons=("so",)), []))
    seen = forgotten(OTHER.identity)
    ends_nothing(context_of("plan", resolve=release))
    assert seen == []


@pytest.mark.parametrize(("number", "again"), [(2, True), (FORGOTTEN_TRIES + 1, False)])
def test_a_target_out_of_reach_holds_up_no_end_for_a_lease_that_nobody_knows_of(  # noqa: PLR0917
    end, connected, closed_url, caplog, number, again
):
    """A plan that found nothing ends at once; a record, which may be of a run that has it, looks again for a minute."""
    connected(SimpleNamespace(url=closed_url))
    with pytest.raises(ClusterUnreachable) if again and end.of is not ends_nothing else nullcontext():
        end(number)
    assert "not given back, if it is this run's" in caplog.text


def test_an_airflow_whose_name_cannot_be_meant_holds_up_no_end(end, monkeypatch, caplog):
    """It has no Lease: none was ever taken by that name."""
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_INSTALLATION", "a/b")
    end()
    assert "whether the run has one cannot be told: Variable slipway_installation" in caplog.text


# --- at the stand's API server ----------------------------------------------------------------------------------------


@pytest.fixture
def place(stand, monkeypatch, request):
    """A Lease of the test's own in the stand's namespace; none is left."""
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": stand["kubeconfig"]}}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))
    target = Target(conn_id="kubernetes_default", namespace=stand["namespace"])
    made = replace(PLACE, target=target, deployment=f"lease-{os.getpid()}")
    yield made
    kubectl(stand, "delete", "lease", made.name, "--ignore-not-found")


def kubectl(stand, *words):
    """Runs kubectl in the stand's namespace."""
    command = [
        str(Path(sys.executable).parent / "kubectl"),
        "--kubeconfig",
        stand["kubeconfig"],
        "-n",
        stand["namespace"],
    ]
    return subprocess.run([*command, *words], capture_output=True, text=True, check=True, timeout=600).stdout


def never(_holder):
    """No run has ended."""
    return False


def holder_of(stand, place):
    """Who has the Lease, as kubectl tells it."""
    return kubectl(stand, "get", "lease", place.name, "-o", "jsonpath={.spec.holderIdentity}")


def run_out(stand, place):
    """Let the Lease have run out, as if its holder had died long ago."""
    long_ago = json.dumps({"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})
    kubectl(stand, "patch", "lease", place.name, "--type=merge", "-p", long_ago)


@pytest.mark.stand
@pytest.mark.alongside
def test_ten_contenders_have_one_holder(stand, place):
    """Ten that want the same Lease in the same moment: one has it, nine are told who; so with a new one and one that has run out."""
    contenders = [replace(OTHER, run_id=f"r{number}") for number in range(10)]

    def contend(holder, begin, ended):
        begin.wait()
        try:
            hold(place, holder, limit_s=3600, is_over=never)
            ended[holder] = "holds"
        except TargetBusy as error:
            ended[holder] = str(error)

    for _ in range(2):
        begin, ended = threading.Barrier(10), {}
        threads = [threading.Thread(target=contend, args=(holder, begin, ended)) for holder in contenders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=600)
        [first] = [holder for holder, said in ended.items() if said == "holds"]
        assert len(ended) == 10
        assert all(f"held by {first}" in said for holder, said in ended.items() if holder is not first)
        assert holder_of(stand, place) == first.identity
        run_out(stand, place)
        contenders.remove(first)  # else it were its own
        contenders.append(replace(first, run_id="late"))


@pytest.mark.stand
@pytest.mark.alongside
def test_another_has_it_only_when_it_has_run_out(stand, place):
    """Another installation's Lease is refused with who, until when and the one command; run out, it is taken."""
    held = hold(place, OTHER, limit_s=3600, is_over=never)
    with pytest.raises(TargetBusy) as refused:
        hold(place, ME, limit_s=3600, is_over=lambda _: True)
    assert f"held by {OTHER}, until" in str(refused.value)
    assert "airflow dags trigger refresh_digits_vit --conf '{\"break_lease\": true}'" in str(refused.value)
    assert look(place, ME, is_over=never).outcome == "wait"
    assert datetime.fromisoformat(held.until) > datetime.now(UTC)
    run_out(stand, place)
    hold(place, ME, limit_s=3600, is_over=never)
    assert holder_of(stand, place) == ME.identity
    assert give_back(place, OTHER.identity) is False
    assert give_back(place, ME.identity) is True
    assert look(place, ME, is_over=never).reason == "free"


@pytest.mark.stand
@pytest.mark.alongside
def test_a_mates_is_taken_as_soon_as_its_run_has_ended(stand, place):
    """A run of the same installation that was killed holds up nobody once Airflow knows that it has ended."""
    hold(place, MATE, limit_s=3600, is_over=never)
    with pytest.raises(TargetBusy):
        hold(place, ME, limit_s=3600, is_over=never)
    hold(place, ME, limit_s=3600, is_over=lambda holder: holder == MATE)
    assert holder_of(stand, place) == ME.identity


@pytest.mark.stand
@pytest.mark.alongside
def test_a_lease_without_a_time_waits_for_a_person(stand, place):
    """A Lease that somebody has written half is not taken, however old; it is broken like any other."""
    said = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": place.name},
        "spec": {"holderIdentity": "me"},
    }
    subprocess.run(
        [str(Path(sys.executable).parent / "kubectl"), "--kubeconfig", stand["kubeconfig"], "-n", stand["namespace"], "create", "-f", "-"],
        input=json.dumps(said), text=True, check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    with pytest.raises(TargetBusy, match="held by 'me', without saying until when"):
        hold(place, ME, limit_s=3600, is_over=never)
    assert hold(place, ME, limit_s=3600, is_over=never, breaks=True).broke == "'me', without saying until when"


@pytest.mark.stand
@pytest.mark.alongside
def test_a_renewal_that_met_another_looks_again(stand, place):
    """Somebody else's write between our look and ours is seen, never overwritten: the look is repeated and holds."""
    hold(place, ME, limit_s=3600, is_over=never)
    asked = []

    def is_over(_holder):
        """Writes to the Lease just after it was looked at, the first two times."""
        asked.append(1)
        if len(asked) < 3:
            kubectl(stand, "annotate", "--overwrite", "lease", place.name, f"touched={len(asked)}")
        return True

    hold(place, MATE, limit_s=3600, is_over=is_over)
    assert len(asked) == 3
    assert holder_of(stand, place) == MATE.identity


@pytest.fixture
def run_of(place, stand, release, context_of, record_of):
    """Makes a task of a run: `run_of(dag_id, run_id, task_id)`; tasks of one run share what they left."""
    runs = {}
    asked = replace(release, target=place.target, deployment=place.deployment)

    def make(dag_id, run_id, task_id, **params):
        context = runs.setdefault((dag_id, run_id), context_of(task_id, resolve=asked))
        context["ti"].task_id, context["ti"].dag_id = task_id, dag_id
        context.update(run_id=run_id, params={**context["params"], **params})
        return Handover(context)

    return make


@pytest.mark.stand
@pytest.mark.alongside
def test_a_run_holds_from_its_plan_to_its_record(stand, place, run_of):
    """A run's tasks renew one Lease, another run is refused until it is given back, and nothing is left of it then."""
    hold_target(run_of("refresh_digits_vit", "r1", "plan"), 500)
    with pytest.raises(TargetBusy):
        hold_target(run_of("rollback_digits_vit", "r2", "choose"), 3600)
    hold_target(run_of("refresh_digits_vit", "r1", "apply"), 600)
    spec = json.loads(kubectl(stand, "get", "lease", place.name, "-o", "json"))["spec"]
    assert (spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (600, 0)
    give_back_leases(run_of("refresh_digits_vit", "r1", "record"))
    assert place.name not in kubectl(stand, "get", "leases", "-o", "name")
    hold_target(run_of("rollback_digits_vit", "r2", "choose"), 3600)


@pytest.mark.stand
@pytest.mark.alongside
def test_a_broken_lease_is_lost_and_the_breaker_says_so(stand, place, run_of):
    """The one that breaks it remembers whose it was; the other writes no more, also once the breaker is done and gone."""
    hold_target(run_of("refresh_digits_vit", "r1", "plan"), 3600)
    hold_target(run_of("rollback_digits_vit", "r2", "choose", break_lease=True), 3600)
    hold_target(run_of("rollback_digits_vit", "r2", "apply"), 3600)
    assert broken_by(run_of("rollback_digits_vit", "r2", "record")).startswith(
        "run r1 of refresh_digits_vit (installation "
    )
    with pytest.raises(LeaseLost, match="now held by run r2 of rollback_digits_vit"):
        hold_target(run_of("refresh_digits_vit", "r1", "apply"), 3600)
    give_back_leases(run_of("refresh_digits_vit", "r1", "record"))
    assert "rollback_digits_vit" in holder_of(stand, place)
    give_back_leases(run_of("rollback_digits_vit", "r2", "record"))
    for lost in ({}, {"break_lease": True}):
        with pytest.raises(LeaseLost, match="broken, and nobody's now"):
            hold_target(run_of("refresh_digits_vit", "r1", "rollback", **lost), 3600)


@pytest.mark.stand
@pytest.mark.alongside
def test_a_gate_that_passed_while_its_lease_was_broken_is_no_pass(place, run_of):
    """What answered right at the gate's end may be what the breaker has brought: the run that lost the target is not live."""
    hold_target(run_of("refresh_digits_vit", "r1", "plan"), 3600)
    hold_target(run_of("rollback_digits_vit", "r2", "choose", break_lease=True), 3600)
    run = run_of("refresh_digits_vit", "r1", "gate")
    with pytest.raises(AirflowFailException, match=r"^LeaseLost: .*now held by run r2 of rollback_digits_vit"):
        PredictionSensor(task_id="gate").decide(run.context, {"outcome": "pass", "reason": "right", "found": None})
    assert run.said("gate")["outcome"] == "fail"


@pytest.mark.stand
@pytest.mark.alongside
def test_a_cleared_run_begins_anew(place, run_of):
    """A run that had given its Lease back, or lost it, may have it again when a person clears it."""
    run = run_of("refresh_digits_vit", "r1", "plan")
    hold_target(run, 3600)
    give_back_leases(run)
    with pytest.raises(LeaseLost):
        hold_target(run_of("refresh_digits_vit", "r1", "gate"), 3600)
    run.context["dag_run"] = SimpleNamespace(run_type="manual", clear_number=1)
    hold_target(run_of("refresh_digits_vit", "r1", "gate"), 3600)


@pytest.mark.stand
@pytest.mark.alongside
def test_a_teardown_looks_before_it_asks(place, run_of):
    """A teardown is refused while a refresh runs, before a person is asked, and is not where it is there to break that."""
    refresh = run_of("refresh_digits_vit", "r1", "plan")
    hold_target(refresh, 3600)
    with pytest.raises(TargetBusy, match="trigger teardown_digits_vit --conf"):
        Hold.of(run_of("teardown_digits_vit", "r2", "look"), refresh.release).look()
    Hold.of(run_of("teardown_digits_vit", "r3", "look", break_lease=True), refresh.release).look()
