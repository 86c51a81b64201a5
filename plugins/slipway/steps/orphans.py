"""Orphans: what Slipway deployed and no model file names any more. They are reported, never deleted."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from slipway.errors import SlipwayError
from slipway.facts import ObjectRef
from slipway.gke.idle_clusters import find_idle_clusters
from slipway.kubernetes.api import read_object
from slipway.kubernetes.identity import identify_cluster
from slipway.model.served import served_files
from slipway.names import LABEL_MODEL
from slipway.paths import shown_model_file
from slipway.records.history import (
    History,
    is_of_another_airflow,
    is_record_at,
    place_of_record,
    preview_objects_of_record,
    read_records,
)
from slipway.records.record import Record
from slipway.records.store import Store
from slipway.release import Release
from slipway.target import Target, is_same_target


def find_orphans(release: Release, history: History) -> tuple[str, ...]:
    """The orphans, one a line, with the command that deletes each. Writes nothing. Raises StoreError.

    They are Deployments that this store's records name and the cluster still has: of models whose file is gone, and of
    this release's model at an earlier target (`history` is that model's); and GKE clusters that Slipway made and that
    stand idle. Another Airflow reports what it deployed itself: it has its own model files.
    """
    left = tuple(one for one in _unwanted(release, history) if not is_of_another_airflow(one[0], release))
    lines = (line for record, why in left for line in _report_record(release, record, why))
    return (*lines, *find_idle_clusters(release, [place_of_record(record)[0] for record, _ in left]))


def _unwanted(release: Release, history: History) -> Iterator[tuple[Record, str]]:
    """The newest record at each place that no model file names, with the reason."""
    for record in newest_by_place(history):
        if not is_record_at(record, release.target, release.deployment):
            yield record, f"the model file of {release.model} names another target"
    store, served = Store(release.store), {release.model, *(path.stem for path in served_files())}
    for model in sorted(set(store.names("records")) - served):
        records = read_records(store, model)
        newest = newest_by_place(records.history)
        left = {record["run_id"]: record for record in (*newest, *filter(preview_objects_of_record, records.records))}
        yield from ((record, f"{shown_model_file(model)} is gone") for record in left.values())


def newest_by_place(history: History) -> list[Record]:
    """What was applied last at each target and Deployment, however it was reached."""
    newest: list[Record] = []
    for record in reversed(history.records):
        if not any(is_record_at(known, *place_of_record(record)) for known in newest):
            newest.append(record)
    return newest[::-1]


def _report_record(release: Release, record: Record, why: str) -> Iterator[str]:
    """A line for the live objects of a record, and one for a preview that a killed run left."""
    if record["model"] == release.model and _is_where_release_goes(record, release):
        return
    (target, deployment), previews = place_of_record(record), preview_objects_of_record(record)
    for name, refs in (
        (deployment, History((record,)).objects),
        *((ref.name, previews) for ref in previews if ref.kind == "Deployment"),
    ):
        if refs and (line := _report(record, target, name, refs, why)):
            yield line


def _is_where_release_goes(record: Record, release: Release) -> bool:
    """Whether a record's connection leads to the release's own place; a record of an earlier Slipway does not name the cluster."""
    target, deployment = place_of_record(record)
    try:
        return deployment == release.deployment and is_same_target(identify_cluster(target), release.target)
    except SlipwayError:
        return False


def _report(record: Record, target: Target, deployment: str, refs: tuple[ObjectRef, ...], why: str) -> str | None:
    """One line; None if the Deployment is gone, belongs to another model by now, or was torn down with its cluster."""
    if record["outcome"] == "gone":
        return None
    where = f"deployment/{deployment} in {target.namespace} (connection {target.conn_id})"
    try:
        reached = identify_cluster(target)
        if not is_same_target(reached, target):
            return (
                f"{where} of model {record['model']} may be an orphan: {why}. The connection now leads to another cluster. "
                "Next: look for it in the earlier one"
            )
        live = read_object(target, "Deployment", deployment)
    except SlipwayError as error:
        return f"{where} of model {record['model']} may be an orphan: {why}. It cannot be read: {error}"
    if live is None or (live["metadata"].get("labels") or {}).get(LABEL_MODEL) != record["model"]:
        return None
    objects = " ".join(quote(str(ref)) for ref in reversed(refs))
    unless = (
        "" if record["release"].get("installation") else ", unless another Airflow that shares this store serves it"
    )
    return (
        f"{where} of model {record['model']} is an orphan: {why}{unless}. Next: {target.kubectl(f'delete {objects}')}"
    )
