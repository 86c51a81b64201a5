"""Idle clusters: GKE clusters that Slipway created and no model needs any more. They are reported, never deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from slipway.errors import InputRefused, SlipwayError
from slipway.facts import JsonObject
from slipway.gke.prices import cluster_shape_of_found, read_prices, standing_cost
from slipway.kubernetes.api import read_object
from slipway.model.served import read_model_file, served_files
from slipway.model.target_settings import GkeSettings
from slipway.names import CLUSTER_LABEL_MODEL, CLUSTER_LABEL_STORE, LABEL_MODEL, former_store_id
from slipway.records.history import History, is_of_another_airflow, place_of_record, read_history
from slipway.records.store import Store
from slipway.release import Release
from slipway.target import GkeCluster, Target

NEW = timedelta(hours=1)  # the run that created it may not use it yet


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCluster:
    """The cluster that a model file names; None if the file is invalid, so that its cluster is not known."""

    model: str
    gke: GkeSettings | None

    def names(self, cluster: GkeCluster, made_for: str) -> bool:
        """Whether the file names this cluster, or may name it because the cluster was created for this model."""
        if self.gke is None:
            return self.model == made_for
        same = (self.gke.cluster, self.gke.location) == (cluster.name, cluster.location)
        return same and self.gke.project in {None, cluster.project}


def find_idle_clusters(release: Release, left: Iterable[Target]) -> tuple[str, ...]:
    """Clusters with this store's label that no model needs, one a line, with cost and the command that deletes them.

    Searches the projects of the release's target and of `left`: targets of models that have no file any more.
    The release's own cluster is never idle: its run is about to use it. Raises StoreError.
    """
    targets = {(target.conn_id, target.gke.project) for target in (release.target, *left) if target.gke}
    named = named_clusters(served_files()) if targets else []
    return tuple(line for conn_id, project in sorted(targets) for line in _in_project(release, conn_id, project, named))


def _in_project(release: Release, conn_id: str, project: str, named: Sequence[NamedCluster]) -> Iterator[str]:
    from slipway.gke.lookup import list_clusters

    try:
        listed = list_clusters(conn_id, project)
    except SlipwayError as error:
        yield f"idle clusters of project {project} could not be listed: {error}"
        return
    for found in listed:
        cluster = cluster_of(project, found)
        if is_our_cluster(found, release) and not _is_target(cluster, release.target):
            users = [one.model for one in named if one.names(cluster, model_of_cluster(found))]
            if not users and _is_of_another_airflow(cluster, release, model_of_cluster(found)):
                continue
            used = any(_runs_in(cluster, Store(release.store), model) for model in users)
            if why := judge_idle_cluster(found, users, used=used, now=datetime.now(UTC)):
                yield describe_idle_cluster(cluster, found, why)


def named_clusters(files: Iterable[Path]) -> list[NamedCluster]:
    """The cluster that each model file names."""
    named = []
    for path in files:
        try:
            gke = read_model_file(path).target.gke
        except InputRefused:
            named.append(NamedCluster(model=path.stem, gke=None))
        else:
            named += [NamedCluster(model=path.stem, gke=gke)] if gke else []
    return named


def cluster_of(project: str, found: JsonObject) -> GkeCluster:
    """The cluster that Google describes."""
    return GkeCluster(project=project, location=str(found["location"]), name=str(found["name"]))


def is_our_cluster(found: JsonObject, release: Release) -> bool:
    """Whether a Slipway with the release's store created the cluster. An earlier one labelled it with the store's URI."""
    label = (found.get("resource_labels") or {}).get(CLUSTER_LABEL_STORE)
    return label in {release.store_id, former_store_id(release.store)}


def model_of_cluster(found: JsonObject) -> str:
    """The model that a cluster was created for."""
    return str((found.get("resource_labels") or {}).get(CLUSTER_LABEL_MODEL))


def judge_idle_cluster(found: JsonObject, users: Sequence[str], *, used: bool, now: datetime) -> str | None:
    """Why no model needs a cluster of ours; None if one needs it or may soon, or if it is being deleted."""
    if found["status"] == "STOPPING":
        return None
    if not users:
        return "no model file names it"
    young = now - datetime.fromisoformat(str(found["create_time"])) < NEW
    return None if used or young else f"no release of {', '.join(users)} runs in it"


def describe_idle_cluster(cluster: GkeCluster, found: JsonObject, why: str) -> str:
    """One line for a log."""
    cost = standing_cost(read_prices(), cluster_shape_of_found(found))
    return f"{cluster} is idle: created for model {model_of_cluster(found)}, and {why}; {cost}. Next: {cluster.gcloud('delete')}"


def _is_target(cluster: GkeCluster, target: Target) -> bool:
    return target.gke is not None and target.gke.path == cluster.path


def _is_of_another_airflow(cluster: GkeCluster, release: Release, model: str) -> bool:
    """Whether another Airflow, with its own model files, was the last to use the cluster for the model."""
    records = read_history(Store(release.store), model).records
    there = [record for record in records if _is_target(cluster, place_of_record(record)[0])]
    return bool(there) and is_of_another_airflow(there[-1], release)


def _runs_in(cluster: GkeCluster, store: Store, model: str) -> bool:
    """Whether a Deployment from the model's records runs in the cluster, or may run there because it cannot be read."""
    history: History = read_history(store, model)
    for target, deployment in {place_of_record(record) for record in history.records}:
        if _is_target(cluster, target):
            try:
                live = read_object(target, "Deployment", deployment)
            except SlipwayError:
                return True
            if live is not None and (live["metadata"].get("labels") or {}).get(LABEL_MODEL) == model:
                return True
    return False
