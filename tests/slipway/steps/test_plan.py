import json
from dataclasses import replace

import pytest
from observations import CHANGED, observed

from slipway.facts import Accuracy, Baseline, Export, Plan, Pushed, to_dict
from slipway.kubernetes.apply import Trial
from slipway.records.history import History, release_of_record
from slipway.release import FIRST_RUNTIME, Bake, Gate, LoadBounds, QualityBounds
from slipway.serving.accuracy import judge_accuracy
from slipway.steps.plan import Observation, changed_inputs, diff_trial, make_plan, plan_again, plan_refresh
from slipway.verdict import Verdict


@pytest.fixture
def history(record_of):
    """One release that was proven live."""
    return History((record_of("r0"),))


def test_nothing_to_do_if_nothing_changed_and_the_live_release_is_healthy(release, history):
    """The second run of a release has nothing to do, and says so."""
    plan = plan_refresh(release, observed(history))
    assert (plan.action, plan.reasons) == ("nothing", ("nothing changed, and the live release is healthy",))


def test_everything_if_forced(release, history):
    """A forced run does every step again."""
    assert plan_refresh(replace(release, force=True), observed(history)).action == "everything"


def test_everything_if_no_release_was_proven(release, record_of):
    """A first release is built, and so is one after failures only."""
    for records in ((), (record_of("r0", "failed"),)):
        plan = plan_refresh(release, observed(History(records), Verdict.failed("there is none"), (CHANGED,)))
        assert (plan.action, plan.reasons) == ("everything", ("there is no release that was proven live",))


CHANGES = {
    "source": (lambda r: {"source": replace(r.source, revision="sha256:" + "9" * 64)}, "the source changed from "),
    "exporter": (lambda _: {"exporter": "sha256:" + "9" * 64}, "the exporter changed from "),
    "base image": (lambda _: {"base_digest": "sha256:" + "9" * 64}, "the base image changed from "),
    "export settings": (lambda r: {"export": replace(r.export, top_k=3)}, "the export settings changed"),
    "repository": (
        lambda _: {"repository": "elsewhere/digits-vit"},
        "the image's repository changed from 127.0.0.1:5000/shop/digits-vit to elsewhere/digits-vit",
    ),
    "runtime": (lambda _: {"runtime": "onnxruntime"}, "the runtime changed from tensorflow to onnxruntime"),
    "precision": (lambda _: {"precision": "float16_weights"}, "the precision changed from float32 to float16_weights"),
}


def test_everything_if_the_labelled_set_of_int8_changed(release, record_of):
    """int8 is measured on the set when it is exported. A set of another precision only changes the gate."""
    int8 = replace(release, runtime="onnxruntime", precision="int8", gate=Gate(quality=SET))
    history = History(({**record_of("r0"), "release": to_dict(int8)},))
    other = replace(int8, gate=Gate(quality=replace(SET, digest="sha256:6")))
    plan = plan_refresh(other, observed(history))
    assert plan.action == "everything"
    assert plan.reasons[0] == "the labelled set changed, on which int8 is measured"
    bounds = replace(int8, gate=Gate(quality=replace(SET, int8_max_changed=0.05)))
    plan = plan_refresh(bounds, observed(history))
    assert (plan.action, plan.reasons) == ("gate", ("the gate changed: int8_max_changed from 0.02 to 0.05",))


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
def test_everything_if_an_input_of_the_image_changed(release, history, change, reason):
    """The reason names the input."""
    plan = plan_refresh(replace(release, **change(release)), observed(history))
    assert plan.action == "everything"
    assert len(plan.reasons) == 1
    assert plan.reasons[0].startswith(reason)


def test_nothing_changed_since_a_release_of_an_earlier_slipway(release, record_of):
    """Its record has neither runtime nor precision: it was TensorFlow in float32."""
    record = record_of("r0")
    for field in FIRST_RUNTIME:
        del record["release"][field]
    assert changed_inputs(release, record) == ()
    assert changed_inputs(replace(release, runtime="onnxruntime"), record) == (
        "the runtime changed from tensorflow to onnxruntime",
    )


SET = QualityBounds(uri="u", digest="sha256:5", min_top1=0.9, max_drop=0.02)
PROMISES = {
    "another label": ({"golden": {"label": "9"}}, "cases", "the golden cases changed"),
    "less confidence": ({"golden": {"min_confidence": 0.5}}, "cases", "the golden cases changed"),
    "another image": ({"golden": {"sha256": "b" * 64}}, "cases", "the golden cases changed"),
    "another labelled set": ({"quality": {"digest": "sha256:6"}}, "cases", "the gate changed: quality.set"),
    "a higher minimum": ({"quality": {"min_top1": 0.95}}, "gate", "the gate changed: min_top1 from 0.9 to 0.95"),
    "a smaller drop": ({"quality": {"max_drop": 0.01}}, "gate", "the gate changed: max_drop from 0.02 to 0.01"),
    "the same set elsewhere": ({"quality": {"uri": "v"}}, "nothing", "nothing changed, and the live release is healthy"),
    "a latency limit": ({"gate": {"latency_ms": 500}}, "gate", "the gate changed: latency_ms from None to 500"),
    "no failures": ({"gate": {"failures": 0}}, "gate", "the gate changed: failures from 1 to 0"),
    "fewer errors": ({"gate": {"errors": 2}}, "gate", "the gate changed: errors from None to 2"),
    "no garbage": ({"gate": {"garbage": False}}, "gate", "the gate changed: garbage from True to False"),
    "a load": ({"gate": {"load": LoadBounds(rate_per_s=5)}}, "gate", "the gate changed: load"),
    "a bake": ({"gate": {"bake": Bake(for_s=60)}}, "gate", "the gate changed: bake"),
    "more rounds": ({"release": {"gate_passes": 5}}, "gate", "the gate changed: passes from 3 to 5"),
    "more time": ({"release": {"gate_timeout_s": 5}}, "nothing", "nothing changed, and the live release is healthy"),
    "who is asked": ({"gate": {"on_inconclusive": "fail", "approval": "always"}}, "nothing", "nothing changed, and the live release is healthy"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "action", "reason"), PROMISES.values(), ids=PROMISES)
def test_gated_again_if_a_promise_changed(release, record_of, export, pushed, change, action, reason):  # noqa: PLR0917
    """The next run judges a changed golden image or limit, and keeps the live image."""
    golden, gate = replace(release.golden[0], sha256="a" * 64), Gate(failures=1, quality=SET)
    now = replace(
        release,
        golden=(replace(golden, **change.get("golden", {})),),
        gate=replace(gate, quality=replace(SET, **change.get("quality", {})), **change.get("gate", {})),
        **change.get("release", {}),
    )
    plan = plan_refresh(now, observed(History((record_of("r0", golden=(golden,), gate=gate),))))
    assert (plan.action, plan.reasons) == (action, (reason,))
    assert (plan.export, plan.pushed) == (export, replace(pushed, release_id=now.release_id(pushed.digest)))


def test_everything_if_a_promise_and_an_input_of_the_image_changed(release, history):
    """The image is built again, and both reasons are named."""
    changed = replace(release, gate_passes=5, exporter="sha256:" + "9" * 64)
    plan = plan_refresh(changed, observed(history))
    assert plan.action == "everything"
    assert [reason.split(" from ")[0] for reason in plan.reasons] == [
        "the exporter changed",
        "the gate changed: passes",
    ]


def test_restored_release_has_no_other_gate(release, record_of):
    """After a rollback, the record of the restored release names the gate that it passed: nothing is judged again."""
    judged = replace(release, gate=Gate(latency_ms=500, quality=SET))
    restored, _, _ = release_of_record(
        record_of("r0", gate=judged.gate),
        run_id="r1.undo",
        store=release.store,
        installation=None,
        target=release.target,
    )
    history = History((record_of("r0", gate=judged.gate), record_of("r1.undo", "live", 1, gate=restored.gate)))
    assert plan_refresh(judged, observed(history)).action == "nothing"


def test_nothing_if_an_earlier_slipways_record_lacks_the_new_fields(release, record_of):
    """It has no hash of a local golden image, and perhaps no gate: neither counts as a change."""
    record = record_of("r0")
    del record["release"]["gate"]
    hashed = replace(release, golden=(replace(release.golden[0], sha256="a" * 64),))
    assert plan_refresh(hashed, observed(History((record,)))).action == "nothing"


def test_everything_if_the_record_has_no_export_settings(release, history):
    """A record without export settings, of an earlier Slipway, belongs to another export."""
    del history.good["release"]["export"]
    plan = plan_refresh(release, observed(history))
    assert (plan.action, plan.reasons) == ("everything", ("the export settings changed",))


def test_only_manifests_if_only_they_differ(release, history, export, pushed):
    """Changed manifests keep export and image; the release has a new id."""
    changed = replace(release, manifests_hash="sha256:" + "9" * 64)
    plan = plan_refresh(changed, observed(history, trials=(CHANGED,)))
    assert (plan.action, plan.reasons) == ("manifests", ("differs from what is live: deployment/tfs-server",))
    assert plan.export == export
    assert plan.pushed == replace(pushed, release_id=changed.release_id(pushed.digest))


def test_manifests_if_the_live_release_is_not_healthy(release, history):
    """A release that was deleted, scaled to zero or answers wrongly is applied again, without a build."""
    plan = plan_refresh(release, observed(history, Verdict.failed("deployment/tfs-server is gone")))
    assert plan.action == "manifests"
    assert plan.reasons == ("the live release is not healthy: deployment/tfs-server is gone",)


@pytest.mark.parametrize("outcome", ["open", "failed"])
def test_manifests_if_an_earlier_run_did_not_end_well(release, record_of, outcome):
    """The next run finishes the work of a killed run, even if the live release is healthy."""
    plan = plan_refresh(release, observed(History((record_of("r0"), record_of("r1", outcome, 1)))))
    assert (plan.action, plan.reasons) == ("manifests", ("an earlier run did not end well",))


MEASURED = {"gate": {"measured": {"quality": {"digest": "sha256:5", "images": 10, "wrong": []}}}}
NOT_RUNNING = Verdict.failed("cluster tfs-cluster is RECONCILING")
SCALING = Verdict.wait("deployment/tfs-server in shop: 1 of 2 updated replicas are available")
BASELINES = {  # the outcomes of the records, what the last one measured, the health now, the verdict on a release that is as good
    "measured, and the cluster cannot be asked": (["live"], MEASURED, NOT_RUNNING, "pass", "the live release 10 (measured by run r0)"),
    "not measured, and the cluster cannot be asked": (["live"], {}, NOT_RUNNING, "inconclusive", "it could not be measured: cluster tfs-cluster is RECONCILING"),
    "not measured, and it is being scaled": (["live"], {}, SCALING, "inconclusive", "it could not be measured: deployment/tfs-server in shop: 1 of 2"),
    "a release that was never proven": (["failed"], {}, NOT_RUNNING, "pass", "there is no live release"),
    "no release": ([], {}, NOT_RUNNING, "pass", "there is no live release"),
    "torn down": (["live", "gone"], {}, NOT_RUNNING, "pass", "there is no live release"),
    "unreadable records": (["unread"], {}, NOT_RUNNING, "inconclusive", "these records cannot be read: r0.json"),
}  # fmt: skip


@pytest.mark.parametrize(("outcomes", "verdicts", "health", "outcome", "words"), BASELINES.values(), ids=BASELINES)
def test_drop_is_not_waived_if_the_live_release_cannot_be_measured(  # noqa: PLR0917
    release, record_of, monkeypatch, outcomes, verdicts, health, outcome, words
):
    """A measurement in the record is read first; a good release that was not measured is inconclusive, never a pass."""
    records = [
        {**record_of(f"r{n}", "live", n), "verdicts": verdicts} for n, found in enumerate(outcomes) if found == "live"
    ]
    records += [record_of(f"r{n}", "failed", n) for n, found in enumerate(outcomes) if found == "failed"]
    if "gone" in outcomes:
        records.append({**record_of("gone", "failed", 9), "outcome": "gone", "cause": "teardown"})
    history = History(tuple(records), ("r0.json",) if "unread" in outcomes else ())
    seen = Observation(history=history, health=health, answers=health.outcome != "fail")
    monkeypatch.setattr("slipway.steps.plan.observe", lambda *_, **__: seen)
    asked = replace(release, exporter="sha256:new", gate=Gate(quality=SET))
    plan, _ = make_plan(asked, by_hand=False)
    (_, drop) = judge_accuracy(SET, Accuracy(digest="sha256:5", images=10, wrong=()), plan.baseline)
    assert drop.outcome == outcome
    assert words in drop.reason


EVERYTHING, MANIFESTS, GATED, NOTHING, RESTORE = (
    Plan(action=action, reasons=(action,)) for action in ("everything", "manifests", "gate", "nothing", "restore")
)
KNOWN = Baseline(measured=None, source="busy")


def reusing(action, version):
    """A plan that reuses the export and the image of a live version."""
    export = Export(
        version=version,
        content_hash=f"sha256:{version}",
        model_uri="m",
        golden_uri="g",
        descriptors_uri="d",
        report_uri="r",
    )
    pushed = Pushed(reference=f"r@sha256:{version}", digest=f"sha256:{version}", release_id="abc", version=version)
    return Plan(action=action, reasons=(f"{action} of {version}",), export=export, pushed=pushed)


CASES, LATER_CASES = (replace(reusing("cases", version), baseline=KNOWN) for version in (7, 8))
AGAIN = {
    "the same": (EVERYTHING, replace(EVERYTHING, baseline=KNOWN), replace(EVERYTHING, baseline=KNOWN)),
    "nothing is left to do": (EVERYTHING, NOTHING, NOTHING),
    "the image is being built": (EVERYTHING, replace(MANIFESTS, baseline=KNOWN), replace(EVERYTHING, reasons=("manifests",), baseline=KNOWN)),
    "the build was skipped": (MANIFESTS, EVERYTHING, replace(MANIFESTS, reasons=("everything",))),
    "another run found it bad": (GATED, RESTORE, replace(NOTHING, reasons=("restore",))),
    "still to be restored": (RESTORE, RESTORE, RESTORE),
    "it is healthy again": (RESTORE, NOTHING, NOTHING),
    "the same cases": (replace(CASES, baseline=None), CASES, CASES),
    "the export is of the version before": (reusing("cases", 7), LATER_CASES, replace(CASES, reasons=LATER_CASES.reasons)),
    "another version has to be applied again": (reusing("manifests", 7), reusing("manifests", 8), reusing("manifests", 8)),
    "a newer release has to be restored": (reusing("restore", 7), reusing("restore", 8), reusing("restore", 8)),
    "no longer bad": (RESTORE, GATED, replace(RESTORE, reasons=("gate",))),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second", "plan"), AGAIN.values(), ids=AGAIN)
def test_second_plan_counts_as_far_as_it_can_be_followed(first, second, plan):
    """A build that the first plan skipped stays skipped. A build that it began is deployed, and compared with the live release."""
    assert plan_again(first, second) == plan


def deployment(**changes):
    """A Deployment as the API server returns it."""
    metadata = {"name": "tfs-server", "uid": "u", "resourceVersion": "5", "generation": 2, "managedFields": [{"time": "t"}],
                "annotations": {"deployment.kubernetes.io/revision": "4"}}  # fmt: skip
    state = {"kind": "Deployment", "metadata": metadata, "spec": {"paused": False}, "status": {"replicas": 1}}
    return json.loads(json.dumps({**state, **changes}))


def test_no_difference_if_only_the_clusters_own_fields_changed():
    """Fields that the API server and controllers write are ignored."""
    after = deployment(status={"replicas": 9})
    after["metadata"].update(resourceVersion="6", generation=3, managedFields=[], uid="v")
    after["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "5"
    assert diff_trial(Trial(name="deployment/tfs-server", before=deployment(), after=after)) == []


def test_difference_is_a_unified_diff():
    """The diff names the object."""
    lines = diff_trial(
        Trial(name="deployment/tfs-server", before=deployment(), after=deployment(spec={"paused": True}))
    )
    assert lines[:2] == ["--- live deployment/tfs-server", "+++ planned deployment/tfs-server"]
    assert "-  paused: false" in lines
    assert "+  paused: true" in lines


def test_difference_is_the_whole_object_if_it_is_new_or_pruned():
    """An object that an apply would create or delete is shown in full."""
    created = diff_trial(Trial(name="service/x", before=None, after=deployment()))
    pruned = diff_trial(Trial(name="service/x", before=deployment(), after=None))
    assert "+kind: Deployment" in created
    assert "-kind: Deployment" in pruned


def test_plan_is_small_enough_for_xcom(release, history):
    """A plan goes through XCom as a dict of less than 4 KiB."""
    assert len(json.dumps(to_dict(plan_refresh(release, observed(history))))) < 4096
