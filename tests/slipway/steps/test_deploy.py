from hashlib import sha256

import pytest

from slipway.facts import ObjectRef, from_dict, to_dict
from slipway.records.history import History, recorded
from slipway.records.store import read_bytes
from slipway.release import Gate, QualityBounds
from slipway.steps.deploy import keep_manifests
from slipway.steps.plan import Observation, plan_refresh
from slipway.steps.rollback import plan_rollback
from slipway.verdict import Verdict

SERVICE, DEPLOYMENT, OLD = (
    ObjectRef(api_version=api_version, kind=kind, name="tfs-server", namespace="shop")
    for api_version, kind in (("v1", "Service"), ("apps/v1", "Deployment"), ("v1", "ConfigMap"))
)


def test_manifests_are_kept_by_release(release, store, pushed):
    """What is applied can be read again by URI, and is held to its hash."""
    objects = [{"kind": "Service", "name": "ü"}]
    kept = keep_manifests(release, pushed, objects)
    assert kept.uri == store.uri_of("manifests/digits-vit/abcdefabcdef.yaml")
    assert kept.hash == f"sha256:{sha256(read_bytes(kept.uri)).hexdigest()}"
    assert kept == keep_manifests(release, pushed, objects)


UNDO = {
    "nothing was ever applied": ([], False, "nothing", None),
    "this run was proven": ([("r0", "live"), ("now", "open")], True, "nothing", None),
    "this run applied nothing": ([("r0", "live")], False, "nothing", None),
    "this run applied and was not proven": ([("r0", "live"), ("now", "open")], False, "restore", "r0"),
    "an earlier run was killed half-way": ([("r0", "live"), ("r1", "open")], False, "restore", "r0"),
    "an earlier run failed and its undo too": ([("r0", "live"), ("r1", "failed"), ("r1.undo", "failed")], False, "restore", "r0"),
    "an earlier run failed and was undone": ([("r0", "live"), ("r1", "failed"), ("r1.undo", "live")], False, "nothing", None),
    "a first release failed": ([("now", "open")], False, "remove", None),
    "this run was live, and its gate was cleared and failed": ([("r0", "live"), ("now", "live")], False, "restore", "r0"),
    "likewise, and it was the first": ([("now", "live")], False, "keep", None),
    "likewise, and its rollback died": ([("r0", "live"), ("now", "live"), ("now.undo", "open")], False, "restore", "r0"),
    "a rollback died after a run that never was live": ([("r0", "live"), ("now", "open"), ("now.undo", "open")], False, "restore", "r0"),
}  # fmt: skip


@pytest.mark.parametrize(("records", "proven", "action", "good"), UNDO.values(), ids=UNDO)
def test_undone_if_what_was_applied_last_was_not_proven(record_of, records, proven, action, good):
    """Whatever was applied last and not proven live is undone, by whichever run comes next."""
    history = History(tuple(record_of(run, outcome, n) for n, (run, outcome) in enumerate(records)))
    undo = plan_rollback(history, run_id="now", proven=proven, applied=True)
    assert (undo.action, undo.good["run_id"] if undo.good else None) == (action, good)


def test_a_cleared_run_that_applies_nothing_undoes_nothing(record_of):
    """What it brought at its first try is live as before: the second failed before its apply."""
    history = History((record_of("r0", "live", 0), record_of("now", "live", 1)))
    assert plan_rollback(history, run_id="now", proven=False, applied=False).action == "nothing"


def test_first_release_is_left_if_the_model_file_says_so(record_of):
    """A first release that failed stays for inspection where `on_first_failure` is keep."""
    undo = plan_rollback(
        History((record_of("now", "open", keep_first=True),)), run_id="now", proven=False, applied=True
    )
    assert undo.action == "keep"


def test_nothing_is_removed_that_another_store_may_know(record_of):
    """A first release that took another's place stays, whichever of the store's runs comes next."""
    found = {**record_of("r0", "failed", 0), "found": True}
    undo = plan_rollback(History((found, record_of("now", "open", 1))), run_id="now", proven=False, applied=True)
    assert undo.action == "keep"
    assert "this store has no record of" in undo.reason


KILLED = {  # the records that a run leaves which dies there, what the next plan does, and the next rollback of a run that failed
    "before its record was opened": ([("r0", "live")], "nothing", "nothing"),
    "after its record was opened, before the apply": ([("r0", "live"), ("r1", "open")], "manifests", "restore"),
    "between apply and prune": ([("r0", "live"), ("r1", "open")], "manifests", "restore"),
    "during the gate": ([("r0", "live"), ("r1", "open")], "manifests", "restore"),
    "between gate and record": ([("r0", "live"), ("r1", "open")], "manifests", "restore"),
    "during its rollback": ([("r0", "live"), ("r1", "open"), ("r1.undo", "open")], "manifests", "restore"),
    "between rollback and record": ([("r0", "live"), ("r1", "open"), ("r1.undo", "live")], "nothing", "nothing"),
    "in a first release": ([("r1", "open")], "everything", "remove"),
}


@pytest.mark.parametrize(("records", "planned", "undone"), KILLED.values(), ids=KILLED)
def test_what_a_killed_run_left_is_understood(record_of, release, records, planned, undone):
    """Wherever a run dies, its records tell the next one to go on or to undo, and neither takes what is half done for good.

    A record that is being written is the old one until it is the new one: a store has no third state (test_store).
    """
    history = History(tuple(record_of(run, outcome, n) for n, (run, outcome) in enumerate(records)))
    assert plan_refresh(release, Observation(history=history, health=Verdict.passed("it answers"))).action == planned
    assert plan_rollback(history, run_id="now", proven=False, applied=True).action == undone


def test_objects_that_a_killed_apply_did_not_prune_are_known(record_of):
    """A record lists what it was going to prune until that is gone: the next apply still knows it."""
    history = History((record_of("r0", "live"), record_of("r1", "open", 1, objects=(SERVICE, DEPLOYMENT, OLD))))
    assert OLD in history.objects


def test_nothing_is_removed_while_a_record_cannot_be_read(record_of):
    """A release that looks like a first one may have a good one before it, in a record that cannot be read: it stays."""
    undo = plan_rollback(
        History((record_of("now", "open"),), ("r0.json: no JSON object",)), run_id="now", proven=False, applied=True
    )
    assert (undo.action, undo.reason) == (
        "keep",
        "the last good release may be in a record that cannot be read: r0.json: no JSON object",
    )


def test_recorded_release_comes_back_as_another_runs_work(release, export, pushed, record_of):
    """What a record tells of is the same release, export and image, under the run that brings it back."""
    back, exported, image = recorded(record_of("old"), run_id="now", store="gs://bucket/store")
    assert (exported, image) == (export, pushed)
    assert to_dict(back) == {**to_dict(release), "run_id": "now", "store": "gs://bucket/store"}
    assert from_dict(type(back), to_dict(back)) == back


def test_recorded_release_is_asked_its_promises_alone(record_of):
    """What comes back was judged when it was new: neither its latency nor a labelled set can keep it away."""
    floor = QualityBounds(uri="u", digest="sha256:5", min_top1=0.9, max_drop=None)
    record = record_of("old", gate=Gate(latency_ms=5, quality=floor, failures=2))
    back, _, _ = recorded(record, run_id="now", store="gs://bucket/store")
    assert back.gate == Gate(failures=2)


def test_record_of_an_earlier_slipway_comes_back(record_of):
    """A record that knows nothing of the gate's rules has the model file's defaults."""
    record = record_of("old")
    del record["release"]["gate"], record["release"]["grpc_address"]
    back, _, _ = recorded(record, run_id="now", store="gs://bucket/store")
    assert (back.gate, back.grpc_address) == (Gate(), None)
