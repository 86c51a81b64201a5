"""The tasks that take a cluster away: the model's objects first, then the cluster, then a list of what Google leaves."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from slipway.dag.run import Run
from slipway.dag.run_lease import RunLease, broken_by, return_leases
from slipway.dag.stage import BLUE, GRACE_S, GREY, RED, StageOperator, reported_failures, task_states, verdicts_of
from slipway.facts import JsonObject, to_dict
from slipway.verdict import Verdict

if TYPE_CHECKING:
    from airflow.sdk import Context

    from slipway.facts import Teardown

LOOK_S = 5.0
BODY = "body"  # XCom's key for what the approval shows

log = logging.getLogger(__name__)


class PlanTeardownOperator(StageOperator):
    """Looks at what a teardown would take away, and refuses a cluster that is not the model's alone."""

    ui_color = BLUE

    def __init__(self, *, model_file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model_file = model_file

    def execute(self, context: Context) -> JsonObject:
        """The TeardownPlan as a dict; what the approval shows is beside it."""
        plan = super().execute(context)
        context["ti"].xcom_push(key=BODY, value=plan["body"])
        return plan

    def make(self, run: Run) -> Any:
        """The TeardownPlan."""
        from slipway.dag.forms import read_teardown
        from slipway.steps.settings import read_settings
        from slipway.steps.teardown_plan import check_alone, plan_teardown

        with_others = read_teardown(dict(run.context["params"]))
        plan = plan_teardown(Path(self.model_file), read_settings(), run_id=run.context["run_id"])
        for line in plan.body.splitlines():
            log.info("look: %s", line)
        check_alone(plan, with_others=with_others)
        if plan.answers and (lease := RunLease.of(run, plan.teardown)):
            lease.check_free()
        return plan


class TeardownOperator(BaseOperator):
    """A task that takes something away, and waits, deferred, until it is gone."""

    ui_color = RED

    def _wait(self, trigger: str, teardown: Teardown, limit_s: int, **own: Any) -> None:
        from slipway.dag.triggers import gke

        self.defer(
            trigger=getattr(gke, trigger)(
                teardown=to_dict(teardown), deadline=time.time() + limit_s, poll_s=LOOK_S, **own
            ),
            method_name="decide",
            timeout=timedelta(seconds=limit_s + GRACE_S),
        )

    def _passed(self, run: Run, event: JsonObject, next_step: str) -> Verdict:
        """The verdict of a wait that has passed; one that has not fails the task."""
        verdict = Verdict(outcome=event["outcome"], reason=event["reason"])
        log.info("%s", verdict)
        if verdict.outcome != "pass":
            said = f"TeardownIncomplete: {verdict.reason}. Next: {next_step}"
            run.report(Verdict.failed(said))
            raise AirflowFailException(said)
        return verdict


class RemoveObjectsOperator(TeardownOperator):
    """Deletes the model's recorded objects, the last applied first, and waits until their load balancers are gone."""

    def execute(self, context: Context) -> Any:
        """Remove them. Where the cluster is gone, or has no API server that answers, there is nothing to remove."""
        from slipway.kubernetes.apply import remove_objects
        from slipway.steps.teardown import open_teardown
        from slipway.steps.teardown_plan import replan_teardown

        run = Run(context)
        with reported_failures(run):
            now = replan_teardown(run.teardown, approved=run.left("look"))
            if now.answers and (lease := RunLease.of(run, now.teardown)):
                lease.acquire(now.teardown.address_timeout_s + GRACE_S)
                now = replan_teardown(run.teardown, approved=run.left("look"))  # another run may have ended since
            teardown = now.teardown
            open_teardown(teardown)
            if now.answers:
                remove_objects(teardown.target, teardown.model, teardown.objects)
        if not now.answers:
            verdict = Verdict.passed(f"{teardown.cluster}: {now.status or 'gone'}, there is nothing to remove")
            log.info("remove objects: %s", verdict)
            return verdict.reason
        self._wait("RemovalTrigger", teardown, teardown.address_timeout_s)
        return None

    def decide(self, context: Context, event: JsonObject) -> str:
        """Write down that nothing is left; or fail with what is."""
        from slipway.steps.teardown import note_removed

        run = Run(context)
        teardown = run.teardown
        verdict = self._passed(run, event, teardown.target.kubectl("describe services"))
        with reported_failures(run):
            note_removed(teardown)
        run.report(verdict)
        return verdict.reason


class DeleteClusterOperator(TeardownOperator):
    """Runs the provider's GKEDeleteClusterOperator, and waits, deferred, until the cluster is gone.

    Of the provider's operator only the call to delete is kept: its own wait takes an operation that is DONE for one that
    succeeded. Safe to run again: what is gone is gone, what is being deleted is waited for.
    """

    def execute(self, context: Context) -> Any:
        """Delete the cluster, as soon as Google would; nothing to do where it is gone."""
        from slipway.gke.cluster import judge_deletable
        from slipway.gke.lookup import find_cluster
        from slipway.steps.teardown import check_claim, note_removed

        run = Run(context)
        with reported_failures(run):
            teardown = run.teardown
            cluster = teardown.cluster
            found = find_cluster(teardown.target.conn_id, cluster)
            check_claim(teardown, found)
            verdict = judge_deletable(cluster, found)
            log.info("delete cluster: %s", verdict)
            if found is None:
                note_removed(teardown)
                run.report(verdict)
                return verdict.reason
            if verdict.outcome == "pass" and found["status"] != "STOPPING":
                self._delete(context, teardown)
        self._wait("DeletionTrigger", teardown, teardown.cluster_timeout_s, asked=verdict.outcome == "pass")
        return None

    def decide(self, context: Context, event: JsonObject) -> Any:
        """Say that it is gone, or fail with Google's words; where it has only become deletable, delete it."""
        from slipway.steps.teardown import note_removed

        run = Run(context)
        teardown = run.teardown
        verdict = self._passed(run, event, teardown.cluster.gcloud("describe"))
        if not event["found"]:
            return self.execute(context)
        with reported_failures(run):
            note_removed(teardown)
        run.report(verdict)
        return verdict.reason

    def _delete(self, context: Context, teardown: Teardown) -> None:
        """The provider's call to delete. A cluster that is being deleted by then, as by a call whose answer was lost, is waited for."""
        from airflow.providers.google.cloud.operators.kubernetes_engine import GKEDeleteClusterOperator
        from google.api_core.exceptions import FailedPrecondition

        from slipway.gke.lookup import find_cluster
        from slipway.google import google_errors

        cluster = teardown.cluster
        provider = GKEDeleteClusterOperator(
            task_id=self.task_id,
            location=cluster.location,
            project_id=cluster.project,
            cluster_name=cluster.name,
            gcp_conn_id=teardown.target.conn_id,
            deferrable=True,
        )
        with google_errors(str(cluster), teardown.target.conn_id):
            try:
                provider.execute(context)
            except TaskDeferred as deferred:  # to a trigger that reads no errors: ours waits in its place
                log.info("delete cluster: %s", getattr(deferred.trigger, "operation_name", "begun"))
            except FailedPrecondition:
                found = find_cluster(teardown.target.conn_id, cluster)
                if found is not None and found["status"] != "STOPPING":
                    raise


class LeftoversOperator(BaseOperator):
    """Searches for what Google leaves of a cluster that is gone, and lists it with the commands that remove it."""

    ui_color = GREY

    def execute(self, context: Context) -> list[JsonObject]:
        """The leftovers, each with its command; nothing is deleted."""
        from slipway.gke.leftovers import find_leftovers

        run = Run(context)
        with reported_failures(run):
            found = find_leftovers(run.teardown)
        for one in found:
            log.warning("leftovers: %s", one)
        run.report(Verdict.passed(f"{len(found)} left: {'; '.join(map(str, found))}" if found else "nothing is left"))
        return [{**to_dict(one), "command": one.command} for one in found]


class RecordTeardownOperator(BaseOperator):
    """Closes the teardown's record, and gives back the Lease of a cluster that stays; cannot change the run's colour."""

    ui_color = GREY

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(retries=3, retry_delay=timedelta(seconds=10), **kwargs)

    def execute(self, context: Context) -> str | None:
        """The record's URI; none where nothing was touched."""
        from slipway.steps.teardown import close_teardown

        run = Run(context)
        if run.left("look") is None:
            log.info("record: nothing was touched; the first task's log says why")
            return None
        states = task_states(context)
        left = run.left("leftovers") or []
        uri = close_teardown(run.teardown, verdicts_of(run, states), states, left, broke=broken_by(run))
        log.info("record: %s", uri or "nothing was touched")
        if states.get("delete_cluster") != "success":
            return_leases(run)
        return uri
