import json
from dataclasses import replace

import pytest

from slipway.apply import Preview
from slipway.facts import to_dict
from slipway.history import History
from slipway.plan import differences, plan_refresh
from slipway.verdict import Verdict

WELL = Verdict.passed("it answers")


@pytest.fixture
def history(record_of):
    """One release that was proven live."""
    return History((record_of("r0"),))


def test_nothing_if_nothing_changed_and_all_is_well(release, history):
    """The second run of one release has nothing to do, and says so."""
    plan = plan_refresh(release, history, WELL, ())
    assert (plan.action, plan.reasons) == ("nothing", ("nothing changed, and the live release is well",))


def test_everything_if_forced(release, history):
    """Force does all of it again."""
    assert plan_refresh(replace(release, force=True), history, WELL, ()).action == "everything"


def test_everything_if_nothing_was_ever_proven(release, record_of):
    """A first release, or one after only failures, is built."""
    for records in ((), (record_of("r0", "failed"),)):
        plan = plan_refresh(release, History(records), Verdict.failed("there is none"), ("deployment/tfs-server",))
        assert (plan.action, plan.reasons) == ("everything", ("there is no release that was proven live",))


CHANGES = {
    "source": (lambda r: {"source": replace(r.source, revision="sha256:" + "9" * 64)}, "the source changed from "),
    "exporter": (lambda _: {"exporter": "sha256:" + "9" * 64}, "the exporter changed from "),
    "base image": (lambda _: {"base_digest": "sha256:" + "9" * 64}, "the base image changed from "),
    "golden cases": (lambda r: {"golden": (replace(r.golden[0], label="9"),)}, "the golden cases changed"),
    "export settings": (lambda r: {"export": replace(r.export, top_k=3)}, "the export settings changed"),
    "repository": (lambda _: {"repository": "elsewhere/digits-vit"}, "the image's repository changed from "),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
def test_everything_if_what_the_image_is_made_of_changed(release, history, change, reason):
    """Source, exporter, base image, golden cases and repository each call for a new image, by name."""
    plan = plan_refresh(replace(release, **change(release)), history, WELL, ())
    assert plan.action == "everything"
    assert len(plan.reasons) == 1
    assert plan.reasons[0].startswith(reason)


def test_everything_if_the_record_is_older_than_the_settings(release, history):
    """A record that knows no export settings is of another export, whatever they are now."""
    del history.good["release"]["export"]
    plan = plan_refresh(release, history, WELL, ())
    assert (plan.action, plan.reasons) == ("everything", ("the export settings changed",))


def test_manifests_alone_if_only_they_differ(release, history, export, pushed):
    """A change of manifests keeps export and image, under an id of its own."""
    changed = replace(release, manifests_hash="sha256:" + "9" * 64)
    plan = plan_refresh(changed, history, WELL, ("deployment/tfs-server",))
    assert (plan.action, plan.reasons) == ("manifests", ("differs from what is live: deployment/tfs-server",))
    assert plan.export == export
    assert plan.pushed == replace(pushed, release_id=changed.release_id(pushed.digest))


def test_applied_again_if_the_live_release_is_not_well(release, history):
    """What was deleted, scaled away or answers wrong is applied again, without a build."""
    plan = plan_refresh(release, history, Verdict.failed("deployment/tfs-server is gone"), ())
    assert plan.action == "manifests"
    assert plan.reasons == ("the live release is not well: deployment/tfs-server is gone",)


@pytest.mark.parametrize("outcome", ["open", "failed"])
def test_applied_again_if_an_earlier_run_did_not_end_well(release, record_of, outcome):
    """What a killed run left half-way is finished by the next, even where it looks well."""
    plan = plan_refresh(release, History((record_of("r0"), record_of("r1", outcome, 1))), WELL, ())
    assert (plan.action, plan.reasons) == ("manifests", ("an earlier run did not end well",))


def deployment(**changes):
    """A Deployment as the API server gives it."""
    metadata = {"name": "tfs-server", "uid": "u", "resourceVersion": "5", "generation": 2, "managedFields": [{"time": "t"}],
                "annotations": {"deployment.kubernetes.io/revision": "4"}}  # fmt: skip
    state = {"kind": "Deployment", "metadata": metadata, "spec": {"paused": False}, "status": {"replicas": 1}}
    return json.loads(json.dumps({**state, **changes}))


def test_no_difference_if_only_bookkeeping_changed():
    """What the API server and controllers write by themselves is no difference."""
    after = deployment(status={"replicas": 9})
    after["metadata"].update(resourceVersion="6", generation=3, managedFields=[], uid="v")
    after["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "5"
    assert differences(Preview(name="deployment/tfs-server", before=deployment(), after=after)) == []


def test_difference_is_shown_as_a_diff():
    """What an apply would change is a unified diff that names the object."""
    lines = differences(
        Preview(name="deployment/tfs-server", before=deployment(), after=deployment(spec={"paused": True}))
    )
    assert lines[:2] == ["--- live deployment/tfs-server", "+++ planned deployment/tfs-server"]
    assert "-  paused: false" in lines
    assert "+  paused: true" in lines


def test_new_and_pruned_objects_are_differences():
    """An object that an apply would create or delete is shown whole."""
    created = differences(Preview(name="service/x", before=None, after=deployment()))
    pruned = differences(Preview(name="service/x", before=deployment(), after=None))
    assert "+kind: Deployment" in created
    assert "-kind: Deployment" in pruned


def test_plan_is_small_enough_for_xcom(release, history):
    """A plan goes from task to task as a dict."""
    assert len(json.dumps(to_dict(plan_refresh(release, history, WELL, ())))) < 4096
