"""Objects that a release no longer has are deleted once it is proven. Until then old pods, users or a rollback may need them."""

import json
import os
from dataclasses import replace

import pytest

from slipway.dag.tasks.deploy import RemovePreviewOperator
from slipway.dag.tasks.rollback import UNDOING, RollbackOperator
from slipway.errors import LeaseLost
from slipway.facts import to_dict
from slipway.kubernetes.apply import object_exists, remove_objects
from slipway.names import LABEL_MODEL
from slipway.records.history import read_history
from slipway.records.record import close_run, read_record
from slipway.records.store import Store
from slipway.steps.deploy import deploy, find_outdated, redeploy, remove_outdated
from slipway.steps.rendering import render_release

SETTINGS = {"configMapGenerator": [{"name": "settings", "literals": ["size=before"]}]}
PASSED = {"outcome": "pass", "reason": "3 of 3 rounds in a row passed"}


def free():
    """A check that finds no other run."""


class Releases:
    """Two releases of a model: each has a generated ConfigMap of its own. The first is live."""

    def __init__(self, first, second, export, pushed):
        self.first, self.second, self.export = first, second, export
        self.images = [replace(pushed, release_id=digit * 12) for digit in "12"]
        self.applied = deploy(first, export, self.images[0], check=free)
        close_run(first, {}, {}, proven=True, applied=True)

    def apply_second(self):
        """Apply the second release."""
        return deploy(self.second, self.export, self.images[1], check=free)

    def bring_first_back(self):
        """Apply the first release again, as a rollback does; its release and what was applied."""
        release = replace(self.first, run_id="second.undo")
        stored = {"manifests_uri": self.applied.manifests_uri, "manifests_hash": self.applied.manifests_hash}
        return release, redeploy(release, self.export, self.images[0], **stored, check=free)


@pytest.fixture
def releases(api_server, overlay, release, export, pushed):
    """A live release, and the next one."""
    place = overlay(**SETTINGS)
    first = render_release(replace(release, run_id="first", overlay="mine"))
    file = place / "kustomization.yaml"
    file.write_text(file.read_text().replace("before", "after"))
    return Releases(first, render_release(replace(release, run_id="second", overlay="mine")), export, pushed)


@pytest.fixture
def clean_up(context_of, leases):
    """Runs the teardown after the gate of a run that applied a release."""

    def run(release, applied, *, gate=PASSED):
        context = context_of("remove_preview", resolve=release, apply=applied)
        context["ti"].facts["gate", "verdict"] = gate
        context["ti"].states = {"gate": "success", "apply": "success"}
        return RemovePreviewOperator(task_id="remove_preview", proof_task_id="gate").execute(context)

    return run


def objects_of(release):
    """The ConfigMaps that a run's record lists."""
    record = read_record(Store(release.store), release.model, release.run_id)
    return [one["name"] for one in record["objects"] if one["kind"] == "ConfigMap"]


def test_apply_deletes_nothing(api_server, releases):
    """An old pod that starts again before the gate has passed mounts its ConfigMap."""
    [before] = api_server.names("ConfigMap")
    releases.apply_second()
    assert before in api_server.names("ConfigMap")
    assert len(api_server.names("ConfigMap")) == 2
    assert not [write for write in api_server.writes if write.startswith("DELETE")]


def test_deleted_under_the_lease_once_the_release_is_proven(api_server, releases, clean_up, leases):
    """The record then lists only what was applied."""
    [before] = api_server.names("ConfigMap")
    applied = releases.apply_second()
    assert clean_up(releases.second, applied) == [f"configmap/{before}"]
    assert api_server.names("ConfigMap") == objects_of(releases.second) != [before]
    assert leases.asked == [("slipway-tfs-server", "refresh_digits_vit", 600)]
    assert clean_up(releases.second, applied) == []


@pytest.mark.parametrize("gate", [{"outcome": "fail", "reason": "got '3'"}, None], ids=["failed", "set by a person"])
def test_kept_if_the_release_is_not_proven(api_server, releases, clean_up, leases, gate):
    """A gate without a verdict was set to success by a person."""
    applied = releases.apply_second()
    assert clean_up(releases.second, applied, gate=gate) == []
    assert len(api_server.names("ConfigMap")) == len(objects_of(releases.second)) == 2
    assert leases.asked == []


def test_kept_without_the_lease(api_server, releases, clean_up, leases):
    """Another run may be writing, and needs what it has applied."""
    applied = releases.apply_second()
    leases.answers.append(LeaseLost("this run no longer holds the lease"))
    with pytest.raises(Exception, match="LeaseLost"):
        clean_up(releases.second, applied)
    assert len(api_server.names("ConfigMap")) == len(objects_of(releases.second)) == 2


def test_kept_without_the_models_label(api_server, releases, clean_up, caplog):
    """It belongs to somebody else now: the log names it, and no later run plans its deletion."""
    [before] = api_server.names("ConfigMap")
    applied = releases.apply_second()
    api_server.find("ConfigMap", before)["metadata"]["labels"][LABEL_MODEL] = "another"
    assert clean_up(releases.second, applied) == []
    assert before in api_server.names("ConfigMap")
    assert before not in objects_of(releases.second)
    assert f"configmap/{before} is kept: it no longer belongs to model digits-vit" in caplog.text


def test_rollback_deletes_what_the_failed_release_added_after_its_own_gate(api_server, releases, context_of, leases):
    """What the good release mounts is still there."""
    [good] = api_server.names("ConfigMap")
    releases.apply_second()
    release, applied = releases.bring_first_back()
    assert len(api_server.names("ConfigMap")) == 2
    context = context_of("rollback")
    facts = {"release": release, "export": releases.export, "applied": applied}
    undoing = {**{name: to_dict(fact) for name, fact in facts.items()}, "reason": "not proven"}
    context["ti"].xcom_push(key=UNDOING, value=undoing)
    RollbackOperator(task_id="rollback", model="digits-vit", proof_task_id="gate").gated(
        context, {**PASSED, "found": None}
    )
    assert api_server.names("ConfigMap") == objects_of(release) == [good]
    assert read_record(Store(release.store), release.model, release.run_id)["outcome"] == "live"


@pytest.mark.stand
@pytest.mark.alongside
def test_dropped_configmap_is_deleted_on_a_real_api_server(stand, overlay, release, export, pushed, monkeypatch):  # noqa: PLR0917
    """Apply keeps it. Once the release is proven, only this ConfigMap is deleted. The pods of this release never start."""
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": stand["kubeconfig"]}}
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
        assert remove_outdated(second, applied) == dropped
        assert not object_exists(target, dropped[0])
        assert all(object_exists(target, ref) for ref in applied.objects)
        assert read_record(Store(release.store), release.model, "second")["release"]["target"]["cluster_uid"]
    finally:
        newest = read_history(Store(release.store), release.model).objects
        remove_objects(target, release.model, (*before.objects, *newest))
