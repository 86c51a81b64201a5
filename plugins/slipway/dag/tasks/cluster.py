"""The tasks of a GKE target: the preflight, the claim of a temporary cluster, and the creation of a cluster."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from slipway.dag.deferral import ONE_POLL_S, Times, Wait, verdict_of_event, wait_or_defer
from slipway.dag.run import Run
from slipway.dag.run_lease import leases_of_run
from slipway.dag.stage import BLUE, RED, StageOperator, reported_failures, skip_if_run_only_plans
from slipway.dag.tasks.plan import plan_again_under_lease
from slipway.dag.tries import count_lost_try
from slipway.errors import ClusterUnfit, SlipwayError
from slipway.facts import JsonObject, to_dict
from slipway.gke.cluster import judge_cluster_claim, plan_cluster_body, plan_cluster_drift
from slipway.names import CLUSTER_LABEL_RUN, teardown_dag_id
from slipway.release import Release
from slipway.target import ClusterSpec, GkeCluster
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.dag.triggers.polling import PollingTrigger
    from slipway.verdict import Preflight

LEVELS = {"ok": logging.INFO, "warned": logging.WARNING, "missing": logging.ERROR}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterWait(Wait):
    """Waits until the cluster is RUNNING and its API server answers; with `gone`, until one that is being deleted is gone."""

    release: Release
    cluster: GkeCluster
    timeout_s: int
    gone: bool
    look_s = ONE_POLL_S  # a cluster takes minutes

    @property
    def limit_s(self) -> int:
        """The model file's limit for the cluster."""
        return self.timeout_s

    def trigger(self, times: Times) -> PollingTrigger:
        """Judges the cluster."""
        from slipway.dag.triggers.gke import ClusterTrigger

        return ClusterTrigger(release=to_dict(self.release), gone=self.gone, **times)

    def failure(self, event: JsonObject) -> SlipwayError:
        """The reason and the next command."""
        return ClusterUnfit(f"{event['reason']}. Next: {self.cluster.gcloud('describe')}")


class PreflightOperator(StageOperator):
    """Asks Google for everything that the run needs, before anything is built, created or billed."""

    only_reads = True
    ui_color = BLUE

    def make(self, run: Run) -> Preflight:
        """The findings, all of them in the log. Raises PreflightFailed, in one line, if something is missing."""
        from slipway.gke.preflight import inspect_gke_target
        from slipway.verdict import Preflight, require_nothing_missing

        release, _, cluster = _asked(run)
        findings = inspect_gke_target(release)
        for one in findings:
            log.log(LEVELS[one.outcome], "preflight: %s", one)
        require_nothing_missing(str(cluster), findings)
        unasked = sum(one.outcome == "warned" for one in findings)
        run.report(
            Verdict.passed(f"nothing is missing; {len(findings) - unasked} of {len(findings)} are sure to be there")
        )
        return Preflight(findings=findings)


class ClaimClusterOperator(BaseOperator):
    """Checks that a temporary cluster is free for this run to create, and so to delete.

    It is the setup that the teardowns belong to: if it refuses, they do not run.
    """

    ui_color = RED

    def execute(self, context: Context) -> str:
        """Why the run may create the cluster and delete it."""
        from slipway.gke.lookup import find_cluster

        run = Run(context)
        with reported_failures(run):
            release, _, cluster = _asked(run)
            found = find_cluster(release.target.conn_id, cluster)
            _check_claim(release, cluster, found)
        verdict = judge_cluster_claim(cluster, found, release.claim)
        run.report(verdict)
        log.info("claim cluster: %s", verdict)
        return verdict.reason


class CreateClusterOperator(BaseOperator):
    """Runs the provider's GKECreateClusterOperator if there is no cluster, and waits until one can be used.

    Only the provider's call to create is used. Its own wait takes an operation that is DONE for one that succeeded, accepts
    any cluster of the name, ends at the first request that fails, and has no limit. The option to delete after a failure is
    off: after a create that was denied, it would delete a cluster that somebody else has created.
    """

    ui_color = RED

    def execute(self, context: Context) -> Any:
        """Create the cluster if there is none, then wait for it; also if an earlier try created it."""
        from slipway.gke.lookup import find_cluster

        run = Run(context)
        skip_if_run_only_plans(run)
        count_lost_try(self, context)
        with reported_failures(run):
            release, spec, cluster = _asked(run)
            found = find_cluster(release.target.conn_id, cluster)
            _check_claim(release, cluster, found)
            leaving = found is not None and found["status"] == "STOPPING"
            if found is None:
                self._create(context, release, cluster, spec)
            else:
                log.info("create cluster: %s is there: %s", cluster, found["status"])
        wait = ClusterWait(release=release, cluster=cluster, timeout_s=spec.timeout_s, gone=leaving)
        return wait_or_defer(self, context, wait, self.decide)

    def decide(self, context: Context, event: JsonObject) -> Any:
        """The cluster that was found or created, with its drift field by field; or fail with the reason."""
        from slipway.gke.lookup import find_cluster
        from slipway.gke.prices import cluster_shape_of_found, read_prices, standing_cost

        run, verdict = Run(context), verdict_of_event(context, event)
        with reported_failures(run):
            release, spec, cluster = _asked(run)
            if verdict.outcome != "pass":
                raise ClusterWait(release=release, cluster=cluster, timeout_s=spec.timeout_s, gone=False).failure(event)
        if event["found"] is None:  # the name is free again
            return self.execute(context)
        with reported_failures(run):
            found = find_cluster(release.target.conn_id, cluster) or {}
            _check_claim(release, cluster, found or None)
            drift = plan_cluster_drift(cluster, spec, found)
            made = (found.get("resource_labels") or {}).get(CLUSTER_LABEL_RUN) == release.claim
            cost = str(standing_cost(read_prices(), cluster_shape_of_found(found))) if found else "gone again"
            if not release.temporary and not any(leases_of_run(run)):  # else `plan` has already asked the cluster
                plan_again_under_lease(run)
        for one in drift:
            log.warning("create cluster: drift, left as it is: %s", one)
        shown = f"; drift, left as it is: {'; '.join(map(str, drift))}" if drift else ""
        paid = f"; {'created by this run, ' if made else ''}{cost}"
        log.info("create cluster: %s%s", cluster, paid)
        run.report(Verdict.passed(f"{verdict.reason}{shown}{paid}"))
        return {
            "cluster": cluster.path,
            "drift": [to_dict(one) for one in drift],
            "made": made,
            "cost": cost,
            **event["found"],
        }

    def _create(self, context: Context, release: Release, cluster: GkeCluster, spec: ClusterSpec) -> None:
        """Call the provider to create the cluster. A cluster that somebody creates at the same moment is judged like any other."""
        from airflow.providers.google.cloud.operators.kubernetes_engine import GKECreateClusterOperator

        from slipway.google import google_errors

        provider = GKECreateClusterOperator(
            task_id=self.task_id,
            body=plan_cluster_body(cluster, replace(spec, labels={**spec.labels, **release.cluster_labels})),
            location=cluster.location,
            project_id=cluster.project,
            gcp_conn_id=release.target.conn_id,
            deferrable=True,
            delete_cluster_on_failure=False,
        )
        log.info("create cluster: %s", cluster)
        with google_errors(str(cluster), release.target.conn_id):
            try:
                provider.execute(context)
            except TaskDeferred as deferred:  # to a trigger that reads no errors: ours is used instead
                log.info("create cluster: %s", getattr(deferred.trigger, "operation_name", "begun"))


def _asked(run: Run) -> tuple[Release, ClusterSpec, GkeCluster]:
    """The release and the cluster that it asks for. Skipped if it no longer asks for one."""
    release = run.release
    if release.cluster is None or release.target.gke is None:
        raise AirflowSkipException("the model file names no GKE cluster any more")
    return release, release.cluster, release.target.gke


def _check_claim(release: Release, cluster: GkeCluster, found: dict[str, Any] | None) -> None:
    """Refuse a cluster that this run has not created, if its cluster is temporary. Raises ClusterUnfit."""
    verdict = judge_cluster_claim(cluster, found, release.claim)
    if release.temporary and verdict.outcome != "pass":
        raise ClusterUnfit(
            f"{verdict.reason}. Next: trigger {teardown_dag_id(release.model)} if an earlier run left it, "
            "or give target.gke.cluster a name of its own"
        )
