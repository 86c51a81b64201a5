import json
from dataclasses import replace

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from slipway.dag.run import Run
from slipway.dag.tasks.rollback import UNDOING, RollbackOperator
from slipway.errors import InputRefused, LeaseLost, RollbackFailed, StoreError, TargetBusy
from slipway.facts import to_dict
from slipway.records.record import read_record, write_record
from slipway.records.store import read_json

STUCK = (
    "deployment/tfs-server in shop: 0 of 1 updated replicas are available; pod/a: ErrImagePull: x: not found, for 12 s"
)


@pytest.fixture
def rolling_back(context_of, release, export, applied):
    """The context of a rollback that has applied the last good release again."""
    context = context_of("rollback")
    undoing = {
        "release": to_dict(release),
        "export": to_dict(export),
        "applied": to_dict(applied),
        "reason": "not proven",
    }
    context["ti"].xcom_push(key=UNDOING, value=undoing)
    return context


def rollback():
    """The task."""
    return RollbackOperator(task_id="rollback", model="digits-vit", proof_task_id="gate")


def test_stuck_rollback_says_why_and_what_next(rolling_back, release, store):
    """If the restored release twice does not become ready, the failure and the record say why, from its pods."""
    event = {"outcome": "fail", "reason": STUCK, "found": None}
    reason = f"release abcdefabcdef: {STUCK}. Next: kubectl -n shop describe pods -l slipway/release=abcdefabcdef"
    with pytest.raises(RollbackFailed) as first:  # Airflow retries it
        rollback().rolled_out(rolling_back, event)
    assert str(first.value) == reason
    rolling_back["ti"].facts["rollback", UNDOING]["again"] = True
    with pytest.raises(AirflowFailException) as failure:
        rollback().rolled_out(rolling_back, event)
    assert str(failure.value) == f"RollbackFailed: {reason}"
    record = read_record(store, release.model, release.run_id)
    assert (record["outcome"], record["verdicts"]["rollback"]["reason"]) == ("failed", STUCK)


@pytest.mark.parametrize("error", [TargetBusy("held by run r9"), LeaseLost("this run no longer holds the lease")])
def test_nothing_is_rolled_back_without_the_lease(rolling_back, leases, error):
    """A run without the Lease leaves another run's work alone, and its verdict says so."""
    leases.answers.append(error)
    with pytest.raises(AirflowSkipException):
        rollback().rolled_out(rolling_back, {"outcome": "pass", "reason": "there", "found": None})
    found = Run(rolling_back).verdict_of("rollback")
    assert (found["outcome"], found["reason"]) == ("fail", f"nothing is rolled back: {type(error).__name__}: {error}")


def test_restored_release_is_not_recorded_if_the_lease_was_lost(rolling_back, leases, release, store):
    """If a person broke the Lease during the gate, the run that broke it proves what is live."""
    leases.answers.append(LeaseLost("this run no longer holds the lease"))
    with pytest.raises(AirflowSkipException):
        rollback().gated(rolling_back, {"outcome": "pass", "reason": "right", "found": None})
    assert read_record(store, release.model, release.run_id) is None


def test_rollback_waits_for_the_address_after_the_rollout(rolling_back, leases):
    """Address and gate follow the rollout; the Lease is renewed for as long as they may take."""
    with pytest.raises(TaskDeferred) as deferral:
        rollback().rolled_out(rolling_back, {"outcome": "pass", "reason": "there", "found": None})
    assert deferral.value.method_name == "addressed"
    assert leases.asked == [("slipway-tfs-server", "refresh_digits_vit", 660)]


def test_rollback_is_sent_grpc_requests_too(rolling_back, leases):
    """The restored release has to answer over REST and gRPC, as in its first gate, with the same descriptors."""
    found = {"url": "http://203.0.113.9:8501", "grpc": "203.0.113.9:8500"}
    with pytest.raises(TaskDeferred) as deferral:
        rollback().addressed(rolling_back, {"outcome": "pass", "reason": "there", "found": found})
    _, kept = deferral.value.trigger.serialize()
    assert found.items() <= kept.items()
    assert (kept["version"], kept["descriptors_uri"]) == (7, "file:///store/exports/digits-vit/7/descriptors.bin")


def test_rollback_uses_the_fixed_address(rolling_back, leases, release):
    """The model file's URL and its address for gRPC are used without a wait."""
    fixed = replace(release, address="https://models.example.com/", grpc_address="models.example.com:8500")
    rolling_back["ti"].facts["rollback", UNDOING]["release"] = to_dict(fixed)
    with pytest.raises(TaskDeferred) as deferral:
        rollback().rolled_out(rolling_back, {"outcome": "pass", "reason": "there", "found": None})
    _, kept = deferral.value.trigger.serialize()
    assert (kept["url"], kept["grpc"]) == ("https://models.example.com", "models.example.com:8500")


@pytest.fixture
def failed(context_of, record_of, store, monkeypatch):
    """The rollback of a run that applied something and failed, after one that was live."""
    monkeypatch.setenv("AIRFLOW_VAR_SLIPWAY_STORE", store.uri)
    context = context_of("rollback")
    for run_id, outcome in (("before", "live"), (context["run_id"], "failed")):
        write_record(store, record_of(run_id, outcome, 1 if outcome == "failed" else 0))
    return context


def test_rollback_is_retried_if_the_store_is_unreadable(failed, store, tmp_path):
    """A store that is unreadable now may be readable in ten seconds. Until then users have the bad release."""
    (tmp_path / "store/records/digits-vit/away.json").mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        rollback().execute(failed)
    assert Run(failed).verdict_of("rollback")["reason"].startswith("StoreError: ")


def test_rollback_is_retried_if_the_credential_plugin_fails(failed, tmp_path, monkeypatch):
    """The credential plugin may reach its cloud at the next try."""
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "false"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(tmp_path / "kubeconfig")}}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", json.dumps(connection))
    with pytest.raises(InputRefused, match="the exec plugin of its kubeconfig gave no credentials"):
        rollback().execute(failed)


def test_rollback_is_retried_if_its_record_cannot_be_closed(rolling_back, leases, tmp_path):
    """The release serves again, but the store fails: the next try records that it is live."""
    (tmp_path / "store").write_text("a file in place of the folder")
    with pytest.raises(StoreError):
        rollback().gated(rolling_back, {"outcome": "pass", "reason": "right", "found": None})
    assert Run(rolling_back).verdict_of("rollback")["reason"].startswith("StoreError: ")


def test_rollback_whose_last_try_was_lost_says_what_it_did(failed, record_of, store):
    """A try that is killed after it recorded the release leaves no result; the next one finds the record. Without one it is skipped."""
    write_record(store, record_of(f"{failed['run_id']}.undo", "live", 2))
    done = rollback().execute(failed)
    assert (done["action"], done["release"]) == ("restore", record_of("r", "live", 2)["release_id"])
    assert read_json(done["record"])["run_id"] == f"{failed['run_id']}.undo"
    write_record(store, record_of("another", "live", 3))
    with pytest.raises(AirflowSkipException, match="proven live"):
        rollback().execute(failed)
