"""Idle clusters: what Slipway had made at Google and nothing of it needs any more. They are reported, never removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from slipway.errors import InputRefused, SlipwayError
from slipway.gke.prices import read_prices, shape_of_found, standing_cost
from slipway.kubernetes.api import read
from slipway.model.served import read_model_file, served_files
from slipway.model.target_settings import GkeSettings
from slipway.names import CLUSTER_LABEL_MODEL, CLUSTER_LABEL_STORE, LABEL_MODEL
from slipway.records.history import History, place_of, read_history
from slipway.records.store import Store
from slipway.release import Release
from slipway.target import GkeCluster, Target

NEW = timedelta(hours=1)  # the run that made it may not have come to use it


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A model file's cluster; None where the file cannot be read, so that nobody knows which it names."""

    model: str
    gke: GkeSettings | None

    def names(self, cluster: GkeCluster, made_for: str) -> bool:
        """Whether the file may mean this cluster, which was made for a model."""
        if self.gke is None:
            return self.model == made_for
        same = (self.gke.cluster, self.gke.location) == (cluster.name, cluster.location)
        return same and self.gke.project in {None, cluster.project}


def find_idle_clusters(release: Release, left: Iterable[Target]) -> tuple[str, ...]:
    """Clusters with this store's mark that nobody needs, one a line, with their cost and the command that deletes them.

    They are looked for in the projects of the release's target and of `left`, where models were that have no file any
    more. The release's own cluster is not among them: its run is about to use it. Raises StoreError.
    """
    targets = {(target.conn_id, target.gke.project) for target in (release.target, *left) if target.gke}
    named = named_clusters(served_files()) if targets else []
    return tuple(line for conn_id, project in sorted(targets) for line in _look(release, conn_id, project, named))


def _look(release: Release, conn_id: str, project: str, named: Sequence[Named]) -> Iterator[str]:
    from slipway.gke.lookup import list_clusters

    try:
        listed = list_clusters(conn_id, project)
    except SlipwayError as error:
        yield f"idle clusters of project {project} could not be looked for: {error}"
        return
    for found in listed:
        cluster = cluster_of(project, found)
        if is_ours(found, release.store_id) and not _is_target(cluster, release.target):
            users = [one.model for one in named if one.names(cluster, made_for(found))]
            used = any(_runs_in(cluster, Store(release.store), model) for model in users)
            if why := judge_idle(found, users, used=used, now=datetime.now(UTC)):
                yield describe(cluster, found, why)


def named_clusters(files: Iterable[Path]) -> list[Named]:
    """Which cluster each model file names."""
    named = []
    for path in files:
        try:
            gke = read_model_file(path).target.gke
        except InputRefused:
            named.append(Named(model=path.stem, gke=None))
        else:
            named += [Named(model=path.stem, gke=gke)] if gke else []
    return named


def cluster_of(project: str, found: Mapping[str, Any]) -> GkeCluster:
    """Which cluster it is that Google describes."""
    return GkeCluster(project=project, location=str(found["location"]), name=str(found["name"]))


def is_ours(found: Mapping[str, Any], store_id: str) -> bool:
    """Whether a cluster was made by a Slipway of this store."""
    return (found.get("resource_labels") or {}).get(CLUSTER_LABEL_STORE) == store_id


def made_for(found: Mapping[str, Any]) -> str:
    """The model whose run made a cluster."""
    return str((found.get("resource_labels") or {}).get(CLUSTER_LABEL_MODEL))


def judge_idle(found: Mapping[str, Any], users: Sequence[str], *, used: bool, now: datetime) -> str | None:
    """Why nobody needs a cluster of ours; None where somebody does, may yet, or where it is being deleted."""
    if found["status"] == "STOPPING":
        return None
    if not users:
        return "no model file names it"
    young = now - datetime.fromisoformat(str(found["create_time"])) < NEW
    return None if used or young else f"nothing of {', '.join(users)} runs in it"


def describe(cluster: GkeCluster, found: Mapping[str, Any], why: str) -> str:
    """One line for people."""
    cost = standing_cost(read_prices(), shape_of_found(found))
    return f"{cluster} is idle: made for model {made_for(found)}, and {why}; {cost}. Next: {cluster.gcloud('delete')}"


def _is_target(cluster: GkeCluster, target: Target) -> bool:
    return target.gke is not None and target.gke.path == cluster.path


def _runs_in(cluster: GkeCluster, store: Store, model: str) -> bool:
    """Whether a Deployment that the model's records know is there, or cannot be looked at."""
    history: History = read_history(store, model)
    for target, deployment in {place_of(record) for record in history.records}:
        if _is_target(cluster, target):
            try:
                live = read(target, "Deployment", deployment)
            except SlipwayError:
                return True
            if live is not None and (live["metadata"].get("labels") or {}).get(LABEL_MODEL) == model:
                return True
    return False
