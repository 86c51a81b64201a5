"""A teardown: what is going to be taken away, when it is gone, and what the record says of it."""

from __future__ import annotations

from collections.abc import Sequence

from slipway.errors import ClusterUnfit
from slipway.facts import Balancer, JsonObject, Teardown, from_dict, to_dict
from slipway.gke.cluster import judge_claim
from slipway.records.history import History, left_previews, read_history, read_records
from slipway.records.record import Record, previewed, read_record, utc_now, write_record
from slipway.records.store import Store
from slipway.release import Release
from slipway.target import Target
from slipway.verdict import Verdict


def judge_removed(services: Sequence[JsonObject | None], target: Target) -> Verdict:
    """Whether the Services are gone, and their load balancers with them: a finalizer keeps a Service until its own is."""
    for service in filter(None, services):
        name = service["metadata"]["name"]
        kept = ", ".join(service["metadata"].get("finalizers") or ()) or "nothing that it says"
        return Verdict.wait(f"service/{name} in {target.namespace}: still there, kept by {kept}")
    return Verdict.passed(f"no Service of the model is left in {target.namespace}")


def check_claim(teardown: Teardown, found: JsonObject | None) -> None:
    """Refuse, for a run that made its own cluster, to touch one that it has not made. Raises ClusterUnfit."""
    if teardown.claim is None or found is None:
        return
    verdict = judge_claim(teardown.cluster, found, teardown.claim)
    if verdict.outcome != "pass":
        raise ClusterUnfit(f"{verdict.reason}. Next: {teardown.cluster.gcloud('describe')}")


def teardown_of(release: Release) -> Teardown:
    """What a run takes away that has made its own cluster: what its record lists, and the cluster. Raises StoreError."""
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
    """Write down what is about to be removed, before the first of it is. Raises StoreError.

    A run with a cluster of its own has a record already; where nothing was ever applied there is nothing to record.
    """
    store = Store(teardown.store)
    record = read_record(store, teardown.model, teardown.run_id) or _new_record(store, teardown)
    if record is not None:
        balancers = [to_dict(one) for one in teardown.balancers] or record.get("balancers", [])
        write_record(store, {**record, "balancers": balancers})


def _new_record(store: Store, teardown: Teardown) -> Record | None:
    newest = read_history(store, teardown.model).at(teardown.target, teardown.deployment).newest
    if newest is None or teardown.claim:
        return None
    ran: Record = {
        "verdicts": {},
        "tasks": {},
        "undo": None,
        "bad": None,
        "closed": None,
        "opened": utc_now().isoformat(),
    }
    return {**newest, **ran, "cause": "teardown", "outcome": "open", "run_id": teardown.run_id}


def note_removed(teardown: Teardown) -> None:
    """Write down that none of the objects is there any more. Raises StoreError."""
    store = Store(teardown.store)
    for left in left_previews(read_records(store, teardown.model).records, teardown.target):
        write_record(store, previewed(left, objects=()))
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
    """Close the teardown's record, with whose Lease was broken; its URI comes back, None where nothing was touched. Raises StoreError."""
    store = Store(teardown.store)
    record = read_record(store, teardown.model, teardown.run_id)
    if record is None:
        return None
    outcome = "failed" if record["outcome"] == "open" else record["outcome"]
    ended: Record = {"outcome": outcome, "closed": utc_now().isoformat(), "verdicts": verdicts, "tasks": tasks}
    lease = {"broke": broke} if broke else None
    return write_record(store, {**record, **ended, "leftovers": leftovers, "lease": lease})
