"""Triggers that wait for a GKE cluster and for what a teardown deletes."""

from __future__ import annotations

from typing import Any

from slipway.dag.triggers.polling import GKE, KUBERNETES, PollingTrigger, ReleaseTrigger
from slipway.facts import JsonObject, Teardown, from_dict
from slipway.gke.cluster import judge_cluster, judge_cluster_deletable, judge_cluster_deleted, judge_cluster_gone
from slipway.kubernetes.api import read_object_async
from slipway.kubernetes.client import api_server_version
from slipway.release import Release
from slipway.steps.teardown import judge_services_removed
from slipway.verdict import Verdict


class TeardownTrigger(PollingTrigger):
    """Polls what is being torn down."""

    libraries = (KUBERNETES, GKE)

    def __init__(self, *, teardown: JsonObject, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.teardown = teardown

    @property
    def _teardown(self) -> Teardown:
        return from_dict(Teardown, self.teardown)

    def _arguments(self) -> JsonObject:
        return {"teardown": self.teardown, **super()._arguments()}


class RemovalTrigger(TeardownTrigger):
    """Waits until the recorded Services are gone. A Service remains until its load balancer is deleted."""

    def serialize(self) -> tuple[str, JsonObject]:
        """For Airflow's database."""
        return "slipway.dag.triggers.gke.RemovalTrigger", self._arguments()

    async def poll(self) -> Verdict:
        """Judge the Services."""
        target = self._teardown.target
        return judge_services_removed(
            [await read_object_async(target, "Service", name) for name in self._teardown.services], target
        )


class DeletionTrigger(TeardownTrigger):
    """Waits until a GKE cluster is gone; or, if `asked` is false, until Google would accept a call to delete it."""

    def __init__(self, *, asked: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.asked = asked

    def serialize(self) -> tuple[str, JsonObject]:
        """For Airflow's database."""
        return "slipway.dag.triggers.gke.DeletionTrigger", {**self._arguments(), "asked": self.asked}

    async def poll(self) -> Verdict:
        """Judge the cluster and its operation."""
        from slipway.gke.lookup import read_cluster_and_operation

        cluster = self._teardown.cluster
        found, operation = await read_cluster_and_operation(self._teardown.target.conn_id, cluster, "DELETE_CLUSTER")
        return (
            judge_cluster_deleted(cluster, found, operation) if self.asked else judge_cluster_deletable(cluster, found)
        )

    def found(self) -> Any:
        """Whether the deletion was requested: a pass then means that the cluster is gone."""
        return self.asked


class ClusterTrigger(ReleaseTrigger):
    """Waits until a GKE cluster is RUNNING and its API server answers; or, with `gone`, until a cluster is deleted."""

    def __init__(self, *, gone: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gone = gone
        self._found: JsonObject | None = None

    def serialize(self) -> tuple[str, JsonObject]:
        """For Airflow's database."""
        return "slipway.dag.triggers.gke.ClusterTrigger", {**self._arguments(), "gone": self.gone}

    async def poll_release(self, release: Release) -> Verdict:
        """Judge the cluster and its operation, then ask the API server for its version."""
        from slipway.gke.lookup import read_cluster_and_operation

        target = release.target
        assert target.gke is not None  # noqa: S101 - only a GKE target has this trigger
        found, operation = await read_cluster_and_operation(target.conn_id, target.gke, "CREATE_CLUSTER")
        if self.gone:
            return judge_cluster_gone(target.gke, found)
        verdict = judge_cluster(target.gke, found, operation)
        if verdict.outcome != "pass":
            return verdict
        version = await api_server_version(target)
        self._found = {"version": version, "endpoint": (found or {}).get("endpoint")}
        return Verdict.passed(f"{verdict.reason}, Kubernetes {version} answers")

    def found(self) -> Any:
        """The API server's version and the cluster's endpoint."""
        return self._found
