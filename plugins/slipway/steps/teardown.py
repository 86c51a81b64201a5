"""A teardown: what a run deletes, when it is gone, and its record."""

from __future__ import annotations

from collections.abc import Sequence

from slipway.errors import ClusterUnfit
from slipway.facts import Balancer, JsonObject, Teardown, from_dict, to_dict
from slipway.gke.cluster import judge_cluster_claim
from slipway.records.history import History, read_records, records_with_previews
from slipway.records.record import Record, next_order, read_record, record_with_preview, utc_now, write_record
from slipway.records.store import Store
from slipway.release import Release
from slipway.target import Target
from slipway.verdict import Verdict


def judge_services_removed(services: Sequence[JsonObject | None], target: Target) -> Verdict:
    """Whether the Services are gone, and so their load balancers: a finalizer keeps a Service until its load balancer is gone."""
    for service in filter(None, services):
        name = service["metadata"]["name"]
        kept = ", ".join(service["metadata"].get("finalizers") or ()) or "no finalizer"
        return Verdict.wait(f"service/{name} in {target.namespace}: still there, kept by {kept}")
    return Verdict.passed(f"no Service of the model is left in {target.namespace}")


def check_teardown_claim(teardown: Teardown, found: JsonObject | None) -> None:
    """Refuse a cluster that a run with a temporary cluster did not make itself. Raises ClusterUnfit."""
    if teardown.claim is None or found is None:
        return
    verdict = judge_cluster_claim(teardown.cluster, found, teardown.claim)
    if verdict.outcome != "pass":
        raise ClusterUnfit(f"{verdict.reason}. Next: {teardown.cluster.gcloud('describe')}")


def teardown_of_release(release: Release) -> Teardown:
    """What a run with a temporary cluster deletes: the objects in its record, and the cluster. Raises StoreError."""
    record = read_record(Store(release.store), release.model, release.run_id) or {"objects": []}
    return Teardown(
        model=release.model,
        run_id=release.run_id,
        store=release.store,
        target=release.target,
        deployment=release.deployment,
        objects=History((record,)).objects,
        balancers=tuple(from_dict(Balancer, one) for one in record.get("balancers", ())),
        claim=release.claim,
        address_timeout_s=release.address_timeout_s,
        cluster_timeout_s=release.cluster.timeout_s if release.cluster else 0,
    )


def open_teardown(teardown: Teardown) -> None:
    """Record what is about to be deleted, before the first deletion. Raises StoreError.

    A run with a temporary cluster has a record already. If nothing was ever applied, there is nothing to record.
    """
    store = Store(teardown.store)
    record = read_record(store, teardown.model, teardown.run_id) or _new_record(store, teardown)
    if record is not None:
        balancers = [to_dict(one) for one in teardown.balancers] or record.get("balancers", [])
        write_record(store, {**record, "balancers": balancers})


def _new_record(store: Store, teardown: Teardown) -> Record | None:
    records = read_records(store, teardown.model)
    newest = records.history.at(teardown.target, teardown.deployment).newest
    if newest is None or teardown.claim:
        return None
    ran: Record = {
        "verdicts": {},
        "tasks": {},
        "undo": None,
        "bad": None,
        "closed": None,
        "order": next_order(store, teardown.model, recorded=records.last_order),
        "opened": utc_now().isoformat(),
    }
    return {**newest, **ran, "cause": "teardown", "outcome": "open", "run_id": teardown.run_id}


def record_removed_objects(teardown: Teardown) -> None:
    """Record that all the objects are gone. Raises StoreError."""
    store = Store(teardown.store)
    for left in records_with_previews(read_records(store, teardown.model).records, teardown.target):
        write_record(store, record_with_preview(left, objects=()))
    record = read_record(store, teardown.model, teardown.run_id)
    if record is None or not record["objects"]:
        return
    gone: Record = {} if teardown.claim else {"outcome": "gone"}
    removed = [str(ref) for ref in History((record,)).objects]
    write_record(store, {**record, **gone, "objects": [], "removed": removed})


def close_teardown(
    teardown: Teardown,
    verdicts: Record,
    tasks: dict[str, str],
    leftovers: list[JsonObject],
    *,
    broke: str | None = None,
) -> str | None:
    """Close the teardown's record and return its URI; None if nothing was deleted. Raises StoreError.

    `broke` is the holder whose Lease the run broke.
    """
    store = Store(teardown.store)
    record = read_record(store, teardown.model, teardown.run_id)
    if record is None:
        return None
    outcome = "failed" if record["outcome"] == "open" else record["outcome"]
    ended: Record = {"outcome": outcome, "closed": utc_now().isoformat(), "verdicts": verdicts, "tasks": tasks}
    lease = {"broke": broke} if broke else None
    return write_record(store, {**record, **ended, "leftovers": leftovers, "lease": lease})
