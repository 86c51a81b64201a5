from slipway.facts import ObjectRef, from_dict, to_dict
from slipway.records.history import History, release_of_record
from slipway.release import Gate, QualityBounds
from slipway.steps.waits import public_gate
from slipway.target import Target

TARGET = Target(conn_id="kubernetes_default", namespace="shop")
SERVICE, DEPLOYMENT, OLD = (
    ObjectRef(api_version=api_version, kind=kind, name="tfs-server", namespace="shop")
    for api_version, kind in (("v1", "Service"), ("apps/v1", "Deployment"), ("v1", "ConfigMap"))
)


def test_history_has_the_objects_that_a_killed_apply_did_not_prune(record_of):
    """A record lists the objects to prune until they are deleted, so that the next apply prunes them."""
    history = History((record_of("r0", "live"), record_of("r1", "open", 1, objects=(SERVICE, DEPLOYMENT, OLD))))
    assert OLD in history.objects


def test_recorded_release_belongs_to_the_run_that_restores_it(release, export, pushed, record_of):
    """Release, export and image are as recorded, except for the run's id, the store and the Airflow."""
    restored, exported, image = release_of_record(
        record_of("old"), run_id="now", store="gs://bucket/store", installation="here", target=TARGET
    )
    assert (exported, image) == (export, pushed)
    assert to_dict(restored) == {
        **to_dict(release),
        "run_id": "now",
        "store": "gs://bucket/store",
        "installation": "here",
    }
    assert from_dict(type(restored), to_dict(restored)) == restored


def test_gate_of_a_restored_release_has_only_its_promises(record_of):
    """Latency and the labelled set were judged when the release was new: they do not prevent a rollback, and stay in its record."""
    quality = QualityBounds(uri="u", digest="sha256:5", min_top1=0.9, max_drop=None)
    record = record_of("old", gate=Gate(latency_ms=5, quality=quality, failures=2))
    restored, _, _ = release_of_record(
        record, run_id="now", store="gs://bucket/store", installation="here", target=TARGET
    )
    assert restored.gate == Gate(latency_ms=5, quality=quality, failures=2)
    assert public_gate(restored, previewed=False, restored=True).gate == Gate(failures=2)


def test_record_without_gate_has_the_default_rules(record_of):
    """A record of an earlier Slipway has no rules for the gate: the model file's defaults apply."""
    record = record_of("old")
    del record["release"]["gate"], record["release"]["grpc_address"]
    restored, _, _ = release_of_record(
        record, run_id="now", store="gs://bucket/store", installation="here", target=TARGET
    )
    assert (restored.gate, restored.grpc_address) == (Gate(), None)
