"""Objects that a release no longer has are deleted once it is proven. Until then old pods, users or a rollback may need them.

What could block the gate or answer in its place is deleted before the gate. So is everything that a failed release added.
What limits new pods is deleted before any are created.
"""

import json
import os
from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred
from two_releases import BLOCKING, LIMITING, SETTINGS, Releases, free, refuse, two_releases

from slipway.dag.run import Run
from slipway.dag.tasks.deploy import RemovePreviewOperator
from slipway.dag.tasks.rollback import UNDOING, RollbackOperator
from slipway.dag.tasks.waits import RolloutSensor
from slipway.errors import ApplyRefused, ClusterUnreachable, LeaseLost, TargetBusy
from slipway.facts import ObjectRef, to_dict
from slipway.kubernetes.apply import object_exists, remove_objects, split_outdated
from slipway.names import LABEL_MODEL
from slipway.records.history import read_history
from slipway.records.record import read_record
from slipway.records.store import Store
from slipway.steps.deploy import deploy, find_outdated, remove_outdated
from slipway.steps.rendering import render_release

PASSED = {"outcome": "pass", "reason": "3 of 3 rounds in a row passed"}
ROLLED_OUT = {"outcome": "pass", "reason": "1 of 1 replicas are available", "found": None}


@pytest.fixture
def releases(api_server, overlay, release, export, pushed):
    """A live release, and the next one."""
    place = overlay(**SETTINGS)
    first = render_release(replace(release, run_id="first", overlay="mine"))
    file = place / "kustomization.yaml"
    file.write_text(file.read_text().replace("before", "after"))
    return Releases(first, render_release(replace(release, run_id="second", overlay="mine")), export, pushed)


@pytest.fixture(params=["added", "dropped"])
def blocking(request, api_server, overlay, release, export, pushed):  # noqa: PLR0917
    """Two releases; what blocks or shares users' requests is in the second one only (added), or in the first one only (dropped)."""
    return two_releases(overlay, release, export, pushed, objects=BLOCKING, added=request.param == "added")


@pytest.fixture(params=["added", "dropped"])
def limiting(request, api_server, overlay, release, export, pushed):  # noqa: PLR0917
    """Two releases; what limits new pods is in the second one only (added), or in the first one only (dropped)."""
    return two_releases(overlay, release, export, pushed, objects=LIMITING, added=request.param == "added")


only_added = pytest.mark.parametrize("blocking", ["added"], indirect=True)
only_dropped = pytest.mark.parametrize("blocking", ["dropped"], indirect=True)


def blocks(api_server):
    """What blocks or shares users' requests in the cluster."""
    return [*api_server.names("NetworkPolicy"), *(name for name in api_server.names("Deployment") if name == "double")]


@pytest.fixture
def clean_up(context_of, leases):
    """Runs the teardown after the gate of a run that applied a release."""

    def run(release, applied, *, gate=PASSED):
        context = context_of("remove_preview", resolve=release, apply=applied)
        context["ti"].facts["gate", "verdict"] = gate
        context["ti"].states = {"gate": "success", "apply": "success"}
        return RemovePreviewOperator(task_id="remove_preview", proof_task_id="gate").execute(context)

    return run


def writes_of(api_server, apply):
    """The kinds in the paths of the writes of an apply, in their order."""
    before = len(api_server.writes)
    apply()
    return [(write.split()[0], write.rsplit("/", 2)[1]) for write in api_server.writes[before:]]


def objects_of(release):
    """The overlay's ConfigMaps that a run's record lists."""
    record = read_record(Store(release.store), release.model, release.run_id)
    return [one["name"] for one in record["objects"] if one["kind"] == "ConfigMap" and is_setting(one["name"])]


def settings_in(api_server):
    """The overlay's ConfigMaps in the cluster. The base's own is the same in both releases."""
    return list(filter(is_setting, api_server.names("ConfigMap")))


def is_setting(name):
    """Whether a ConfigMap is of the overlay."""
    return name.startswith("settings-")


def test_apply_deletes_nothing(api_server, releases):
    """An old pod that starts again before the gate has passed mounts its ConfigMap."""
    [before] = settings_in(api_server)
    releases.apply_second()
    assert before in settings_in(api_server)
    assert len(settings_in(api_server)) == 2
    assert not [write for write in api_server.writes if write.startswith("DELETE")]


def test_deleted_under_the_lease_once_the_release_is_proven(api_server, releases, clean_up, leases):
    """The record then lists only what was applied."""
    [before] = settings_in(api_server)
    applied = releases.apply_second()
    assert clean_up(releases.second, applied) == [f"configmap/{before}"]
    assert settings_in(api_server) == objects_of(releases.second) != [before]
    assert leases.asked == [("slipway-tfs-server", "refresh_digits_vit", 600)]
    assert clean_up(releases.second, applied) == []


@pytest.mark.parametrize("gate", [{"outcome": "fail", "reason": "got '3'"}, None], ids=["failed", "set by a person"])
def test_kept_if_the_release_is_not_proven(api_server, releases, clean_up, leases, gate):
    """A gate without a verdict was set to success by a person."""
    applied = releases.apply_second()
    assert clean_up(releases.second, applied, gate=gate) == []
    assert len(settings_in(api_server)) == len(objects_of(releases.second)) == 2
    assert leases.asked == []


def test_kept_without_the_lease(api_server, releases, clean_up, leases):
    """Another run may be writing, and needs what it has applied."""
    applied = releases.apply_second()
    leases.answers.append(LeaseLost("this run no longer holds the lease"))
    with pytest.raises(Exception, match="LeaseLost"):
        clean_up(releases.second, applied)
    assert len(settings_in(api_server)) == len(objects_of(releases.second)) == 2


def test_kept_without_the_models_label(api_server, releases, clean_up, caplog):
    """It belongs to somebody else now: the log names it, and no later run plans its deletion."""
    [before] = settings_in(api_server)
    applied = releases.apply_second()
    api_server.find("ConfigMap", before)["metadata"]["labels"][LABEL_MODEL] = "another"
    assert clean_up(releases.second, applied) == []
    assert before in settings_in(api_server)
    assert before not in objects_of(releases.second)
    assert f"configmap/{before} is kept: it no longer belongs to model digits-vit" in caplog.text


def test_what_limits_pods_is_deleted_before_pods_are_created(api_server, limiting):
    """By a release that no longer has it, and by the rollback to one. The API server applies it to each new pod."""
    limits = [("DELETE", "limitranges"), ("DELETE", "resourcequotas")]
    writes = writes_of(api_server, limiting.apply_second)
    if ("PATCH", "resourcequotas") in writes:
        writes = writes_of(api_server, limiting.bring_first_back)
    assert sorted(writes[:2]) == limits
    assert ("PATCH", "deployments") in writes[2:]
    assert api_server.names("ResourceQuota") == api_server.names("LimitRange") == []


@pytest.mark.parametrize("limiting", ["dropped"], indirect=True)
def test_rollback_creates_again_what_limits_pods(api_server, limiting):
    """The good release has it: nothing is missing when it serves again."""
    limiting.apply_second()
    limiting.bring_first_back()
    assert (api_server.names("ResourceQuota"), api_server.names("LimitRange")) == (["none"], ["tiny"])


@pytest.mark.parametrize("limiting", ["added"], indirect=True)
def test_rollback_applies_the_good_release_although_a_quota_may_not_be_deleted(api_server, limiting, caplog):
    """The quota may still have room. The deletion is tried again after the rollout, and then it counts."""
    limiting.apply_second()
    [path] = [path for path, one in api_server.objects.items() if one["kind"] == "ResourceQuota"]
    api_server.forbidden.add(path)
    release, applied = limiting.bring_first_back()
    assert "resourcequota/none may limit the new pods: resourcequota/none in shop: HTTP 403: " in caplog.text
    assert api_server.names("LimitRange") == []
    assert "none" in [ref.name for ref in find_outdated(release, applied)]


@pytest.mark.parametrize("limiting", ["added"], indirect=True)
def test_what_limits_pods_is_kept_if_another_run_may_write(api_server, limiting):
    """The check comes before the first write, and a deletion is one."""
    limiting.apply_second()
    with pytest.raises(TargetBusy):
        limiting.bring_first_back(check=refuse)
    assert (api_server.names("ResourceQuota"), api_server.names("LimitRange")) == (["none"], ["tiny"])


@pytest.fixture
def rolling_back(context_of, leases):
    """Makes the context of a rollback that has applied the first of two releases again."""

    def make(releases, release, applied):
        context = context_of("rollback")
        facts = {"release": release, "export": releases.export, "applied": applied}
        undoing = {**{name: to_dict(fact) for name, fact in facts.items()}, "reason": "not proven"}
        context["ti"].xcom_push(key=UNDOING, value=undoing)
        return context

    return make


def roll_back():
    """The task `rollback`."""
    return RollbackOperator(task_id="rollback", model="digits-vit", proof_task_id="gate")


@only_added
def test_rollback_deletes_what_the_failed_release_added_before_its_own_gate(api_server, blocking, rolling_back, leases):
    """A NetworkPolicy of the failed release would block the gate of the good one. What the good release mounts is still there."""
    [good] = settings_in(api_server)
    blocking.apply_second()
    release, applied = blocking.bring_first_back()
    assert blocks(api_server) == ["closed", "double"]
    context = rolling_back(blocking, release, applied)
    with pytest.raises(TaskDeferred) as deferral:
        roll_back().rolled_out(context, ROLLED_OUT)
    assert deferral.value.method_name == "addressed"
    assert blocks(api_server) == []
    assert settings_in(api_server) == objects_of(release) == [good]
    assert leases.asked == [("slipway-tfs-server", "refresh_digits_vit", limit_s) for limit_s in (600, 660)]
    roll_back().gated(context, {**PASSED, "found": None})
    assert read_record(Store(release.store), release.model, release.run_id)["outcome"] == "live"


@only_added
def test_rollback_is_retried_if_it_cannot_delete(api_server, blocking, rolling_back):
    """The gate would fail. The next try knows what is left."""
    blocking.apply_second()
    release, applied = blocking.bring_first_back()
    [path] = [path for path, one in api_server.objects.items() if one["kind"] == "NetworkPolicy"]
    api_server.forbidden.add(path)
    context = rolling_back(blocking, release, applied)
    with pytest.raises(ApplyRefused, match="closed"):
        roll_back().rolled_out(context, ROLLED_OUT)
    assert Run(context).verdict_of("rollback")["reason"].startswith("ApplyRefused: networkpolicy/closed")
    assert "closed" in [ref.name for ref in find_outdated(release, applied)]


def test_rollback_deletes_nothing_without_the_lease(api_server, releases, rolling_back, leases):
    """Another run may have applied the same objects since."""
    releases.apply_second()
    context = rolling_back(releases, *releases.bring_first_back())
    leases.answers.append(LeaseLost("this run no longer holds the lease"))
    with pytest.raises(AirflowSkipException):
        roll_back().rolled_out(context, ROLLED_OUT)
    assert len(settings_in(api_server)) == 2


@pytest.fixture
def rollout(context_of, leases):
    """Ends the wait for the rollout of a run that applied a release."""

    def run(release, applied, event=ROLLED_OUT):
        context = context_of("wait_for_rollout", resolve=release, apply=applied)
        return RolloutSensor(task_id="wait_for_rollout").decide(context, event)

    return run


def test_what_blocks_is_deleted_before_the_gate(api_server, blocking, rollout, clean_up, leases):
    """When a person rolls back, and when a new release drops it. Everything else stays until the gate has passed."""
    blocked = blocks(api_server)  # the first release has it
    applied = blocking.apply_second()
    release = blocking.second
    if not blocked:
        release, applied = blocking.bring_first_back()
    assert blocks(api_server) == ["closed", "double"]
    assert rollout(release, applied) == ROLLED_OUT["reason"]
    assert blocks(api_server) == []
    assert len(settings_in(api_server)) == len(objects_of(release)) == 2
    assert leases.asked == [("slipway-tfs-server", "refresh_digits_vit", 600)] * 2
    assert [ref.split("/")[0] for ref in clean_up(release, applied)] == ["configmap"]
    assert settings_in(api_server) == objects_of(release)


@only_dropped
def test_rollback_creates_again_what_was_deleted_before_the_gate(api_server, blocking, rollout):
    """The gate of the new release fails: the good release gets back what it has."""
    rollout(blocking.second, blocking.apply_second())
    assert blocks(api_server) == []
    blocking.bring_first_back()
    assert blocks(api_server) == ["closed", "double"]


FAILED_ROLLOUT = {"outcome": "fail", "reason": "time is up", "found": None}
KEPT = {
    "the rollout failed": (FAILED_ROLLOUT, []),
    "no Lease": (ROLLED_OUT, [LeaseLost("this run no longer holds the lease")]),
    "the Lease cannot be read": (ROLLED_OUT, [ClusterUnreachable("no answer"), ClusterUnreachable("no answer")]),
}


@only_dropped
@pytest.mark.parametrize("case", KEPT)
def test_what_blocks_is_kept_if_the_rollout_does_not_count(api_server, blocking, rollout, leases, case):
    """Old pods may serve, or another run may be writing. A wait goes on without an answer about the Lease; a deletion does not."""
    event, answers = KEPT[case]
    applied = blocking.apply_second()
    leases.answers.extend(answers)
    with pytest.raises((AirflowFailException, ClusterUnreachable)):
        rollout(blocking.second, applied, event)
    assert blocks(api_server) == ["closed", "double"]


def test_only_what_restricts_or_competes_is_deleted_before_the_gate():
    """A Job would run again if a rollback created it again."""
    kinds = ("StatefulSet", "Job", "Service", "ResourceQuota", "PersistentVolumeClaim", "LimitRange", "Secret")
    refs = tuple(ObjectRef(api_version="v1", kind=kind, name="x", namespace="shop") for kind in kinds)
    first, rest = split_outdated(refs)
    assert [ref.kind for ref in first] == ["StatefulSet", "ResourceQuota", "LimitRange"]
    assert [ref.kind for ref in rest] == ["Job", "Service", "PersistentVolumeClaim", "Secret"]


@pytest.mark.stand
@pytest.mark.alongside
def test_dropped_configmap_is_deleted_on_a_real_api_server(stand, overlay, release, export, pushed, monkeypatch):  # noqa: PLR0917
    """Apply keeps it. Once the release is proven, only this ConfigMap is deleted. The pods of this release never start."""
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": stand["airflow"]["kubeconfig"]}}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))
    target, name = replace(release.target, namespace=stand["namespace"]), f"outdated-{os.getpid()}"
    release = replace(release, model=name)  # no selector of a live model matches its pods
    place = overlay(**SETTINGS)
    first = render_release(replace(release, run_id="first", overlay="mine", target=target, deployment=name))
    before = deploy(first, export, pushed, check=free)
    try:
        file = place / "kustomization.yaml"
        file.write_text(file.read_text().replace("before", "after"))
        second = render_release(replace(first, run_id="second"))
        applied = deploy(second, export, replace(pushed, release_id="2" * 12), check=free)
        dropped = find_outdated(second, applied)
        assert [ref.kind for ref in dropped] == ["ConfigMap"]
        assert all(object_exists(target, ref) for ref in (*applied.objects, *dropped))
        assert remove_outdated(second, dropped) == dropped
        assert not object_exists(target, dropped[0])
        assert all(object_exists(target, ref) for ref in applied.objects)
        assert read_record(Store(release.store), release.model, "second")["release"]["target"]["cluster_uid"]
    finally:
        newest = read_history(Store(release.store), release.model).objects
        remove_objects(target, release.model, (*before.objects, *newest))
