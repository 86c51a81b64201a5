"""Triggers that wait for a Deployment's rollout and for a Service's address."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from slipway.dag.triggers.polling import ReleaseTrigger, describe_error
from slipway.facts import JsonObject
from slipway.kubernetes.address import judge_address, service_grpc_address
from slipway.kubernetes.api import list_pods_async, read_object_async
from slipway.kubernetes.diagnosis import read_rollout_evidence
from slipway.kubernetes.rollout import find_overdue, judge_drain, judge_pods, judge_rollout
from slipway.kubernetes.stuck import Evidence, Observations, judge_stuck
from slipway.names import LABEL_VERSION
from slipway.release import Release
from slipway.verdict import Verdict


class RolloutTrigger(ReleaseTrigger):
    """Waits until the Deployment with this uid and generation is rolled out, and until all its pods are of this release.

    The pods are checked because a release that changed only manifests has the same version as the one before: the old
    pods must be gone too, or they could answer the gate instead of the new ones. A stuck rollout fails once two polls have found it stuck;
    a restarted trigger needs two polls again.
    """

    clock = staticmethod(time.monotonic)

    def __init__(self, *, release_id: str, uid: str, generation: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.release_id = release_id
        self.uid = uid
        self.generation = generation
        self._seen = Observations()
        self._draining: dict[str, float] = {}  # when the trigger first saw each terminating pod, by uid

    def serialize(self) -> tuple[str, JsonObject]:
        """For Airflow's database."""
        own = {"release_id": self.release_id, "uid": self.uid, "generation": self.generation}
        return "slipway.dag.triggers.rollout.RolloutTrigger", {**self._arguments(), **own}

    async def poll_release(self, release: Release) -> Verdict:
        """Judge the Deployment, then its pods."""
        deployment = await read_object_async(release.target, "Deployment", release.deployment)
        namespace = release.target.namespace
        verdict = judge_rollout(deployment, uid=self.uid, generation=self.generation, namespace=namespace)
        if verdict.outcome == "fail" or deployment is None:
            return verdict
        if verdict.outcome == "wait":
            return await self._check_stuck(release, deployment, verdict)
        pods = await list_pods_async(release.target, deployment["spec"]["selector"]["matchLabels"])
        verdict = judge_pods(pods, release_id=self.release_id, namespace=namespace)
        if verdict.outcome != "pass":
            return verdict
        return self._check_drain(deployment, pods) or verdict

    def _check_drain(self, deployment: JsonObject, pods: list[JsonObject]) -> Verdict | None:
        """Wait, if terminating pods of another release have the same version; None if there are none."""
        version = (deployment["spec"]["template"].get("metadata", {}).get("labels") or {}).get(LABEL_VERSION)
        if version is None or not any(pod["metadata"].get("deletionTimestamp") for pod in pods):
            return None
        self._draining, verdict = judge_drain(
            pods, release_id=self.release_id, version=version, since_s=self._draining, now_s=self.clock()
        )
        return verdict if verdict.outcome == "wait" else None

    async def _check_stuck(self, release: Release, deployment: JsonObject, waiting: Verdict) -> Verdict:
        overdue, evidence = find_overdue(deployment), Evidence()
        try:
            evidence = await read_rollout_evidence(release.target, deployment, self.release_id)
        except Exception as error:  # a read that fails, for want of a right, say, must not hide the rollout's state
            waiting = Verdict.wait(f"{waiting.reason}; its pods could not be read: {describe_error(error)}")
            if overdue is None:
                return waiting
        if evidence.unlisted:
            waiting = Verdict.wait(f"{waiting.reason}; {evidence.unlisted}")
        evidence = replace(evidence, overdue=overdue)
        self._seen, verdict = judge_stuck(
            self._seen, evidence, waiting, now_s=self.clock(), grace_s=release.unschedulable_grace_s
        )
        return verdict

    def found(self) -> Any:
        """Whether the release itself is at fault if the rollout is stuck."""
        return bool(self._seen.stuck and self._seen.stuck.blames_release)


class AddressTrigger(ReleaseTrigger):
    """Waits until the Service has an address."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._found: JsonObject | None = None

    def serialize(self) -> tuple[str, JsonObject]:
        """For Airflow's database."""
        return "slipway.dag.triggers.rollout.AddressTrigger", self._arguments()

    async def poll_release(self, release: Release) -> Verdict:
        """Judge the Service."""
        service = await read_object_async(release.target, "Service", release.service)
        verdict, url = judge_address(service, name=release.service, namespace=release.target.namespace)
        if service is not None and url is not None:
            self._found = {"url": url, "grpc": service_grpc_address(service)}
        return verdict

    def found(self) -> Any:
        """The URL of the REST port, and host:port of the gRPC port."""
        return self._found
