"""Which cluster a release goes to, and how that cluster is reached now."""

from __future__ import annotations

import logging
from dataclasses import replace

from slipway.errors import SlipwayError
from slipway.gke.lookup import missing_cluster
from slipway.kubernetes.identity import identify_cluster
from slipway.model.served import read_model_file
from slipway.paths import model_file
from slipway.records.history import place_of_record, read_records
from slipway.records.record import Record, write_record
from slipway.records.store import Store
from slipway.release import Release
from slipway.steps.settings import Settings, resolve_target
from slipway.target import Target, is_same_target

ENDED = frozenset({"live", "failed"})  # outcomes of records that no run changes

log = logging.getLogger(__name__)


def locate(target: Target) -> Target:
    """The target with its cluster's uid, if there is a cluster. Raises ClusterUnreachable, InputRefused."""
    return target if missing_cluster(target) else identify_cluster(target)


def located(release: Release) -> Release:
    """The release with its cluster's uid. Raises as `locate` does."""
    return replace(release, target=locate(release.target))


def target_of_model_file(model: str, settings: Settings) -> Target | None:
    """The target that the model file names now; None if it cannot be read."""
    try:
        return locate(resolve_target(read_model_file(model_file(model)).target, settings))
    except SlipwayError as error:
        log.info("model %s: its records say how its cluster is reached: %s", model, error)
        return None


def target_now(record: Record, named: Target | None) -> Target:
    """How the cluster of a record is reached: as `named` now, if that is the same place; else as the record says."""
    recorded = place_of_record(record)[0]
    return named if named is not None and is_same_target(named, recorded) else recorded


def give_cluster_uid(release: Release) -> None:
    """Write the cluster's uid to the records of an earlier Slipway at the release's target, while its connection still leads there.

    Raises StoreError, ClusterUnreachable, InputRefused.
    """
    store = Store(release.store)
    target = release.target
    without = [
        record
        for record in read_records(store, release.model).records
        if record["outcome"] in ENDED and _is_known_by_connection(place_of_record(record)[0], target)
    ]
    uid = locate(target).cluster_uid if without else None
    if uid is None:
        return
    for record in without:
        recorded = {**record["release"]["target"], "cluster_uid": uid}
        write_record(store, {**record, "release": {**record["release"], "target": recorded}})
    log.info("records: %d of an earlier Slipway now name the cluster %s", len(without), uid)


def _is_known_by_connection(recorded: Target, target: Target) -> bool:
    return recorded.gke is None and recorded.cluster_uid is None and is_same_target(recorded, target)
