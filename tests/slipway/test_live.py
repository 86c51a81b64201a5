from hashlib import sha256

import pytest

from slipway.facts import from_dict, to_dict
from slipway.history import History
from slipway.live import judge_undo, keep_manifests, recorded
from slipway.release import Gate, QualityFloor
from slipway.store import read_bytes


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
}  # fmt: skip


@pytest.mark.parametrize(("records", "proven", "action", "good"), UNDO.values(), ids=UNDO)
def test_undone_if_what_was_applied_last_was_not_proven(record_of, records, proven, action, good):
    """Whatever was applied last and not proven live is undone, by whichever run comes next."""
    history = History(tuple(record_of(run, outcome, n) for n, (run, outcome) in enumerate(records)))
    undo = judge_undo(history, run_id="now", proven=proven)
    assert (undo.action, undo.good["run_id"] if undo.good else None) == (action, good)


def test_first_release_is_left_if_the_model_file_says_so(record_of):
    """A first release that failed stays for inspection where `on_first_failure` is keep."""
    undo = judge_undo(History((record_of("now", "open", keep_first=True),)), run_id="now", proven=False)
    assert undo.action == "keep"


def test_recorded_release_comes_back_as_another_runs_work(release, export, pushed, record_of):
    """What a record tells of is the same release, export and image, under the run that brings it back."""
    back, exported, image = recorded(record_of("old"), run_id="now", store="gs://bucket/store")
    assert (exported, image) == (export, pushed)
    assert to_dict(back) == {**to_dict(release), "run_id": "now", "store": "gs://bucket/store"}
    assert from_dict(type(back), to_dict(back)) == back


def test_recorded_release_is_asked_its_promises_alone(record_of):
    """What comes back was judged when it was new: neither its latency nor a labelled set can keep it away."""
    floor = QualityFloor(uri="u", digest="sha256:5", min_top1=0.9, max_drop=None)
    record = record_of("old", gate=Gate(latency_ms=5, quality=floor, failures=2))
    back, _, _ = recorded(record, run_id="now", store="gs://bucket/store")
    assert back.gate == Gate(failures=2)


def test_record_of_an_earlier_slipway_comes_back(record_of):
    """A record that knows nothing of the gate's rules has the model file's defaults."""
    record = record_of("old")
    del record["release"]["gate"], record["release"]["grpc_address"]
    back, _, _ = recorded(record, run_id="now", store="gs://bucket/store")
    assert (back.gate, back.grpc_address) == (Gate(), None)
