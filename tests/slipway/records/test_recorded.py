from slipway.facts import ObjectRef, from_dict, to_dict
from slipway.records.history import History, recorded
from slipway.release import Gate, QualityBounds

SERVICE, DEPLOYMENT, OLD = (
    ObjectRef(api_version=api_version, kind=kind, name="tfs-server", namespace="shop")
    for api_version, kind in (("v1", "Service"), ("apps/v1", "Deployment"), ("v1", "ConfigMap"))
)


def test_objects_that_a_killed_apply_did_not_prune_are_known(record_of):
    """A record lists what it was going to prune until that is gone: the next apply still knows it."""
    history = History((record_of("r0", "live"), record_of("r1", "open", 1, objects=(SERVICE, DEPLOYMENT, OLD))))
    assert OLD in history.objects


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
